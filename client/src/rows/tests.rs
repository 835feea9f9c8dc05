//! Rows of both forms: what goes out comes back, and what is wrong is refused by its line.

use std::io::BufReader;

use eyot_protocol::snapshot::Entry;
use proptest::collection::vec;
use proptest::prelude::*;

use super::json::{encoded, put_value, FromJson};
use super::{csv, lines, Row, RowError};
use crate::Value;

fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::Int32),
        any::<i64>().prop_map(Value::Int64),
        any::<u64>().prop_map(|bits| Value::Float64(f64::from_bits(bits))),
        any::<f64>().prop_map(Value::Float64),
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Timestamp),
        any::<String>().prop_map(Value::String),
        "[$a-c\"\\\\,\r\n]{0,5}".prop_map(Value::String),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        "[a-z,\"\n]{0,9}".prop_map(|text| Value::Bytes(text.into_bytes())),
        (any::<u32>(), any::<String>()).prop_map(|(code, message)| Value::Error { code, message }),
    ];
    let name = prop_oneof!["[$a-b]{0,3}".prop_map(Value::String), any::<i32>().prop_map(Value::Int32)];
    scalar.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::List),
            vec((name.clone(), inner.clone()), 0..4).prop_map(Value::Map),
            vec((inner.clone(), inner), 0..3).prop_map(Value::Map),
        ]
    })
}

fn any_row() -> impl Strategy<Value = Row> {
    let key = prop_oneof![vec(any::<u8>(), 0..30), any::<String>().prop_map(String::into_bytes)];
    (key, any_value(), proptest::option::of(1..i64::MAX)).prop_map(|(key, value, expires_at_us)| Row {
        key,
        value: encoded(&value).expect("not deep"),
        expires_at_us,
    })
}

fn entry(row: &Row) -> Entry<'_> {
    let Row { key, value, expires_at_us } = row;
    Entry { slot: 0, key, value, version: 1, expires_at_us: *expires_at_us }
}

fn as_lines(rows: &[Row]) -> Vec<u8> {
    let mut text = Vec::new();
    rows.iter().for_each(|row| lines::put(&mut text, &entry(row)));
    text
}

fn as_csv(rows: &[Row]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut writer = csv::Writer::new(&mut text).expect("a Vec");
    rows.iter().for_each(|row| writer.put(&entry(row)).expect("a Vec"));
    writer.flush().expect("a Vec");
    drop(writer);
    text
}

/// All rows, or the error.
fn all(mut next: impl FnMut() -> Result<Option<(u64, Row)>, RowError>) -> Result<Vec<Row>, (u64, String)> {
    let mut rows = Vec::new();
    loop {
        match next() {
            Ok(Some((_, row))) => rows.push(row),
            Ok(None) => return Ok(rows),
            Err(RowError::Row { line, what }) => return Err((line, what)),
            Err(RowError::Read(error)) => panic!("{error}"),
        }
    }
}

fn from_lines(text: &[u8]) -> Result<Vec<Row>, (u64, String)> {
    let mut reader = lines::Reader::new(BufReader::with_capacity(7, text));
    all(|| reader.next_row())
}

fn from_csv(text: &[u8]) -> Result<Vec<Row>, (u64, String)> {
    let mut reader = csv::Reader::new(text);
    all(|| reader.next_row())
}

proptest! {
    #[test]
    fn rows_come_back_from_json_lines(rows in vec(any_row(), 0..8)) {
        let text = as_lines(&rows);
        prop_assert_eq!(text.split(|byte| *byte == b'\n').count(), rows.len() + 1);
        prop_assert_eq!(from_lines(&text), Ok(rows));
    }

    #[test]
    fn rows_come_back_from_csv(rows in vec(any_row(), 0..8)) {
        prop_assert_eq!(from_csv(&as_csv(&rows)), Ok(rows));
    }

    #[test]
    fn any_text_is_rows_or_an_error(text in vec(any::<u8>(), 0..200), rows in vec(any_row(), 1..3), at: usize) {
        let _ = (from_lines(&text), from_csv(&text));
        for mut damaged in [as_lines(&rows), as_csv(&rows)] {
            let place = at % damaged.len();
            damaged[place] = text.first().copied().unwrap_or(b'"');
            let _ = (from_lines(&damaged), from_csv(&damaged));
        }
    }
}

fn json_of(value: &Value) -> String {
    let mut json = Vec::new();
    put_value(&mut json, value);
    String::from_utf8(json).expect("text")
}

#[test]
fn values_are_these_in_json() {
    let pair = |key: Value, value: Value| Value::Map(vec![(key, value)]);
    for (value, json) in [
        (Value::from("a\"b"), r#""a\"b""#),
        (Value::Int64(5), "5"),
        (Value::Float64(5.0), "5.0"),
        (Value::Float64(-0.0), "-0.0"),
        (Value::Float64(f64::NAN), r#"{"$float64_bits":"7ff8000000000000"}"#),
        (Value::Int32(5), r#"{"$int32":5}"#),
        (Value::Timestamp(-5), r#"{"$timestamp_us":-5}"#),
        (Value::Bytes(b"abc".to_vec()), r#"{"$bytes_text":"abc"}"#),
        (Value::Bytes(vec![0, 255]), r#"{"$bytes_base64":"AP8="}"#),
        (Value::Error { code: 1, message: "no".to_owned() }, r#"{"$error":{"code":1,"message":"no"}}"#),
        (pair(Value::from("b"), Value::Null), r#"{"b":null}"#),
        (pair(Value::from("$b"), Value::Null), r#"{"$map":[["$b",null]]}"#),
        (pair(Value::Int64(1), Value::Null), r#"{"$map":[[1,null]]}"#),
        (Value::List(vec![Value::Null, Value::Boolean(true)]), "[null,true]"),
    ] {
        assert_eq!(json_of(&value), json);
        let read = serde_json::from_str::<FromJson>(json).expect(json).0;
        assert_eq!(encoded(&read), encoded(&value), "{json}");
    }
}

#[test]
fn the_deepest_value_comes_back() {
    let mut value = Value::Null;
    for _ in 0..eyot_protocol::limits::MAX_DEPTH {
        value = Value::Map(vec![(Value::Null, value)]);
    }
    let row = Row { key: b"k".to_vec(), value: encoded(&value).expect("just deep enough"), expires_at_us: None };
    let rows = vec![row];
    assert_eq!(from_lines(&as_lines(&rows)).as_ref(), Ok(&rows));
    assert_eq!(from_csv(&as_csv(&rows)).as_ref(), Ok(&rows));
    let deeper = format!("{{\"key\":\"k\",\"value\":{}}}", json_of(&Value::List(vec![value])));
    assert!(from_lines(deeper.as_bytes()).is_err());
}

#[test]
fn a_wrong_line_is_named() {
    let good = r#"{"key":"a","value":1}"#;
    for (line, part) in [
        ("{", "does not end"),
        ("[]", ""),
        (r#"{"key":"a"}"#, "value"),
        (r#"{"value":1}"#, "key"),
        (r#"{"key":"a","key_base64":"YQ==","value":1}"#, "either"),
        (r#"{"key_base64":"?","value":1}"#, "base64"),
        (r#"{"key":"a","value":1,"expires":5}"#, "expires"),
        (r#"{"key":"a","value":1,"expires_at_us":0}"#, "above 0"),
        (r#"{"key":"a","value":{"$int33":1}}"#, "$int33"),
        (r#"{"key":"a","value":{"$int32":1,"b":2}}"#, "stands alone"),
        (r#"{"key":"a","value":{"b":2,"$int32":1}}"#, "stands alone"),
        (r#"{"key":"a","value":{"$int32":2147483648}}"#, "2147483648"),
        (r#"{"key":"a","value":9223372036854775808}"#, "over the largest"),
        (r#"{"key":"a","value":1} x"#, "trailing"),
    ] {
        let text = format!("{good}\n\n{line}\n{good}\n");
        let (number, what) = from_lines(text.as_bytes()).expect_err(line);
        assert!(number == 3 && what.contains(part), "{line}: line {number}: {what}");
    }
    let key = "k".repeat(65_537);
    assert!(from_lines(format!("{{\"key\":\"{key}\",\"value\":1}}").as_bytes()).expect_err("long").1.contains("65537"));
}

#[test]
fn a_wrong_record_is_named() {
    let head = "key,key_encoding,type,value,expires_at_us\r\n";
    for (record, part) in [
        ("a,text,int32,x,", "is no int32"),
        ("a,hex,string,x,", "key_encoding"),
        ("a,base64,string,x,", "base64"),
        ("a,text,number,1,", "type"),
        ("a,text,null,1,", "is no null"),
        ("a,text,string,x,-1", "above 0"),
        ("a,text,string,x,soon", "no whole number"),
        ("a,text,json,{,", "EOF"),
        ("a,b", "fields"),
    ] {
        let text = format!("{head}a,text,string,\"two\nlines\",\n{record}\n");
        let (number, what) = from_csv(text.as_bytes()).expect_err(record);
        assert!(number == 4 && what.contains(part), "{record}: line {number}: {what}");
    }
    for (head, part) in [("key\n", "\"value\""), ("key,value,x\n", "\"x\""), ("key,value,key\n", "twice"), ("", "head")]
    {
        assert!(from_csv(head.as_bytes()).expect_err(head).1.contains(part), "{head}");
    }
}

/// Found by the fuzzer: of a pipe that brought fewer bytes than the mark has, it became part of the first column's
/// name.
#[test]
fn a_byte_order_mark_is_passed_over_however_it_comes() {
    let text = "\u{feff}key,value\na,b\n".as_bytes();
    let whole = from_csv(text).expect("a table");
    assert_eq!(whole.len(), 1);
    for at in 1..8 {
        let (begin, rest) = text.split_at(at);
        let mut reader = csv::Reader::new(std::io::Read::chain(begin, rest));
        assert_eq!(all(|| reader.next_row()).as_ref(), Ok(&whole), "{at} bytes come first");
    }
}

#[test]
fn a_table_from_elsewhere_needs_two_columns() {
    let rows = from_csv(b"value,key\nJohn,user:1\n\"a, b\",user:2\n").expect("a table");
    let row = |key: &str, value: &str| Row {
        key: key.as_bytes().to_vec(),
        value: encoded(&Value::from(value)).expect("a string"),
        expires_at_us: None,
    };
    assert_eq!(rows, [row("user:1", "John"), row("user:2", "a, b")]);
}

/// Found by the fuzzer and what followed from it: behind a carriage return and behind empty lines, the line before was
/// named.
#[test]
fn a_record_is_said_to_be_on_the_line_where_it_begins() {
    for (text, lines) in [
        ("key,value\na,1\nb,2\nc,3", [2, 3, 4]),
        ("key,value\r\na,1\r\nb,2\r\nc,3\r\n", [2, 3, 4]),
        ("\n\nkey,value\n\na,1\n\r\n\nb,2\nc,3\n\n", [5, 8, 9]),
        ("key,value\r\na,\"1\r\n\n\"\r\nb,\"2\n\"\r\nc,3", [2, 5, 7]),
        ("key,value\na,1\rb,2\r\nc,\"3\n\"", [2, 2, 3]),
        ("\u{feff}key,value\r\na,1\nb,2\nc,3", [2, 3, 4]),
    ] {
        for piece_bytes in [1, 4096] {
            let input = std::io::BufReader::with_capacity(piece_bytes, text.as_bytes());
            let mut reader = csv::Reader::new(OneBuffer(input));
            let mut found = Vec::new();
            while let Some((line, row)) = reader.next_row().expect("a table") {
                assert_eq!(row.key, [b'a' + found.len() as u8]);
                found.push(line);
            }
            assert_eq!(found, lines, "{text:?} in pieces of {piece_bytes}");
        }
    }
    for (text, line, what) in [
        ("key,value\r\n\r\na,1\r\nb\r\n", 4, "1 fields where the head line has 2"),
        ("key,value\na,1\n\nb,\"2\n\n", 4, "the text ends within a quote"),
        ("key,value\r\na,1\r\nb,\"2", 3, "the text ends within a quote"),
        ("key,value\n\"a,1\nb,2\n", 2, "the text ends within a quote"),
        ("key,\"value\na,1\n", 1, "the text ends within a quote"),
        ("\n\nkey\n", 3, "the head line has no column \"value\""),
    ] {
        assert_eq!(from_csv(text.as_bytes()), Err((line, what.to_owned())), "{text:?}");
    }
}

/// Gives what its buffer holds, however much is asked for.
struct OneBuffer<R>(std::io::BufReader<R>);

impl<R: std::io::Read> std::io::Read for OneBuffer<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        use std::io::BufRead;
        let held = self.0.fill_buf()?;
        let count = held.len().min(into.len());
        into[..count].copy_from_slice(&held[..count]);
        self.0.consume(count);
        Ok(count)
    }
}
