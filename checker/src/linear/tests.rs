//! The zones, the search and the definition must agree.

use proptest::prelude::*;

use super::*;
use crate::generate::{generate, plant, Anomaly, Mix, Random, Workload};
use crate::history::{Call, Outcome, Process, Reply, Value};

/// An operation that was done; each is a process of its own.
fn done(process: u32, from: u64, to: u64, call: Call, reply: Reply) -> Operation {
    let outcome = Outcome::Done { at: Time(to), reply };
    Operation { process: Process(process), key: Key(7), call, invoked: Time(from), outcome }
}

fn lost(process: u32, from: u64, call: Call) -> Operation {
    Operation { process: Process(process), key: Key(7), call, invoked: Time(from), outcome: Outcome::Unknown }
}

fn saw(value: i64) -> Reply {
    Reply::Value(Some(Value::Int(value)))
}

fn report(operations: Vec<Operation>) -> Report {
    check(&History::new(operations).expect("a history"), Limits::default())
}

#[test]
fn a_stale_read_is_explained_by_the_two_writes_and_the_read() {
    let report = report(vec![
        done(1, 0, 10, Call::Write(1), Reply::Acknowledged),
        done(2, 20, 30, Call::Write(2), Reply::Acknowledged),
        done(3, 40, 50, Call::Read, saw(1)),
        done(4, 60, 70, Call::Read, saw(2)),
    ]);
    let expected = "key 7: operation 0 ended before operation 1 was invoked, so value 1 was there before value 2; and operation 1 ended before operation 2 was invoked, so value 2 was there before value 1
  first seen at 50, when operation 2 ended; 3 operations were invoked on the key by then
  operation 0: process 1, key 7, from 0 to 10: write 1 -> done
  operation 1: process 2, key 7, from 20 to 30: write 2 -> done
  operation 2: process 3, key 7, from 40 to 50: read -> 1";
    assert_eq!(report.violations.len(), 1);
    let violation = &report.violations[0];
    assert_eq!(violation.to_string(), expected);
    assert_eq!((violation.fault, &violation.operations[..]), (Fault::EachBeforeTheOther, &[0, 1, 2][..]));
    let prefix = Prefix { until: Time(50), ends_with: 2, operations: 3, is_shortest: true };
    assert_eq!((violation.prefix, report.verdict()), (prefix, Verdict::Violated));
}

#[test]
fn the_absence_of_a_key_is_a_value_like_others() {
    let report = report(vec![
        done(1, 0, 10, Call::Write(1), Reply::Acknowledged),
        done(2, 20, 30, Call::Read, Reply::Value(None)),
    ]);
    let story = report.violations[0].to_string();
    assert!(story.contains("absence was there before all; and operation 0 ended before operation 1"), "{story}");
}

#[test]
fn a_read_before_its_write_comes_from_the_future() {
    let report = report(vec![done(1, 0, 10, Call::Read, saw(5)), done(2, 11, 20, Call::Write(5), Reply::Acknowledged)]);
    let violation = &report.violations[0];
    assert_eq!((violation.fault, violation.prefix.until), (Fault::ReadFromTheFuture, Time(10)));
    assert_eq!(violation.operations, [0, 1], "{violation}");
}

#[test]
fn a_read_of_a_failed_write_shows_when_both_are_known() {
    let failed =
        Operation { outcome: Outcome::Failed { at: Time(99) }, ..done(2, 0, 0, Call::Write(5), Reply::Acknowledged) };
    let report = report(vec![failed, done(1, 5, 10, Call::Read, saw(5))]);
    let violation = &report.violations[0];
    assert_eq!((violation.fault, violation.prefix.until), (Fault::ReadOfFailedWrite, Time(99)), "{violation}");
}

#[test]
fn a_lost_write_may_take_effect_whenever_it_is_read_first_and_never_otherwise() {
    let read = |process, from, value| done(process, from, from + 5, Call::Read, saw(value));
    let write = done(1, 0, 10, Call::Write(1), Reply::Acknowledged);
    let fine = vec![write.clone(), lost(2, 5, Call::Write(2)), read(3, 20, 1), read(3, 30, 1), read(3, 40, 2)];
    assert_eq!(report(fine).verdict(), Verdict::Linearizable);
    let broken = vec![write, lost(2, 5, Call::Write(2)), read(3, 20, 2), read(3, 30, 1), read(3, 40, 2)];
    assert_eq!(report(broken).verdict(), Verdict::Violated);
}

#[test]
fn operations_that_touch_at_an_instant_are_concurrent() {
    let both = |second_from| {
        report(vec![
            done(1, 0, 10, Call::Write(1), Reply::Acknowledged),
            done(2, second_from, 20, Call::Read, Reply::Value(None)),
        ])
    };
    assert_eq!(both(10).verdict(), Verdict::Linearizable);
    assert_eq!(both(11).verdict(), Verdict::Violated);
}

#[test]
fn an_empty_list_is_an_absent_key_for_all_checkers() {
    let empty = Reply::Value(Some(Value::List(Vec::new())));
    let read_first = vec![done(1, 0, 5, Call::Read, empty.clone())];
    assert_eq!(report(read_first.clone()).verdict(), Verdict::Linearizable);
    let history = History::new(read_first).expect("a history");
    assert_eq!(check_by_search(&history, Limits::default()), Verdict::Linearizable);
    let read_late = vec![done(2, 0, 5, Call::Write(1), Reply::Acknowledged), done(1, 6, 7, Call::Read, empty)];
    assert_eq!(report(read_late).verdict(), Verdict::Violated);
}

#[test]
fn the_last_instants_of_the_clock_are_like_others() {
    let end = u64::MAX;
    let operations = vec![
        done(1, 0, end - 1, Call::Write(1), Reply::Acknowledged),
        done(2, end, end, Call::Read, Reply::Value(None)),
    ];
    let history = History::new(operations).expect("a history");
    assert_eq!(check_by_search(&history, Limits::default()), Verdict::Violated);
    assert_eq!(check(&history, Limits::default()).verdict(), Verdict::Violated);
}

#[test]
fn an_answer_at_the_last_instant_is_an_answer() {
    // The search takes one of equal calls: the one that was answered, also if that was as late as it can be.
    let end = u64::MAX;
    let write = |process, from, to| done(process, from, to, Call::Write(5), Reply::Acknowledged);
    let operations = vec![write(1, 0, 10), lost(2, 11, Call::Write(5)), write(3, 20, end)];
    assert_eq!(report(operations).verdict(), Verdict::Linearizable);
}

#[test]
fn a_violation_that_the_search_found_says_where_the_longest_order_ends() {
    let report = report(vec![
        done(1, 0, 10, Call::Increment(1), Reply::Number(1)),
        done(2, 20, 30, Call::Increment(1), Reply::Number(2)),
        done(4, 21, 29, Call::Read, saw(1)),
        done(3, 40, 50, Call::Increment(1), Reply::Number(2)),
        done(1, 60, 70, Call::Increment(1), Reply::Number(3)),
    ]);
    let expected = "key 7: no order of its operations explains their replies; the longest one found has 1 of 3, leaves 1, and goes on to no order that has 1, 3
  first seen at 50, when operation 3 ended; 4 operations were invoked on the key by then
  operation 0: process 1, key 7, from 0 to 10: add 1 -> now 1
  operation 1: process 2, key 7, from 20 to 30: add 1 -> now 2
  operation 3: process 3, key 7, from 40 to 50: add 1 -> now 2";
    assert_eq!((report.keys_by_search, report.violations[0].fault), (1, Fault::NoOrder));
    assert_eq!(report.violations[0].to_string(), expected);
}

#[test]
fn a_search_over_its_budget_is_undecided_and_says_so() {
    // Sums whose order nothing tells until the last read, which no order gives.
    let mut operations: Vec<Operation> =
        (0..20).map(|bit| done(bit, 0, 100, Call::Increment(1 << bit), Reply::Acknowledged)).collect();
    operations.push(done(30, 200, 210, Call::Read, saw(0)));
    let history = History::new(operations).expect("a history");
    let report = check(&history, Limits { configurations_max: 1_000 });
    assert_eq!((report.verdict(), report.violations.len()), (Verdict::Undecided, 0));
    assert_eq!(report.undecided, [Undecided { key: Key(7), configurations: 1_001 }]);
    assert!(report.to_string().contains("key 7 is undecided after 1001 configurations"), "{report}");
}

#[test]
fn a_search_over_its_bytes_is_undecided_however_few_its_configurations() {
    // The set of placed operations has a bit for each lost one up to the last that is placed, which all sums show.
    let lost_last = lost(0, 5, Call::Increment(1_000_000));
    let others = (1..6_000).map(|process| lost(process, 0, Call::Increment(i64::from(process) * 10_000_000)));
    let told = (1..2_000_u32).map(|step| {
        let (from, sum) = (u64::from(step) * 10, 1_000_000 + i64::from(step));
        done(10_000, from, from + 5, Call::Increment(1), Reply::Number(sum))
    });
    let history = History::new([lost_last].into_iter().chain(others).chain(told).collect()).expect("a history");
    assert_eq!(check(&history, Limits::default()).verdict(), Verdict::Linearizable);
    let report = check(&history, Limits { configurations_max: 5_000 });
    let [Undecided { configurations, .. }] = report.undecided[..] else { panic!("{report}") };
    assert!(configurations < 2_000, "{report}");
}

#[test]
fn an_operation_that_is_open_all_the_time_makes_no_configuration_long() {
    let stalled = done(1, 0, 1_000_000, Call::Increment(5), Reply::Number(10_005));
    let told =
        (1..=10_000_u64).map(|step| done(2, step * 10, step * 10 + 5, Call::Increment(1), Reply::Number(step as i64)));
    let history = History::new([stalled].into_iter().chain(told).collect()).expect("a history");
    assert_eq!(check(&history, Limits { configurations_max: 12_000 }).verdict(), Verdict::Linearizable);
}

#[test]
fn many_lost_writes_that_nobody_read_do_not_multiply() {
    let mut operations: Vec<Operation> = (0..40).map(|value| lost(value, 0, Call::Write(i64::from(value)))).collect();
    let cas = Call::CompareAndSet { expected: Some(100), new: 101 };
    operations.push(done(50, 10, 20, Call::Write(100), Reply::Acknowledged));
    operations.push(done(50, 30, 40, cas, Reply::Swapped(false)));
    operations.push(done(50, 50, 60, Call::Read, saw(100)));
    let report = check(&History::new(operations).expect("a history"), Limits { configurations_max: 1_000 });
    assert_eq!(report.verdict(), Verdict::Violated);
}

/// Operations of up to `processes` clients on one key, with replies that may or may not fit.
fn operations(call: impl Strategy<Value = (Call, Reply)> + Clone) -> impl Strategy<Value = Vec<Operation>> {
    let one = (0..3u64, 0..4u64, call, 0..10u32);
    prop::collection::vec(prop::collection::vec(one, 0..4), 1..4).prop_map(|clients| {
        let mut operations = Vec::new();
        let mut process = 0;
        for client in clients {
            process += 1;
            let mut now = 0;
            for (pause, length, (call, reply), fate) in client {
                let (from, to) = (now + pause, now + pause + length);
                now = to;
                let mut operation = done(process, from, to, call, reply);
                if fate == 0 {
                    operation.outcome = Outcome::Failed { at: Time(to) };
                } else if fate < 3 {
                    operation.outcome = Outcome::Unknown;
                    process += 1;
                }
                operations.push(operation);
            }
        }
        operations
    })
}

fn value() -> impl Strategy<Value = Option<Value>> + Clone {
    prop_oneof![
        2 => Just(None),
        6 => (0..4i64).prop_map(|number| Some(Value::Int(number))),
        2 => prop::collection::vec(0..3i64, 1..3).prop_map(|list| Some(Value::List(list))),
    ]
}

fn any_call() -> impl Strategy<Value = (Call, Reply)> + Clone {
    let number = 0..4i64;
    let expected = prop_oneof![Just(None), number.clone().prop_map(Some)];
    prop_oneof![
        4 => value().prop_map(|value| (Call::Read, Reply::Value(value))),
        2 => number.clone().prop_map(|number| (Call::Write(number), Reply::Acknowledged)),
        1 => (number.clone(), value()).prop_map(|(number, value)| (Call::Write(number), Reply::Value(value))),
        2 => (expected, number.clone(), any::<bool>())
            .prop_map(|(expected, new, swapped)| (Call::CompareAndSet { expected, new }, Reply::Swapped(swapped))),
        1 => (-1..3i64).prop_map(|delta| (Call::Increment(delta), Reply::Acknowledged)),
        1 => (-1..3i64, number).prop_map(|(delta, sum)| (Call::Increment(delta), Reply::Number(sum))),
        1 => (0..3i64).prop_map(|element| (Call::Append(element), Reply::Acknowledged)),
        1 => (0..3i64, 1..4u64).prop_map(|(element, length)| (Call::Append(element), Reply::Length(length))),
        1 => any::<bool>().prop_map(|existed| (Call::Delete, Reply::Existed(existed))),
        1 => value().prop_map(|value| (Call::Delete, Reply::Value(value))),
    ]
}

fn list_call() -> impl Strategy<Value = (Call, Reply)> + Clone {
    let list = prop_oneof![
        2 => Just(None),
        5 => prop::collection::vec(0..3i64, 1..4).prop_map(|list| Some(Value::List(list))),
    ];
    prop_oneof![
        list.prop_map(|value| (Call::Read, Reply::Value(value))),
        (0..3i64).prop_map(|element| (Call::Append(element), Reply::Acknowledged)),
        (0..3i64, 1..4u64).prop_map(|(element, length)| (Call::Append(element), Reply::Length(length))),
    ]
}

/// Gives each write a value of its own, and keeps what reads returned.
fn with_unique_writes(mut operations: Vec<Operation>) -> Vec<Operation> {
    let mut next = 0;
    for operation in &mut operations {
        if let Call::Write(value) = &mut operation.call {
            *value = next;
            next += 1;
        }
    }
    operations
}

fn register_call() -> impl Strategy<Value = (Call, Reply)> + Clone {
    let seen = prop_oneof![1 => Just(None), 5 => (0..5i64).prop_map(|number| Some(Value::Int(number)))];
    prop_oneof![Just((Call::Write(0), Reply::Acknowledged)), seen.prop_map(|value| (Call::Read, Reply::Value(value))),]
}

/// The search, the definition and, through `check`, whoever decides the key.
fn agree(operations: Vec<Operation>) -> Result<bool, TestCaseError> {
    let explains = brute::explains(&operations);
    let history = History::new(operations).expect("a history");
    let expected = if explains { Verdict::Linearizable } else { Verdict::Violated };
    prop_assert_eq!(check_by_search(&history, Limits::default()), expected, "search");
    let report = check(&history, Limits::default());
    prop_assert_eq!(report.verdict(), expected, "{}", report);
    if let Some(violation) = report.violations.first() {
        shortest(&history, violation)?;
    }
    Ok(explains)
}

/// The prefix that a violation names is not linearizable, and what was known one instant earlier is.
fn shortest(history: &History, violation: &Violation) -> Result<(), TestCaseError> {
    let known_until = |until: u64| -> Vec<Operation> {
        let invoked = history.operations().iter().filter(|operation| operation.invoked.0 <= until).cloned();
        let known = invoked.map(|mut operation| {
            if operation.outcome.at().is_some_and(|at| at.0 > until) {
                operation.outcome = Outcome::Unknown;
            }
            operation
        });
        known.collect()
    };
    let until = violation.prefix.until.0;
    prop_assert!(!brute::explains(&known_until(until)), "{}", violation);
    if let Some(before) = until.checked_sub(1) {
        prop_assert!(brute::explains(&known_until(before)), "{}", violation);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn zones_search_and_definition_agree_on_registers(operations in operations(register_call())) {
        let operations = with_unique_writes(operations);
        let references: Vec<&Operation> = operations.iter().collect();
        prop_assert!(zones::decide(&references));
        agree(operations)?;
    }

    #[test]
    fn search_and_definition_agree_on_all_calls(operations in operations(any_call())) {
        agree(operations)?;
    }

    #[test]
    fn search_and_definition_agree_on_lists(operations in operations(list_call())) {
        agree(operations)?;
    }
}

#[test]
fn small_correct_histories_pass_all_three_and_small_faults_fail_all_three() {
    let mut planted = 0;
    for seed in 0..300 {
        for mix in [Mix::Registers, Mix::Conditions, Mix::Counters, Mix::Lists, Mix::Everything] {
            let workload =
                Workload { clients: 3, operations: 9, keys: 1, mix, unknown_permille: 60, failed_permille: 60 };
            let history = generate(&workload, seed).history;
            assert!(agree(history.into_operations()).expect("agreement"), "{mix:?}, seed {seed}");
        }
        for anomaly in Anomaly::ALL {
            let workload = Workload { clients: 3, operations: 9, keys: 1, failed_permille: 60, ..Workload::default() };
            if let Some(history) = plant(anomaly, &workload, seed) {
                assert!(!agree(history.into_operations()).expect("agreement"), "{anomaly:?}, seed {seed}");
                planted += 1;
            }
        }
    }
    assert!(planted > 1_000, "only {planted} faults were planted");
}

/// Changes one thing in a history, so that it often still has an order, and often has none.
fn disturb(operations: &mut [Operation], random: &mut Random) {
    let count = operations.len() as u64;
    let (one, other) = (random.below(count) as usize, random.below(count) as usize);
    let beside = operations[other].clone();
    let shift = random.below(3) as i64 - 1;
    let operation = &mut operations[one];
    match random.below(7) {
        // Another's reply, at another's time, or the reply of a store that is a step off.
        0 => {
            if let (Outcome::Done { reply, .. }, Outcome::Done { reply: shown, .. }) =
                (&mut operation.outcome, beside.outcome)
            {
                if operation.call.allows(&shown) {
                    *reply = shown;
                }
            }
        }
        1 => {
            if let (Outcome::Done { at, .. }, Some(ended)) = (&mut operation.outcome, beside.outcome.at()) {
                (operation.invoked, *at) = (beside.invoked, ended);
            }
        }
        2 => match &mut operation.outcome {
            Outcome::Done { reply: Reply::Value(Some(Value::Int(number))) | Reply::Number(number), .. } => {
                *number += shift;
            }
            Outcome::Done { reply: Reply::Length(length), .. } => *length = length.saturating_add_signed(shift),
            Outcome::Done { reply: Reply::Value(Some(Value::List(list))), .. } => drop(list.pop()),
            _ => {}
        },
        3 => operation.outcome = Outcome::Unknown,
        4 => {
            if let Some(at) = operation.outcome.at() {
                operation.outcome = Outcome::Failed { at };
            }
        }
        5 => {
            if let Outcome::Done { reply: shown @ Reply::Value(None), .. } = &mut operation.outcome {
                *shown = Reply::Value(Some(Value::List(Vec::new())));
            }
        }
        // The same call again, with its reply.
        _ => (operation.call, operation.outcome) = (beside.call, beside.outcome),
    }
    if operation.outcome.at().is_some_and(|at| at < operation.invoked) {
        operation.invoked = operation.outcome.at().expect("it has one");
    }
}

#[test]
fn search_zones_and_definition_agree_on_disturbed_small_histories() {
    for mix in [Mix::Registers, Mix::Conditions, Mix::Counters, Mix::Lists, Mix::Everything] {
        let mut verdicts = [0_u32; 2];
        for seed in 0..3_000 {
            let workload =
                Workload { clients: 3, operations: 8, keys: 1, mix, unknown_permille: 80, failed_permille: 40 };
            let mut operations = generate(&workload, seed).history.into_operations();
            let mut random = Random::new(!seed);
            // A coarse clock, by which many times are equal.
            let tick = [1, 300, 900][random.below(3) as usize];
            for (position, operation) in operations.iter_mut().enumerate() {
                operation.process = Process(position as u32);
                operation.invoked.0 /= tick;
                if let Outcome::Done { at, .. } | Outcome::Failed { at } = &mut operation.outcome {
                    at.0 /= tick;
                }
            }
            for _ in 0..random.below(4) {
                disturb(&mut operations, &mut random);
            }
            let explained = agree(operations.clone());
            let explained = explained.unwrap_or_else(|error| panic!("{mix:?}, seed {seed}: {error}\n{operations:#?}"));
            verdicts[usize::from(explained)] += 1;
        }
        assert!(verdicts.iter().all(|&count| count > 300), "{mix:?}: too few of one kind: {verdicts:?}");
    }
}

#[test]
fn zones_and_search_agree_on_disturbed_histories_of_middle_size() {
    let mut verdicts = [0_u32; 2];
    for seed in 0..2_000 {
        let workload = Workload { clients: 5, operations: 150, keys: 1, unknown_permille: 20, ..Workload::default() };
        let mut operations = generate(&workload, seed).history.into_operations();
        let mut random = Random::new(!seed);
        // A value from nearby: often one that may be, as operations overlap.
        let (place, distance) = (random.below(150) as usize, random.below(9));
        let nearby = (place as u64 + distance).saturating_sub(4).min(149) as usize;
        let (Call::Write(value), Outcome::Done { reply: shown @ Reply::Value(_), .. }) =
            (operations[nearby].call, &mut operations[place].outcome)
        else {
            continue;
        };
        *shown = saw(value);
        let history = History::new(operations).expect("a history");
        let report = check(&history, Limits::default());
        assert_eq!((report.keys_by_zones, report.keys_by_search), (1, 0));
        let verdict = report.verdict();
        assert_eq!(check_by_search(&history, Limits::default()), verdict, "seed {seed}: {report}");
        verdicts[usize::from(verdict == Verdict::Linearizable)] += 1;
    }
    assert!(verdicts.iter().all(|&count| count > 100), "too few of one kind: {verdicts:?}");
}

#[test]
fn correct_histories_of_real_size_pass() {
    for mix in [Mix::Registers, Mix::Conditions, Mix::Counters, Mix::Lists, Mix::Everything] {
        for keys in [1, 8] {
            for seed in 0..4 {
                let workload = Workload { keys, mix, ..Workload::default() };
                let history = generate(&workload, seed).history;
                let report = check(&history, Limits::default());
                assert_eq!(report.verdict(), Verdict::Linearizable, "{mix:?}, {keys} keys, seed {seed}: {report}");
                assert_eq!(check_by_search(&history, Limits::default()), Verdict::Linearizable);
            }
        }
    }
}

#[test]
fn every_planted_anomaly_is_found_in_histories_of_real_size() {
    for anomaly in Anomaly::ALL {
        for seed in 0..10 {
            let workload = Workload { failed_permille: 20, ..Workload::default() };
            let history = plant(anomaly, &workload, seed).unwrap_or_else(|| panic!("no place for {anomaly:?}"));
            let report = check(&history, Limits::default());
            assert_eq!(report.verdict(), Verdict::Violated, "{anomaly:?}, seed {seed}: {report}");
            let found = check_by_search(&history, Limits::default());
            assert_eq!(found, Verdict::Violated, "{anomaly:?}, seed {seed}, by search");
            let violation = &report.violations[0];
            assert!(violation.operations.len() <= 12 && violation.to_string().len() < 4_000, "{violation}");
        }
    }
}
