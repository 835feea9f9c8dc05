//! The library against a small server: all wires, routing, open and closed loop, verification, troubles.

mod support;

use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use eyot_loadgen::{run, Args, LoadError, Report};
use support::{io_uring_is_refused, Behaviour, Mock};

fn load(mock: &Mock, line: &str) -> Result<Report, LoadError> {
    let fixed = format!("eyot-loadgen --address {} --quiet --warmup 0s --keys 200 {line}", mock.address);
    run(&Args::try_parse_from(fixed.split_whitespace()).unwrap(), &Arc::new(AtomicBool::new(false)))
}

fn wires() -> [(&'static str, Behaviour); 3] {
    let native = Behaviour::default();
    let (resp, memcached) = (Behaviour { resp: true, ..native }, Behaviour { memcached: true, ..native });
    [("native", native), ("resp", resp), ("memcached", memcached)]
}

#[test]
fn a_number_of_requests_is_exact_on_every_wire_and_over_several_threads() {
    if io_uring_is_refused() {
        return;
    }
    for (protocol, behaviour) in wires() {
        let mock = Mock::start(behaviour);
        let line = format!("--protocol {protocol} --clients 5 --threads 2 --pipeline 7 --requests 1003 --ratio 1:1");
        let report = load(&mock, &line).unwrap();
        assert_eq!((report.requests, report.errors, report.exit_code()), (1003, 0, 0), "{protocol}");
        assert_eq!(mock.requests(), 1003);
        let count = |latencies: &Option<eyot_loadgen::report::Latencies>| latencies.as_ref().unwrap().count;
        assert_eq!(count(&report.get) + count(&report.set), 1003);
        assert!(count(&report.set) > 400 && count(&report.get) > 400);
        assert!(report.missing_reads > 0, "nothing was preloaded");
    }
}

#[test]
fn a_cache_is_filled_on_a_miss() {
    if io_uring_is_refused() {
        return;
    }
    for (protocol, resp) in [("native", false), ("resp", true)] {
        let mock = Mock::start(Behaviour { resp, ..Behaviour::default() });
        let line = format!("--protocol {protocol} --clients 2 --pipeline 5 --ratio 0:1 --requests 3000 --on-miss set");
        let report = load(&mock, &line).unwrap();
        let count = |latencies: &Option<eyot_loadgen::report::Latencies>| latencies.as_ref().unwrap().count;
        assert_eq!((count(&report.get), count(&report.set)), (3000, report.fills), "{protocol}");
        assert_eq!((report.fills, report.errors), (report.missing_reads, 0));
        // A key may be missed by several requests under way at once; nearly always it is missed once.
        assert!((200..220).contains(&report.fills) && mock.key_count() == 200, "{} fills", report.fills);
        assert!(report.hit_rate.is_some_and(|rate| rate > 0.92), "{:?}", report.hit_rate);
    }
}

#[test]
fn preloading_writes_every_key_and_the_warm_up_is_not_counted() {
    if io_uring_is_refused() {
        return;
    }
    let mock = Mock::start(Behaviour::default());
    let line = "--clients 3 --threads 2 --preload --ratio 0:1 --requests 50";
    let report = load(&mock, line).unwrap();
    assert_eq!((report.requests, report.missing_reads, mock.key_count()), (50, 0, 200));
    let before = mock.requests();
    assert_eq!(before, 250);
    let report = load(&mock, "--clients 1 --ratio 0:1 --requests 50 --warmup 100ms").unwrap();
    assert_eq!(report.requests, 50);
    assert!(mock.requests() > before + 50, "the warm-up sends requests, too");
}

#[test]
fn sequential_keys_fill_the_server_while_latencies_are_measured() {
    if io_uring_is_refused() {
        return;
    }
    let mock = Mock::start(Behaviour::default());
    let line = "--clients 3 --threads 3 --ratio 1:0 --distribution";
    let report = load(&mock, &format!("{line} sequential:50 --requests 150")).unwrap();
    assert_eq!((report.set.unwrap().count, mock.key_count()), (150, 150), "each key from 50 on once");
    load(&mock, &format!("{line} sequential --requests 200")).unwrap();
    assert_eq!(mock.key_count(), 200);
}

#[test]
fn large_values_come_in_many_pieces_and_are_put_together() {
    if io_uring_is_refused() {
        return;
    }
    for (protocol, behaviour) in wires() {
        let mock = Mock::start(behaviour);
        let line =
            format!("--protocol {protocol} --clients 2 --pipeline 3 --value-size 300000 --preload --verify --keys 20");
        let report = load(&mock, &format!("{line} --requests 100")).unwrap();
        assert_eq!(report.exit_code(), 0, "{}", report.text());
        assert!(report.verification.unwrap().verified_reads > 50);
    }
}

#[test]
fn verification_is_silent_for_a_right_server_under_contention() {
    if io_uring_is_refused() {
        return;
    }
    for (protocol, behaviour) in wires() {
        let mock = Mock::start(behaviour);
        let line =
            format!("--protocol {protocol} --verify --ratio 1:1 --clients 8 --threads 2 --pipeline 16 --keys 10");
        let report = load(&mock, &format!("{line} --requests 20000 --distribution zipf")).unwrap();
        assert_eq!(report.exit_code(), 0, "{}", report.text());
        assert!(report.verification.unwrap().verified_reads > 5000);
    }
}

#[test]
fn verification_finds_a_damaged_and_a_forgotten_value() {
    if io_uring_is_refused() {
        return;
    }
    for (protocol, behaviour) in wires() {
        let damaged = Behaviour { flip_bit_in: Some(500), ..behaviour };
        let forgotten = Behaviour { forget_from: Some(500), ..behaviour };
        for (behaviour, says) in [(damaged, "damaged"), (forgotten, "missing")] {
            let mock = Mock::start(behaviour);
            let report = load(&mock, &format!("--protocol {protocol} --preload --verify --requests 1000")).unwrap();
            let found = report.verification.as_ref().unwrap();
            assert!(found.violations > 0 && found.violations < 1000, "{}", report.text());
            assert!(found.violation_examples[0].contains(says), "{}", report.text());
            assert!(report.text().contains("VIOLATION          key:0000"));
            assert_eq!(report.exit_code(), 5);
        }
    }
}

/// The server answers nothing for half a second. Of a closed loop, only the few requests that were outstanding notice;
/// in an open loop, all requests that were due in that time do.
#[test]
fn an_open_loop_charges_a_stall_to_all_requests_that_were_due_in_it() {
    if io_uring_is_refused() {
        return;
    }
    let stall = Some((Duration::from_millis(500), Duration::from_millis(500)));
    let line = "--clients 2 --preload --ratio 0:1 --duration 2s";
    let closed = load(&Mock::start(Behaviour { stall, ..Behaviour::default() }), line).unwrap().get.unwrap();
    let mock = Mock::start(Behaviour { stall, ..Behaviour::default() });
    let open = load(&mock, &format!("{line} --rate 500")).unwrap();
    let figures = open.open_loop.clone().unwrap();
    let latencies = open.get.clone().unwrap();
    assert!(closed.max_us > 400_000.0, "the stall was there: {closed:?}");
    assert!(closed.p99_us < 200_000.0, "the closed loop hides it: {closed:?}");
    assert!(latencies.p99_us > 400_000.0, "the open loop shows it: {latencies:?}");
    // A quarter of the requests was due in the stall, half of these more than 250 ms before its end.
    assert!(latencies.p90_us > 200_000.0, "{latencies:?}");
    assert!((950..=1000).contains(&latencies.count), "2 s at 500/s: {latencies:?}");
    assert!(figures.offered_load_reached && figures.max_backlog_requests > 200, "{figures:?}");
    assert_eq!(figures.unsent_requests, 0);
}

#[test]
fn an_offered_load_that_is_not_reached_is_said() {
    if io_uring_is_refused() {
        return;
    }
    let stall = Some((Duration::from_millis(100), Duration::from_secs(2)));
    let mock = Mock::start(Behaviour { stall, ..Behaviour::default() });
    let report = load(&mock, "--clients 1 --rate 1000 --duration 1900ms").unwrap();
    let figures = report.open_loop.clone().unwrap();
    assert!(!figures.offered_load_reached && figures.unsent_requests > 1000, "{figures:?}");
    assert!(report.text().contains("OFFERED LOAD NOT REACHED"));
}

#[test]
fn with_routing_every_key_goes_to_its_owner() {
    if io_uring_is_refused() {
        return;
    }
    for protocol in ["native", "resp"] {
        let mock = Mock::start(Behaviour { cores: 3, resp: protocol == "resp", ..Behaviour::default() });
        let line = format!("--protocol {protocol} --route --clients 4 --pipeline 8 --preload --verify");
        let report = load(&mock, &format!("{line} --requests 2000")).unwrap();
        assert_eq!((report.requests, report.exit_code()), (2000, 0), "{}", report.text());
        assert_eq!((mock.requests(), mock.foreign()), (2200, 0), "{protocol}");
    }
}

#[test]
fn a_foreign_share_is_kept() {
    if io_uring_is_refused() {
        return;
    }
    for (share, expected, resp) in [("0", 0, false), ("0.5", 1000, false), ("1", 2000, false), ("0", 0, true)] {
        let mock = Mock::start(Behaviour { cores: 2, resp, ..Behaviour::default() });
        let protocol = if resp { "resp" } else { "native" };
        let line = format!("--protocol {protocol} --foreign-share {share} --clients 4 --threads 2");
        let report = load(&mock, &format!("{line} --requests 2000")).unwrap();
        assert_eq!(report.foreign_requests, mock.foreign());
        assert!(mock.foreign().abs_diff(expected) <= 4, "{share}: {}", mock.foreign());
    }
    let alone = Mock::start(Behaviour::default());
    assert!(matches!(load(&alone, "--foreign-share 0.5 --requests 1"), Err(LoadError::Usage(_))));
}

#[test]
fn every_connection_says_the_password_first() {
    if io_uring_is_refused() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "open sesame\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for (protocol, resp) in [("native", false), ("resp", true)] {
        for extra in ["", "--route"] {
            let behaviour = Behaviour { resp, cores: 2, password: Some("open sesame"), ..Behaviour::default() };
            let mock = Mock::start(behaviour);
            let line = format!(
                "--protocol {protocol} {extra} --password-file {} --clients 3 --pipeline 4 --requests 500",
                path.display()
            );
            let report = load(&mock, &line).unwrap();
            assert_eq!((report.requests, report.errors, report.exit_code()), (500, 0, 0), "{line}");
            let other = Mock::start(Behaviour { password: Some("something else"), ..behaviour });
            let refused = load(&other, &line).unwrap_err();
            assert!(matches!(refused, LoadError::Authentication { .. }), "{refused}");
            assert_eq!((refused.exit_code(), refused.to_string().contains("sesame")), (3, false));
        }
    }
    let mock = Mock::start(Behaviour { memcached: true, ..Behaviour::default() });
    let line = format!("--protocol memcached --password-file {} --requests 5", path.display());
    assert!(matches!(load(&mock, &line), Err(LoadError::Usage(_))));
}
