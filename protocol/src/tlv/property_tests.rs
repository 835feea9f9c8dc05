//! Properties of the codec over arbitrary values and arbitrary bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::limits::MAX_DEPTH;

/// Floats whose bytes tell them apart: NaN is never equal to itself.
fn arbitrary_float() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("NaN is not equal to itself", |number| !number.is_nan())
}

fn arbitrary_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::Int32),
        any::<i64>().prop_map(Value::Int64),
        any::<i64>().prop_map(Value::Timestamp),
        any::<bool>().prop_map(Value::Boolean),
        arbitrary_float().prop_map(Value::Float64),
        vec(any::<char>(), 0..40).prop_map(|text| Value::String(text.into_iter().collect())),
        "[ -~]{0,200}".prop_map(Value::String),
        vec(any::<u8>(), 0..200).prop_map(Value::Bytes),
        (any::<u32>(), "[a-zé]{0,20}").prop_map(|(code, message)| Value::Error { code, message }),
    ]
}

fn arbitrary_value() -> impl Strategy<Value = Value> {
    arbitrary_scalar().prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::List),
            vec((inner.clone(), inner), 0..5).prop_map(Value::Map),
        ]
    })
}

/// Bytes that are often almost a value: a valid one with a few bytes changed.
fn damaged_value() -> impl Strategy<Value = Vec<u8>> {
    (arbitrary_value(), vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)).prop_map(|(value, damages)| {
        let mut bytes = encoded(&value);
        for (position, byte) in damages {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        bytes
    })
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

/// Reads one value by entering lists instead of having them validated whole.
fn step(decoder: &mut Decoder<'_>, depth: usize) -> Result<Value, TlvError> {
    if decoder.remaining().first() != Some(&TYPE_LIST) {
        // Maps and scalars; what they hold counts from here.
        let mut nested = Decoder::with_depth(decoder.remaining(), depth);
        let value = nested.value().map(Value::from);
        decoder.raw_value()?;
        return value;
    }
    if depth >= MAX_DEPTH {
        return Err(TlvError::TooDeep { offset: decoder.position(), limit: MAX_DEPTH });
    }
    let count = decoder.list()?;
    (0..count).map(|_| step(decoder, depth + 1)).collect::<Result<_, _>>().map(Value::List)
}

/// What must hold for any bytes: the ways to read them agree, and nothing panics.
fn check_any_bytes(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.value();
    let mut raw_decoder = Decoder::new(bytes);
    let raw = raw_decoder.raw_value();
    prop_assert_eq!(decoder.position(), raw_decoder.position());
    prop_assert_eq!(value.is_ok(), step(&mut Decoder::new(bytes), 0).is_ok());
    match (value, raw) {
        (Ok(value), Ok(raw)) => {
            prop_assert_eq!(raw, &bytes[..decoder.position()]);
            // The encoding is canonical, so what was accepted comes back byte for byte.
            prop_assert_eq!(&encoded(&Value::from(value)), raw);
        }
        (Err(error), Err(raw_error)) => {
            prop_assert_eq!(error, raw_error);
            prop_assert_eq!(decoder.position(), 0);
            prop_assert!(!error.to_string().is_empty());
        }
        (value, raw) => prop_assert!(false, "value {value:?}, raw value {raw:?}"),
    }
    let _ = Decoder::new(bytes).key();
    let _ = Decoder::new(bytes).list();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_round_trip(value in arbitrary_value()) {
        let bytes = encoded(&value);
        prop_assert_eq!(Value::decode(&bytes), Ok(value.clone()));
        let mut decoder = Decoder::new(&bytes);
        prop_assert_eq!(decoder.raw_value(), Ok(bytes.as_slice()));
        prop_assert_eq!(decoder.finish(), Ok(()));
        prop_assert_eq!(step(&mut Decoder::new(&bytes), 0), Ok(value));
    }

    #[test]
    fn values_follow_each_other(values in vec(arbitrary_value(), 0..6)) {
        let mut bytes = Vec::new();
        for value in &values {
            Encoder::new(&mut bytes).value(value);
        }
        let mut decoder = Decoder::new(&bytes);
        for value in &values {
            let decoded = decoder.value().map(Value::from);
            prop_assert_eq!(decoded.as_ref(), Ok(value));
        }
        prop_assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn every_truncation_is_an_error(value in arbitrary_value()) {
        let bytes = encoded(&value);
        for cut in 0..bytes.len() {
            let error = Value::decode(&bytes[..cut]).expect_err("cut off");
            let truncated = matches!(error, TlvError::Truncated { .. });
            prop_assert!(truncated, "cut at {} of {}: {}", cut, bytes.len(), error);
            prop_assert_eq!(Decoder::new(&bytes[..cut]).raw_value(), Err(error));
        }
    }

    #[test]
    fn a_byte_too_many_is_an_error(value in arbitrary_value(), byte: u8) {
        let mut bytes = encoded(&value);
        bytes.push(byte);
        let offset = bytes.len() - 1;
        prop_assert_eq!(Value::decode(&bytes), Err(TlvError::TrailingBytes { offset, count: 1 }));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        check_any_bytes(&bytes)?;
    }

    #[test]
    fn bytes_of_known_types_never_panic(bytes in vec(0_u8..=0x0b, 0..300)) {
        check_any_bytes(&bytes)?;
    }

    #[test]
    fn damaged_values_never_panic(bytes in damaged_value()) {
        check_any_bytes(&bytes)?;
    }
}
