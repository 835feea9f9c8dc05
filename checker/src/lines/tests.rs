//! Golden lines in both directions, bad ones with their messages, and whatever bytes there are.

use proptest::prelude::*;

use super::*;
use crate::generate::{generate, generate_transactions, Mix, TransactionWorkload, Workload};
use crate::history::{Call, Key, Outcome, Process, Reply, Time, Value};
use crate::transactions::{End, Step};

/// Every kind of line, and what it stands for.
fn golden() -> Vec<(&'static str, Operation)> {
    let operation = |process, call, outcome| Operation {
        process: Process(process),
        key: Key(7),
        call,
        invoked: Time(100),
        outcome,
    };
    let done = |reply| Outcome::Done { at: Time(250), reply };
    let list = Reply::Value(Some(Value::List(vec![1, -2])));
    let cas = |expected| Call::CompareAndSet { expected, new: 6 };
    vec![
        (r#"{"p":1,"k":7,"f":"write","a":5,"t":[100,250]}"#, operation(1, Call::Write(5), done(Reply::Acknowledged))),
        (
            r#"{"p":1,"k":7,"f":"write","a":5,"t":[100,250],"v":null}"#,
            operation(1, Call::Write(5), done(Reply::Value(None))),
        ),
        (
            r#"{"p":2,"k":7,"f":"read","t":[100,250],"v":5}"#,
            operation(2, Call::Read, done(Reply::Value(Some(Value::Int(5))))),
        ),
        (r#"{"p":2,"k":7,"f":"read","t":[100,250],"v":null}"#, operation(2, Call::Read, done(Reply::Value(None)))),
        (r#"{"p":2,"k":7,"f":"read","t":[100,250],"v":[1,-2]}"#, operation(2, Call::Read, done(list))),
        (
            r#"{"p":3,"k":7,"f":"cas","a":[5,6],"t":[100,250],"v":true}"#,
            operation(3, cas(Some(5)), done(Reply::Swapped(true))),
        ),
        (
            r#"{"p":3,"k":7,"f":"cas","a":[null,6],"t":[100,250],"v":false}"#,
            operation(3, cas(None), done(Reply::Swapped(false))),
        ),
        (
            r#"{"p":4,"k":7,"f":"incr","a":-1,"t":[100,250],"v":8}"#,
            operation(4, Call::Increment(-1), done(Reply::Number(8))),
        ),
        (
            r#"{"p":5,"k":7,"f":"append","a":9,"t":[100,250],"v":3}"#,
            operation(5, Call::Append(9), done(Reply::Length(3))),
        ),
        (
            r#"{"p":6,"k":7,"f":"delete","t":[100,250],"v":true}"#,
            operation(6, Call::Delete, done(Reply::Existed(true))),
        ),
        (
            r#"{"p":1,"k":7,"f":"write","a":5,"t":[100,250],"failed":true}"#,
            operation(1, Call::Write(5), Outcome::Failed { at: Time(250) }),
        ),
        (r#"{"p":1,"k":7,"f":"write","a":5,"t":[100]}"#, operation(1, Call::Write(5), Outcome::Unknown)),
    ]
}

#[test]
fn lines_are_the_golden_ones_in_both_directions() {
    let (lines, operations): (Vec<&str>, Vec<Operation>) = golden().into_iter().unzip();
    let text = format!("{{\"eyot_history\":1,\"of\":\"operations\"}}\n{}\n", lines.join("\n"));
    assert_eq!(String::from_utf8(encode(&operations)).expect("text"), text);
    assert_eq!(decode::<Operation>(text.as_bytes()), Ok(operations));
}

fn line_error(line: &str) -> String {
    let text = format!("{{\"eyot_history\":1,\"of\":\"operations\"}}\n{line}\n");
    decode::<Operation>(text.as_bytes()).expect_err("no history").to_string()
}

#[test]
fn a_bad_line_is_named_with_its_number_and_its_fault() {
    let bad = [
        (
            r#"{"p":1,"k":7,"f":"write","t":[1,2]}"#,
            "line 2: not a line of this format: the argument is one number, not None",
        ),
        (r#"{"p":1,"k":7,"f":"read","a":1,"t":[1,2]}"#, "this function has no argument"),
        (r#"{"p":1,"k":7,"f":"cas","a":1,"t":[1,2]}"#, "the argument of cas is [expected or null, new]"),
        (r#"{"p":1,"k":7,"f":"read","t":[1,2]}"#, "a read that was answered shows a value or null"),
        (r#"{"p":1,"k":7,"f":"read","t":[1],"v":3}"#, "without the time of a reply there is none"),
        (r#"{"p":1,"k":7,"f":"delete","t":[1],"failed":true}"#, "a failed operation has two times, not one"),
        (r#"{"p":1,"k":7,"f":"read","t":[1,2],"v":3,"failed":true}"#, "a failed operation has no reply"),
        (r#"{"p":1,"k":7,"f":"append","a":1,"t":[1,2],"v":-3}"#, "a length is not negative"),
        (r#"{"p":1,"k":7,"f":"incr","a":1,"t":[1,2],"v":true}"#, "the reply must fit: add 1, not Flag(true)"),
        (r#"{"p":1,"k":7,"f":"read","t":[1,2,3],"v":3}"#, "not a line of this format"),
        (r#"{"p":1,"k":7,"f":"read","t":[1,2],"v":{}}"#, "not a line of this format"),
        (r#"{"p":1,"k":7,"f":"read","t":[1,2],"v":1.5}"#, "not a line of this format"),
        (r#"{"p":1,"p":2,"k":7,"f":"read","t":[1,2],"v":1}"#, "duplicate field `p`"),
        (r#"{"p":1,"k":7,"f":"cas","a":[1,2,3],"t":[1,2],"v":true}"#, "not a line of this format"),
        (r#"{"p":1,"k":7,"f":"read","t":[1,2],"v":3,"x":1}"#, "unknown field `x`"),
        (r#"{"p":-1,"k":7,"f":"read","t":[1,2],"v":3}"#, "not a line of this format"),
        (r#"{"p":1,"k":7,"f":"rename","t":[1,2]}"#, "unknown variant `rename`"),
        ("", "not a line of this format: EOF"),
    ];
    for (line, problem) in bad {
        let error = line_error(line);
        assert!(error.contains(problem) && error.starts_with("line 2: "), "{line}: {error}");
    }
}

#[test]
fn a_bad_line_is_told_in_a_few_words_however_long_it_is() {
    let list = format!("[{}0]", "1,".repeat(400_000));
    let member = "x".repeat(900_000);
    let long = [
        format!(r#"{{"p":1,"k":7,"f":"incr","a":1,"t":[1,2],"v":{list}}}"#),
        format!(r#"{{"p":1,"k":7,"f":"read","t":[1],"v":{list}}}"#),
        format!(r#"{{"p":1,"k":7,"f":"read","t":[1,2],"v":1,"{member}":1}}"#),
        format!(r#"{{"p":1,"k":7,"f":"{member}","t":[1,2]}}"#),
        format!(r#"{{"p":1,"k":7,"f":"read","t":[1,2],"v":{}"#, "[".repeat(900_000)),
    ];
    for line in long {
        let error = line_error(&line);
        assert!(error.starts_with("line 2: ") && error.len() < 1_000, "{} bytes: {:.200}", error.len(), error);
    }
    let header = format!("{{\"eyot_history\":1,\"of\":\"{member}\"}}\n");
    let error = decode::<Operation>(header.as_bytes()).expect_err("no history").to_string();
    assert!(error.starts_with("line 1: ") && error.len() < 1_000, "{} bytes: {:.200}", error.len(), error);
    let steps = format!(
        "{{\"eyot_history\":1,\"of\":\"transactions\"}}\n{{\"p\":1,\"t\":[5],\"x\":[[\"append\",7,{list}]]}}\n"
    );
    let error = decode::<Transaction>(steps.as_bytes()).expect_err("no history").to_string();
    assert!(error.starts_with("line 2: ") && error.len() < 1_000, "{} bytes: {:.200}", error.len(), error);
}

#[test]
fn a_wrong_or_missing_header_is_refused() {
    let error = |text: &str| decode::<Operation>(text.as_bytes()).expect_err("no history").to_string();
    assert_eq!(error(""), r#"there is no line: a history begins with {"eyot_history":1,"of":"operations"}"#);
    let version = error("{\"eyot_history\":2,\"of\":\"operations\"}\n");
    assert!(version.ends_with("it is of version 2, which this program does not know"), "{version}");
    let other = error("{\"eyot_history\":1,\"of\":\"transactions\"}\n");
    assert!(other.ends_with("its lines are \"transactions\""), "{other}");
    assert!(error("{}\n").starts_with("line 1: no header"), "{}", error("{}\n"));
}

#[test]
fn a_file_that_was_cut_short_is_refused() {
    let lines = encode(&golden().into_iter().map(|(_, operation)| operation).collect::<Vec<_>>());
    let cut = decode::<Operation>(&lines[..lines.len() - 1]);
    assert_eq!(cut, Err(LinesError::Line { line: golden().len() + 1, problem: LineProblem::CutShort }));
}

#[test]
fn a_line_beyond_the_bound_is_refused_before_it_is_read() {
    let mut decoder = Decoder::<Operation>::default();
    let problem = LineProblem::TooLong { bytes: LINE_BYTES_MAX + 1 };
    assert_eq!(decoder.line(&vec![b'['; LINE_BYTES_MAX + 1]), Err(LinesError::Line { line: 1, problem }));
}

#[test]
fn a_broken_rule_of_recording_is_refused() {
    let text = "{\"eyot_history\":1,\"of\":\"operations\"}\n{\"p\":1,\"k\":7,\"f\":\"delete\",\"t\":[5,4]}\n";
    let error = decode_history(text.as_bytes()).expect_err("no history");
    let error = error.to_string();
    assert!(error.starts_with("no history: operation 0 of process 1 ended at 4"), "{error}");
    assert!(error.ends_with("; operation 0 stands in line 2, operation 1 in line 3"), "{error}");
}

#[test]
fn what_is_generated_comes_back() {
    for mix in [Mix::Registers, Mix::Conditions, Mix::Counters, Mix::Lists, Mix::Everything] {
        let workload =
            Workload { mix, operations: 500, unknown_permille: 50, failed_permille: 50, ..Workload::default() };
        let history = generate(&workload, 1).history;
        assert_eq!(decode_history(&encode(history.operations())).as_ref(), Ok(&history));
    }
}

#[test]
fn lines_of_transactions_are_the_golden_ones_in_both_directions() {
    let key = Key(7);
    let transaction = |process, steps, end| Transaction { process: Process(process), steps, invoked: Time(5), end };
    let transactions = vec![
        transaction(
            1,
            vec![Step::Read { key, list: Some(vec![1, 2]) }, Step::Append { key, element: 3 }],
            End::Committed { at: Time(9) },
        ),
        transaction(2, vec![Step::Read { key, list: None }], End::Aborted { at: Time(9) }),
        transaction(3, vec![Step::Append { key, element: -4 }, Step::Read { key, list: Some(vec![]) }], End::Unknown),
        transaction(4, vec![], End::Unknown),
    ];
    let text = r#"{"eyot_history":1,"of":"transactions"}
{"p":1,"t":[5,9],"x":[["read",7,[1,2]],["append",7,3]]}
{"p":2,"t":[5,9],"x":[["read",7]],"aborted":true}
{"p":3,"t":[5],"x":[["append",7,-4],["read",7,[]]]}
{"p":4,"t":[5],"x":[]}
"#;
    assert_eq!(String::from_utf8(encode(&transactions)).expect("text"), text);
    assert_eq!(decode::<Transaction>(text.as_bytes()), Ok(transactions));
}

#[test]
fn bad_lines_of_transactions_are_named() {
    let error = |line: &str| {
        let text = format!("{{\"eyot_history\":1,\"of\":\"transactions\"}}\n{line}\n");
        decode_transactions(text.as_bytes()).expect_err("no history").to_string()
    };
    let bad = [
        (
            r#"{"p":1,"t":[5],"x":[],"aborted":true}"#,
            "line 2: not a line of this format: an aborted transaction has two times",
        ),
        (r#"{"p":1,"t":[5],"x":[["append",7]]}"#, "a step is [\"append\",key,element]"),
        (r#"{"p":1,"t":[5],"x":[["append",7,[1]]]}"#, "a step is"),
        (r#"{"p":1,"t":[5],"x":[["read",7,1]]}"#, "a step is"),
        (r#"{"p":1,"t":[5],"x":[["drop",7,1]]}"#, "not a line of this format"),
        (
            r#"{"p":1,"t":[5,6],"x":[["read",7]]}"#,
            "no history: transaction 0 is committed, and its read of key 7 has no list",
        ),
    ];
    for (line, problem) in bad {
        assert!(error(line).contains(problem), "{line}: {}", error(line));
    }
}

#[test]
fn generated_transactions_come_back() {
    let workload = TransactionWorkload { transactions: 300, unknown_permille: 50, ..TransactionWorkload::default() };
    let history = generate_transactions(&workload, 1);
    assert_eq!(decode_transactions(&encode(history.transactions())).as_ref(), Ok(&history));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn extreme_numbers_come_back(
        process: u32, key: u64, number: i64, length: u64, invoked: u64, at: u64, list: Vec<i64>,
    ) {
        let outcome = |reply| Outcome::Done { at: Time(at), reply };
        let calls = [
            (Call::Write(number), outcome(Reply::Acknowledged)),
            (Call::Append(number), outcome(Reply::Length(length))),
            (Call::Increment(number), outcome(Reply::Number(number))),
            (Call::Read, outcome(Reply::Value(Some(Value::List(list))))),
            (Call::Delete, Outcome::Unknown),
        ];
        let operations: Vec<Operation> = calls
            .into_iter()
            .map(|(call, outcome)| {
                Operation { process: Process(process), key: Key(key), call, invoked: Time(invoked), outcome }
            })
            .collect();
        prop_assert_eq!(decode::<Operation>(&encode(&operations)), Ok(operations));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let mut text = b"{\"eyot_history\":1,\"of\":\"operations\"}\n".to_vec();
        let _ = decode::<Operation>(&bytes);
        text.extend_from_slice(&bytes);
        let _ = decode::<Operation>(&text);
    }
}
