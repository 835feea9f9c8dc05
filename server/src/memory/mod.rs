//! Where a core's memory is, how much of it there may be, and what is done when it runs short.
//!
//! Place in the flow: beside it. A turn takes the ledger once and judges it; step 3 (admit) asks the result before a
//! write enters.
//!
//! | file | what it holds |
//! |---|---|
//! | `ledger` | the figures of one core by category, and the board on which all cores publish theirs |
//! | `pressure` | how short memory is, and what each core has to do about it |
//! | `process` | what the kernel says that the process really has |
//! | `allocator` | how the program's allocator is set |
//! | `buffer_pool` | buffers for input and output, reused |
//! | `large_values` | the mapped file in which a core keeps large values |
//! | `value_file` | which part of that file is whose |
//! | `incoming` | one large value on its way from a socket into the file |
//! | `report` | what STATS says of all this |
//!
//! The keys themselves are in `shard/`, the choice of what to evict in `shard/eviction.rs`, and the acting upon all
//! this in `core/memory_pressure.rs`.

pub mod allocator;
pub mod buffer_pool;
pub mod incoming;
pub mod large_values;
pub mod ledger;
pub mod pressure;
pub mod process;
pub mod report;
pub mod value_file;

pub use buffer_pool::{BufferPool, BufferPoolFigures, BufferPoolSettings};
pub use incoming::{Incoming, IncomingStep};
pub use large_values::LargeValues;
pub use ledger::{Board, Ledger};
pub use pressure::{Level, Pressure, Thresholds};
pub use process::{Overhead, ProcessMemory, Resident};
pub use report::{CoreMemory, MemoryReport, NodeMemory};
