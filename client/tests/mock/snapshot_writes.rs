//! `eyot snapshot restore` and `import`: what is in a file is in the node afterwards, exactly.

use std::fs;
use std::process::Output;

use eyot_client::{ErrorCode, Expiry, Operation, Value};
use tempfile::TempDir;

use crate::command_line::{code, eyot, run, with_input};
use crate::node_snapshots::{encoded, entries, Entries};
use crate::server::{Act, Mock};
use crate::snapshot_files::{snapshot, write_database};

type Stored = Vec<(Vec<u8>, Vec<u8>, Option<Expiry>)>;

/// What a node has that has `entries`.
fn stored(entries: Entries) -> Stored {
    let mut stored: Stored =
        entries.into_iter().map(|(key, value, at_us)| (key, value, at_us.map(Expiry::AtUs))).collect();
    stored.sort_by(|one, other| one.0.cmp(&other.0));
    stored
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn import(mock: &Mock, format: &str, text: &[u8], options: &[&str]) -> Output {
    let mut command = eyot();
    command.args(["--address", &mock.address.to_string(), "snapshot", "import", "--format", format]);
    command.args(options).arg("-");
    with_input(command, text)
}

#[test]
fn a_restored_node_has_what_the_snapshot_has() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    let path = write_database(&directory);
    let path = path.to_str().expect("text");
    let output = run(&mock, &["snapshot", "restore", path]);
    assert_eq!(code(&output), 0, "{}", error(&output));
    assert!(mock.everything() == stored(entries()));
    assert!(String::from_utf8_lossy(&output.stdout).contains("2016 entries restored"));
}

#[test]
fn a_node_with_keys_is_restored_to_with_replace_only() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    let path = write_database(&directory);
    let path = path.to_str().expect("text");
    run(&mock, &["set", "user:1", "mine"]);
    run(&mock, &["set", "other", "mine"]);
    let output = run(&mock, &["snapshot", "restore", path]);
    assert_eq!(code(&output), 1);
    assert!(error(&output).contains("2 keys") && error(&output).contains("--replace"), "{}", error(&output));
    assert_eq!(mock.everything().len(), 2);

    assert_eq!(code(&run(&mock, &["snapshot", "restore", "--replace", path])), 0);
    let mut expected = entries();
    expected.push((b"other".to_vec(), encoded("mine"), None));
    assert!(mock.everything() == stored(expected));
}

#[test]
fn nothing_of_a_damaged_snapshot_is_restored() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    let path = write_database(&directory);
    let bytes = fs::read(&path).expect("a file");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("a file");
    let output = run(&mock, &["snapshot", "restore", path.to_str().expect("text")]);
    assert_eq!((code(&output), mock.everything().len()), (6, 0), "{}", error(&output));
}

#[test]
fn a_restore_that_fails_says_how_far_it_came() {
    let directory = TempDir::new().expect("a directory");
    let path = write_database(&directory);
    let mut batches = 0;
    let mock = Mock::scripted(move |seen| {
        batches += u32::from(seen.operation == Operation::Batch);
        match (seen.operation, batches) {
            (Operation::Batch, 5..) => Act::Refuse(ErrorCode::ValueTooLarge, "no"),
            _ => Act::Serve,
        }
    });
    let output = run(&mock, &["snapshot", "restore", path.to_str().expect("text")]);
    let message = error(&output);
    assert_eq!(code(&output), 4, "{message}");
    let written = mock.everything().len();
    assert!(written > 0 && message.contains(&format!("{written} entries were written")), "{message}");
    assert!(message.contains("VALUE_TOO_LARGE") && message.contains("--replace"), "{message}");
}

#[test]
fn what_is_exported_is_imported_exactly() {
    let directory = TempDir::new().expect("a directory");
    let path = write_database(&directory);
    for format in ["jsonl", "csv"] {
        let text = snapshot(&["export", "--format", format], &path).stdout;
        let mock = Mock::start();
        let output = import(&mock, format, &text, &[]);
        assert_eq!(code(&output), 0, "{format}: {}", error(&output));
        assert!(mock.everything() == stored(entries()), "{format}");
        let file = directory.path().join(format);
        fs::write(&file, &text).expect("a file");
        let mock = Mock::start();
        let output = run(&mock, &["snapshot", "import", "--format", format, file.to_str().expect("text")]);
        assert_eq!((code(&output), mock.everything().len()), (0, 2016), "{format}: {}", error(&output));
    }
}

#[test]
fn keys_that_exist_keep_their_values_unless_they_are_to_be_replaced() {
    let mock = Mock::start();
    run(&mock, &["set", "a", "mine"]);
    let text = "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n";
    let output = import(&mock, "jsonl", text.as_bytes(), &[]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 1);
    assert!(told.contains("1 entries imported; 1 keys existed") && told.contains("--replace"), "{told}");
    assert_eq!((mock.stored("a"), mock.stored("b")), (Some(encoded("mine")), Some(encoded(Value::Int64(2)))));
    assert_eq!(code(&import(&mock, "jsonl", text.as_bytes(), &["--replace"])), 0);
    assert_eq!(mock.stored("a"), Some(encoded(Value::Int64(1))));
}

#[test]
fn of_a_key_that_comes_twice_the_last_one_stays() {
    let mock = Mock::start();
    let rows = (0..3_000).map(|number| format!("{{\"key\":\"{}\",\"value\":{number}}}\n", number % 10));
    let text: String = rows.collect();
    assert_eq!(code(&import(&mock, "jsonl", text.as_bytes(), &["--replace"])), 0);
    for number in 0..10 {
        assert_eq!(mock.stored(&number.to_string()), Some(encoded(Value::Int64(2_990 + number))));
    }
}

#[test]
fn a_wrong_line_ends_an_import_behind_those_before_it() {
    let mock = Mock::start();
    let text = "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\"}\n{\"key\":\"c\",\"value\":1}\n";
    let output = import(&mock, "jsonl", text.as_bytes(), &[]);
    assert_eq!(code(&output), 6);
    assert!(error(&output).contains("line 2"), "{}", error(&output));
    let keys: Vec<_> = mock.everything().into_iter().map(|(key, ..)| key).collect();
    assert_eq!(keys, [b"a"]);
}
