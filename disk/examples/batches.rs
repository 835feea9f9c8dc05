//! How fast the simulated disk takes the batches of a log: what decides which simulator can afford its bytes.
//!
//! `cargo run --release -p eyot-disk --features simulated --example batches` prints batches a second, alone and with a
//! power cut and a whole reading after every hundred, as a world of the simulator has them.

use std::path::Path;
use std::time::Instant;

use eyot_disk::{Creation, Disk, DiskFile, Fate, OpenMode, SimulatedDisk};

/// A batch: one block, as the log writes it.
const BATCH_BYTES: usize = 4096;

/// Batches between two power cuts.
const BATCHES_PER_LIFE: u64 = 100;

/// Lives of a node.
const LIVES: u64 = 200;

fn main() {
    for cuts in [false, true] {
        let began = Instant::now();
        let mut disk = SimulatedDisk::new();
        for life in 0..LIVES {
            write_batches(&disk, life);
            if cuts {
                disk = disk.crash_point().image(&[Fate::Lost]);
                let read = disk.open(Path::new("log"), OpenMode::READ).expect("it is there");
                let mut bytes = vec![0; read.length().expect("it has one") as usize];
                read.read_exact_at(&mut bytes, 0).expect("it can be read");
            }
        }
        let rate = (LIVES * BATCHES_PER_LIFE) as f64 / began.elapsed().as_secs_f64();
        println!("{rate:.0} batches a second, power cuts: {cuts}");
    }
}

fn write_batches(disk: &SimulatedDisk, life: u64) {
    let mode = OpenMode::READ.creating(Creation::IfMissing).durable_writes();
    let file = disk.open(Path::new("log"), mode).expect("it can be opened");
    disk.sync_directory(Path::new("/")).expect("it can be synced");
    // The log is recycled, as a real one is: it does not grow for ever.
    for batch in 0..BATCHES_PER_LIFE {
        let bytes = vec![(life + batch) as u8; BATCH_BYTES];
        file.write_all_at(&bytes, batch * BATCH_BYTES as u64).expect("it can be written");
    }
}
