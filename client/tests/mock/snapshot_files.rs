//! `eyot snapshot` on files alone: verify, inspect, export.

use std::fs;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::command_line::{code, eyot};
use crate::node_snapshots::{entries, file, stream};

/// Writes a file of a whole database.
pub fn write_database(directory: &TempDir) -> std::path::PathBuf {
    let path = directory.path().join("database.eyot");
    fs::write(&path, file(&entries(), [70, 80, 90])).expect("a file");
    path
}

/// Runs `eyot snapshot` with an address where nobody listens.
pub fn snapshot(arguments: &[&str], path: &Path) -> Output {
    eyot().args(["--address", "127.0.0.1:1", "snapshot"]).args(arguments).arg(path).output().expect("runs")
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_sound_file_is_sound() {
    let directory = TempDir::new().expect("a directory");
    let path = write_database(&directory);
    let output = snapshot(&["verify"], &path);
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    assert_eq!(code(&output), 0, "{}", error(&output));
    assert!(text.contains("sound: a whole database, 2016 entries in 3 shards"), "{text}");

    let of_a_shard = directory.path().join("00000000000000000070.snap");
    let (bytes, footer) = stream(&entries(), 1, 70);
    fs::write(&of_a_shard, bytes).expect("a file");
    let output = snapshot(&["--json", "verify"], &of_a_shard);
    let value = &json(&output)["value"];
    assert_eq!((code(&output), &value["whole_database"]), (0, &serde_json::json!(false)));
    assert_eq!(value["entries"], footer.totals.entries);
}

#[test]
fn a_damaged_file_is_exit_code_6_and_says_where() {
    let directory = TempDir::new().expect("a directory");
    let path = write_database(&directory);
    let sound = fs::read(&path).expect("a file");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 0x10;
    let cut = &sound[..sound.len() - 1];
    let longer = [&sound[..], b"x"].concat();
    for (bytes, part) in
        [(&flipped[..], "at byte"), (cut, "not copied, to its end"), (&longer, "behind"), (b"PK..", "snapshot")]
    {
        fs::write(&path, bytes).expect("a file");
        for arguments in [&["verify"][..], &["inspect"], &["export", "--format", "jsonl"]] {
            let output = snapshot(arguments, &path);
            assert_eq!(code(&output), 6, "{arguments:?} {part}: {}", error(&output));
            let message = error(&output);
            assert!(message.contains(part) && message.contains("database.eyot"), "{message}");
        }
        let output = snapshot(&["--json", "verify"], &path);
        assert_eq!((code(&output), &json(&output)["error"]["code"]), (6, &serde_json::json!("SNAPSHOT_DAMAGED")));
    }
}

#[test]
fn a_file_that_is_not_there_is_exit_code_7() {
    for arguments in [&["verify"][..], &["inspect"], &["export", "--format", "csv"]] {
        let output = snapshot(arguments, Path::new("/nowhere/database.eyot"));
        assert_eq!(code(&output), 7, "{arguments:?}");
        assert!(error(&output).contains("/nowhere/database.eyot"), "{}", error(&output));
    }
}

#[test]
fn a_value_that_is_none_is_found() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("strange.eyot");
    let strange = vec![(b"k".to_vec(), vec![0x42, 1, 2], None)];
    fs::write(&path, file(&strange, [1, 1, 1])).expect("a file");
    let output = snapshot(&["verify"], &path);
    assert_eq!(code(&output), 6);
    assert!(error(&output).contains("key \"k\""), "{}", error(&output));
}

#[test]
fn inspect_shows_counts_indexes_and_the_largest_keys() {
    let directory = TempDir::new().expect("a directory");
    let path = write_database(&directory);
    let output = snapshot(&["--json", "inspect", "--largest", "2"], &path);
    let value = json(&output)["value"].clone();
    assert_eq!(code(&output), 0);
    assert_eq!((&value["entries"], &value["expiring"], &value["large_values"]), (&2016.into(), &7.into(), &1.into()));
    assert_eq!(value["node_uuid"], "01234567-89ab-cdef-0011-223344556677");
    let indexes: Vec<_> =
        value["shards"].as_array().expect("shards").iter().map(|each| each["index"].clone()).collect();
    assert_eq!(indexes, [70, 80, 90]);
    let largest = value["largest"].as_array().expect("keys");
    assert_eq!((largest.len(), &largest[0]["key"]), (2, &serde_json::json!("large")));
    assert!(largest[0]["bytes"].as_u64() > largest[1]["bytes"].as_u64());

    let text = String::from_utf8(snapshot(&["inspect"], &path).stdout).expect("text");
    for part in ["2016", "large", "          70", "01234567-89ab"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn an_export_appears_whole_or_not_at_all() {
    let directory = TempDir::new().expect("a directory");
    let path = write_database(&directory);
    let out = directory.path().join("rows.jsonl");
    let name = out.to_str().expect("text");
    let arguments = ["export", "--format", "jsonl", "--output", name];
    assert_eq!(code(&snapshot(&arguments, &path)), 0);
    let rows = fs::read(&out).expect("a file");
    assert_eq!(rows, snapshot(&["export", "--format", "jsonl"], &path).stdout);
    assert_eq!(rows.split(|byte| *byte == b'\n').count(), 2016 + 1);

    let bytes = fs::read(&path).expect("a file");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("a file");
    assert_eq!(code(&snapshot(&arguments, &path)), 6);
    assert_eq!(fs::read(&out).expect("a file"), rows, "the one before stays");
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 2, "nothing else stays");
}
