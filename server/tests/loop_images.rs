//! The real server on real file systems: an ext4 and an xfs made for the test, each in a file behind a loop device.
//!
//! Place in the flow: steps 6 (log) and 9 (reply), snapshots and recovery, from outside, down to the file system.
//!
//! | module | what is done to the server |
//! |---|---|
//! | `kills` | `kill -9` again and again on one directory, under load and snapshots; the power of the disk cut |
//! | `full_disk` | the file system fills up, and is extended while the server runs |
//!
//! Who may not mount, or has no loop devices or no mkfs.xfs, gets the reason and a skipped test; where `EYOT_KILLS`
//! asks for a proof, a failed one.
//!
//! `EYOT_KILLS` sets the number of kills for each file system, `EYOT_TEST_SEED` the delays and choices.

mod support;

#[path = "loop_images/full_disk.rs"]
mod full_disk;
#[path = "loop_images/image.rs"]
mod image;
#[path = "loop_images/kills.rs"]
mod kills;
