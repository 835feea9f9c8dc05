//! The golden vectors of RESP, `golden/resp.txt`: what is on disk is the contract. The head of that file explains its
//! notation.

use eyot_protocol::limits::DEFAULT_MAX_VALUE_BYTES;
use eyot_protocol::resp::{split_request, ArgList, RespLimits, RespVersion, Split, Unfinished, Writer};
use eyot_protocol::ErrorCode;

const VECTORS: &str = include_str!("golden/resp.txt");

/// Kind, name and fields of each vector.
fn vectors() -> impl Iterator<Item = (&'static str, &'static str, Vec<&'static str>)> {
    VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let mut fields = line.split(" | ").map(str::trim_start);
        let (kind, name) = fields.next().and_then(|head| head.split_once(' ')).unwrap_or_else(|| panic!("{line}"));
        (kind, name, fields.collect())
    })
}

fn of_kind(kind: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    let found: Vec<_> = vectors().filter(|vector| vector.0 == kind).map(|(_, name, fields)| (name, fields)).collect();
    assert!(!found.is_empty(), "no vector of kind {kind}");
    found
}

/// Reads `GET\r\n`, `\xff`, `(ab)*3`.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (part, after) = match rest.as_bytes() {
            [b'(', ..] if rest.contains(")*") => {
                let (group, after) = rest[1..].split_once(")*").expect("looked for above");
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                (self::bytes(group).repeat(after[..end].parse().expect("a number after *")), &after[end..])
            }
            [b'\\', b'r', ..] => (b"\r".to_vec(), &rest[2..]),
            [b'\\', b'n', ..] => (b"\n".to_vec(), &rest[2..]),
            [b'\\', b'\\', ..] => (b"\\".to_vec(), &rest[2..]),
            [b'\\', b'x', ..] => (vec![u8::from_str_radix(&rest[2..4], 16).expect("a byte")], &rest[4..]),
            _ => (first.to_string().into_bytes(), &rest[first.len_utf8()..]),
        };
        bytes.extend(part);
        rest = after;
    }
    bytes
}

fn write_bytes(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// As an inline request has them: in quotes only where it must be.
fn write_words<'a>(words: impl Iterator<Item = &'a [u8]>) -> String {
    let write = |word: &[u8]| {
        let plain = word.iter().all(u8::is_ascii_graphic) && !word.is_empty();
        if plain {
            String::from_utf8(word.to_vec()).expect("ASCII")
        } else {
            format!("\"{}\"", word.escape_ascii())
        }
    };
    words.map(write).collect::<Vec<_>>().join(" ")
}

fn limits() -> RespLimits {
    RespLimits::new(DEFAULT_MAX_VALUE_BYTES, 1 << 16)
}

/// The words of the one request in `input`, behind what is none.
fn words(name: &str, input: &[u8]) -> Vec<Vec<u8>> {
    let (mut args, mut start) = (ArgList::default(), 0);
    loop {
        match split_request(&input[start..], &limits(), &mut args, &mut Unfinished::default()) {
            Ok(Split::Empty { consumed }) => start += consumed,
            Ok(Split::Request { consumed, request }) => {
                assert_eq!(start + consumed, input.len(), "{name}");
                return args.of(request, &input[start..]).iter().map(<[u8]>::to_vec).collect();
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn requests_are_split_into_their_words() {
    for (name, fields) in of_kind("request").into_iter().chain(of_kind("encoded")) {
        let words = words(name, &bytes(fields[0]));
        assert_eq!(write_words(words.iter().map(Vec::as_slice)), fields[1], "{name}");
    }
}

#[test]
fn words_are_encoded_as_the_vector_says() {
    for (name, fields) in of_kind("encoded") {
        let expected = bytes(fields[0]);
        let words = words(name, &[fields[1].as_bytes(), b"\r\n"].concat());
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, RespVersion::Two);
        writer.array(words.len());
        words.iter().for_each(|word| writer.bulk(word));
        assert_eq!(write_bytes(&out), write_bytes(&expected), "{name}");
    }
}

#[test]
fn parts_of_requests_say_how_much_is_missing() {
    for (name, fields) in of_kind("waits") {
        let split = split_request(&bytes(fields[0]), &limits(), &mut ArgList::default(), &mut Unfinished::default());
        let needed = fields[1].parse().expect("a number");
        assert_eq!(split, Ok(Split::Incomplete { needed, big_bulk: None }), "{name}");
    }
}

#[test]
fn what_is_no_request_is_refused() {
    for (name, fields) in of_kind("refused") {
        let split = split_request(&bytes(fields[0]), &limits(), &mut ArgList::default(), &mut Unfinished::default());
        let error = split.expect_err(name);
        assert_eq!(error.line(), fields[1], "{name}");
        assert!(error.closes_connection(), "{name}");
    }
}

fn write(writer: &mut Writer<'_>, what: &str) {
    let (kind, rest) = what.split_once(' ').unwrap_or((what, ""));
    let length = || rest.parse().expect("a length");
    match kind {
        "status" => writer.status(rest),
        "error" => writer.error(&String::from_utf8(bytes(rest)).expect("text")),
        "integer" => writer.integer(rest.parse().expect("an integer")),
        "bulk" => writer.bulk(&bytes(rest)),
        "null" => writer.null(),
        "null_array" => writer.null_array(),
        "array" => writer.array(length()),
        "map" => writer.map(length()),
        "set" => writer.set(length()),
        "push" => writer.push(length()),
        "double" => writer.double(rest.parse().expect("a float")),
        "boolean" => writer.boolean(rest == "true"),
        "verbatim" => writer.verbatim(rest),
        "value" => {
            let byte = |at| u8::from_str_radix(&rest[at..at + 2], 16).expect("a hex byte");
            writer.value(&(0..rest.len()).step_by(2).map(byte).collect::<Vec<_>>());
        }
        "code" => {
            let (code, message) = rest.split_once(' ').expect("a code and a message");
            let known = ErrorCode::ALL.into_iter().find(|known| known.name() == code);
            writer.coded_error(known.unwrap_or_else(|| panic!("code {code}")), message);
        }
        _ => panic!("what is {what}?"),
    }
}

#[test]
fn replies_are_written_in_both_versions() {
    for (name, fields) in of_kind("reply") {
        for (version, expected) in [(RespVersion::Two, fields[0]), (RespVersion::Three, fields[1])] {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out, version);
            fields[2].split("; ").for_each(|what| write(&mut writer, what));
            assert_eq!(write_bytes(&out), write_bytes(&bytes(expected)), "{name} in {version:?}");
        }
    }
}

#[test]
fn every_vector_is_of_a_known_kind_and_has_a_name_of_its_own() {
    let mut names = std::collections::BTreeSet::new();
    for (kind, name, _) in vectors() {
        assert!(["request", "encoded", "refused", "waits", "reply"].contains(&kind), "{kind}");
        assert!(names.insert((kind, name)), "{kind} {name} is there twice");
    }
}
