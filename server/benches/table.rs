//! What the shard's tables cost: processor time per operation, memory per key, and the slowest single insert, with
//! 16-byte keys and 64-byte values (66 bytes as they are stored), at any number of keys.
//!
//! `cargo bench -p eyot-server --bench table -- speed 10000000`: look-ups, overwrites, inserts, deletes, memory.
//! `... -- memory 10000000`: memory and inserts alone.
//! `... -- growth 10000000` and `... -- growth-one-slot 2000000`: the slowest insert while the tables grow from
//! nothing.
//! `... -- snapshot 10000000` and `... -- snapshot-one-slot 2000000`: the walk of a snapshot, alone and while every
//! key is overwritten, and loading what came out of it, with 20-byte keys and 100-byte values.
//!
//! Times are the thread's processor time, so other processes on the machine disturb them little. `EYOT_BENCH_ALLOCATOR=
//! system` takes `malloc` instead of mimalloc; with `LD_PRELOAD` of its library, jemalloc is measured the same way.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, Ordering};

use eyot_protocol::command::{Command, Condition, EntryBuilder, NewExpiry, Value};
use eyot_protocol::key;
use eyot_raft_glue::{Index, ShardId, Version};
use eyot_server::shard::{Place, Shard, SnapshotStep, Stored};
use rustix::time::{clock_gettime, ClockId};

/// mimalloc, as the server has it, or the system's.
struct Chosen;

static CHOICE: AtomicU8 = AtomicU8::new(0);
const MIMALLOC: u8 = 1;
const SYSTEM: u8 = 2;

fn choice() -> u8 {
    match CHOICE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: the name ends with a zero; nothing changes the environment. `std::env` would allocate.
            let unset = unsafe { libc::getenv(c"EYOT_BENCH_ALLOCATOR".as_ptr()) }.is_null();
            CHOICE.store(if unset { MIMALLOC } else { SYSTEM }, Ordering::Relaxed);
            CHOICE.load(Ordering::Relaxed)
        }
        choice => choice,
    }
}

// SAFETY: both allocators keep the contract, and one of them does everything, since the choice never changes.
unsafe impl GlobalAlloc for Chosen {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe {
            if choice() == MIMALLOC {
                mimalloc::MiMalloc.alloc(layout)
            } else {
                System.alloc(layout)
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe {
            if choice() == MIMALLOC {
                mimalloc::MiMalloc.alloc_zeroed(layout)
            } else {
                System.alloc_zeroed(layout)
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe {
            if choice() == MIMALLOC {
                mimalloc::MiMalloc.dealloc(block, layout);
            } else {
                System.dealloc(block, layout);
            }
        }
    }
}

#[global_allocator]
static ALLOCATOR: Chosen = Chosen;

const VALUE_BYTES: usize = 64;

/// Any fixed time.
const NOW_US: i64 = 1_700_000_000_000_000;

/// Commands of one entry.
const BATCH: usize = 16;

/// Look-ups between two looks at the clock.
const CHUNK: usize = 1 << 16;

/// Look-ups of one measurement.
const LOOKUPS: usize = 4_000_000;

type Key = [u8; 16];

/// Key number `n`: four letters and twelve digits.
fn numbered(prefix: [u8; 4], mut n: usize) -> Key {
    let mut key = [b'0'; 16];
    key[..4].copy_from_slice(&prefix);
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    key
}

/// Which keys a run has.
#[derive(Clone, Copy)]
struct Keys {
    prefix: [u8; 4],
    count: usize,
}

impl Keys {
    /// The keys in an order that is random for the tables and the memory: steps of a large prime.
    fn nth(self, n: usize) -> Key {
        const STEP: usize = 2_147_483_647;
        numbered(self.prefix, n * STEP % self.count)
    }
}

/// The thread's processor time in nanoseconds.
fn cpu() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Resident bytes of the process.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("the process's pages");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("resident pages") * 4096
}

fn value(bytes: usize) -> Vec<u8> {
    let mut value = vec![0x07, bytes as u8];
    value.resize(2 + bytes, b'v');
    value
}

/// Applies `command(key)` for all keys, [`BATCH`] to an entry; nanoseconds per key, of applying alone.
fn apply_all(shard: &mut Shard, keys: Keys, index: &mut u64, command: impl Fn(&Key, &mut EntryBuilder) -> u16) -> f64 {
    // So many entries are formed at a time that the clock's own cost does not show.
    const ENTRIES: usize = 256;
    let mut spent = 0;
    let mut next = 0;
    while next < keys.count {
        let mut entries = Vec::with_capacity(ENTRIES);
        while entries.len() < ENTRIES && next < keys.count {
            let mut builder = EntryBuilder::default();
            for n in next..(next + BATCH).min(keys.count) {
                command(&keys.nth(n), &mut builder);
            }
            next += BATCH;
            entries.push(builder.take());
        }
        let start = cpu();
        for payload in &entries {
            *index += 1;
            let applied = shard.apply(Index(*index), payload, |_, outcome| {
                black_box(&outcome);
            });
            applied.expect("a well-formed entry");
        }
        spent += cpu() - start;
    }
    spent as f64 / keys.count as f64
}

fn set<'a>(key: &'a [u8], value: &'a [u8]) -> Command<'a> {
    Command::Set {
        key,
        value: Value::Encoded(value),
        expiry: NewExpiry::Never,
        condition: Condition::Always,
        return_old: false,
    }
}

/// What a server does around a read: the reply is written.
fn reply(replies: &mut Vec<u8>, stored: Option<Stored<'_>>) {
    if let Some(stored) = stored {
        replies.extend_from_slice(&stored.version.0.to_le_bytes());
        replies.extend_from_slice(stored.value);
    }
}

/// Nanoseconds per look-up, `batch` keys at a time, in as many passes of prefetching as `stages` says.
fn lookups(shard: &Shard, keys: Keys, batch: usize, stages: usize) -> f64 {
    let mut replies = Vec::new();
    let mut spent = 0;
    let mut at = 0;
    for _ in 0..LOOKUPS / CHUNK {
        let chunk: Vec<Key> = (at..at + CHUNK).map(|n| keys.nth(n % keys.count)).collect();
        at += CHUNK;
        let start = cpu();
        let mut places: Vec<Place> = Vec::with_capacity(batch);
        for pipeline in chunk.chunks(batch) {
            replies.clear();
            places.clear();
            places.extend(pipeline.iter().map(|key| shard.place(key::slot(key), key)));
            if stages > 1 {
                for &place in &places {
                    shard.prefetch_bucket(place);
                }
            }
            if stages > 0 {
                for &place in &places {
                    shard.prefetch(place);
                }
            }
            for (key, &place) in pipeline.iter().zip(&places) {
                reply(&mut replies, shard.get_at(place, key, NOW_US));
            }
            black_box(replies.len());
        }
        spent += cpu() - start;
    }
    spent as f64 / (LOOKUPS / CHUNK * CHUNK) as f64
}

fn speed(count: usize) {
    let keys = Keys { prefix: *b"key:", count };
    let absent = Keys { prefix: *b"not:", count };
    let (plain, longer) = (value(VALUE_BYTES), value(VALUE_BYTES + 2));
    let resident_before = resident_bytes();
    let mut shard = Shard::new(ShardId(0), 1, 42);
    let mut index = 0;
    let insert = apply_all(&mut shard, keys, &mut index, |key, entry| entry.push(&set(key, &plain), NOW_US));
    let resident = (resident_bytes() - resident_before) as f64 / count as f64;
    let counted = shard.memory_bytes() as f64 / count as f64;
    println!("{count} keys: memory per key {resident:.1} bytes resident, {counted:.1} counted");
    for (name, keys) in [("hit", keys), ("miss", absent)] {
        for (batch, stages) in [(1, 0), (16, 0), (16, 1), (16, 2), (64, 0), (64, 1), (64, 2)] {
            let ns = lookups(&shard, keys, batch, stages);
            println!("{count} keys: get {name}, {batch:2} at a time, {stages} prefetch passes  {ns:6.1} ns");
        }
    }
    let overwrite = apply_all(&mut shard, keys, &mut index, |key, entry| entry.push(&set(key, &plain), NOW_US));
    let resize = apply_all(&mut shard, keys, &mut index, |key, entry| entry.push(&set(key, &longer), NOW_US));
    let delete = apply_all(&mut shard, keys, &mut index, |key, entry| entry.push(&Command::Delete { key }, NOW_US));
    assert_eq!(shard.key_count(), 0);
    for (name, ns) in
        [("insert", insert), ("overwrite", overwrite), ("overwrite, 2 bytes longer", resize), ("delete", delete)]
    {
        println!("{count} keys: {name}  {ns:.1} ns");
    }
}

/// What the process takes for `count` keys.
fn memory(count: usize) {
    let keys = Keys { prefix: *b"key:", count };
    let plain = value(VALUE_BYTES);
    let before = resident_bytes();
    let mut shard = Shard::new(ShardId(0), 1, 42);
    let insert = apply_all(&mut shard, keys, &mut 0, |key, entry| entry.push(&set(key, &plain), NOW_US));
    let resident = (resident_bytes() - before) as f64 / count as f64;
    let counted = shard.memory_bytes() as f64 / count as f64;
    println!("{count} keys: {resident:.1} bytes resident per key, {counted:.1} counted; insert {insert:.1} ns");
}

/// How often the thread waited for the kernel to give it a page.
fn page_faults() -> i64 {
    // SAFETY: all zeroes are a valid value of plain numbers, and the call fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage.ru_minflt + usage.ru_majflt
    }
}

/// Nanoseconds of processor time of each insert from nothing to `count` keys, one to an entry. An insert that met a
/// page fault counts as 0: what the kernel takes to zero new memory (2 MiB of it where pages are huge) is not the
/// table's.
fn growth_once(count: usize, in_one_slot: bool) -> Vec<u32> {
    let value = value(VALUE_BYTES);
    let mut shard = Shard::new(ShardId(0), 1, 42);
    let keys = Keys { prefix: *b"key:", count };
    let mut times = Vec::with_capacity(count);
    for n in 0..count {
        let mut builder = EntryBuilder::default();
        let key = keys.nth(n);
        let tagged = [b"{slot}", &key[..]].concat();
        builder.push(&set(if in_one_slot { &tagged } else { &key }, &value), NOW_US);
        let payload = builder.take();
        let faults = page_faults();
        let start = cpu();
        let applied = shard.apply(Index(n as u64 + 1), &payload, |_, outcome| {
            black_box(&outcome);
        });
        let time = u32::try_from(cpu() - start).unwrap_or(u32::MAX);
        times.push(if page_faults() == faults { time } else { 0 });
        applied.expect("a well-formed entry");
    }
    assert_eq!(shard.key_count(), count);
    times
}

/// The slowest inserts from nothing to `count` keys. Each run is a process of its own and does the same, so the least
/// time that an insert took in any of them is its own, without what other processes and the machine's host did to it.
fn growth(count: usize, mode: &str) {
    const RUNS: usize = 4;
    let program = std::env::current_exe().expect("this program's path");
    let mut least = vec![u32::MAX; count];
    for _ in 0..RUNS {
        let mut run = std::process::Command::new(&program);
        let output = run.args([&format!("{mode}-run"), &count.to_string()]).output().expect("a run");
        assert!(output.status.success() && output.stdout.len() == count * 4, "a run failed: {}", output.status);
        for (least, time) in least.iter_mut().zip(output.stdout.chunks_exact(4)) {
            *least = (*least).min(u32::from_le_bytes(time.try_into().expect("four bytes")));
        }
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(least[n]));
    let over = |us: u32| least.iter().filter(|&&time| time > us * 1000).count();
    println!("{count} keys, {mode}: {} inserts over 100 us, {} over 1 ms; slowest:", over(100), over(1000));
    for n in &order[..6] {
        println!("  insert {n}: {} us", least[*n] / 1000);
    }
}

/// Hands the times of one run to [`growth`].
fn growth_run(count: usize, in_one_slot: bool) {
    let bytes: Vec<u8> = growth_once(count, in_one_slot).into_iter().flat_map(u32::to_le_bytes).collect();
    std::io::stdout().write_all(&bytes).expect("a reader");
}

/// A 20-byte key; `tag` may be a hash tag for all of them.
fn long_key(tag: [u8; 4], n: usize) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&tag);
    key[4..].copy_from_slice(&numbered(*b"key:", n));
    key
}

/// What the slices of a snapshot took, in nanoseconds.
#[derive(Default)]
struct Slices {
    spent: u64,
    /// Of each slice, the least of all walks: what it takes by itself, without what other processes and the machine's
    /// host did to it.
    least: Vec<u64>,
}

impl Slices {
    /// Takes the times of one walk.
    fn add(&mut self, walk: Vec<u64>) {
        self.spent = walk.iter().sum();
        if self.least.is_empty() {
            self.least = walk;
        } else {
            assert_eq!(walk.len(), self.least.len(), "every walk over the same content is the same");
            self.least.iter_mut().zip(walk).for_each(|(least, time)| *least = time.min(*least));
        }
    }

    fn print(&self, what: &str, count: usize) {
        let each = self.spent as f64 / count as f64;
        let (slices, slowest) = (self.least.len(), self.least.iter().max().map_or(0, |time| time / 1000));
        let mean = self.least.iter().sum::<u64>() / slices as u64 / 1000;
        let over = self.least.iter().filter(|&&time| time > 250_000).count();
        println!(
            "{what}  {each:.1} ns per entry; {slices} slices of {mean} us, slowest {slowest} us, {over} over 250 us"
        );
    }
}

/// Walks over the shard in slices of a budget of 1000, as a server does that has a buffer of 256 KiB, and calls
/// `between` after each slice; the slices' times.
fn walk(shard: &mut Shard, index: u64, count: usize, mut between: impl FnMut(&mut Shard)) -> Vec<u64> {
    const BUDGET: usize = 1000;
    const SINK_BYTES: usize = 256 << 10;
    let (mut bytes, mut taken, mut times) = (Vec::with_capacity(SINK_BYTES + 1024), 0, Vec::new());
    shard.begin_snapshot(Index(index));
    loop {
        let start = cpu();
        let step = shard.snapshot_some(BUDGET, |_, key, stored| {
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(stored.value);
            taken += 1;
            if bytes.len() > SINK_BYTES {
                bytes.clear();
            }
            ControlFlow::Continue(())
        });
        times.push(cpu() - start);
        if step == SnapshotStep::Done {
            assert_eq!(taken, count);
            return times;
        }
        between(shard);
    }
}

/// A snapshot and the way back; with `in_one_slot`, all keys have one hash tag.
fn snapshot(count: usize, in_one_slot: bool) {
    const WALKS: usize = 4;
    const OVERWRITTEN: usize = 64;
    let tag = if in_one_slot { *b"{t}:" } else { *b"tag:" };
    let (value, key) = (value(100), |n: usize| long_key(tag, n * 2_147_483_647 % count));
    let mut shard = Shard::new(ShardId(0), 1, 42);
    for n in 0..count {
        shard.load(&key(n), &value[..], Version(1), None, NOW_US).expect("a key that is new");
    }
    let mut slices = Slices::default();
    for _ in 0..WALKS {
        slices.add(walk(&mut shard, 1, count, |_| ()));
    }
    slices.print(&format!("{count} keys: walk"), count);
    let (mut index, mut written, mut most, before) = (1, 0, 0, shard.memory_bytes());
    let times = walk(&mut shard, index, count, |shard| {
        most = most.max(shard.snapshot_memory_bytes());
        for _ in 0..OVERWRITTEN {
            let mut builder = EntryBuilder::default();
            builder.push(&set(&key(written % count), &value), NOW_US);
            (index, written) = (index + 1, written + 1);
            shard.apply(Index(index), &builder.take(), |_, _| ()).expect("a well-formed entry");
        }
    });
    let (each, more) = (times.iter().sum::<u64>() as f64 / count as f64, most as f64 * 100.0 / before as f64);
    println!("{count} keys, {written} written meanwhile: walk  {each:.1} ns per entry, {more:.1} % more memory");
    while shard.free_some(1000) {}
    let mut sorted = Vec::with_capacity(count);
    shard.begin_snapshot(Index(index));
    while shard.snapshot_some(1000, |_, key, stored| {
        sorted.push((<[u8; 20]>::try_from(key).expect("a key of 20 bytes"), stored.version));
        ControlFlow::Continue(())
    }) == SnapshotStep::More
    {}
    let digest = shard.digest();
    drop(shard);
    let mut loaded = Shard::new(ShardId(0), 1, 43);
    let start = cpu();
    for (key, version) in &sorted {
        loaded.load(key, &value[..], *version, None, NOW_US).expect("a key that is new");
    }
    let each = (cpu() - start) as f64 / count as f64;
    assert_eq!(loaded.digest(), digest);
    println!("{count} keys: load  {each:.1} ns per entry, {:.2} million a second", 1e3 / each);
}

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let count = |default| arguments.get(1).map_or(default, |count| count.parse().expect("a number of keys"));
    match arguments.first().map_or("speed", String::as_str) {
        mode @ "growth" => growth(count(10_000_000), mode),
        mode @ "growth-one-slot" => growth(count(2_000_000), mode),
        "growth-run" => growth_run(count(10_000_000), false),
        "growth-one-slot-run" => growth_run(count(2_000_000), true),
        "memory" => memory(count(10_000_000)),
        "snapshot" => snapshot(count(10_000_000), false),
        "snapshot-one-slot" => snapshot(count(2_000_000), true),
        _ => speed(count(1_000_000)),
    }
}
