//! The mesh with two cores in one thread.
//!
//! Place in the flow: tests of `router::mesh`.

use eyot_protocol::request::Operation;
use eyot_protocol::response::StoredValue;
use eyot_protocol::ErrorCode;
use eyot_ring::Sleeper;

use super::*;
use crate::router::Form;

fn reply_to(core: u16) -> ReplyTo {
    let form = Form::Native;
    ReplyTo { core, operation: Operation::Get, gathered: false, form, key: 3, generation: 4, number: 5, arrived_us: 6 }
}

fn head(core: u16) -> ForwardedRequest {
    ForwardedRequest {
        reply_to: reply_to(core),
        ack: WriteAck::Applied,
        after_own_writes: false,
        slot: 0,
        local_shard: 0,
        deadline_us: u64::MAX,
        bytes: 0,
        kind: ForwardedKind::Write,
    }
}

/// Two cores with inboxes of `messages`.
fn pair(messages: usize) -> [Mesh; 2] {
    let sleepers = [Sleeper::new().unwrap(), Sleeper::new().unwrap()];
    let channels = [crossbeam_channel::bounded(messages), crossbeam_channel::bounded(messages)];
    let ways = || (0..2).map(|core| (channels[core].0.clone(), sleepers[core].waker())).collect::<Vec<_>>();
    [Mesh::new(0, channels[0].1.clone(), ways()), Mesh::new(1, channels[1].1.clone(), ways())]
}

#[test]
fn a_turns_requests_travel_as_one_batch_and_so_do_their_results() {
    let [mut asking, mut owning] = pair(8);
    asking.forward_read(1, head(0), b"one", KeyQuery::Value);
    asking.forward_read(1, head(0), b"two", KeyQuery::Length);
    assert_eq!(asking.under_way(), 2);
    asking.flush();
    assert!(!asking.has_unsent());
    let Some(Message::Requests(batch)) = owning.receive() else { panic!("no requests") };
    assert_eq!((batch.heads.len(), &batch.bytes[..]), (2, &b"onetwo"[..]));
    assert_eq!(
        batch.heads.iter().map(|head| head.kind).collect::<Vec<_>>(),
        [ForwardedKind::Get, ForwardedKind::Query]
    );
    assert_eq!(batch.queries, [KeyQuery::Length]);
    assert!(owning.receive().is_none());
    for head in &batch.heads {
        owning.reply(&head.reply_to, Reply::Boolean(true), 1000);
    }
    owning.recycle_requests(batch);
    owning.reply(&reply_to(0), Reply::Error(ErrorCode::Busy, "busy"), 1000);
    owning.flush();
    let Some(Message::Replies(1, batch)) = asking.receive() else { panic!("no replies") };
    assert_eq!(batch.heads.iter().map(|(_, _, failed)| *failed).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(batch.heads.iter().map(|(_, length, _)| *length as usize).sum::<usize>(), batch.bytes.len());
    asking.answered(1, 2);
    assert_eq!(asking.under_way(), 0);
}

/// How many of `count` results of a MiB to `to` are left as they are; the others are refused. Values and texts in turn.
fn results_kept(mesh: &mut Mesh, to: &ReplyTo, count: usize) -> usize {
    let bytes = vec![7; 1 << 20];
    for number in 0..count {
        let value = Reply::Value(Some(StoredValue { value: &bytes, version: 1 }));
        mesh.reply(to, if number % 2 == 0 { value } else { Reply::Text(&bytes) }, usize::MAX);
    }
    let heads = &mesh.outboxes[usize::from(to.core)].replies.heads;
    heads[heads.len() - count..].iter().filter(|(_, _, failed)| !failed).count()
}

#[test]
fn what_a_write_returns_is_never_refused() {
    let [_asking, mut owning] = pair(8);
    let write = ReplyTo { operation: Operation::Modify, ..reply_to(0) };
    assert_eq!(results_kept(&mut owning, &reply_to(0), 20), MAX_CONNECTION_BATCH_BYTES >> 20);
    assert_eq!(results_kept(&mut owning, &write, 20), 20);
}

#[test]
fn a_batch_that_finds_no_room_keeps_its_bounds() {
    let [asking, mut owning] = pair(1);
    owning.reply(&reply_to(0), Reply::Boolean(true), 1000);
    owning.flush();
    let allowed = MAX_CONNECTION_BATCH_BYTES >> 20;
    assert_eq!(results_kept(&mut owning, &reply_to(0), allowed), allowed);
    owning.flush();
    assert!(owning.has_unsent(), "the inbox is full");
    assert_eq!(results_kept(&mut owning, &reply_to(0), 1), 0);
    assert!(asking.receive().is_some());
    owning.flush();
    assert!(!owning.has_unsent());
    assert_eq!(results_kept(&mut owning, &reply_to(0), allowed), allowed);
}

#[test]
fn a_full_inbox_delays_and_loses_nothing() {
    let [mut asking, owning] = pair(1);
    for round in 0..3 {
        asking.forward_read(1, head(0), format!("k-{round}").as_bytes(), KeyQuery::Value);
        asking.flush();
    }
    assert!(asking.has_unsent(), "one message fits");
    let mut keys = Vec::new();
    while let Some(Message::Requests(batch)) = owning.receive() {
        keys.extend_from_slice(&batch.bytes);
        asking.flush();
    }
    assert_eq!(keys, b"k-0k-1k-2");
    assert!(!asking.has_unsent());
}

#[test]
fn what_is_under_way_is_bounded() {
    let [mut asking, _owning] = pair(8);
    for _ in 0..MAX_FORWARDED_PER_CORE {
        assert!(asking.may_forward(1));
        asking.forward_read(1, head(0), b"key", KeyQuery::Value);
    }
    assert!(!asking.may_forward(1));
    asking.answered(1, 1);
    assert!(asking.may_forward(1));
}
