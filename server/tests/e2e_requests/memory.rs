//! At the memory limit: what goes under each policy, what is answered, and what is told of it.
//!
//! Place in the flow: step 3 (admit), and the evictions, from a client's side. How close resident memory stays to the
//! limit is measured by `scripts/eviction.sh`: at the size of a test the program itself is most of it.

use eyot_protocol::request::{Expiry, Request, RequestOptions, Set};
use eyot_protocol::ErrorCode;
use eyot_server::shard::eviction::Policy;

use crate::support::{bytes_value, directory, several_cores, wait_until, Answer, Client, Server};

const LIMIT_BYTES: u64 = 32 << 20;
const VALUE_BYTES: usize = 1000;
/// More than twice what fits.
const KEYS: usize = 50_000;
const PIPELINE: usize = 200;
/// Writes that may be refused although keys can be evicted: on a machine that is busy with other tests, the log and the
/// messages between cores hold so much of this small limit for a moment that eviction cannot keep up.
const REFUSED_MAX: usize = KEYS / 50;
/// Keys that are left at least, for the same reason: half of what a quiet machine keeps.
const KEPT_MIN: u64 = 3_500;
const AN_HOUR_MS: u64 = 3_600_000;

fn start(directory: &std::path::Path, policy: Policy) -> Server {
    let cores = several_cores().to_string();
    let limit = LIMIT_BYTES.to_string();
    let policy = ["--eviction-policy", policy.name(), "--sync-writes", "false"];
    Server::start(directory, &[&["--max-memory", &limit, "--cores", &cores], &policy[..]].concat())
}

fn key(number: usize) -> Vec<u8> {
    format!("cached:{number}").into_bytes()
}

/// Writes [`KEYS`] keys, in order; between every two pipelines `between` may ask something. Returns how many were
/// refused.
fn flood(client: &mut Client, expiry: Expiry, mut between: impl FnMut(&mut Client)) -> usize {
    let value = bytes_value(&[7; VALUE_BYTES]);
    let mut refused = 0;
    for first in (0..KEYS).step_by(PIPELINE) {
        let mut frames = Vec::new();
        for number in first..first + PIPELINE {
            let key = key(number);
            let set = Set { expiry, ..Set::new(&key, &value) };
            client.put(&mut frames, &Request::Set(set), &RequestOptions::default());
        }
        client.pipeline(&frames, PIPELINE, |_, answer| match answer {
            Answer::Stored(_) => {}
            Answer::Error(ErrorCode::OutOfMemory, message) => {
                assert!(message.contains("not applied"), "{message}");
                refused += 1;
            }
            unexpected => panic!("{unexpected:?}"),
        });
        between(client);
    }
    refused
}

/// The figures once nothing is on its way out any more: eviction goes on a little below the limit.
fn settled_stats(client: &mut Client) -> serde_json::Value {
    let mut stats = client.stats();
    wait_until("the evictions to end", || {
        let before = std::mem::replace(&mut stats, client.stats());
        stats["memory"]["evicting"] == 0 && before["storage"]["keys"] == stats["storage"]["keys"]
    });
    stats
}

#[test]
fn under_each_policy_a_flood_of_writes_is_taken_and_the_limit_is_kept() {
    for policy in Policy::ALL.into_iter().filter(|policy| policy.evicts()) {
        let directory = directory();
        let server = start(directory.path(), policy);
        let mut client = server.connect();
        let kept = bytes_value(b"kept");
        // What has no expiry outlives a volatile policy; what is used outlives the others, save the random one.
        let favourite = if policy.expiring_only() { Expiry::Never } else { Expiry::AfterMs(AN_HOUR_MS) };
        let set = Set { expiry: favourite, ..Set::new(b"favourite", &kept) };
        assert!(matches!(client.call(&Request::Set(set)), Answer::Stored(_)));
        let expiry = Expiry::AfterMs(AN_HOUR_MS);
        let mut found_always = true;
        let refused = flood(&mut client, expiry, |client| found_always &= client.get(b"favourite").value().is_some());
        assert!(refused <= REFUSED_MAX, "{policy:?}: {refused} were refused");
        assert!(
            found_always || policy == Policy::AllKeysRandom,
            "{policy:?}: the key that is read all the time is gone"
        );
        let stats = settled_stats(&mut client);
        let memory = &stats["memory"];
        let figure = |name: &str| memory[name].as_u64().unwrap_or_else(|| panic!("{name} of {memory}"));
        let held = figure("used") - memory["ledger"]["fixed"].as_u64().unwrap();
        assert!(held < LIMIT_BYTES + LIMIT_BYTES / 20, "{policy:?}: {memory}");
        let keys = stats["storage"]["keys"].as_u64().unwrap();
        assert!(keys > KEPT_MIN, "{policy:?}: only {keys} keys are left: {memory}");
        let told = figure("evicted_keys") + keys + refused as u64;
        assert_eq!(told, KEYS as u64 + 1, "{policy:?}: a key is there, was evicted or was refused");
        assert_eq!(memory["evictions"][policy.name()].as_u64(), Some(figure("evicted_keys")), "{policy:?}");
        assert_eq!((figure("expired_keys"), figure("keyspace_misses") == 0), (0, found_always), "{policy:?}");
        assert_eq!(figure("keyspace_hits") + figure("keyspace_misses"), (KEYS / PIPELINE) as u64);
    }
}

#[test]
fn where_nothing_may_go_writes_are_refused_and_all_else_goes_on() {
    for policy in [Policy::NoEviction, Policy::VolatileLru] {
        let directory = directory();
        let server = start(directory.path(), policy);
        let mut client = server.connect();
        let refused = flood(&mut client, Expiry::Never, |client| {
            assert!(client.get(&key(0)).value().is_some(), "reads go on");
        });
        assert!((KEYS / 4..KEYS * 9 / 10).contains(&refused), "{policy:?}: {refused} of {KEYS} were refused");
        assert_eq!(client.stats()["memory"]["evicted_keys"], 0);
        assert_eq!(client.delete(&key(0)), Answer::Deleted(true), "{policy:?}: deletes go on");
    }
}

#[test]
fn what_was_evicted_stays_away_after_a_restart() {
    let directory = directory();
    let server = start(directory.path(), Policy::AllKeysLru);
    let mut client = server.connect();
    let refused = flood(&mut client, Expiry::Never, |_| {});
    assert!(refused <= REFUSED_MAX, "{refused} were refused");
    let before = settled_stats(&mut client);
    assert_eq!(server.terminate().status.code(), Some(0));
    let server = start(directory.path(), Policy::NoEviction);
    assert_eq!(server.stats()["storage"]["keys"], before["storage"]["keys"], "an eviction is in the log");
    // What was written last was used last, as far as a core can tell its keys apart.
    assert!(server.connect().get(&key(KEYS - 1)).value().is_some());
}

/// Expired keys are only found by who looks for them: many that expire together do not stay because few are looked for
/// at a time.
#[test]
fn many_keys_that_expire_together_are_removed_and_the_server_sleeps_again() {
    const EXPIRING: u32 = 200_000;
    let directory = directory();
    let server = Server::start(directory.path(), &["--cores", "1", "--shards", "1"]);
    let mut client = server.connect();
    let (mut frames, value) = (Vec::new(), bytes_value(b"v"));
    for number in 0..EXPIRING {
        let key = number.to_le_bytes();
        let set = Set { expiry: Expiry::AfterMs(1000), ..Set::new(&key, &value) };
        client.put(&mut frames, &Request::Set(set), &RequestOptions::default());
    }
    let mut stored = 0;
    client.pipeline(&frames, EXPIRING as usize, |_, answer| stored += u32::from(matches!(answer, Answer::Stored(_))));
    assert_eq!(stored, EXPIRING);
    wait_until("all of them are removed", || client.stats()["storage"]["keys"] == 0);
    let mut turns = || client.stats()["cores"][0]["turns"].as_u64().expect("a count");
    let before = turns();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let after = turns();
    assert!(after - before < 1000, "{} turns in a second without work", after - before);
}
