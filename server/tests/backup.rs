//! Backup and restore with the real programs: `eyot snapshot` against nodes that are under load, killed, empty or full.
//!
//! Place in the flow: from outside, as an administrator's script.
//!
//! What a database holds is read through a client, key by key, and compared as a whole: never the files of one side
//! with the files of the other. The parts of the commands are tested beside them, against a server that is made up;
//! here it is shown that both sides mean the same.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use eyot_protocol::tlv::Value;
use rand::{Rng, RngCore};

use support::{bytes_value, directory, number_value, Client, Dice, RespClient, Subject};

/// Keys that are written before a test begins.
const KEYS: usize = 1200;
/// Keys that are written while it runs.
const BUSY_KEYS: u64 = 64;

/// What a database holds: of each key its encoded value, with its type, and its expiry in milliseconds since the epoch.
type Content = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

/// The program `eyot` of the same build.
fn eyot() -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_eyot-server")).with_file_name("eyot");
    assert!(path.is_file(), "{} is not built: run cargo build --bins", path.display());
    let mut command = Command::new(path);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EYOT_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// What a run of `eyot` has come to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Fails unless it ended with 0 and had nothing to complain of. No bar either: this is no terminal.
    #[track_caller]
    fn done(self) -> String {
        assert!(self.code == Some(0) && self.stderr.is_empty(), "{self:#?}");
        self.stdout
    }

    /// Fails unless it ended with `code` and says each of `words` on standard error, and nothing else anywhere.
    #[track_caller]
    fn assert_code(&self, code: i32, words: &[&str]) {
        assert!(self.code == Some(code) && self.stdout.is_empty(), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said: {self:#?}");
        }
    }
}

/// A node, and `eyot` towards it.
struct Node {
    subject: Subject,
}

impl Node {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self { subject: Subject::start(directory, arguments) }
    }

    fn native(&self) -> Client {
        self.subject.eyot().expect("Eyot").connect()
    }

    /// `eyot snapshot` with `arguments`, not started yet.
    fn snapshot_command(&self, arguments: &[&str]) -> Command {
        let mut command = eyot();
        let address = self.subject.eyot().expect("Eyot").address.to_string();
        command.args(["--address", &address, "snapshot"]).args(arguments);
        command
    }

    fn snapshot(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.snapshot_command(arguments).output().expect("eyot starts"))
    }

    fn import(&self, format: &str, text: &[u8], more: &[&str]) -> Ran {
        let mut command = self.snapshot_command(&["import", "--format", format, "-"]);
        command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("eyot starts");
        child.stdin.take().expect("piped").write_all(text).expect("it reads to the end");
        Ran::of(child.wait_with_output().expect("it ends"))
    }

    /// All that the node holds, read through its clients.
    fn content(&self) -> Content {
        let (mut native, mut resp) = (self.native(), self.subject.connect());
        let keys = keys(&mut resp);
        let read = |key: Vec<u8>| {
            let value = native.get(&key).value().unwrap_or_else(|| panic!("{:?}", key.escape_ascii())).to_vec();
            let expiry = resp.call(&[&b"PEXPIRETIME"[..], &key]).integer();
            (key, (value, expiry))
        };
        keys.into_iter().map(read).collect()
    }
}

fn keys(resp: &mut RespClient) -> Vec<Vec<u8>> {
    let (mut keys, mut cursor) = (Vec::new(), b"0".to_vec());
    loop {
        let reply = resp.call(&[&b"SCAN"[..], &cursor, b"COUNT", b"1000"]);
        let parts = reply.elements();
        keys.extend(parts[1].elements().iter().map(|key| key.bytes().expect("a key").to_vec()));
        cursor = parts[0].bytes().expect("a cursor").to_vec();
        if cursor == b"0" {
            return keys;
        }
    }
}

/// A value of any type, nested a little, small or large.
fn any_value(dice: &mut Dice) -> Value {
    let mut bytes = vec![0; dice.rng.gen_range(0..300)];
    dice.rng.fill_bytes(&mut bytes);
    match dice.rng.gen_range(0..200) {
        0 => Value::Bytes(bytes.repeat(1000)),
        1 => Value::String("a longer text, ".repeat(8000)),
        2..=20 => Value::Int32(dice.rng.gen()),
        21..=40 => Value::Int64(dice.rng.gen()),
        41..=60 => Value::Float64(f64::from_bits(dice.rng.gen())),
        61..=65 => Value::Boolean(dice.rng.gen()),
        66..=70 => Value::Timestamp(dice.rng.gen()),
        71..=73 => Value::Null,
        74..=90 => Value::List(vec![Value::from("a\n\"b\","), Value::Int64(5), Value::Bytes(bytes)]),
        91..=110 => Value::Map(vec![(Value::from("name"), Value::from("x")), (Value::Int32(1), Value::Null)]),
        111..=150 => Value::String(String::from_utf8_lossy(&bytes).into_owned()),
        _ => Value::Bytes(bytes),
    }
}

/// Fills the node with keys of all kinds, some of which expire, long after the test.
fn fill(node: &Node, dice: &mut Dice) {
    let (mut native, mut resp) = (node.native(), node.subject.connect());
    for number in 0..KEYS {
        let key = match number % 10 {
            0 => [&[0xFF, 0, b'\n', b'"'][..], number.to_string().as_bytes()].concat(),
            1 => format!("schlüssel,{number}").into_bytes(),
            _ => format!("key:{number}").into_bytes(),
        };
        let mut value = Vec::new();
        any_value(dice).encode(&mut value);
        native.must_set(&key, &value);
        if number % 7 == 0 {
            let at_ms = (95_617_584_000_000 + number as u64).to_string();
            assert_eq!(resp.call(&[&b"PEXPIREAT"[..], &key, at_ms.as_bytes()]).integer(), 1);
        }
    }
}

fn busy_key(number: u64) -> Vec<u8> {
    format!("busy:{}", number % BUSY_KEYS).into_bytes()
}

/// Runs `during` while the node is written to without a pause, key after key; returns what it returned.
fn under_load<T>(node: &Node, acknowledged: &AtomicU64, during: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut client = node.native();
        let writer = scope.spawn({
            let stop = &stop;
            move || {
                let mut number = acknowledged.load(Ordering::Relaxed);
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    client.must_set(&busy_key(number), &number_value(number as i64));
                    acknowledged.store(number, Ordering::Relaxed);
                }
            }
        });
        support::wait_until("the load is on", || acknowledged.load(Ordering::Relaxed) > 2 * BUSY_KEYS);
        let done = during();
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer");
        done
    })
}

/// What of `content` was not under load.
fn at_rest(content: &Content) -> Content {
    content
        .iter()
        .filter(|(key, _)| !key.starts_with(b"busy:"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Fails unless every busy key has a number that was acknowledged, and none older than those before the save began.
#[track_caller]
fn assert_is_as_new_as(content: &Content, before: u64, after: u64) {
    for key in (0..BUSY_KEYS).map(busy_key) {
        let (value, _) = content.get(&key).unwrap_or_else(|| panic!("{} is missing", key.escape_ascii()));
        let number = support::number_of(value) as u64;
        assert!(busy_key(number) == key && number <= after + 1, "{number} under {}", key.escape_ascii());
        assert!(number + BUSY_KEYS > before, "{number} under {}: {before} was acknowledged", key.escape_ascii());
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a readable path")
}

/// The names in a directory: what a command has left.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a readable directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn a_backup_that_is_saved_under_load_is_the_whole_database_elsewhere() {
    let (first, second, third, files, mut dice) = (directory(), directory(), directory(), directory(), Dice::new());
    let path = |name: &str| -> PathBuf { files.path().join(name) };
    let node = Node::start(first.path(), &["--shards", "8"]);
    fill(&node, &mut dice);
    let expected = node.content();
    assert_eq!(expected.len(), KEYS);

    let (acknowledged, saved) = (AtomicU64::new(0), path("saved.eyot"));
    let before = under_load(&node, &acknowledged, || {
        let before = acknowledged.load(Ordering::Relaxed);
        let said = node.snapshot(&["save", text(&saved)]).done();
        assert!(said.contains(" entries, "), "{said}");
        before
    });
    let after = acknowledged.load(Ordering::Relaxed);
    assert!(after > before, "the load went on");
    node.subject.kill();
    assert_eq!(names(files.path()), ["saved.eyot"]);

    // The file is read where the node is not: verify, inspect, export need none.
    let offline = |arguments: &[&str]| Ran::of(eyot().arg("--json").arg("snapshot").args(arguments).output().unwrap());
    let verified: serde_json::Value = serde_json::from_str(&offline(&["verify", text(&saved)]).done()).expect("JSON");
    let entries = KEYS as u64 + BUSY_KEYS;
    assert_eq!(verified["value"]["entries"], entries, "{verified}");
    let inspected: serde_json::Value = serde_json::from_str(&offline(&["inspect", text(&saved)]).done()).expect("JSON");
    let shards = inspected["value"]["shards"].as_array().expect("shards");
    let of_shards: u64 = shards.iter().map(|shard| shard["entries"].as_u64().expect("a count")).sum();
    assert_eq!((shards.len(), of_shards), (8, entries), "{inspected}");

    // Into a node of other shards and cores, which is killed as soon as it has said that it is done.
    let other = Node::start(second.path(), &["--shards", "3", "--cores", "1"]);
    let said = other.snapshot(&["restore", text(&saved)]).done();
    assert!(said.contains(&format!("{entries} entries restored")), "{said}");
    other.subject.kill();
    let other = Node::start(second.path(), &["--cores", "1"]);
    let restored = other.content();
    assert!(at_rest(&restored) == expected, "what was at rest is what it was, with types and expiries");
    assert_is_as_new_as(&restored, before, after);

    // The node that was killed has all that was acknowledged, and its own backup at rest is all of it.
    let node = Node::start(first.path(), &[]);
    let whole = node.content();
    assert_is_as_new_as(&whole, after, after);
    let compressed = path("compressed.eyot");
    node.snapshot(&["save", "--compress", "zstd", text(&compressed)]).done();
    let again = Node::start(third.path(), &["--shards", "5"]);
    again.snapshot(&["restore", text(&compressed)]).done();
    assert!(again.content() == whole && node.content() == whole, "digests through clients differ");
    let bytes = |path: &Path| fs::metadata(path).expect("a file").len();
    assert!(bytes(&compressed) < bytes(&saved), "{} of {}", bytes(&compressed), bytes(&saved));
}

#[test]
fn a_node_that_has_keys_is_overwritten_only_where_that_is_asked_for() {
    let (first, second, files, mut dice) = (directory(), directory(), directory(), Dice::new());
    let saved = files.path().join("saved.eyot");
    let node = Node::start(first.path(), &[]);
    fill(&node, &mut dice);
    node.snapshot(&["save", text(&saved)]).done();
    let expected = node.content();

    let other = Node::start(second.path(), &[]);
    let (mut client, mine) = (other.native(), bytes_value(b"mine"));
    client.must_set(b"key:2", &mine);
    client.must_set(b"other", &mine);
    other.snapshot(&["restore", text(&saved)]).assert_code(1, &["2 keys", "--replace"]);
    assert_eq!(other.content().len(), 2, "nothing was written");
    other.snapshot(&["restore", "--replace", text(&saved)]).done();
    let mut with_other = expected.clone();
    with_other.insert(b"other".to_vec(), (mine.clone(), -1));
    assert!(other.content() == with_other);

    // A file of the same name is replaced, by a whole one.
    node.native().must_set(b"new", &mine);
    node.snapshot(&["save", text(&saved)]).done();
    other.snapshot(&["restore", "--replace", text(&saved)]).done();
    with_other.insert(b"new".to_vec(), (mine, -1));
    assert!(other.content() == with_other);
    assert_eq!(names(files.path()), ["saved.eyot"]);
}

#[test]
fn what_is_exported_as_text_is_the_same_database_when_it_is_imported() {
    let (first, files, mut dice) = (directory(), directory(), Dice::new());
    let saved = files.path().join("saved.eyot");
    let node = Node::start(first.path(), &[]);
    fill(&node, &mut dice);
    node.snapshot(&["save", text(&saved)]).done();
    let expected = node.content();
    for format in ["jsonl", "csv"] {
        let (place, file) = (directory(), files.path().join(format));
        let output = eyot().args(["snapshot", "export", "--format", format, text(&saved)]).output().expect("it starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{format}: {output:?}");
        node.snapshot(&["export", "--format", format, "--output", text(&file), text(&saved)]).done();
        assert!(fs::read(&file).expect("a file") == output.stdout, "{format}: the same text either way");

        let other = Node::start(place.path(), &["--shards", "3"]);
        let said = other.import(format, &output.stdout, &[]).done();
        assert!(said.contains(&format!("{KEYS} entries imported")), "{said}");
        assert!(other.content() == expected, "{format}");
        // Once more, with one key that has changed and one that is gone.
        let mine = bytes_value(b"mine");
        other.native().must_set(b"key:2", &mine);
        other.native().delete(b"key:3");
        let ran = other.snapshot(&["import", "--format", format, text(&file)]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stdout.contains(&format!("{} keys existed", KEYS - 1)), "{ran:?}");
        let mut kept = expected.clone();
        kept.get_mut(&b"key:2"[..]).expect("it is there").0 = mine;
        assert!(other.content() == kept, "{format}: keys that exist keep their values");
        other.snapshot(&["import", "--replace", "--format", format, text(&file)]).done();
        assert!(other.content() == expected, "{format}");
    }
}

#[test]
fn what_cannot_be_done_ends_with_its_code_and_changes_nothing() {
    let (first, files, mut dice) = (directory(), directory(), Dice::new());
    let node = Node::start(first.path(), &[]);
    let (saved, damaged) = (files.path().join("saved.eyot"), files.path().join("damaged.eyot"));
    fill(&node, &mut dice);
    node.snapshot(&["save", text(&saved)]).done();
    let mut bytes = fs::read(&saved).expect("a file");
    let middle = dice.rng.gen_range(0..bytes.len());
    bytes[middle] ^= 1 << dice.rng.gen_range(0..8);
    fs::write(&damaged, &bytes).expect("a file");
    let expected = node.content();

    for command in [&["verify"][..], &["inspect"], &["restore", "--replace"], &["export", "--format", "csv"]] {
        let ran = node.snapshot(&[command, &[text(&damaged)]].concat());
        assert_eq!(ran.code, Some(6), "byte {middle}: {ran:?}");
        assert!(ran.stderr.contains("damaged.eyot"), "{ran:?}");
        let ran = node.snapshot(&[command, &[text(&files.path().join("nothing"))]].concat());
        ran.assert_code(7, &["nothing", "give the path"]);
    }
    node.snapshot(&["save", "/nowhere/saved.eyot"]).assert_code(7, &["/nowhere/saved.eyot"]);
    node.import("jsonl", b"{\"key\":\"key:2\",\"value\":1}\nnothing\n", &[]).assert_code(6, &["line 2"]);
    node.snapshot(&["save"]).assert_code(2, &["<FILE>"]);
    assert!(node.content() == expected);

    let address = node.subject.eyot().expect("Eyot").address.to_string();
    node.subject.kill();
    let gone = eyot().args(["--address", &address, "snapshot", "restore", text(&saved)]).output().expect("it starts");
    Ran::of(gone).assert_code(3, &[&address]);
}

/// `script` gives the command a terminal of its own: what it writes there is what a person would see.
#[test]
fn the_bar_is_on_standard_error_and_only_on_a_terminal() {
    let (first, files, mut dice) = (directory(), directory(), Dice::new());
    let node = Node::start(first.path(), &[]);
    fill(&node, &mut dice);
    let saved = files.path().join("saved.eyot");
    // Where it is none, `done` has seen that nothing is on standard error.
    node.snapshot(&["save", text(&saved)]).done();
    let out = files.path().join("out");
    for (arguments, bar) in [
        (format!("save {}", text(&saved)), "saving ["),
        (format!("restore --replace {}", text(&saved)), "restoring ["),
        (format!("verify {}", text(&saved)), "checking ["),
        (format!("export --format jsonl {}", text(&saved)), "exporting ["),
    ] {
        let shown = on_a_terminal(&node, &arguments, &out);
        assert!(shown.contains(bar), "{arguments}: {shown:?}");
        assert!(!fs::read_to_string(&out).expect("a file").contains(bar), "{arguments}: on standard output");
        let shown = on_a_terminal(&node, &format!("{arguments} --json"), &out);
        assert!(!shown.contains(bar), "{arguments}: whoever wants JSON is no person: {shown:?}");
    }
}

/// What a command writes on a terminal, with its standard output in the file `out`.
fn on_a_terminal(node: &Node, arguments: &str, out: &Path) -> String {
    let command = node.snapshot_command(&[]);
    let words: Vec<&str> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_str().unwrap()).collect();
    let line = format!("{} {arguments} > {}", words.join(" "), text(out));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
    let output = script.output().expect("script starts");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
