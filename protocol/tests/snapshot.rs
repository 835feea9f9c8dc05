//! The snapshot format from outside: what is written is read, by this reader and by others, and nothing else is.
//!
//! | file | what it proves |
//! |---|---|
//! | `fixtures.rs` | nothing: it builds shards and files, and reads them whole |
//! | `round_trip.rs` | everything comes back, however it was split, and the same content gives the same bytes |
//! | `damage.rs` | cuts, flipped bits and made-up lengths are refused, in bounded memory |

#[path = "snapshot/fixtures.rs"]
mod fixtures;

#[path = "snapshot/damage.rs"]
mod damage;
#[path = "snapshot/round_trip.rs"]
mod round_trip;
