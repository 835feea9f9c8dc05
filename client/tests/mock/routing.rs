//! Every key goes to the core that owns it, on that core's own address.

use std::net::TcpListener;
use std::time::Duration;

use eyot_client::{Error, Operation, Options};

use crate::server::{Act, Mock};

const KEYS: usize = 200;

fn key(number: usize) -> String {
    format!("key:{number}")
}

#[tokio::test]
async fn no_request_reaches_the_wrong_core() {
    let cores = Mock::pair(|_, _| Act::Serve);
    let client = cores[0].client(Options::default()).await;
    for number in 0..KEYS {
        client.set(key(number), "v").await.expect("stored");
        assert!(client.get(key(number)).await.expect("answered").is_some());
    }
    let mut served = 0;
    for (core, mock) in cores.iter().enumerate() {
        let seen = mock.seen();
        assert!(seen.len() > KEYS / 2, "core {core} got {} of {} requests", seen.len(), 2 * KEYS);
        for seen in &seen {
            assert_eq!(client.owner_of(&seen.keys[0]), Some(core as u16), "{seen:?}");
        }
        served += seen.len();
    }
    assert_eq!(served, 2 * KEYS);
}

#[tokio::test]
async fn the_first_connection_serves_its_own_core() {
    let cores = Mock::pair(|_, _| Act::Serve);
    let client = cores[0].client(Options::default()).await;
    for number in 0..KEYS {
        client.get(key(number)).await.expect("answered");
    }
    client.ping().await.expect("answered");
    assert_eq!(cores.each_ref().map(Mock::connections), [1, 1]);
}

#[tokio::test]
async fn without_routing_everything_goes_to_the_given_address() {
    let cores = Mock::pair(|_, _| Act::Serve);
    let client = cores[1].client(Options { routing: false, ..Options::default() }).await;
    for number in 0..KEYS {
        client.get(key(number)).await.expect("answered");
    }
    assert_eq!(cores.each_ref().map(|mock| mock.count(Operation::Get)), [0, KEYS]);
    assert_eq!(client.owner_of("k"), None);
}

#[tokio::test]
async fn a_core_that_cannot_be_reached_is_reached_through_the_given_address() {
    let mock_address = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
    let closed = mock_address(&TcpListener::bind("127.0.0.1:0").expect("a port"));
    let other_closed = mock_address(&TcpListener::bind("127.0.0.1:0").expect("a port"));
    let mock = Mock::advertising(&[closed, other_closed]);
    let client = mock.client(Options::default()).await;
    for number in 0..KEYS {
        client.get(key(number)).await.expect("the server forwards");
    }
    assert_eq!(mock.count(Operation::Get), KEYS);
}

#[tokio::test]
async fn another_node_at_the_address_of_a_core_gets_nothing() {
    for (node, stranger_gets) in [("mock-node", 1), ("another-node", 0)] {
        let stranger = Mock::named(node);
        let mock = Mock::advertising(&[stranger.address.to_string()]);
        // Without the first connection's shortcut to its own core, so that the advertised address is used.
        let client = mock.client(Options::default()).await;
        mock.close_connections();
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.set("k", "v").await.expect("stored");
        let sets = [&stranger, &mock].map(|mock| mock.count(Operation::Set));
        assert_eq!(sets, [stranger_gets, 1 - stranger_gets], "{node}");
    }
}

#[tokio::test]
async fn the_time_of_a_call_covers_every_core() {
    let cores = Mock::pair(|core, _| if core == 1 { Act::Swallow } else { Act::Serve });
    let client = cores[0].client(Options { request_timeout: Duration::from_millis(200), ..Options::default() }).await;
    let on_core = |core| (0..KEYS).map(key).find(|key| client.owner_of(key) == Some(core)).expect("both own keys");
    client.set(on_core(0), "v").await.expect("core 0 answers");
    let error = client.set(on_core(1), "v").await.expect_err("core 1 does not");
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains(&cores[1].address.port().to_string()), "names the core's address: {error}");
}
