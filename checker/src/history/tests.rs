//! The rules of recording, and what a recorder takes.

use super::*;

fn operation(process: u32, invoked: u64, call: Call, outcome: Outcome) -> Operation {
    Operation { process: Process(process), key: Key(1), call, invoked: Time(invoked), outcome }
}

fn done(at: u64) -> Outcome {
    Outcome::Done { at: Time(at), reply: Reply::Acknowledged }
}

#[test]
fn operations_of_a_process_may_touch_and_have_no_length() {
    let operations = vec![
        operation(1, 5, Call::Write(2), done(5)),
        operation(1, 5, Call::Write(3), done(9)),
        operation(1, 0, Call::Write(1), done(5)),
        operation(1, 9, Call::Write(4), Outcome::Unknown),
        operation(2, 1, Call::Delete, Outcome::Failed { at: Time(3) }),
    ];
    let history = History::new(operations.clone()).expect("a history");
    assert_eq!(history.operations(), operations);
    assert_eq!(history.by_key(), BTreeMap::from([(Key(1), vec![0, 1, 2, 3, 4])]));
}

#[test]
fn at_the_last_instant_the_operation_without_an_outcome_is_the_last_one() {
    let end = u64::MAX;
    let operations =
        vec![operation(1, end, Call::Read, Outcome::Unknown), operation(1, end, Call::Write(1), done(end))];
    assert_eq!(History::new(operations).err(), None);
}

#[test]
fn an_operation_that_ends_before_it_begins_is_refused() {
    let error = History::new(vec![operation(3, 7, Call::Write(1), done(6))]).expect_err("no history");
    let (operation, process, invoked, ended) = (0, Process(3), Time(7), Time(6));
    assert_eq!(error, HistoryError::EndsBeforeItBegins { operation, process, invoked, ended });
    assert_eq!(
        error.to_string(),
        "operation 0 of process 3 ended at 6 and was invoked at 7: take both times from one clock"
    );
}

#[test]
fn a_process_that_does_two_things_at_once_is_refused() {
    let operations = vec![operation(1, 4, Call::Write(1), done(6)), operation(1, 0, Call::Write(2), done(5))];
    let error = History::new(operations).expect_err("no history");
    assert!(matches!(error, HistoryError::OverlapsItself { first: 1, second: 0, .. }), "{error}");
}

#[test]
fn a_process_that_goes_on_after_a_lost_reply_is_refused() {
    let operations = vec![operation(1, 0, Call::Write(1), Outcome::Unknown), operation(1, 9, Call::Write(2), done(9))];
    let error = History::new(operations).expect_err("no history");
    assert_eq!(error, HistoryError::GoesOnAfterUnknown { process: Process(1), first: 0, second: 1 });
}

#[test]
fn a_reply_to_another_call_is_refused() {
    let calls = [
        (Call::Read, Reply::Acknowledged),
        (Call::Write(1), Reply::Swapped(true)),
        (Call::CompareAndSet { expected: None, new: 1 }, Reply::Acknowledged),
        (Call::Increment(1), Reply::Value(None)),
        (Call::Append(1), Reply::Number(1)),
        (Call::Delete, Reply::Length(1)),
    ];
    for (call, reply) in calls {
        let outcome = Outcome::Done { at: Time(1), reply: reply.clone() };
        let error = History::new(vec![operation(1, 0, call, outcome)]).expect_err("no history");
        assert_eq!(error, HistoryError::ReplyToAnotherCall { operation: 0, call, reply });
    }
}

#[test]
fn a_recorder_takes_one_outcome_for_each_operation() {
    let mut recorder = Recorder::default();
    let write = recorder.invoke(Process(1), Key(1), Call::Write(5), Time(1));
    let read = recorder.invoke(Process(2), Key(1), Call::Read, Time(2));
    let lost = recorder.invoke(Process(3), Key(1), Call::Delete, Time(2));
    recorder.done(write, Time(3), Reply::Acknowledged).expect("the first outcome");
    recorder.failed(read, Time(4)).expect("the first outcome");
    assert_eq!(recorder.failed(write, Time(5)), Err(RecorderError::EndedBefore { id: write, at: Time(3) }));
    let never = OperationId(3);
    assert_eq!(recorder.failed(never, Time(5)), Err(RecorderError::NeverInvoked { id: never, count: 3 }));
    let history = recorder.history().expect("a history");
    assert_eq!(history.operations()[lost.0].outcome, Outcome::Unknown);
    assert_eq!(history.operations()[write.0].to_string(), "process 1, key 1, from 1 to 3: write 5 -> done");
}
