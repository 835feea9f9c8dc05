//! The snapshot format from outside: what is written is read, by this reader and by others, and nothing else is.
//!
//! | file | what it proves |
//! |---|---|
//! | `fixtures.rs` | nothing: it builds shards and files, and reads them whole |
//! | `round_trip.rs` | everything comes back, however it was split, and the same content gives the same bytes |
//! | `damage.rs` | cuts, flipped bits and made-up lengths are refused, in bounded memory |
//! | `schema.rs` | messages are those of `snapshot.proto`, and ones that do not keep the format are refused by name |
//! | `golden.rs` | the bytes on disk are the contract: `golden/snapshot.txt` |
//! | `python.rs` | a script that has nothing but the schema reads the same |

#[path = "snapshot/fixtures.rs"]
mod fixtures;

#[path = "snapshot/damage.rs"]
mod damage;
#[path = "snapshot/golden.rs"]
mod golden;
#[path = "snapshot/python.rs"]
mod python;
#[path = "snapshot/round_trip.rs"]
mod round_trip;
#[path = "snapshot/schema.rs"]
mod schema;
