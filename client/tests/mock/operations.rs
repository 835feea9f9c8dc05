//! Every operation of the library, and what it sends.

use std::time::Duration;

use eyot_client::{
    AckLevel, Client, Condition, Error, ErrorCode, Expiry, Operation, Options, ReadLevel, SetOptions, SetOutcome, Value,
};

use crate::server::Mock;

#[tokio::test]
async fn a_value_comes_back_with_its_version() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    let version = client.set("user:1", "John").await.expect("stored");
    let found = client.get("user:1").await.expect("answered").expect("there");
    assert_eq!((found.value, found.version), (Value::String("John".to_owned()), version));
    let raw = client.get_raw(b"user:1").await.expect("answered").expect("there");
    assert_eq!(raw.value, b"\x01\x04John");
    assert_eq!(client.get("nobody").await.expect("answered"), None);
}

#[tokio::test]
async fn delete_and_exists_tell_whether_the_key_was_there() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    client.set("k", 1).await.expect("stored");
    assert!(client.exists("k").await.expect("answered"));
    assert!(client.delete("k").await.expect("answered"));
    assert!(!client.delete("k").await.expect("answered"));
    assert!(!client.exists("k").await.expect("answered"));
}

#[tokio::test]
async fn a_conditional_write_tells_the_version_that_was_in_its_way() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    let set = |condition| SetOptions { condition, ..SetOptions::default() };
    let missing = client.set_with("k", "a", set(Condition::IfPresent)).await;
    assert_eq!(missing, Ok(SetOutcome::NotStored { current: None }));
    let Ok(SetOutcome::Stored { version }) = client.set_with("k", "a", set(Condition::IfAbsent)).await else {
        panic!("stored")
    };
    let again = client.set_with("k", "b", set(Condition::IfAbsent)).await;
    assert_eq!(again, Ok(SetOutcome::NotStored { current: Some(version) }));
    let newer = client.set_with("k", "b", set(Condition::IfVersion(version))).await;
    assert!(matches!(newer, Ok(SetOutcome::Stored { version: newer }) if newer > version));
}

#[tokio::test]
async fn options_travel_with_the_request() {
    let mock = Mock::start();
    let options = Options { read: ReadLevel::Any, request_timeout: Duration::from_secs(2), ..Options::default() };
    let client = mock.client(options).await;
    let set = SetOptions { expiry: Expiry::AfterMs(1_500), ack: Some(AckLevel::Memory), condition: Condition::Always };
    client.set_with("k", "v", set).await.expect("stored");
    client.get("k").await.expect("answered");
    let seen = mock.seen();
    assert_eq!((seen[0].options.ack, seen[0].expiry), (AckLevel::Memory, Some(Expiry::AfterMs(1_500))));
    assert_eq!(seen[1].options.read, ReadLevel::Any);
    let deadline_ms = seen[1].options.deadline_ms.expect("deadlines are sent by default");
    assert!((1..=2_000).contains(&deadline_ms), "{deadline_ms}");
}

#[tokio::test]
async fn ping_stats_and_server_info_need_no_key() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    assert!(client.ping().await.expect("answered") < Duration::from_secs(5));
    assert_eq!(client.stats().await.expect("answered")["storage"]["keys"], 0);
    let info = client.server_info();
    assert_eq!((info.server.as_str(), info.node_id.as_str()), ("mock 1", "mock-node"));
}

#[tokio::test]
async fn keys_and_values_over_the_limits_are_not_sent() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    let long_key = vec![b'k'; 65_537];
    let Err(Error::Invalid(error)) = client.get(&long_key).await else { panic!("refused") };
    assert_eq!(error.code, ErrorCode::KeyTooLarge);
    let Err(Error::Invalid(error)) = client.set("k", Value::Bytes(vec![0; (16 << 20) + 1])).await else {
        panic!("refused")
    };
    assert_eq!(error.code, ErrorCode::ValueTooLarge);
    assert_eq!(mock.count(Operation::Get) + mock.count(Operation::Set), 0);
}

#[tokio::test]
async fn a_value_larger_than_every_buffer_arrives_whole() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    let large: Vec<u8> = (0..12_000_000_u32).map(|n| n as u8).collect();
    client.set("large", Value::Bytes(large.clone())).await.expect("stored");
    let found = client.get("large").await.expect("answered").expect("there");
    assert!(found.value == Value::Bytes(large), "the bytes differ");
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_refused_before_anything_is_opened() {
    let error = Client::connect("localhost", Options::default()).await.expect_err("no port");
    assert!(matches!(error, Error::Address { .. }), "{error:?}");
}
