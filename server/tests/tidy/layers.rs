//! Rules about which module may know what: the part of the layering that `cargo tree` cannot see.

use crate::source::{line_of, lines_with_word, Source};
use crate::{finding, Finding};

/// Where glommio and the ring may be named: the machine.
const MACHINE: [&str; 1] = ["server/src/core/"];

/// Who else may name the ring, each for its reason: the connections hand sockets and replies to the ring that the turn
/// lends them (steps 1, 2 and 9), and the preflight makes one to see whether the kernel lets it.
const USES_THE_RING: [&str; 2] = ["server/src/net/connections.rs", "server/src/preflight.rs"];

/// Where tokio may be named in the server: the control plane.
const CONTROL: &str = "server/src/control/";

/// Code that is a function of its arguments: no clock, no socket, no random number.
const PURE: [&str; 5] = ["server/src/wal/", "server/src/shard/", "protocol/src/", "raft-glue/src/", "checker/src/"];

/// Code that reaches files through the seam of `disk/src/lib.rs` or not at all, and knows no threads: the log's disk
/// comes in as its clock does.
const WITHOUT_FILES: [&str; 5] =
    ["server/src/wal/", "server/src/shard/", "protocol/src/", "raft-glue/src/", "checker/src/"];

/// The only places where `unsafe` may stand: the ring's buffers, the tables' tagged pointers, one setting of the
/// allocator, and the allocators of two benchmarks, one of which counts allocations and one chooses among allocators;
/// they go into no program.
const UNSAFE: [&str; 6] = [
    "ring/",
    "server/src/memory/allocator.rs",
    "server/src/shard/table/",
    "server/src/shard/entry",
    "protocol/benches/codec.rs",
    "server/benches/table.rs",
];

fn is_in(source: &Source, places: &[&str]) -> bool {
    places.iter().any(|place| source.path.starts_with(place))
}

pub fn only_the_machine_knows_glommio(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || !source.path.starts_with("server/src/") || is_in(source, &MACHINE) {
        return Vec::new();
    }
    let code = source.code();
    let lines = lines_with_word(&code, "glommio").into_iter();
    lines.map(|line| finding(source, line, "names glommio outside of core/")).collect()
}

pub fn only_the_machine_knows_the_ring(source: &Source) -> Vec<Finding> {
    const CRATE: &str = "eyot_ring::";
    let in_server = source.is_rust() && source.path.starts_with("server/src/");
    if !in_server || is_in(source, &MACHINE) || USES_THE_RING.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let code = source.code();
    let mut findings = Vec::new();
    for (at, _) in code.match_indices(CRATE) {
        let rest = &code[at + CRATE.len()..];
        // `eyot_ring::{…}` may span lines; a single name ends where the name does.
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default(),
            None => rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default(),
        };
        if names.contains('*') || rest.starts_with('*') || !lines_with_word(names, "Ring").is_empty() {
            findings.push(finding(source, line_of(&code, at), "names the ring outside of core/"));
        }
    }
    findings
}

pub fn only_the_control_plane_knows_tokio(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || !source.path.starts_with("server/src/") || is_in(source, &[CONTROL]) {
        return Vec::new();
    }
    let code = source.code();
    let lines = lines_with_word(&code, "tokio").into_iter();
    lines.map(|line| finding(source, line, "names tokio outside of control/")).collect()
}

pub fn pure_code_has_no_clock_socket_or_dice(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || !is_in(source, &PURE) {
        return Vec::new();
    }
    let code = source.built_code();
    let mut banned = vec!["SystemTime", "Instant", "std::net", "TcpStream", "UdpSocket", "rand"];
    if is_in(source, &WITHOUT_FILES) {
        banned.extend(["std::fs", "std::thread", "std::env", "std::process"]);
    }
    let mut findings = Vec::new();
    for word in banned {
        for line in lines_with_word(&code, word) {
            findings.push(finding(source, line, &format!("is pure and names `{word}`: take it as an argument")));
        }
    }
    findings
}

pub fn unsafe_stays_in_its_places(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || is_in(source, &UNSAFE) {
        return Vec::new();
    }
    let code = source.code();
    let lines = lines_with_word(&code, "unsafe").into_iter();
    lines.map(|line| finding(source, line, "uses `unsafe` outside of its places")).collect()
}

#[cfg(test)]
mod planted {
    use super::*;

    #[test]
    fn glommio_in_the_network_code_is_found() {
        let text = "use glommio::Task; // glommio\n";
        assert_eq!(only_the_machine_knows_glommio(&Source::new("server/src/net/native.rs", text)).len(), 1);
        assert!(only_the_machine_knows_glommio(&Source::new("server/src/core/mod.rs", text)).is_empty());
        assert!(only_the_machine_knows_glommio(&Source::new("server/src/net/native.rs", "// glommio\n")).is_empty());
    }

    #[test]
    fn the_ring_in_the_log_is_found_and_its_buffers_are_allowed() {
        let wal = |text: &str| only_the_machine_knows_the_ring(&Source::new("server/src/wal/writer.rs", text)).len();
        assert_eq!(wal("use eyot_ring::Ring;"), 1);
        assert_eq!(wal("use eyot_ring::{\n    AlignedBuffer,\n    Ring,\n};"), 1);
        assert_eq!(wal("use eyot_ring::*;"), 1);
        assert_eq!(wal("fn write(ring: &mut eyot_ring::Ring) {}"), 1);
        assert_eq!(wal("use eyot_ring::{AlignedBuffer, BLOCK_BYTES};\nstruct Ring;"), 0);
        let elsewhere = |path: &str| only_the_machine_knows_the_ring(&Source::new(path, "eyot_ring::Ring")).len();
        assert_eq!(elsewhere("server/src/net/connection.rs"), 1);
        for place in ["server/src/core/a.rs", "server/src/net/connections.rs", "server/src/preflight.rs"] {
            assert_eq!(elsewhere(place), 0, "{place}");
        }
    }

    #[test]
    fn tokio_on_a_core_is_found() {
        let text = "let task = tokio::spawn(work);";
        assert_eq!(only_the_control_plane_knows_tokio(&Source::new("server/src/core/mod.rs", text)).len(), 1);
        assert!(only_the_control_plane_knows_tokio(&Source::new("server/src/control/http.rs", text)).is_empty());
        assert!(only_the_control_plane_knows_tokio(&Source::new("client/src/lib.rs", text)).is_empty());
    }

    #[test]
    fn a_clock_in_pure_code_is_found_and_in_its_tests_is_not() {
        let found = |path: &str, text: &str| pure_code_has_no_clock_socket_or_dice(&Source::new(path, text)).len();
        for planted in [
            "SystemTime::now()",
            "std::time::Instant::now()",
            "use std::net::SocketAddr;",
            "rand::random()",
            "use std::{io, net::UdpSocket};",
        ] {
            for path in ["server/src/shard/expiry.rs", "server/src/wal/writer.rs", "protocol/src/tlv/mod.rs"] {
                assert_eq!(found(path, planted), 1, "{planted} in {path}");
            }
        }
        assert_eq!(found("raft-glue/src/log.rs", "use std::fs::File;"), 1);
        assert_eq!(found("checker/src/linear/search.rs", "let started = Instant::now();"), 1);
        assert_eq!(found("server/src/wal/segment.rs", "use std::fs::File;"), 1);
        assert_eq!(found("disk/src/real.rs", "use std::fs::File;"), 0);
        assert_eq!(found("server/src/shard/mod.rs", "#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\n"), 0);
        assert_eq!(found("server/src/core/mod.rs", "Instant::now()"), 0);
    }

    #[test]
    fn unsafe_in_the_wrong_place_is_found() {
        let text = "#![deny(unsafe_code)]\nlet x = unsafe { read(p) };";
        let found = |path: &str| unsafe_stays_in_its_places(&Source::new(path, text)).len();
        assert_eq!(found("server/src/net/native.rs"), 1);
        assert_eq!(found("server/tests/e2e.rs"), 1);
        assert_eq!(found("ring/src/buffers.rs"), 0);
        assert_eq!(found("server/src/shard/table/bucket.rs"), 0);
        assert_eq!(found("server/src/shard/apply.rs"), 1);
        assert_eq!(found("protocol/benches/codec.rs"), 0);
        assert_eq!(found("protocol/src/tlv/decode.rs"), 1);
    }
}
