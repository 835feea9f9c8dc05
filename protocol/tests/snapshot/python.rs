//! `scripts/read_snapshot.py`, which knows nothing but `snapshot.proto`, reads what is written here and refuses the
//! rest.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value as Json;

use crate::fixtures::{boundaries, file, header, mixed, owned, shard, shard_with, sorted, zstd_of_runs, Owned};

/// An interpreter that has protobuf and zstandard: the one that the tester names, or one of this machine's.
///
/// # Panics
/// When there is none, with the remedy.
fn python() -> String {
    let named = std::env::var("EYOT_PYTHON").ok();
    let candidates = named.map_or_else(|| vec!["/usr/bin/python3".to_owned(), "python3".to_owned()], |name| vec![name]);
    let has_protobuf = |python: &String| {
        Command::new(python)
            .args(["-c", "import google.protobuf, zstandard"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let found = candidates.iter().find(|python| has_protobuf(python));
    found
        .unwrap_or_else(|| panic!("no protobuf and zstandard among {candidates:?}; run scripts/setup.sh --test"))
        .clone()
}

/// Runs the script over these bytes.
fn script(name: &str, bytes: &[u8], arguments: &[&str]) -> Output {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.snap"));
    fs::write(&path, bytes).expect("a file in the target directory");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/read_snapshot.py");
    let output =
        Command::new(python()).arg(script).args(arguments).arg(&path).output().expect("the interpreter starts");
    fs::remove_file(&path).expect("the file that was just written");
    output
}

fn told(name: &str, bytes: &[u8]) -> Json {
    let output = script(name, bytes, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The line that the script prints for an entry whose key is UTF-8.
fn line(entry: &Owned, value: (&str, &str)) -> Json {
    let key = String::from_utf8(entry.key.clone()).expect("a key of text");
    let mut line = serde_json::json!({"key": key, value.0: value.1, "version": entry.version});
    if let Some(at_us) = entry.expires_at_us {
        line["expires_at_us"] = at_us.into();
    }
    line
}

#[test]
fn the_script_counts_what_a_file_holds() {
    let entries = mixed(4000);
    let bytes = file(&entries, 3);
    let told = told("counts", &bytes);
    let unique: Vec<Owned> = (0..3).flat_map(|number| sorted(&entries, number, 3)).collect();
    assert_eq!(told["kind"], "file");
    assert_eq!(told["entries"], unique.len());
    assert_eq!(told["key_bytes"], unique.iter().map(|entry| entry.key.len()).sum::<usize>());
    assert_eq!(told["value_bytes"], unique.iter().map(|entry| entry.value.len()).sum::<usize>());
    assert_eq!(told["expiring"], unique.iter().filter(|entry| entry.expires_at_us.is_some()).count());
    assert_eq!(told["bytes"], bytes.len());
    assert_eq!(told["shards"].as_array().map(Vec::len), Some(3));
    assert_eq!(told["node_uuid"], "0123456789abcdef0011223344556677");
}

#[test]
fn the_script_prints_every_entry_in_order() {
    let text = |key: &str, expires_at_us| owned(key.as_bytes(), b"\x01\x04\xc3\xa9ab", 7 << 16 | 5, expires_at_us);
    let large = [&[7, 0x81, 0x80, 0x40][..], &[b'x'; (1 << 20) + 1]].concat();
    let entries = [
        text("{t}:0001", None),
        text("{t}:0002", Some(1_700_000_000_000_000)),
        text("{t}:0003", Some(-1)),
        owned(b"{t}:4", &[2, 42, 0, 0, 0], 0, None),
        owned(b"{t}:5", &large, 3 << 16, Some(0)),
    ];
    let output = script("entries", &shard(header(0, 1), &entries), &["--entries"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), entries.len());
    for (printed, entry) in lines.iter().zip(&entries).take(3) {
        assert_eq!(*printed, line(entry, ("value", "éab")));
    }
    assert_eq!(lines[3], line(&entries[3], ("value_tlv_base64", "AioAAAA=")));
    assert_eq!(lines[4]["key"], "{t}:5");
    assert_eq!(lines[4]["expires_at_us"], 0);
    assert_eq!(lines[4]["value_tlv_base64"].as_str().map(str::len), Some(large.len().div_ceil(3) * 4));
    let output = script("key_of_bytes", &shard(header(0, 1), &[owned(&[0xff], &[0], 0, None)]), &["--entries"]);
    let printed: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(printed, serde_json::json!({"key_base64": "/w==", "value_tlv_base64": "AA==", "version": 0}));
}

#[test]
fn the_script_reads_compressed_chunks() {
    let runs: Vec<Owned> = (0..3000_u32).map(|n| owned(&n.to_le_bytes(), &[n as u8; 150], 7 << 16, None)).collect();
    let (runs, mut stream) = (sorted(&runs, 0, 1), Vec::new());
    shard_with(header(0, 1), &runs, Some(Box::new(zstd_of_runs)), |out| stream.append(out));
    assert!(stream.len() < 3000 * 50, "{} bytes", stream.len());
    let told = told("compressed", &stream);
    assert_eq!((&told["entries"], &told["value_bytes"]), (&Json::from(3000), &Json::from(3000 * 150)));
}

#[test]
fn the_script_refuses_what_is_damaged_or_cut() {
    let bytes = file(&mixed(30), 2);
    let cuts = boundaries(&bytes);
    let mut inputs: Vec<(String, Vec<u8>)> =
        cuts[..cuts.len() - 1].iter().map(|&cut| (format!("cut_{cut}"), bytes[..cut].to_vec())).collect();
    for at in [2, cuts[1] + 20, cuts[2] + 40, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        inputs.push((format!("flipped_{at}"), damaged));
    }
    inputs.push(("text".into(), b"{\"key\": 1}\n".to_vec()));
    inputs.push(("goes_on".into(), [&bytes[..], &bytes[..]].concat()));
    for (name, input) in inputs {
        let output = script(&name, &input, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains("which begins at byte"), "{name}: {said}");
    }
}
