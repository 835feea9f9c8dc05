//! Many requests on one connection.

use std::time::Duration;

use eyot_client::{Client, Error, Operation, Options, Outcome};
use tokio::task::JoinSet;

use crate::server::{Act, Mock};

fn options() -> Options {
    Options { routing: false, ..Options::default() }
}

async fn get_all(client: &Client, count: usize) -> Vec<(usize, Option<i32>)> {
    let mut running = JoinSet::new();
    for number in 0..count {
        let client = client.clone();
        running.spawn(async move {
            let found = client.get(format!("key:{number}")).await.expect("answered");
            (number, found.map(|found| i32::try_from(found.version).expect("small")))
        });
    }
    running.join_all().await
}

#[tokio::test]
async fn replies_in_any_order_reach_their_callers() {
    const READS: usize = 20;
    let mut reads = 0;
    let mock = Mock::scripted(move |seen| {
        if seen.operation != Operation::Get {
            return Act::Serve;
        }
        reads += 1;
        if reads < READS {
            Act::Hold
        } else {
            Act::Release
        }
    });
    let client = mock.client(options()).await;
    let mut versions = Vec::new();
    for number in 0..READS {
        versions.push(client.set(format!("key:{number}"), "v").await.expect("stored"));
    }
    for (number, version) in get_all(&client, READS).await {
        assert_eq!(version.map(|version| version as u64), Some(versions[number]), "key:{number}");
    }
    assert_eq!(mock.connections(), 1);
}

#[tokio::test]
async fn thousands_of_requests_share_one_connection() {
    let mock = Mock::start();
    let client = mock.client(Options { max_in_flight: 64, ..options() }).await;
    assert_eq!(get_all(&client, 5_000).await.len(), 5_000);
    assert_eq!((mock.connections(), mock.count(Operation::Get)), (1, 5_000));
}

#[tokio::test]
async fn a_pool_uses_its_connections_in_turn() {
    let mock = Mock::start();
    let client = mock.client(Options { pool_size: 3, ..options() }).await;
    get_all(&client, 30).await;
    assert_eq!(mock.connections(), 3);
    for connection in 0..3 {
        let share = mock.seen().iter().filter(|seen| seen.connection == connection).count();
        assert!((9..=11).contains(&share), "connection {connection} carried {share} of 30");
    }
}

#[tokio::test]
async fn requests_over_the_bound_wait_and_are_not_sent_when_their_time_is_over() {
    let mock = Mock::scripted(|_| Act::Hold);
    let options = Options { max_in_flight: 2, request_timeout: Duration::from_millis(300), ..options() };
    let client = mock.client(options).await;
    let mut running = JoinSet::new();
    for _ in 0..3 {
        let client = client.clone();
        running.spawn(async move { client.set("k", "v").await.expect_err("no answer") });
    }
    let mut outcomes: Vec<Outcome> = running.join_all().await.iter().map(Error::outcome).collect();
    outcomes.sort_by_key(|outcome| *outcome == Outcome::Unknown);
    assert_eq!(outcomes, [Outcome::NotApplied, Outcome::Unknown, Outcome::Unknown]);
    assert_eq!(mock.count(Operation::Set), 2);
}
