//! Where a core's memory is, beside the heap.
//!
//! Place in the flow: beside it.
//!
//! | file | what it holds |
//! |---|---|
//! | `large_values` | the mapped file in which a core keeps large values |
//! | `value_file` | which part of that file is whose |
//! | `incoming` | one large value on its way from a socket into the file |

pub mod incoming;
pub mod large_values;
pub mod value_file;

pub use incoming::{Incoming, IncomingStep};
pub use large_values::LargeValues;
