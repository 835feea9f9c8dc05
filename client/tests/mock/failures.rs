//! Servers that are slow, gone, closing, refusing or confused; and what the client says of each request.

use std::time::{Duration, Instant};

use eyot_client::SetOutcome;
use eyot_client::{Client, Error, ErrorCode, Operation, Options, Outcome, ReplyError, RetryPolicy, Value};
use eyot_protocol::native::reply::{put_error_reply, put_reply, put_set};

use crate::server::{Act, Mock};

fn quick() -> Options {
    Options { request_timeout: Duration::from_millis(200), ..Options::default() }
}

#[tokio::test]
async fn a_slow_read_fails_and_a_slow_write_is_unknown() {
    let mock = Mock::scripted(|_| Act::Swallow);
    let client = mock.client(quick()).await;
    let read = client.get("k").await.expect_err("no answer");
    assert!(matches!(read, Error::Timeout { outcome: Outcome::Failed, timeout_ms: 200, .. }), "{read:?}");
    let write = client.set("k", "v").await.expect_err("no answer");
    assert!(matches!(write, Error::Timeout { outcome: Outcome::Unknown, .. }), "{write:?}");
    assert!(mock.stored("k").is_some(), "unknown is the truth: the mock did apply it");
    assert_eq!(mock.count(Operation::Set), 1, "never sent twice");
}

#[tokio::test]
async fn a_late_reply_does_not_disturb_what_comes_after_it() {
    let mut requests = 0;
    let mock = Mock::scripted(move |_| {
        requests += 1;
        match requests {
            1 => Act::Serve,
            2 => Act::Hold,
            _ => Act::Release,
        }
    });
    let options = Options { request_timeout: Duration::from_millis(150), ..Options::default() };
    let client = mock.client(options).await;
    client.set("k", "v").await.expect("stored");
    client.get("k").await.expect_err("held");
    for _ in 0..3 {
        let found = client.get("k").await.expect("answered").expect("there");
        assert_eq!(found.value, Value::from("v"));
    }
}

#[tokio::test]
async fn a_silent_connection_is_replaced() {
    let mock = Mock::scripted(|seen| if seen.connection == 0 { Act::Swallow } else { Act::Serve });
    let client = mock.client(quick()).await;
    client.get("k").await.expect_err("silent");
    client.get("k").await.expect("a new connection answers");
    assert_eq!(mock.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_closes_while_idle_is_replaced_unnoticed() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    client.set("k", "1").await.expect("stored");
    mock.close_connections();
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.set("k", "2").await.expect("stored on a new connection");
    assert_eq!(mock.connections(), 2);
}

#[tokio::test]
async fn a_read_is_sent_again_when_the_connection_breaks() {
    let mut closed = false;
    let mock = Mock::scripted(move |_| if std::mem::replace(&mut closed, true) { Act::Serve } else { Act::Close });
    let client = mock.client(Options::default()).await;
    assert_eq!(client.get("k").await, Ok(None));
    assert_eq!(mock.count(Operation::Get), 2);
}

#[tokio::test]
async fn a_write_is_not_sent_again_when_the_connection_breaks() {
    let mock = Mock::scripted(|seen| if seen.operation == Operation::Set { Act::Close } else { Act::Serve });
    let client = mock.client(Options::default()).await;
    let error = client.set("k", "v").await.expect_err("closed");
    assert!(matches!(error, Error::ConnectionLost { outcome: Outcome::Unknown, .. }), "{error:?}");
    assert_eq!(mock.count(Operation::Set), 1);
    assert_eq!(client.get("k").await, Ok(None), "the client goes on");
}

#[tokio::test]
async fn busy_is_tried_again_and_other_refusals_are_not() {
    let mut refusals = 0;
    let mock = Mock::scripted(move |seen| match seen.operation {
        Operation::Set if refusals < 2 => {
            refusals += 1;
            Act::Refuse(ErrorCode::Busy, "the log's queue is full")
        }
        Operation::Get => Act::Refuse(ErrorCode::InvalidArgument, "no"),
        Operation::Delete => Act::Refuse(ErrorCode::Unknown, "the log failed"),
        _ => Act::Serve,
    });
    let client = mock.client(Options::default()).await;
    client.set("k", "v").await.expect("stored at the third attempt");
    assert_eq!(mock.count(Operation::Set), 3);
    let error = client.get("k").await.expect_err("refused");
    let expected = ReplyError { number: ErrorCode::InvalidArgument.number(), message: "no".to_owned() };
    assert!(matches!(&error, Error::Server { error, .. } if *error == expected), "{error:?}");
    assert_eq!(mock.count(Operation::Get), 1);
    assert_eq!(client.delete("k").await.expect_err("unknown").outcome(), Outcome::Unknown);
    assert_eq!(mock.count(Operation::Delete), 1);
}

#[tokio::test]
async fn attempts_are_bounded() {
    let mock = Mock::scripted(|_| Act::Refuse(ErrorCode::Busy, "still full"));
    let retry = RetryPolicy { max_attempts: 3, first_pause: Duration::from_millis(1), ..RetryPolicy::default() };
    let client = mock.client(Options { retry, ..Options::default() }).await;
    let error = client.set("k", "v").await.expect_err("refused");
    assert_eq!((error.name(), error.outcome()), ("BUSY", Outcome::NotApplied));
    assert_eq!(mock.count(Operation::Set), 3);
}

#[tokio::test]
async fn a_reply_that_makes_no_sense_ends_the_connection() {
    let mock = Mock::scripted(|seen| match seen.connection {
        // A reply to SET for a GET; a length below a header; a length over every limit; a reply that nobody asked for.
        0 => Act::Raw(wrong_operation(seen.id)),
        1 => Act::Raw(vec![1, 0, 0, 0, 1, 0x83, 0, 0]),
        2 => Act::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        3 => Act::Raw(wrong_id(seen.id)),
        _ => Act::Serve,
    });
    let client = mock.client(Options::default()).await;
    for (attempt, part) in ["should answer GET", "below the header", "longer than", "not sent"].iter().enumerate() {
        let error = client.get("k").await.expect_err("nonsense");
        assert!(matches!(error, Error::MalformedReply { outcome: Outcome::Failed, .. }), "{attempt}: {error:?}");
        assert!(error.to_string().contains(part), "{attempt}: {error}");
    }
    assert_eq!(client.get("k").await, Ok(None));
    assert_eq!(mock.connections(), 5);
}

fn wrong_operation(id: u32) -> Vec<u8> {
    let mut out = Vec::new();
    put_reply(&mut out, Operation::Set.code(), id, |out| put_set(out, SetOutcome::Stored { version: 1 }));
    out
}

fn wrong_id(id: u32) -> Vec<u8> {
    let mut out = Vec::new();
    put_reply(&mut out, Operation::Get.code(), id + 1_000, |out| put_set(out, SetOutcome::Stored { version: 1 }));
    out
}

#[tokio::test]
async fn a_malformed_reply_to_a_write_leaves_it_unknown() {
    let mock = Mock::scripted(|_| Act::Raw(vec![0xFF; 64]));
    let client = mock.client(Options::default()).await;
    let error = client.set("k", "v").await.expect_err("nonsense");
    assert!(matches!(error, Error::MalformedReply { outcome: Outcome::Unknown, .. }), "{error:?}");
    assert_eq!(mock.count(Operation::Set), 1);
}

#[tokio::test]
async fn a_server_that_turns_a_connection_away_is_believed() {
    let mut turned_away = false;
    let mock = Mock::scripted(move |_| {
        if std::mem::replace(&mut turned_away, true) {
            return Act::Serve;
        }
        let mut out = Vec::new();
        put_error_reply(&mut out, 0, 0, ErrorCode::TooManyConnections, "limit of 1");
        Act::Raw(out)
    });
    let client = mock.client(Options::default()).await;
    client.set("k", "v").await.expect("not applied, so it is sent again");
    assert_eq!(mock.count(Operation::Set), 2);
}

#[tokio::test]
async fn a_server_that_does_not_read_leaves_queued_writes_not_applied() {
    let mock = Mock::scripted(|_| Act::Stall);
    let options = Options { request_timeout: Duration::from_millis(400), ..Options::default() };
    let client = mock.client(options).await;
    // Several times what the socket buffers of both ends and the queue of the connection take.
    let mut running = tokio::task::JoinSet::new();
    for number in 0..8 {
        let client = client.clone();
        running.spawn(async move {
            client.set(format!("k{number}"), Value::Bytes(vec![0; 8 << 20])).await.expect_err("stalled").outcome()
        });
    }
    let outcomes = running.join_all().await;
    let not_applied = outcomes.iter().filter(|outcome| **outcome == Outcome::NotApplied).count();
    assert_eq!(outcomes.len(), 8);
    assert!((5..=7).contains(&not_applied), "{outcomes:?}");
}

#[tokio::test]
async fn nobody_listening_is_said_at_once() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    let started = Instant::now();
    let error = Client::connect(&address, Options::default()).await.expect_err("nobody listens");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_went_away_is_reported_within_the_timeout() {
    let mock = Mock::start();
    let options = Options { request_timeout: Duration::from_millis(500), ..Options::default() };
    let client = mock.client(options).await;
    drop(mock);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    let error = client.set("k", "v").await.expect_err("gone");
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error:?}");
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}
