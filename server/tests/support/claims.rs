//! Writers that remember what was acknowledged to them, and find out after a crash what of it is gone.
//!
//! Place in the flow: from outside, before step 1 and after step 9.
//!
//! Every value names itself: its key and a number that only grows. So a lost write, an old one in place of a newer and
//! a value under the wrong key all show. Each key has one writer, which numbers its writes.
//!
//! Deliberately not here: how the server comes to its end, which is what each test is about.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use eyot_protocol::request::{Request, RequestOptions, Set};
use eyot_protocol::tlv::{Decoder, ValueRef};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::{bytes_value, Answer, Client, Dice, Server};

/// Requests that a writer sends before it waits for replies.
const PIPELINE: usize = 24;

/// What one writer knows of one of its keys: numbers of its writes, 0 for none. `acknowledged <= sent`.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    sent: u64,
    acknowledged: u64,
}

/// What the writers count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub sent: u64,
    pub acknowledged: u64,
    /// Writes that were answered with an error: not applied, or nobody knows.
    pub refused: u64,
}

/// What all writers of a test know, over any number of crashes.
pub struct Claims {
    writers: Vec<Vec<Known>>,
    /// Chooses how many bytes a value has beside its number and its key.
    ballast: fn(&mut StdRng) -> usize,
    pub counts: Counts,
}

impl Claims {
    /// `writers` connections, each with `keys` keys of its own.
    pub fn new(writers: usize, keys: usize, ballast: fn(&mut StdRng) -> usize) -> Self {
        Self { writers: vec![vec![Known::default(); keys]; writers], ballast, counts: Counts::default() }
    }

    /// Loads `server` with all writers while `until` runs, which ends the server or has it ended.
    pub fn load<T>(&mut self, server: Server, dice: &mut Dice, until: impl FnOnce(Server) -> T) -> T {
        let stop = AtomicBool::new(false);
        let ballast = self.ballast;
        let (ended, counts) = std::thread::scope(|scope| {
            let mut writers = Vec::new();
            for (number, known) in self.writers.iter_mut().enumerate() {
                let (client, seed, stop) = (server.connect(), dice.rng.next_u64(), &stop);
                let mut writer = Writer { number, known, ballast, counts: Counts::default() };
                writers.push(scope.spawn(move || {
                    writer.write_until_gone(client, seed, stop);
                    writer.counts
                }));
            }
            let ended = until(server);
            stop.store(true, Ordering::Relaxed);
            let counts: Vec<Counts> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
            (ended, counts)
        });
        for of_writer in counts {
            self.counts.sent += of_writer.sent;
            self.counts.acknowledged += of_writer.acknowledged;
            self.counts.refused += of_writer.refused;
        }
        ended
    }

    /// Reads every key, and says which are older than what was acknowledged. The writers go on from what is there,
    /// whether it had been acknowledged or not.
    ///
    /// # Panics
    /// Where a value is none that was sent under its key.
    #[track_caller]
    pub fn find_losses(&mut self, client: &mut Client) -> Vec<String> {
        let mut losses = Vec::new();
        for (writer, known) in self.writers.iter_mut().enumerate() {
            for (key, known) in known.iter_mut().enumerate() {
                let name = key_of(writer, key);
                let found = match client.get(&name) {
                    Answer::Value(Some((value, _))) => number_in(&name, &value),
                    Answer::Value(None) => 0,
                    unexpected => panic!("{unexpected:?}"),
                };
                assert!(found <= known.sent, "{found} under {name:?} was never sent");
                if found < known.acknowledged {
                    let (name, acknowledged) = (name.escape_ascii(), known.acknowledged);
                    losses.push(format!("{name} has write {found}, and {acknowledged} was acknowledged"));
                }
                known.acknowledged = found;
            }
        }
        losses
    }
}

fn key_of(writer: usize, key: usize) -> Vec<u8> {
    format!("crash:{writer}:{key}").into_bytes()
}

/// A value that names itself: number, key, and ballast of any length.
fn value_of(key: &[u8], number: u64, ballast: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend_from_slice(key);
    bytes.push(b'\n');
    bytes.resize(bytes.len() + ballast, number as u8);
    bytes_value(&bytes)
}

/// The number of a value of `key`, after a look at the rest of it.
fn number_in(key: &[u8], value: &[u8]) -> u64 {
    let Ok(ValueRef::Bytes(bytes)) = Decoder::new(value).value() else { panic!("no bytes under {key:?}") };
    let (number, rest) = bytes.split_first_chunk::<8>().expect("a number");
    let number = u64::from_le_bytes(*number);
    let rest = rest.strip_prefix(key).expect("the value names its key");
    assert!(rest[0] == b'\n' && rest[1..].iter().all(|&byte| byte == number as u8), "a mixed value under {key:?}");
    number
}

/// One connection, and what it knows.
struct Writer<'a> {
    number: usize,
    known: &'a mut [Known],
    ballast: fn(&mut StdRng) -> usize,
    counts: Counts,
}

impl Writer<'_> {
    /// Writes until the server is gone. Errors of the connection are what such a test is about; the last writes stay
    /// unknown.
    fn write_until_gone(&mut self, mut client: Client, seed: u64, stop: &AtomicBool) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut next = self.known.iter().map(|key| key.sent).max().unwrap_or(0);
        while !stop.load(Ordering::Relaxed) {
            let (mut frames, mut waiting) = (Vec::new(), Vec::new());
            for _ in 0..PIPELINE {
                let key = rng.gen_range(0..self.known.len());
                next += 1;
                self.known[key].sent = next;
                let name = key_of(self.number, key);
                let value = value_of(&name, next, (self.ballast)(&mut rng));
                let id = client.put(&mut frames, &Request::Set(Set::new(&name, &value)), &RequestOptions::default());
                waiting.push((id, key, next));
            }
            self.counts.sent += PIPELINE as u64;
            if client.stream.write_all(&frames).is_err() || !self.take_replies(&mut client, &waiting) {
                return;
            }
        }
    }

    /// Notes the replies to `waiting`: request ids with the key and the number that each wrote. False: the server is
    /// gone.
    fn take_replies(&mut self, client: &mut Client, waiting: &[(u32, usize, u64)]) -> bool {
        for _ in waiting {
            match client.try_receive(&[]) {
                Ok(Some((id, Answer::Stored(_)))) => {
                    let (_, key, number) = waiting.iter().find(|(waits, ..)| *waits == id).expect("an id of ours");
                    let acknowledged = &mut self.known[*key].acknowledged;
                    *acknowledged = (*acknowledged).max(*number);
                    self.counts.acknowledged += 1;
                }
                Ok(Some((_, Answer::Error(..)))) => self.counts.refused += 1,
                Ok(Some((_, unexpected))) => panic!("{unexpected:?}"),
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }
}
