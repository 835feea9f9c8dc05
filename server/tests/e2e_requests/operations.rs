//! Each operation by itself: conditions, versions, expiry, batches, HELLO, STATS, options.
//!
//! Place in the flow: all nine steps, one request at a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eyot_protocol::command::Condition;
use eyot_protocol::key::{shard_of_slot, slot};
use eyot_protocol::limits::MAX_KEY_BYTES;
use eyot_protocol::request::{AckLevel, Expiry, Operation, ReadLevel, Request, RequestOptions, Set};
use eyot_protocol::tlv::{Encoder, Value};
use eyot_protocol::ErrorCode;

use crate::support::{bytes_value, directory, number_value, several_cores, wait_until, Answer, Server};

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

#[test]
fn values_of_every_type_come_back_as_they_were() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.connect();
    let values = [
        Value::Null,
        Value::String("Grüße".into()),
        Value::String(String::new()),
        Value::Int32(i32::MIN),
        Value::Int64(i64::MAX),
        Value::Float64(f64::NEG_INFINITY),
        Value::Boolean(true),
        Value::Timestamp(-1),
        Value::Bytes(vec![0, 255, 0]),
        Value::Error { code: 3, message: "kept, not raised".into() },
        Value::List(vec![Value::Null, Value::List(vec![Value::Int32(1)])]),
        Value::Map(vec![(Value::String("age".into()), Value::Int32(30))]),
    ];
    for (number, value) in values.iter().enumerate() {
        let (key, mut encoded) = (format!("type:{number}"), Vec::new());
        value.encode(&mut encoded);
        let version = client.must_set(key.as_bytes(), &encoded);
        assert_eq!(client.get(key.as_bytes()), Answer::Value(Some((encoded, version))), "{value:?}");
    }
}

#[test]
fn keys_of_every_length_and_values_of_several_mebibytes() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.connect();
    for length in [0, 1, 2, 1000, MAX_KEY_BYTES - 1, MAX_KEY_BYTES] {
        let key = vec![b'k'; length];
        client.must_set(&key, &number_value(length as i64));
        assert_eq!(client.get(&key).value(), Some(&number_value(length as i64)[..]), "a key of {length} bytes");
        assert_eq!(client.delete(&key), Answer::Deleted(true));
        assert_eq!(client.exists(&key), Answer::Exists(false));
    }
    // Larger than a receive buffer, than a log segment, than a whole turn.
    for length in [16 * 1024, 100_000, (1 << 20) - 100, 1 << 20, 3 << 20, 9 << 20] {
        let value = bytes_value(&(0..length).map(|at: usize| (at % 251) as u8).collect::<Vec<_>>());
        for core in 0..several_cores() {
            let key = format!("large:{core}:{length}");
            let mut client = server.connect_to_core(core);
            client.must_set(key.as_bytes(), &value);
            assert!(client.get(key.as_bytes()).value() == Some(&value[..]), "a value of {length} bytes");
        }
    }
    // A string key and a bytes key are the same key.
    let mut frame = Vec::new();
    let mut payload = Vec::new();
    let mut encoder = Encoder::new(&mut payload);
    encoder.list(1);
    encoder.string("text");
    client.must_set(b"text", &number_value(1));
    frame.extend_from_slice(&(payload.len() as u32 + 8).to_le_bytes());
    frame.extend_from_slice(&[1, Operation::Get.code(), 0, 0, 9, 9, 0, 0]);
    frame.extend_from_slice(&payload);
    client.send_raw(&frame);
    assert_eq!(client.receive().1.value(), Some(&number_value(1)[..]));
}

#[test]
fn conditions_and_versions() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    for core in 0..several_cores() {
        let mut client = server.connect_to_core(core);
        for number in 0..8 {
            let key = format!("condition:{core}:{number}").into_bytes();
            let (one, two) = (number_value(1), number_value(2));
            let set = |value, condition| Request::Set(Set { condition, ..Set::new(&key, value) });
            assert_eq!(client.call(&set(&one, Condition::IfPresent)), Answer::NotStored(None));
            assert_eq!(client.call(&set(&one, Condition::IfVersion(7))), Answer::NotStored(None));
            assert_eq!(client.get(&key), Answer::Value(None));
            let Answer::Stored(first) = client.call(&set(&one, Condition::IfAbsent)) else { panic!("absent") };
            assert_eq!(client.call(&set(&two, Condition::IfAbsent)), Answer::NotStored(Some(first)));
            assert_eq!(client.call(&set(&two, Condition::IfVersion(first + 1))), Answer::NotStored(Some(first)));
            assert_eq!(client.get(&key), Answer::Value(Some((one.clone(), first))));
            let Answer::Stored(second) = client.call(&set(&two, Condition::IfVersion(first))) else {
                panic!("its version")
            };
            assert!(second > first, "versions of a key only grow");
            let Answer::Stored(third) = client.call(&set(&one, Condition::IfPresent)) else { panic!("present") };
            assert!(third > second);
            assert_eq!(client.delete(&key), Answer::Deleted(true));
            assert_eq!(client.delete(&key), Answer::Deleted(false));
            assert_eq!(client.call(&set(&one, Condition::IfVersion(third))), Answer::NotStored(None));
            let fourth = client.must_set(&key, &one);
            assert!(fourth > third, "also over a delete");
        }
    }
}

#[test]
fn keys_expire_for_readers_at_once_and_from_memory_by_themselves() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.connect();
    let value = number_value(1);
    let set = |key: &'static [u8], expiry| Request::Set(Set { expiry, ..Set::new(key, &value) });
    client.call(&set(b"past", Expiry::AtUs(now_us() - 1_000_000)));
    assert_eq!(client.get(b"past"), Answer::Value(None));
    assert_eq!(client.exists(b"past"), Answer::Exists(false));
    assert_eq!(client.delete(b"past"), Answer::Deleted(false), "expired is deleted");
    client.call(&set(b"far", Expiry::AtUs(now_us() + 3_600_000_000)));
    client.call(&set(b"farther", Expiry::AfterMs(u64::MAX >> 1)));
    client.call(&set(b"kept", Expiry::AfterMs(400)));
    client.must_set(b"kept", &value);
    for number in 0..200 {
        let key = format!("short:{number}");
        let expiry = if number % 2 == 0 { Expiry::AfterMs(300) } else { Expiry::AtUs(now_us() + 300_000) };
        let before = client.call(&Request::Set(Set { expiry, ..Set::new(key.as_bytes(), &value) }));
        assert!(matches!(before, Answer::Stored(_)));
    }
    // Nobody reads them: the count falls by the sweep alone, on every core, whoever sleeps there.
    wait_until("expired keys are swept", || client.stats()["storage"]["keys"] == 3);
    assert_eq!(client.stats()["storage"]["expiring_keys"], 2);
    assert_eq!(client.get(b"short:0"), Answer::Value(None));
    for key in [&b"far"[..], b"farther", b"kept"] {
        assert_eq!(client.get(key).value(), Some(&value[..]));
    }
    // An absent key is free for whoever wants it absent, swept or not.
    client.call(&set(b"soon", Expiry::AfterMs(30)));
    std::thread::sleep(Duration::from_millis(60));
    let again = Request::Set(Set { condition: Condition::IfAbsent, ..Set::new(b"soon", &value) });
    assert!(matches!(client.call(&again), Answer::Stored(_)));
}

#[test]
fn a_batch_has_one_result_for_each_operation_in_its_order_across_cores() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.connect();
    assert_eq!(client.batch(&[]), []);
    let keys: Vec<Vec<u8>> = (0..500).map(|number| format!("batch:{number}").into_bytes()).collect();
    let values: Vec<Vec<u8>> = (0..500).map(number_value).collect();
    let mut requests = Vec::new();
    for (key, value) in keys.iter().zip(&values) {
        requests.push(Request::Exists { key });
        requests.push(Request::Set(Set::new(key, value)));
        requests.push(Request::Get { key });
        requests.push(Request::Set(Set { condition: Condition::IfAbsent, ..Set::new(key, value) }));
        requests.push(Request::Exists { key });
        requests.push(Request::Delete { key });
        requests.push(Request::Get { key });
    }
    let results = client.batch(&requests);
    assert_eq!(results.len(), requests.len());
    for (number, results) in results.chunks(7).enumerate() {
        let Answer::Stored(version) = results[1] else { panic!("{results:?}") };
        let expected = [
            Answer::Exists(false),
            Answer::Stored(version),
            Answer::Value(Some((values[number].clone(), version))),
            Answer::NotStored(Some(version)),
            Answer::Exists(true),
            Answer::Deleted(true),
            Answer::Value(None),
        ];
        assert_eq!(results, expected, "key {number}");
    }
}

#[test]
fn ping_comes_back_whole_and_hello_tells_the_way() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--node-id", "here"]);
    let mut client = server.connect();
    for payload in [&[3, 0][..], &[3, 2, 0, 1, 2, b'h', b'i'], &[3, 1, 3, 1, 3, 0]] {
        assert_eq!(client.call(&Request::Ping { payload }), Answer::Pong(payload.to_vec()));
    }
    let hello = client.hello();
    assert_eq!((hello.protocol, &*hello.node_id), (1, "here"));
    let addresses: Vec<String> = server.core_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(hello.core_addresses, addresses);
    assert_eq!(hello.max_key_bytes, MAX_KEY_BYTES as u64);
    assert!(hello.max_value_bytes >= 64 << 20 && hello.max_frame_bytes > hello.max_value_bytes);

    // Whoever follows the map asks no core for a key of another.
    let mut clients: Vec<_> = (0..several_cores()).map(|core| server.connect_to_core(core)).collect();
    for (core, client) in clients.iter_mut().enumerate() {
        assert_eq!(usize::from(client.hello().core), core, "a core's own address leads to it");
    }
    for number in 0..200 {
        let key = format!("routed:{number}").into_bytes();
        let shard = shard_of_slot(slot(&key), hello.shard_cores.len() as u16);
        let owner = usize::from(hello.shard_cores[usize::from(shard)]);
        clients[owner].must_set(&key, &number_value(number));
        assert!(clients[owner].get(&key).value().is_some());
    }
    let cores = &client.stats()["cores"];
    for core in cores.as_array().unwrap() {
        assert_eq!(core["forwarded"], 0, "{cores}");
    }
    // And whoever does not is served all the same.
    for number in 0..200 {
        let key = format!("routed:{number}");
        assert_eq!(clients[0].get(key.as_bytes()).value(), Some(&number_value(number)[..]));
    }
    let forwarded = client.stats()["cores"][0]["forwarded"].as_u64().unwrap();
    assert_eq!(forwarded > 0, several_cores() > 1, "{forwarded} were forwarded");
}

#[test]
fn statistics_have_their_shape_and_count() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--max-memory", "1GB"]);
    let mut client = server.connect();
    for number in 0..10 {
        client.must_set(format!("stats:{number}").as_bytes(), &number_value(number));
        client.get(format!("stats:{number}").as_bytes());
    }
    client.get(b"absent");
    let stats = client.stats();
    let storage = &stats["storage"];
    assert_eq!((&storage["keys"], &storage["max_memory"]), (&10.into(), &(1_u64 << 30).into()));
    assert_eq!(storage["version"], env!("CARGO_PKG_VERSION"));
    assert!(storage["memory_usage"].as_u64().unwrap() > 0);
    let network = &stats["network"];
    assert_eq!(network["address"], server.address.to_string());
    assert_eq!((&network["active_connections"], &network["total_requests"]), (&1.into(), &21.into()), "{stats}");
    assert_eq!(stats["raft"]["mode"], "standalone");
    let operations = &stats["metrics"]["operations"];
    assert_eq!((&operations["set"]["count"], &operations["get"]["count"]), (&10.into(), &11.into()));
    for figure in ["ops_per_sec", "avg_us", "p50_us", "p95_us", "p99_us", "p999_us", "max_us"] {
        assert!(operations["set"][figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {operations}");
    }
    assert!(operations.get("delete").is_none(), "what nobody asked for is not listed");
    assert!(stats["metrics"]["uptime_seconds"].as_f64().unwrap() > 0.0);
    let cores = stats["cores"].as_array().unwrap();
    assert_eq!(cores.len(), several_cores());
    assert_eq!(cores.iter().map(|core| core["keys"].as_u64().unwrap()).sum::<u64>(), 10);
}

#[test]
fn every_acknowledgement_and_read_level_and_deadline_is_taken() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.connect();
    let mut number = 0;
    for ack in [AckLevel::Default, AckLevel::Memory, AckLevel::Fsync, AckLevel::Quorum] {
        let levels = [ReadLevel::Linearizable, ReadLevel::Lease, ReadLevel::Bounded { max_age_ms: 5 }, ReadLevel::Any];
        for read in levels {
            for deadline_ms in [None, Some(60_000)] {
                number += 1;
                let options = RequestOptions { ack, read, deadline_ms };
                let (key, value) = (format!("level:{}", number % 7), number_value(number));
                let set = Request::Set(Set::new(key.as_bytes(), &value));
                assert!(matches!(client.call_with(&set, &options), Answer::Stored(_)), "{options:?}");
                let got = client.call_with(&Request::Get { key: key.as_bytes() }, &options);
                assert_eq!(got.value(), Some(&value[..]), "{options:?}");
            }
        }
    }
    // Acknowledged from memory, conditional ones and deletes included, and all there after an orderly stop.
    let options = RequestOptions { ack: AckLevel::Memory, ..RequestOptions::default() };
    for number in 0..100 {
        let (key, value) = (format!("memory:{number}"), number_value(number));
        let set = Set { condition: Condition::IfAbsent, ..Set::new(key.as_bytes(), &value) };
        assert!(matches!(client.call_with(&Request::Set(set), &options), Answer::Stored(_)));
        if number % 2 == 0 {
            let delete = Request::Delete { key: key.as_bytes() };
            assert_eq!(client.call_with(&delete, &options), Answer::Deleted(true));
        }
    }
    assert_eq!(server.terminate().status.code(), Some(0));
    let server = Server::start(directory.path(), &[]);
    assert_eq!(server.stats()["storage"]["keys"], 57);
}

/// A core that is kept busy lets short deadlines of other cores' requests pass: each of those is refused and not
/// applied.
#[test]
fn a_request_whose_deadline_has_passed_is_not_executed() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    if several_cores() == 1 {
        eprintln!("skipped: on one core a request never waits between its receipt and its execution");
        return;
    }
    let mut client = server.connect_to_core(0);
    let hello = client.hello();
    let remote: Vec<Vec<u8>> = (0..20_000)
        .map(|number| format!("deadline:{number}").into_bytes())
        .filter(|key| {
            let shard = shard_of_slot(slot(key), hello.shard_cores.len() as u16);
            hello.shard_cores[usize::from(shard)] == 1
        })
        .take(5000)
        .collect();
    let mut busy = server.connect_to_core(1);
    let options = RequestOptions { deadline_ms: Some(1), ..RequestOptions::default() };
    let mut passed = 0;
    let mut next = 0_i64;
    wait_until("a deadline passes", || {
        let requests: Vec<Request<'_>> = remote.iter().map(|key| Request::Exists { key }).collect();
        let mut frames = Vec::new();
        for _ in 0..6 {
            busy.put_batch(&mut frames, &requests);
        }
        busy.send_raw(&frames);
        for key in &remote[..20] {
            next += 1;
            let value = number_value(next);
            let before = client.get(key);
            match client.call_with(&Request::Set(Set::new(key, &value)), &options) {
                Answer::Stored(_) => assert_eq!(client.get(key).value(), Some(&value[..])),
                Answer::Error(ErrorCode::DeadlineExceeded, _) => {
                    assert_eq!(client.get(key), before, "refused is not applied");
                    passed += 1;
                }
                unexpected => panic!("{unexpected:?}"),
            }
        }
        for _ in 0..6 {
            busy.receive_batch(&vec![Operation::Exists; remote.len()]);
        }
        passed > 0
    });
}
