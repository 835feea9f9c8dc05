//! Many requests at once on one connection: replies by id, own writes seen, the half-closed client answered.
//!
//! Place in the flow: all nine steps, with many requests in flight; own writes seen (steps 4 to 8), replies by id (9).

use std::collections::{BTreeMap, HashMap};

use eyot_protocol::command::Condition;
use eyot_protocol::request::{AckLevel, Request, RequestOptions, Set};
use eyot_protocol::ErrorCode;
use rand::Rng;

use crate::support::{bytes_value, directory, number_value, Answer, Dice, Server};

/// What a request should be answered with, as far as the model can tell: versions are the server's choice.
#[derive(Debug, PartialEq)]
enum Expected {
    Value(Option<Vec<u8>>),
    Stored,
    NotStored { exists: bool },
    Deleted(bool),
    Exists(bool),
}

fn seen(answer: Answer) -> Expected {
    match answer {
        Answer::Value(found) => Expected::Value(found.map(|(value, _)| value)),
        Answer::Stored(_) => Expected::Stored,
        Answer::NotStored(current) => Expected::NotStored { exists: current.is_some() },
        Answer::Deleted(existed) => Expected::Deleted(existed),
        Answer::Exists(exists) => Expected::Exists(exists),
        other => panic!("{other:?}"),
    }
}

/// One random request, executed on the model.
fn roll(
    dice: &mut Dice,
    acks: &[AckLevel],
    model: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    put: &mut dyn FnMut(&Request<'_>, &RequestOptions) -> u32,
) -> (u32, Expected) {
    let key = format!("model:{}", dice.rng.gen_range(0..60)).into_bytes();
    let options = RequestOptions { ack: acks[dice.rng.gen_range(0..acks.len())], ..RequestOptions::default() };
    let exists = model.contains_key(&key);
    match dice.rng.gen_range(0..10) {
        0..=3 => (put(&Request::Get { key: &key }, &options), Expected::Value(model.get(&key).cloned())),
        4 => (put(&Request::Exists { key: &key }, &options), Expected::Exists(exists)),
        5 => {
            let id = put(&Request::Delete { key: &key }, &options);
            model.remove(&key);
            (id, Expected::Deleted(exists))
        }
        _ => {
            let length = [0, 5, 50, 3000, 20_000][dice.rng.gen_range(0..5)];
            let value = bytes_value(&vec![dice.rng.gen(); length]);
            let condition = [Condition::Always, Condition::Always, Condition::IfAbsent, Condition::IfPresent]
                [dice.rng.gen_range(0..4)];
            let id = put(&Request::Set(Set { condition, ..Set::new(&key, &value) }), &options);
            let stores = match condition {
                Condition::IfAbsent => !exists,
                Condition::IfPresent => exists,
                _ => true,
            };
            if stores {
                model.insert(key, value);
            }
            (id, if stores { Expected::Stored } else { Expected::NotStored { exists } })
        }
    }
}

fn run_against_model(
    server: &Server,
    dice: &mut Dice,
    acks: &[AckLevel],
    model: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    pipelines: usize,
) {
    let mut client = server.connect();
    for pipeline in 0..pipelines {
        let depth = [1, 7, 64, 900][dice.rng.gen_range(0..4)];
        let mut frames = Vec::new();
        let mut expected = HashMap::new();
        for _ in 0..depth {
            let (id, answer) =
                roll(dice, acks, model, &mut |request, options| client.put(&mut frames, request, options));
            expected.insert(id, answer);
        }
        client.pipeline(&frames, depth, |id, answer| {
            let expected = expected.remove(&id).expect("one reply to each request");
            assert_eq!(seen(answer), expected, "request {id} of pipeline {pipeline}, {depth} deep");
        });
    }
}

#[test]
fn random_pipelines_are_answered_as_if_one_by_one() {
    let directory = directory();
    let (mut dice, mut model) = (Dice::new(), BTreeMap::new());
    let server = Server::start(directory.path(), &[]);
    run_against_model(&server, &mut dice, &[AckLevel::Default, AckLevel::Memory, AckLevel::Fsync], &mut model, 60);
    server.kill();
    // Acknowledged from memory may be lost by that, so the model starts anew.
    let directory = crate::support::directory();
    model.clear();
    let server = Server::start(directory.path(), &["--sync-writes=false"]);
    run_against_model(&server, &mut dice, &[AckLevel::Default, AckLevel::Memory], &mut model, 60);
    // What this server cannot promise, it refuses to be asked for.
    for ack in [AckLevel::Fsync, AckLevel::Quorum] {
        let options = RequestOptions { ack, ..RequestOptions::default() };
        let refused = server.connect().call_with(&Request::Set(Set::new(b"promise", &[0])), &options);
        assert_eq!(refused.code(), Some(ErrorCode::UnsupportedFeature));
    }
    assert_eq!(server.terminate().status.code(), Some(0));
    let server = Server::start(directory.path(), &[]);
    let mut client = server.connect();
    for (key, value) in &model {
        assert_eq!(client.get(key).value(), Some(&value[..]));
    }
    assert_eq!(client.stats()["storage"]["keys"], model.len());
}

#[test]
fn a_client_that_has_closed_its_half_gets_every_reply() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    for (count, length) in [(1, 10), (500, 10), (3000, 10), (40, 100_000)] {
        let mut client = server.connect();
        let value = bytes_value(&vec![1; length]);
        let mut frames = Vec::new();
        for number in 0..count {
            let key = format!("half:{}", number % 100);
            let options = RequestOptions::default();
            client.put(&mut frames, &Request::Set(Set::new(key.as_bytes(), &value)), &options);
            client.put(&mut frames, &Request::Get { key: key.as_bytes() }, &options);
        }
        client.send_raw(&frames);
        client.close_half();
        for _ in 0..count * 2 {
            let (_, answer) = client.receive();
            assert!(matches!(answer, Answer::Stored(_)) || answer.value() == Some(&value[..]), "{answer:?}");
        }
        client.assert_closed();
    }
}

#[test]
fn connections_do_not_mix_their_replies() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    std::thread::scope(|scope| {
        for worker in 0..8_i64 {
            let mut client = server.connect();
            scope.spawn(move || {
                for round in 0..30 {
                    let mut frames = Vec::new();
                    let mut expected = HashMap::new();
                    for number in 0..50 {
                        let key = format!("mix:{worker}:{number}").into_bytes();
                        let value = number_value(worker * 1_000_000 + round * 1000 + number);
                        let options = RequestOptions::default();
                        client.put(&mut frames, &Request::Set(Set::new(&key, &value)), &options);
                        let id = client.put(&mut frames, &Request::Get { key: &key }, &options);
                        expected.insert(id, value);
                    }
                    client.pipeline(&frames, 100, |id, answer| match expected.get(&id) {
                        Some(value) => assert_eq!(answer.value(), Some(&value[..])),
                        None => assert!(matches!(answer, Answer::Stored(_))),
                    });
                }
            });
        }
    });
}
