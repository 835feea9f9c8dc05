//! Batches: split by owning core, put back in order.

use std::time::Duration;

use eyot_client::{BatchOperation, BatchResult, Error, ErrorCode, Operation, Options, Outcome, Value};

use crate::server::{Act, Mock};

fn key(number: usize) -> String {
    format!("key:{number}")
}

#[tokio::test]
async fn results_stand_where_their_operations_stood() {
    let cores = Mock::pair(|_, _| Act::Serve);
    let client = cores[0].client(Options::default()).await;
    let mut operations = Vec::new();
    for number in 0..100 {
        operations.push(BatchOperation::set(key(number), number as i32));
        operations.push(BatchOperation::get(key(number)));
    }
    let results = client.batch(operations).await;
    assert_eq!(results.len(), 200);
    for (number, pair) in results.chunks(2).enumerate() {
        assert!(matches!(pair[0], Ok(BatchResult::Set(_))), "{:?}", pair[0]);
        let Ok(BatchResult::Value(Some(found))) = &pair[1] else { panic!("{:?}", pair[1]) };
        assert_eq!(found.value, Value::Int32(number as i32));
    }
    for (core, mock) in cores.iter().enumerate() {
        let seen = mock.seen();
        assert_eq!((seen.len(), seen[0].operation), (1, Operation::Batch), "one frame for each core");
        assert!(seen[0].keys.iter().all(|key| client.owner_of(key) == Some(core as u16)));
    }
}

#[tokio::test]
async fn every_kind_of_result_comes_back() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    let results = client
        .batch(vec![
            BatchOperation::get("k"),
            BatchOperation::set("k", Value::Null),
            BatchOperation::get("k"),
            BatchOperation::exists("k"),
            BatchOperation::delete("k"),
            BatchOperation::exists("k"),
        ])
        .await;
    let results: Vec<BatchResult> = results.into_iter().map(|result| result.expect("answered")).collect();
    assert_eq!(results[0], BatchResult::Value(None));
    assert!(matches!(&results[2], BatchResult::Value(Some(found)) if found.value == Value::Null));
    assert_eq!(results[3..], [BatchResult::Exists(true), BatchResult::Deleted(true), BatchResult::Exists(false)]);
}

#[tokio::test]
async fn an_operation_that_cannot_be_sent_does_not_hold_up_the_others() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    let results = client.batch(vec![BatchOperation::get(vec![0; 70_000]), BatchOperation::get("k")]).await;
    assert!(matches!(&results[0], Err(Error::Invalid(error)) if error.code == ErrorCode::KeyTooLarge));
    assert_eq!(results[1], Ok(BatchResult::Value(None)));
    assert!(client.batch(Vec::new()).await.is_empty());
}

#[tokio::test]
async fn more_operations_than_a_frame_takes_travel_in_several() {
    let mock = Mock::start();
    let client = mock.client(Options::default()).await;
    let operations = (0..25_000).map(|number| BatchOperation::get(key(number))).collect();
    let results = client.batch(operations).await;
    assert!(results.iter().all(|result| *result == Ok(BatchResult::Value(None))));
    let lengths: Vec<usize> = mock.seen().iter().map(|seen| seen.keys.len()).collect();
    assert_eq!(lengths, [10_000, 10_000, 5_000]);
}

#[tokio::test]
async fn after_a_part_failed_the_rest_of_its_core_is_not_sent() {
    let mock = Mock::scripted(|_| Act::Swallow);
    let client = mock.client(Options { request_timeout: Duration::from_millis(300), ..Options::default() }).await;
    let operations = (0..10_002).map(|number| match number {
        0 => BatchOperation::set(key(number), "v"),
        10_001 => BatchOperation::delete(key(number)),
        _ => BatchOperation::get(key(number)),
    });
    let results = client.batch(operations.collect()).await;
    let outcome = |position: usize| results[position].as_ref().expect_err("failed").outcome();
    assert_eq!(
        [outcome(0), outcome(1), outcome(10_000), outcome(10_001)],
        [Outcome::Unknown, Outcome::Failed, Outcome::Failed, Outcome::NotApplied]
    );
    assert_eq!(results[10_001].as_ref().expect_err("failed").name(), "SKIPPED");
    assert_eq!(mock.count(Operation::Batch), 1);
}

#[tokio::test]
async fn a_batch_of_reads_is_sent_again_when_the_connection_breaks() {
    let mut closed = false;
    let mock = Mock::scripted(move |_| if std::mem::replace(&mut closed, true) { Act::Serve } else { Act::Close });
    let client = mock.client(Options::default()).await;
    let results = client.batch(vec![BatchOperation::get("a"), BatchOperation::exists("b")]).await;
    assert_eq!(results, [Ok(BatchResult::Value(None)), Ok(BatchResult::Exists(false))]);
    assert_eq!(mock.count(Operation::Batch), 2);
}
