//! Properties of the TLV decoder.

use eyot_protocol::tlv::{Decoder, Value, ValueRef};

/// Every prefix up to this long is tried: enough for all kinds of values and their nesting, few enough to stay fast.
const PREFIX_BYTES_MAX: usize = 256;

/// Decodes `input` as one value, in every way there is.
///
/// # Panics
/// When two ways disagree, or when what was accepted is not what encoding it gives.
pub fn tlv_decode(input: &[u8]) {
    let mut decoder = Decoder::new(input);
    let result = decoder.value();
    let consumed = decoder.position();
    assert_eq!(consumed + decoder.remaining().len(), input.len());

    let mut raw_decoder = Decoder::new(input);
    let raw = raw_decoder.raw_value();
    let owned = Value::decode(input);
    // These two read only one kind of value each: they must refuse the others without harm.
    let list = Decoder::new(input).list();
    let key = Decoder::new(input).key();

    let value = match result {
        Ok(value) => value,
        Err(error) => {
            assert_eq!(consumed, 0, "a call that fails leaves the decoder where it was");
            assert_eq!(raw, Err(error));
            assert_eq!(owned, Err(error));
            return;
        }
    };
    assert_eq!(raw, Ok(&input[..consumed]));
    assert_eq!(raw_decoder.position(), consumed);
    assert_eq!(owned.is_ok(), consumed == input.len());

    let mut encoded = Vec::new();
    Value::from(value).encode(&mut encoded);
    assert_eq!(encoded, &input[..consumed], "a value has one encoding");

    match value {
        ValueRef::List(elements) => assert_eq!(list, Ok(elements.len())),
        _ => assert!(list.is_err()),
    }
    match value {
        ValueRef::String(text) => assert_eq!(key, Ok(text.as_bytes())),
        ValueRef::Bytes(bytes) => assert_eq!(key, Ok(bytes)),
        _ => assert!(key.is_err()),
    }
    walk(value, input);
    for length in 0..consumed.min(PREFIX_BYTES_MAX) {
        assert!(Decoder::new(&input[..length]).value().is_err(), "a value was found in part of one");
    }
}

/// Visits everything that is in `value`: counts are kept, and nothing points outside of `input`.
fn walk(value: ValueRef<'_>, input: &[u8]) {
    match value {
        ValueRef::String(text) => assert_within(text.as_bytes(), input),
        ValueRef::Bytes(bytes) => assert_within(bytes, input),
        ValueRef::Error(error) => assert_within(error.message.as_bytes(), input),
        ValueRef::List(list) => {
            assert_eq!(list.iter().count(), list.len());
            for element in list {
                walk(element, input);
            }
        }
        ValueRef::Map(map) => {
            assert_eq!(map.iter().count(), map.len());
            for (key, value) in map {
                walk(key, input);
                walk(value, input);
            }
            let first_text =
                map.iter().find_map(|(key, _)| if let ValueRef::String(text) = key { Some(text) } else { None });
            assert_eq!(first_text.is_some(), first_text.and_then(|text| map.get(text)).is_some());
        }
        ValueRef::Null
        | ValueRef::Int32(_)
        | ValueRef::Float64(_)
        | ValueRef::Boolean(_)
        | ValueRef::Timestamp(_)
        | ValueRef::Int64(_) => {}
    }
}

fn assert_within(part: &[u8], whole: &[u8]) {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    assert!(part.is_empty() || whole.start <= part.start && part.end <= whole.end, "borrowed from elsewhere");
}
