//! `eyot snapshot create`, `status` and `save` against the mock's snapshots.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use eyot_client::{ErrorCode, Operation};
use tempfile::TempDir;

use crate::command_line::{answer, code, eyot, run};
use crate::node_snapshots::{entries, file, NodeSnapshots, Round};
use crate::server::{Act, Mock};
use crate::snapshot_files::snapshot;

fn save(mock: &Mock, path: &Path, options: &[&str]) -> Output {
    run(mock, &[&["snapshot", "save", path.to_str().expect("text")], options].concat())
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_save_is_the_file_of_a_sequential_writer() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    let round = Round::of(&entries(), [70, 80, 90]);
    mock.set_snapshots(NodeSnapshots { polls_before_done: 2, ..NodeSnapshots::of([round]) });
    let path = directory.path().join("backup.eyot");
    fs::write(&path, "an older one").expect("a file");
    let output = save(&mock, &path, &[]);
    assert_eq!(code(&output), 0, "{}", error(&output));
    assert!(fs::read(&path).expect("a file") == file(&entries(), [70, 80, 90]));
    assert_eq!(names(&directory), ["backup.eyot"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("2016 entries"));
}

#[test]
fn pieces_of_any_length_make_the_same_file() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    let round = Round::of(&entries(), [70, 80, 90]);
    mock.set_snapshots(NodeSnapshots { read_bytes_max: 77_777, ..NodeSnapshots::of([round]) });
    let path = directory.path().join("backup.eyot");
    assert_eq!(code(&save(&mock, &path, &[])), 0);
    assert!(fs::read(&path).expect("a file") == file(&entries(), [70, 80, 90]));
}

#[test]
fn a_compressed_save_is_smaller_and_holds_the_same() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    mock.set_snapshots(NodeSnapshots::of([Round::of(&entries(), [70, 80, 90])]));
    let [plain, compressed] = ["plain.eyot", "compressed.eyot"].map(|name| directory.path().join(name));
    assert_eq!(code(&save(&mock, &plain, &[])), 0);
    assert_eq!(code(&save(&mock, &compressed, &["--compress", "zstd"])), 0);
    let [plain_bytes, compressed_bytes] = [&plain, &compressed].map(|path| fs::metadata(path).expect("a file").len());
    assert!(compressed_bytes < plain_bytes, "{compressed_bytes} of {plain_bytes}");
    let [one, other] = [&plain, &compressed].map(|path| snapshot(&["export", "--format", "jsonl"], path).stdout);
    assert!(!one.is_empty() && one == other);
    let again = directory.path().join("again.eyot");
    assert_eq!(code(&save(&mock, &again, &["--compress", "zstd"])), 0);
    assert!(fs::read(&again).expect("a file") == fs::read(&compressed).expect("a file"), "the same bytes each time");
}

#[test]
fn a_snapshot_that_is_superseded_is_begun_anew() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    let mut newer = entries();
    newer.push((b"new".to_vec(), crate::node_snapshots::encoded("new"), None));
    let rounds = [Round::of(&entries(), [70, 80, 90]), Round::of(&newer, [71, 81, 91])];
    mock.set_snapshots(NodeSnapshots { reads_per_round: Some(2), ..NodeSnapshots::of(rounds) });
    let path = directory.path().join("backup.eyot");
    let output = save(&mock, &path, &[]);
    assert_eq!(code(&output), 0, "{}", error(&output));
    let value = snapshot(&["--json", "inspect"], &path);
    let value: serde_json::Value = serde_json::from_slice(&value.stdout).expect("JSON");
    let shards = value["value"]["shards"].as_array().expect("shards").clone();
    assert_eq!(shards[2]["index"], 91, "the newer one");
    assert_eq!(code(&snapshot(&["verify"], &path)), 0);
}

#[test]
fn what_is_superseded_again_and_again_is_given_up() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    let rounds = (0..40).map(|round| Round::of(&entries(), [70 + round, 80 + round, 90 + round]));
    mock.set_snapshots(NodeSnapshots { reads_per_round: Some(0), ..NodeSnapshots::of(rounds) });
    let output = save(&mock, &directory.path().join("backup.eyot"), &[]);
    assert_eq!(code(&output), 4, "{}", error(&output));
    assert!(error(&output).contains("NO_SUCH_SNAPSHOT"), "{}", error(&output));
    assert_eq!(names(&directory).len(), 0, "nothing is left behind");
}

#[test]
fn what_comes_damaged_is_not_kept() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    let path = directory.path().join("backup.eyot");
    fs::write(&path, "an older one").expect("a file");
    let sound = Round::of(&entries(), [70, 80, 90]);
    let mut flipped = sound.clone();
    let middle = flipped.0[1].1.len() / 2;
    flipped.0[1].1[middle] ^= 1;
    let mut cut = sound.clone();
    let bytes = cut.0[2].1.len();
    cut.0[2].1.truncate(bytes - 3);
    let mut another = sound.clone();
    another.0[1] = sound.0[0].clone();
    let mut of_another_index = sound;
    of_another_index.0[0].0 = 71;
    for (round, exit, part) in [
        (flipped, 6, "shard 1 at index 80"),
        (cut, 6, "shard 2 at index 90"),
        (another, 4, "sends another one"),
        (of_another_index, 4, "sends another one"),
    ] {
        for options in [&[][..], &["--compress", "zstd"]] {
            mock.set_snapshots(NodeSnapshots::of([round.clone()]));
            let output = save(&mock, &path, options);
            assert_eq!(code(&output), exit, "{}", error(&output));
            assert!(error(&output).contains(part), "{}", error(&output));
            assert_eq!(fs::read_to_string(&path).expect("a file"), "an older one");
            assert_eq!(names(&directory), ["backup.eyot"]);
        }
    }
}

#[test]
fn a_snapshot_that_fails_is_told() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    let failing = || NodeSnapshots { failure: Some("no space for snapshot".to_owned()), ..NodeSnapshots::default() };
    mock.set_snapshots(failing());
    let output = save(&mock, &directory.path().join("backup.eyot"), &[]);
    assert_eq!(code(&output), 4);
    assert!(error(&output).contains("no space for snapshot"), "{}", error(&output));
    let (exit, json) = answer(&mock, &["--json", "snapshot", "create"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((exit, &json["error"]["code"]), (4, &serde_json::json!("SNAPSHOT_FAILED")));
    mock.set_snapshots(NodeSnapshots::default());
    let output = save(&mock, &directory.path().join("backup.eyot"), &[]);
    assert!(error(&output).contains("0 of 3 shards"), "{}", error(&output));
    assert_eq!(names(&directory).len(), 0);
}

#[test]
fn a_place_where_nothing_can_be_written_is_told_before_the_node_works() {
    let mock = Mock::start();
    let output = save(&mock, Path::new("/nowhere/backup.eyot"), &[]);
    assert_eq!((code(&output), mock.count(Operation::Snapshot)), (7, 0));
    assert!(error(&output).contains("/nowhere/backup.eyot"), "{}", error(&output));
}

#[test]
fn an_interrupted_save_leaves_nothing() {
    let (mock, directory) = (Mock::start(), TempDir::new().expect("a directory"));
    mock.set_snapshots(NodeSnapshots { polls_before_done: u32::MAX, ..NodeSnapshots::default() });
    for signal in ["-INT", "-TERM"] {
        let mut command = eyot();
        command.args(["--address", &mock.address.to_string(), "snapshot", "save"]).arg(directory.path().join("f"));
        let mut saving = command.stderr(Stdio::piped()).spawn().expect("runs");
        let (before, started) = (mock.count(Operation::Snapshot), Instant::now());
        while mock.count(Operation::Snapshot) < before + 2 {
            assert!(started.elapsed() < Duration::from_secs(20), "it never asked");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(names(&directory).len(), 1, "it is being written");
        let killed = Command::new("kill").args([signal, &saving.id().to_string()]).status().expect("kill runs");
        assert!(killed.success());
        assert_eq!(saving.wait().expect("ends").code(), Some(130), "{signal}");
        assert_eq!(names(&directory).len(), 0, "{signal}");
    }
}

#[test]
fn an_old_server_refuses_by_name() {
    let mock = Mock::scripted(|seen| match seen.operation {
        Operation::Snapshot => Act::Refuse(ErrorCode::UnknownOperation, "operation 0x09"),
        _ => Act::Serve,
    });
    let output = run(&mock, &["snapshot", "status"]);
    assert_eq!(code(&output), 4);
    assert!(error(&output).contains("UNKNOWN_OPERATION"), "{}", error(&output));
}

#[test]
fn create_waits_and_status_shows_what_there_is() {
    let mock = Mock::start();
    let round = Round::of(&entries(), [70, 80, 90]);
    mock.set_snapshots(NodeSnapshots { polls_before_done: 2, ..NodeSnapshots::of([round]) });
    let (exit, text) = answer(&mock, &["snapshot", "create"]);
    assert_eq!((exit, mock.count(Operation::Snapshot)), (0, 4));
    assert!(text.contains("done") && text.contains("3 of 3 shards") && text.contains("2016"), "{text}");
    let (exit, json) = answer(&mock, &["--json", "snapshot", "status"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((exit, &json["value"]["in_progress"]), (0, &serde_json::json!(false)));
    assert_eq!(json["value"]["shards"][1]["index"], 80);
    let (exit, text) = answer(&mock, &["snapshot", "create", "--no-wait"]);
    assert_eq!((exit, mock.count(Operation::Snapshot)), (0, 6));
    assert!(text.contains("request 7"), "{text}");
}
