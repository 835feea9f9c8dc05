//! Random commands against Debian's redis-server and against Eyot: the same replies, or a difference that is listed.
//!
//! Place in the flow: all nine steps from outside, through the RESP listener.
//!
//! A run is a number of episodes. Each begins with empty databases and a seed of its own, sends some thousand commands
//! to both servers in pipelines, compares every reply, and at the end what the servers hold. A disagreement is shrunk
//! to the few commands that it takes.
//!
//! The check is itself checked: Redis compared with Redis must agree, and with a planted fault must not.
//!
//! | variable | |
//! |---|---|
//! | `EYOT_DIFFERENTIAL_COMMANDS` | how many commands to run; a million takes minutes |
//! | `EYOT_TEST_SEED` | the seed of the whole run |
//! | `EYOT_DIFFERENTIAL_EPISODE` | the seed of the one episode to run, as a failure prints it |
//! | `EYOT_DIFFERENTIAL_CENSUS=1` | go on after a disagreement, and say at the end how often each command had one |

mod support;

#[path = "resp/compare.rs"]
mod compare;
#[path = "resp/differences.rs"]
mod differences;
#[path = "resp/generate.rs"]
mod generate;
#[path = "resp/lines.rs"]
mod lines;
#[path = "resp/pair.rs"]
mod pair;
#[path = "resp/shrink.rs"]
mod shrink;

use std::collections::BTreeMap;
use std::time::Instant;

use rand::RngCore;

use generate::Generator;
use lines::{Line, Step};
use pair::{Found, Pair};
use support::{directory, several_cores, Dice, Redis, Reply, Subject};

/// Commands of the run that belongs to every change.
const COMMANDS: usize = 60_000;
/// Steps of an episode: enough for keys to live through much, few enough to be shrunk.
const EPISODE_STEPS: usize = 4_000;

/// The commands that the comparison must reach.
const COMPARED: &str =
    "GET SET SETNX SETEX PSETEX GETSET GETDEL GETEX MGET MSET MSETNX APPEND STRLEN INCR DECR INCRBY \
                        DECRBY INCRBYFLOAT GETRANGE SETRANGE SUBSTR DEL UNLINK EXISTS TOUCH EXPIRE PEXPIRE EXPIREAT \
                        PEXPIREAT TTL PTTL EXPIRETIME PEXPIRETIME PERSIST TYPE KEYS SCAN RANDOMKEY RENAME RENAMENX \
                        COPY DBSIZE FLUSHALL FLUSHDB OBJECT PING ECHO HELLO AUTH SELECT RESET CLIENT INFO COMMAND \
                        CONFIG MEMORY SLOWLOG LATENCY TIME LOLWUT";

fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A disagreement as its finder wants to read it.
fn report(seed: u64, steps: &[Step], found: &Found) -> String {
    let commands: Vec<String> = steps.iter().map(|step| format!("  {step:?}")).collect();
    format!(
        "episode {seed} (EYOT_DIFFERENTIAL_EPISODE={seed}), shrunk to {} steps:\n{}\n{:?}\n  Redis: {:?}\n  Eyot:  {:?}",
        steps.len(),
        commands.join("\n"),
        found.line,
        found.redis,
        found.eyot
    )
}

/// Runs the episode of `seed`; on a disagreement, the shrunk sequence and what it shows. Also how many commands it ran.
fn episode(pair: &Pair, seed: u64, steps: usize) -> (usize, Option<(Vec<Step>, Found)>) {
    let steps = Generator::new(seed).steps(steps);
    let count = steps.iter().map(Step::count).sum();
    let Some(found) = pair.run(&steps) else { return (count, None) };
    let upto = &steps[..steps.len().min(found.step + 1)];
    let is_same = |part: &[Step]| pair.run(part).is_some_and(|other| other.line.word(0) == found.line.word(0));
    let shrunk = shrink::shrink(upto, is_same);
    // What does not show again is reported as it was.
    match pair.run(&shrunk) {
        Some(again) => (count, Some((shrunk, again))),
        None => (count, Some((upto[upto.len().saturating_sub(20)..].to_vec(), found))),
    }
}

/// Runs episodes until `commands` were sent; says all disagreements, the first one only unless it is a census.
fn run(pair: &Pair, commands: usize, dice: &mut Dice) -> Vec<String> {
    let census = std::env::var_os("EYOT_DIFFERENTIAL_CENSUS").is_some();
    let only = number_of("EYOT_DIFFERENTIAL_EPISODE");
    let (started, mut sent) = (Instant::now(), 0);
    let mut reports: Vec<String> = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    while sent < commands {
        let seed = only.unwrap_or_else(|| dice.rng.next_u64());
        // Short episodes find more kinds of disagreement, since each ends with its first.
        let steps = if census { EPISODE_STEPS / 16 } else { EPISODE_STEPS };
        let (count, found) = episode(pair, seed, steps);
        sent += count;
        if let Some((steps, found)) = found {
            let kind = match &found.eyot {
                Reply::Error(line) => format!("{} {line}", found.line.word(0)),
                _ => format!("{} {}", found.line.word(0), found.line.word(1)),
            };
            let times = seen.entry(kind).or_default();
            *times += 1;
            if *times == 1 {
                reports.push(report(seed, &steps, &found));
            }
            if !census {
                break;
            }
        }
        if only.is_some() {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{sent} commands to both in {seconds:.1} s, {} disagreements", reports.len());
    reports
}

#[test]
fn random_commands_are_answered_as_redis_answers_them() {
    let commands = number_of("EYOT_DIFFERENTIAL_COMMANDS").map_or(COMMANDS, |count| count as usize);
    let (redis, mut dice) = (Redis::start(&[]), Dice::new());
    let cores = several_cores().to_string();
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", &cores, "--shards", "8"]);
    let pair = Pair::new(redis.address, subject.address());
    let reports = run(&pair, commands, &mut dice);
    assert!(reports.is_empty(), "{} disagreements:\n{}", reports.len(), reports.join("\n\n"));
}

#[test]
fn redis_agrees_with_redis() {
    let (one, other, mut dice) = (Redis::start(&[]), Redis::start(&[]), Dice::new());
    let pair = Pair::new(one.address, other.address);
    // A comparison of nothing but errors, or one that leaves a command out, would agree as well.
    let rare = || -> Vec<&str> {
        let answers = pair.answers.borrow();
        COMPARED.split_whitespace().filter(|name| answers.get(*name).is_none_or(|a| a.good < 3)).collect()
    };
    // A rare command may be missing in six episodes by chance, and in thirty it is not.
    for number in 0..30 {
        if number >= 6 && rare().is_empty() {
            break;
        }
        let seed = dice.rng.next_u64();
        let (_, found) = episode(&pair, seed, EPISODE_STEPS);
        assert!(found.is_none(), "{}", found.map(|(steps, found)| report(seed, &steps, &found)).unwrap_or_default());
    }
    let (rare, answers) = (rare(), pair.answers.borrow());
    assert!(rare.is_empty(), "hardly ever answered: {rare:?}; {answers:#?}");
    let (good, errors) = answers.values().fold((0, 0), |sum, a| (sum.0 + a.good, sum.1 + a.errors));
    assert!(good > 2 * errors && errors > good / 20, "{good} replies and {errors} errors do not weigh both");
}

#[test]
fn a_planted_fault_is_found_and_shrunk_to_what_it_takes() {
    let (one, other, mut dice) = (Redis::start(&[]), Redis::start(&[]), Dice::new());
    let faults: [(&str, pair::Fault); 3] = [
        ("GETRANGE", |line, reply| match reply {
            Reply::Bulk(bytes) if line.word(0) == "GETRANGE" && bytes.len() > 2 => drop(bytes.pop()),
            _ => {}
        }),
        ("EXPIRETIME", |line, reply| match reply {
            Reply::Integer(seconds) if line.word(0) == "EXPIRETIME" && *seconds > 0 => *seconds += 1,
            _ => {}
        }),
        ("GET", |line, reply| match reply {
            Reply::Null if line.word(0) == "GET" => *reply = Reply::NullBulk,
            _ => {}
        }),
    ];
    for (name, fault) in faults {
        let pair = Pair::new(one.address, other.address).with_fault(fault);
        let seed = dice.rng.next_u64();
        let (_, found) = episode(&pair, seed, EPISODE_STEPS);
        let (steps, found) = found.unwrap_or_else(|| panic!("a wrong {name} passed for right (episode {seed})"));
        let report = report(seed, &steps, &found);
        assert_eq!(found.line.word(0), name, "{report}");
        assert!(steps.len() <= 6, "{report}");
        assert!(report.contains(&seed.to_string()), "{report}");
    }
}

/// The whole stream in pieces that end anywhere gives the replies of the whole stream in one.
#[test]
fn a_stream_in_pieces_is_answered_like_one_in_whole() {
    use rand::Rng;
    use std::io::Write;
    let directory = directory();
    let (subject, mut dice) = (Subject::start(directory.path(), &[]), Dice::new());
    let steps = Generator::new(dice.rng.next_u64()).steps(300);
    let lines: Vec<Line> = steps
        .into_iter()
        .flat_map(|step| match step {
            Step::Lines(lines) => lines,
            Step::Scan(_) => Vec::new(),
        })
        .collect();
    let mut bytes = Vec::new();
    lines.iter().for_each(|line| line.put(&mut bytes));
    let answered: Vec<&Line> = lines.iter().filter(|line| line.answered).collect();
    let mut all: Vec<Vec<Reply>> = Vec::new();
    for longest in [usize::MAX, 7, 1_460] {
        let mut client = subject.connect();
        client.must("FLUSHALL");
        let mut sender = client.stream.try_clone().expect("a second handle");
        let mut lengths: Vec<usize> = Vec::new();
        while lengths.iter().sum::<usize>() < bytes.len() {
            let left = bytes.len() - lengths.iter().sum::<usize>();
            lengths.push(dice.rng.gen_range(1..=longest.min(left)).max(if longest > left { left } else { 1 }));
        }
        let replies = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut rest = &bytes[..];
                for length in lengths {
                    sender.write_all(&rest[..length]).expect("the server reads");
                    rest = &rest[length..];
                }
            });
            answered.iter().map(|_| client.receive()).collect()
        });
        all.push(replies);
    }
    let context = compare::Context { slack_ms: 60_000, ghosts: 1_000 };
    for other in &all[1..] {
        for ((line, whole), pieces) in answered.iter().zip(&all[0]).zip(other) {
            assert!(compare::agree(line, whole, pieces, &[], &context), "{line:?}: {whole:?} in whole, {pieces:?}");
        }
    }
}

/// What a random sequence avoids, since it takes waiting: keys whose time comes while somebody looks.
#[test]
fn short_lives_end_in_both_servers() {
    let directory = directory();
    let (redis, subject) = (Redis::start(&[]), Subject::start(directory.path(), &[]));
    let mut clients = [support::RespClient::connect(redis.address), subject.connect()];
    let writes = [
        "SET a 1 PX 60",
        "PSETEX b 60 1",
        "SET c 1",
        "PEXPIRE c 60",
        "SET d 1 PX 60",
        "PERSIST d",
        "SET e 1 PX 60",
        "SET e 2 KEEPTTL",
        "SET f 1 PX 60",
        "SET f 2",
        "SET {g}1 1 PX 60",
        "RENAME {g}1 {g}2",
        "SET {h}1 1 PX 60",
        "COPY {h}1 {h}2",
        "SET i 1",
        "GETEX i PX 60",
        "SET j 1 PX 60",
        "APPEND j 2",
        "SET k 1 PX 60",
        "INCR k",
    ];
    let reads = [
        "GET a",
        "GET b",
        "EXISTS c c d",
        "GET d",
        "TTL d",
        "GET e",
        "GET f",
        "TTL f",
        "EXISTS {g}1 {g}2",
        "GET {h}1",
        "GET {h}2",
        "GET i",
        "GET j",
        "STRLEN j",
        "GET k",
        "INCR k",
        "TTL k",
        "SET a 1 XX",
        "SETNX b 1",
        "TTL b",
        "TYPE e",
        "MGET a b c d",
        "DEL j",
        "KEYS *",
    ];
    for line in writes {
        let [redis, eyot] = clients.each_mut().map(|client| client.say(line));
        assert_eq!(redis, eyot, "{line}");
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    for line in reads {
        let [redis, eyot] = clients.each_mut().map(|client| client.say(line));
        let context = compare::Context::default();
        assert!(compare::agree(&Line::of(line), &redis, &eyot, &[], &context), "{line}: {redis:?}, {eyot:?}");
    }
    // Nobody asks for these again: the server finds them by itself.
    for client in &mut clients {
        client.must("FLUSHALL");
        for key in 0..100 {
            client.must(&format!("SET gone:{key} 1 PX 30"));
        }
        support::wait_until("expired keys are no longer counted", || client.say("DBSIZE") == Reply::Integer(0));
    }
}

/// `COMMAND INFO` of every command: what routers and libraries read of it.
/// Fields of COMMAND INFO that are compared.
const FIELDS: usize = 7;

#[test]
fn commands_are_described_as_redis_describes_them() {
    let directory = directory();
    let (redis, subject) = (Redis::start(&[]), Subject::start(directory.path(), &[]));
    let mut clients = [support::RespClient::connect(redis.address), subject.connect()];
    // Name, arity, flags, first key, last key, step, categories.
    for name in COMPARED.split_whitespace() {
        let described = clients.each_mut().map(|client| {
            let mut fields = client.say(&format!("COMMAND INFO {name}")).elements()[0].elements();
            fields.truncate(FIELDS);
            for field in &mut fields {
                if let Reply::Array(flags) = field {
                    flags.sort_by_key(|flag| format!("{flag:?}"));
                }
            }
            fields
        });
        assert_eq!(described[1], described[0], "{name}");
    }
}

mod page {
    use super::differences::KNOWN;
    use super::*;

    fn rows() -> Vec<[String; 4]> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/RESP.md");
        let page = std::fs::read_to_string(path).expect("docs/RESP.md");
        let section = page.split("\n## Known differences\n").nth(1).expect("a section of that name");
        let section = section.split("\n## ").next().expect("a section");
        let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
        rows.map(|row| {
            let cells: Vec<String> = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            cells.try_into().unwrap_or_else(|cells| panic!("four cells: {cells:?}"))
        })
        .collect()
    }

    #[test]
    fn the_page_shows_the_list_of_known_differences() {
        let listed: Vec<[String; 4]> = KNOWN
            .iter()
            .map(|known| [known.commands, known.redis, known.eyot, known.reason].map(str::to_owned))
            .collect();
        let wanted: Vec<String> = listed.iter().map(|row| format!("| {} |", row.join(" | "))).collect();
        assert_eq!(rows(), listed, "docs/RESP.md should say:\n{}", wanted.join("\n"));
    }

    /// An example with its long words and lists of words: `<70000>`, `<1100 words>`.
    fn written_out(example: &str) -> String {
        let mut line = example.to_owned();
        for length in [300, 2000, 70_000] {
            line = line.replace(&format!("<{length}>"), &"k".repeat(length));
        }
        line = line.replace("<1100 words>", &vec!["k"; 1100].join(" "));
        line.replace("<900 names>", &vec!["client"; 900].join(" "))
    }

    #[test]
    fn every_known_difference_is_still_one() {
        if support::servers::redis_is_the_subject() {
            return;
        }
        let directory = directory();
        let (redis, subject) = (Redis::start(&[]), Subject::start(directory.path(), &[]));
        for known in &KNOWN {
            let mut clients = [support::RespClient::connect(redis.address), subject.connect()];
            let mut last = None;
            for line in ["FLUSHALL"].iter().chain(known.example) {
                let line = written_out(line);
                let [redis, eyot] = clients.each_mut().map(|client| client.say(&line));
                last = Some((Line::of(&line), redis, eyot));
            }
            let (line, redis, eyot) = last.expect("an example");
            assert_ne!(redis, eyot, "{line:?} is answered alike: {} differs no more", known.commands);
            assert!((known.covers)(&line, &redis, &eyot), "{line:?}: {redis:?}, {eyot:?} is not what the list says");
        }
    }
}
