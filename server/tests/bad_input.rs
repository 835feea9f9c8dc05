//! What the server does with input, clients and machines that are not as they should be: a clear typed error or a
//! numbered exit with its remedy, nothing acknowledged lost, no other client harmed, memory bounded.
//!
//! Place in the flow: all nine steps and start-up, from outside, with the real program.
//!
//! | module | what is wrong |
//! |---|---|
//! | `frames` | the bytes of one connection |
//! | `clients` | what clients do with sound bytes: too many, too much, never reading |
//! | `room` | no memory left, no disk left |
//! | `starts` | the machine, the directory, the ports: the server must not start |

mod support;

#[path = "bad_input/clients.rs"]
mod clients;
#[path = "bad_input/frames.rs"]
mod frames;
#[path = "bad_input/room.rs"]
mod room;
#[path = "bad_input/starts.rs"]
mod starts;
