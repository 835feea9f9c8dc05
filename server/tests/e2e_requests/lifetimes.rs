//! From one start to the next: what is kept, on how many cores, and how an orderly stop treats what is in flight.
//!
//! Place in the flow: start-up and recovery, step 6 (log), and the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eyot_protocol::request::{Expiry, Request, RequestOptions, Set};
use rand::Rng;

use crate::support::{directory, number_of, number_value, several_cores, wait_until, Answer, Dice, Server};

#[test]
fn data_outlives_restarts_on_any_number_of_cores() {
    let directory = directory();
    let several = several_cores().to_string();
    let mut dice = Dice::new();
    let mut model: BTreeMap<Vec<u8>, (i64, u64)> = BTreeMap::new();
    for (start, cores) in ["1", &several, "1", &several, &several, "1"].into_iter().enumerate() {
        let server = Server::start(directory.path(), &["--cores", cores, "--shards", "5"]);
        let mut client = server.connect();
        assert_eq!(client.stats()["storage"]["keys"], model.len(), "start {start} on {cores} cores");
        for (key, (number, version)) in &model {
            assert_eq!(client.get(key), Answer::Value(Some((number_value(*number), *version))), "start {start}");
        }
        for number in 0..150 {
            let key = format!("kept:{}", dice.rng.gen_range(0..200)).into_bytes();
            if dice.rng.gen_bool(0.2) {
                assert_eq!(client.delete(&key), Answer::Deleted(model.remove(&key).is_some()));
            } else {
                let number = start as i64 * 1000 + number;
                let version = client.must_set(&key, &number_value(number));
                let before = model.insert(key, (number, version));
                assert!(before.is_none_or(|(_, older)| older < version), "a version went back");
            }
        }
        if start % 2 == 0 {
            assert_eq!(server.terminate().status.code(), Some(0));
        } else {
            server.kill();
        }
    }
}

#[test]
fn expiry_goes_on_while_the_server_is_down() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.connect();
    let value = number_value(1);
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    for number in 0..50 {
        let key = format!("brief:{number}");
        let set = Set { expiry: Expiry::AtUs(now_us + 1_500_000), ..Set::new(key.as_bytes(), &value) };
        client.call(&Request::Set(set));
    }
    let long = Set { expiry: Expiry::AfterMs(3_600_000), ..Set::new(b"long", &value) };
    client.call(&Request::Set(long));
    server.kill();
    std::thread::sleep(Duration::from_millis(1600));
    let server = Server::start(directory.path(), &[]);
    let mut client = server.connect();
    assert_eq!(client.get(b"brief:7"), Answer::Value(None));
    assert!(client.get(b"long").value().is_some());
    wait_until("what expired meanwhile is swept", || client.stats()["storage"]["keys"] == 1);
}

#[test]
fn without_synced_writes_an_orderly_stop_still_keeps_everything() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--sync-writes=false", "--flush-interval", "60s"]);
    let mut client = server.connect();
    for number in 0..2000 {
        client.must_set(format!("unsynced:{number}").as_bytes(), &number_value(number));
    }
    assert_eq!(server.terminate().status.code(), Some(0));
    let server = Server::start(directory.path(), &[]);
    assert_eq!(server.stats()["storage"]["keys"], 2000);
}

#[test]
fn without_synced_writes_the_flush_interval_bounds_the_loss() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--sync-writes=false", "--flush-interval", "50ms"]);
    let mut client = server.connect();
    for number in 0..300 {
        client.must_set(format!("flushed:{number}").as_bytes(), &number_value(number));
    }
    // Idle from here on: the flush has to come by itself.
    wait_until("everything is flushed", || {
        let stats = client.stats();
        stats["cores"].as_array().unwrap().iter().all(|core| core["log_pending_bytes"] == 0)
    });
    server.kill();
    let server = Server::start(directory.path(), &[]);
    assert_eq!(server.stats()["storage"]["keys"], 300);
}

#[test]
fn an_orderly_stop_under_load_loses_nothing_acknowledged() {
    for round in 0..3 {
        let directory = directory();
        let arguments: &[&str] = if round == 2 { &["--sync-writes=false"] } else { &[] };
        let server = Server::start(directory.path(), arguments);
        let acknowledged: Mutex<BTreeMap<Vec<u8>, i64>> = Mutex::default();
        let writes = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..6 {
                let (mut client, acknowledged, writes) = (server.connect(), &acknowledged, &writes);
                scope.spawn(move || {
                    for number in 0_i64.. {
                        let mut frames = Vec::new();
                        let keys: Vec<Vec<u8>> =
                            (0..32).map(|key| format!("stop:{worker}:{key}").into_bytes()).collect();
                        let first = keys
                            .iter()
                            .map(|key| {
                                let value = number_value(number);
                                client.put(
                                    &mut frames,
                                    &Request::Set(Set::new(key, &value)),
                                    &RequestOptions::default(),
                                )
                            })
                            .min()
                            .unwrap();
                        if std::io::Write::write_all(&mut client.stream, &frames).is_err() {
                            return;
                        }
                        for _ in 0..keys.len() {
                            // A connection that ends without a reply leaves the write unknown.
                            let Ok(Some((id, answer))) = client.try_receive(&[]) else { return };
                            assert!(matches!(answer, Answer::Stored(_)), "{answer:?}");
                            let key = keys[(id - first) as usize].clone();
                            acknowledged.lock().unwrap().insert(key, number);
                            writes.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            wait_until("the load runs", || writes.load(Ordering::Relaxed) > 3000);
            let ended = server.terminate();
            assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
        });
        let server = Server::start(directory.path(), &[]);
        let mut client = server.connect();
        for (key, number) in acknowledged.into_inner().unwrap() {
            let answer = client.get(&key);
            let found = answer.value().map(number_of);
            assert!(found >= Some(number), "round {round}: {found:?} under {key:?}, acknowledged {number}");
        }
    }
}
