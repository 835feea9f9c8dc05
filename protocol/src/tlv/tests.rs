//! What the golden vectors do not show: stepping, borrowing, errors of the wrong type, sizes that grow the buffer.

use super::*;
use crate::limits::MAX_DEPTH;

fn encoded(write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Encoder::new(&mut out));
    out
}

#[test]
fn the_examples_of_the_specification() {
    assert_eq!(encoded(|e| e.string("hello")), [0x01, 0x05, 0x68, 0x65, 0x6c, 0x6c, 0x6f]);
    assert_eq!(encoded(|e| e.int32(42)), [0x02, 0x2a, 0, 0, 0]);
    let list = encoded(|e| {
        e.list(2);
        e.string("foo");
        e.int32(123);
    });
    assert_eq!(list, [0x03, 0x02, 0x01, 0x03, 0x66, 0x6f, 0x6f, 0x02, 0x7b, 0, 0, 0]);
}

#[test]
fn the_encoder_appends_and_raw_values_are_copied_as_they_are() {
    let mut out = vec![0xee];
    Encoder::new(&mut out).raw(&[TYPE_BOOLEAN, 1]);
    Encoder::new(&mut out).value(&Value::from("x"));
    assert_eq!(out, [0xee, TYPE_BOOLEAN, 1, TYPE_STRING, 1, b'x']);
}

#[test]
fn stepping_through_a_list_keeps_the_position() {
    let bytes = encoded(|e| {
        e.list(3);
        e.string("foo");
        e.list(1);
        e.null();
        e.int64(-5);
        e.boolean(true);
    });
    let mut decoder = Decoder::new(&bytes);
    assert_eq!(decoder.list(), Ok(3));
    assert_eq!(decoder.position(), 2);
    assert_eq!(decoder.key(), Ok(b"foo".as_slice()));
    assert_eq!(decoder.raw_value(), Ok([TYPE_LIST, 1, TYPE_NULL].as_slice()));
    assert_eq!(decoder.value(), Ok(ValueRef::Int64(-5)));
    assert!(!decoder.is_empty());
    assert_eq!(decoder.remaining(), [TYPE_BOOLEAN, 1]);
    let offset = bytes.len() - 2;
    assert_eq!(decoder.finish(), Err(TlvError::TrailingBytes { offset, count: 2 }));
    assert_eq!(decoder.value(), Ok(ValueRef::Boolean(true)));
    assert!(decoder.is_empty());
    assert_eq!(decoder.finish(), Ok(()));
    assert_eq!(decoder.value(), Err(TlvError::Truncated { offset: offset + 2, needed: 1, available: 0 }));
}

#[test]
fn text_and_bytes_are_borrowed_from_the_input() {
    let bytes = encoded(|e| e.string("borrowed"));
    let ValueRef::String(text) = Decoder::new(&bytes).value().unwrap() else { panic!("a string") };
    assert_eq!(text.as_ptr(), bytes[2..].as_ptr());
}

#[test]
fn a_key_is_a_string_or_bytes_and_its_text_is_validated() {
    assert_eq!(Decoder::new(&[TYPE_BYTES, 1, 0xff]).key(), Ok([0xff].as_slice()));
    assert_eq!(Decoder::new(&[TYPE_STRING, 0]).key(), Ok([].as_slice()));
    assert_eq!(Decoder::new(&[TYPE_STRING, 2, b'a', 0xff]).key(), Err(TlvError::InvalidUtf8 { offset: 3 }));
    let found = TYPE_INT32;
    let expected = "a string (0x01) or bytes (0x07)";
    assert_eq!(Decoder::new(&[found, 0, 0, 0, 0]).key(), Err(TlvError::Unexpected { offset: 0, expected, found }));
    let truncated = TlvError::Truncated { offset: 0, needed: 1, available: 0 };
    assert_eq!(Decoder::new(&[]).key(), Err(truncated));
}

#[test]
fn only_a_list_can_be_entered() {
    for found in [TYPE_MAP, TYPE_NULL, 0xff] {
        let error = Decoder::new(&[found, 0]).list();
        assert_eq!(error, Err(TlvError::Unexpected { offset: 0, expected: "a list (0x03)", found }));
    }
    let truncated = TlvError::Truncated { offset: 2, needed: 4, available: 3 };
    assert_eq!(Decoder::new(&[TYPE_LIST, 4, 0, 0, 0]).list(), Err(truncated));
}

#[test]
fn a_failed_call_leaves_the_decoder_where_it_was() {
    let bytes = [TYPE_NULL, TYPE_LIST, 2, TYPE_NULL, 0xff];
    let mut decoder = Decoder::new(&bytes);
    decoder.value().unwrap();
    let unknown = TlvError::UnknownType { offset: 4, type_byte: 0xff };
    assert_eq!(decoder.value(), Err(unknown));
    assert_eq!(decoder.raw_value(), Err(unknown));
    assert!(decoder.key().is_err());
    assert_eq!(decoder.position(), 1);
    assert_eq!(decoder.list(), Ok(2));
}

#[test]
fn depth_that_was_used_outside_counts() {
    let nested = |levels: usize| [[TYPE_LIST, 1].repeat(levels - 1), vec![TYPE_LIST, 0]].concat();
    for used in [0, 1, MAX_DEPTH - 1] {
        let fits = nested(MAX_DEPTH - used);
        assert!(Decoder::with_depth(&fits, used).value().is_ok());
        assert!(Decoder::with_depth(&fits, used).raw_value().is_ok());
        let too_deep = nested(MAX_DEPTH - used + 1);
        let error = Err(TlvError::TooDeep { offset: 2 * (MAX_DEPTH - used), limit: MAX_DEPTH });
        assert_eq!(Decoder::with_depth(&too_deep, used).raw_value().map(drop), error);
        assert_eq!(Decoder::with_depth(&too_deep, used).value().map(drop), error);
    }
    let full = TlvError::TooDeep { offset: 0, limit: MAX_DEPTH };
    assert_eq!(Decoder::with_depth(&[TYPE_LIST, 0], MAX_DEPTH).list(), Err(full));
    assert_eq!(Decoder::with_depth(&[TYPE_NULL], MAX_DEPTH).value(), Ok(ValueRef::Null));
}

#[test]
fn owned_values_know_whether_they_are_too_deep() {
    let nested = |levels: usize| (1..levels).fold(Value::List(vec![]), |inner, _| Value::List(vec![inner]));
    assert_eq!(nested(MAX_DEPTH).check_depth(), Ok(()));
    assert_eq!(nested(MAX_DEPTH + 1).check_depth(), Err(TlvError::TooDeep { offset: 0, limit: MAX_DEPTH }));
    let map = Value::Map(vec![(nested(MAX_DEPTH), Value::Null)]);
    assert!(map.check_depth().is_err());
}

#[test]
#[should_panic(expected = "nests deeper")]
fn encoding_a_value_that_nobody_would_decode_is_a_bug() {
    let deep = (0..=MAX_DEPTH).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    deep.encode(&mut Vec::new());
}

#[test]
fn maps_answer_by_string_key_and_the_first_of_equal_keys_wins() {
    let bytes = encoded(|e| {
        e.map(4);
        e.bytes(b"a");
        e.int32(0);
        e.string("a");
        e.int32(1);
        e.string("a");
        e.int32(2);
        e.string("b");
        e.list(0);
    });
    let ValueRef::Map(map) = Decoder::new(&bytes).value().unwrap() else { panic!("a map") };
    assert_eq!(map.len(), 4);
    assert_eq!(map.get("a"), Some(ValueRef::Int32(1)));
    assert_eq!(map.get("c"), None);
    assert!(matches!(map.get("b"), Some(ValueRef::List(list)) if list.is_empty()));
    assert_eq!(map.iter().len(), 4);
    assert_eq!(map.iter().next(), Some((ValueRef::Bytes(b"a"), ValueRef::Int32(0))));
    assert_eq!(map.encoded(), &bytes[2..]);
}

#[test]
fn lists_iterate_over_nested_values() {
    let bytes = encoded(|e| {
        e.list(3);
        e.list(2);
        e.string("é");
        e.error(7, "no");
        e.map(1);
        e.null();
        e.timestamp(9);
        e.float64(0.5);
    });
    let ValueRef::List(list) = Decoder::new(&bytes).value().unwrap() else { panic!("a list") };
    let values: Vec<_> = list.iter().collect();
    assert_eq!((list.len(), values.len(), list.iter().len()), (3, 3, 3));
    let ValueRef::List(inner) = values[0] else { panic!("a list") };
    let error = ValueRef::Error(ErrorRef { code: 7, message: "no" });
    assert_eq!(inner.iter().collect::<Vec<_>>(), [ValueRef::String("é"), error]);
    assert_eq!(values[2], ValueRef::Float64(0.5));
    assert_eq!(list.encoded(), &bytes[2..]);
}

#[test]
fn debug_output_of_a_borrowed_value_is_bounded() {
    let text = "\u{1f3dd}".repeat(100_000);
    let list = encoded(|e| {
        e.list(100);
        (0..100).for_each(|_| e.string(&text));
    });
    for value in [
        ValueRef::String(&text),
        ValueRef::Bytes(text.as_bytes()),
        ValueRef::Error(ErrorRef { code: 1, message: &text }),
        Decoder::new(&list).value().unwrap(),
    ] {
        let shown = format!("{value:?}");
        assert!(shown.len() < 400, "{} bytes of Debug output", shown.len());
    }
    assert_eq!(format!("{:?}", ValueRef::String("short")), "String(\"short\")");
    assert_eq!(format!("{:?}", ValueRef::Int64(-1)), "Int64(-1)");
}

#[test]
fn varints_round_trip_at_every_length_and_refuse_other_forms() {
    use super::varint::{read, write, VarintError};
    let numbers = (0..64).flat_map(|bit| [(1_usize << bit) - 1, 1 << bit]).chain([usize::MAX]);
    for number in numbers {
        let mut bytes = Vec::new();
        write(&mut bytes, number);
        assert_eq!(read(&bytes), Ok((number, bytes.len())));
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Err(VarintError::Truncated));
        }
        if bytes.len() < 10 {
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.push(0);
            assert_eq!(read(&bytes), Err(VarintError::NotMinimal));
        }
    }
}

#[test]
fn every_error_names_the_offset() {
    let errors = [
        TlvError::Truncated { offset: 77, needed: 2, available: 1 },
        TlvError::UnknownType { offset: 77, type_byte: 0xff },
        TlvError::VarintTooLong { offset: 77 },
        TlvError::VarintNotMinimal { offset: 77 },
        TlvError::LengthOverflow { offset: 77 },
        TlvError::InvalidUtf8 { offset: 77 },
        TlvError::TooDeep { offset: 77, limit: 32 },
        TlvError::InvalidBoolean { offset: 77, byte: 2 },
        TlvError::TrailingBytes { offset: 77, count: 1 },
        TlvError::Unexpected { offset: 77, expected: "a list", found: 0 },
    ];
    for error in errors {
        assert!(error.to_string().contains("byte 77"), "{error}");
    }
}
