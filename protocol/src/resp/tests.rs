//! Splitting, inline words, writing and patterns.

use super::args::{ArgList, Args};
use super::decode::{split_request, BigBulk, RespLimits, Split, Unfinished};
use super::glob::{self, Comparison};
use super::writer::{RespVersion, Writer};
use crate::tlv::{text_of, Value};
use proptest::collection::vec;
use proptest::prelude::*;

/// Low, so that tests reach them.
const LIMITS: RespLimits = RespLimits {
    arguments_max: 1000,
    bulk_bytes_max: 5000,
    line_bytes_max: 100,
    request_bytes_max: 20_000,
    big_bulk_bytes: 1000,
    is_unauthenticated: false,
};

/// What a stream holds, in words: requests, and why it ended.
fn read(input: &[u8], ends: impl IntoIterator<Item = usize>) -> Vec<String> {
    let (mut found, mut args, mut unfinished, mut start) = (Vec::new(), ArgList::default(), Unfinished::default(), 0);
    for end in ends {
        loop {
            args.clear();
            match split_request(&input[start..end], &LIMITS, &mut args, &mut unfinished) {
                Ok(Split::Request { consumed, request }) => {
                    assert!(consumed <= end - start);
                    let words = args.of(request, &input[start..end]);
                    found.push(words.iter().map(|word| word.escape_ascii().to_string() + "|").collect());
                    start += consumed;
                }
                Ok(Split::Empty { consumed }) => {
                    assert!(consumed > 0 && consumed <= end - start);
                    start += consumed;
                }
                Ok(Split::Incomplete { needed, .. }) => {
                    assert!(needed > end - start, "waits for bytes that are there");
                    assert!(needed <= LIMITS.request_bytes_max, "waits for more than the limit");
                    break;
                }
                Err(error) => {
                    assert!(error.closes_connection());
                    found.push(error.line().to_owned());
                    return found;
                }
            }
        }
    }
    found
}

fn whole(input: impl AsRef<[u8]>) -> Vec<String> {
    let input = input.as_ref();
    let found = read(input, [input.len()]);
    assert_eq!(read(input, 0..=input.len()), found, "what is found depends on how the bytes arrive");
    found
}

#[test]
fn a_pipeline_is_split_into_its_requests() {
    assert_eq!(
        whole(
            "*2\r\n$3\r\nGET\r\n$5\r\nkey:1\r\n*1\r\n$4\r\nPING\r\nSET a b\r\n\
             *3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n"
        ),
        ["GET|key:1|", "PING|", "SET|a|b|", r"SET||\r\n|"]
    );
    assert_eq!(whole(""), [""; 0]);
    assert_eq!(whole("*0\r\n*-1\r\n*-100\r\n\r\n\n  \r\nPING\r\n"), ["PING|"]);
    let long = format!("*2\r\n$3\r\nGET\r\n$128\r\n{}\r\n", "k".repeat(128));
    assert_eq!(whole(long), [format!("GET|{}|", "k".repeat(128))]);
}

#[test]
fn a_request_of_many_arguments_is_read_on_where_it_ended() {
    let mut request = b"*300\r\n$4\r\nMSET\r\n".to_vec();
    for number in 0..299 {
        request.extend_from_slice(format!("$4\r\nk{number:03}\r\n").as_bytes());
    }
    let found = whole(&request);
    assert!(found.len() == 1 && found[0].starts_with("MSET|k000|") && found[0].ends_with("|k298|"), "{found:?}");

    let (mut args, mut unfinished) = (ArgList::default(), Unfinished::default());
    let half = &request[..request.len() / 2];
    let split = split_request(half, &LIMITS, &mut args, &mut unfinished);
    assert!(matches!(split, Ok(Split::Incomplete { big_bulk: None, .. })));
    assert!(args.spans.is_empty() && unfinished.kept() > 100, "kept: {}", unfinished.kept());
    // What was read is not read again: here it is not even there any more.
    let mut rest = vec![b'*'; half.len() - 10];
    rest.extend_from_slice(&request[half.len() - 10..]);
    let split = split_request(&rest, &LIMITS, &mut args, &mut unfinished);
    assert!(matches!(split, Ok(Split::Request { consumed, .. }) if consumed == request.len()), "{split:?}");
    assert_eq!(unfinished.kept(), 0);
}

#[test]
fn each_byte_behind_a_million_arguments_costs_no_more_than_itself() {
    const ARGUMENTS: usize = RespLimits::ARGUMENTS_MAX;
    let limits = RespLimits::new(1 << 20, 1 << 16);
    let mut request = format!("*{ARGUMENTS}\r\n").into_bytes();
    request.extend(b"$0\r\n\r\n".repeat(ARGUMENTS - 1));
    let before = request.len();
    request.extend(b"$20000\r\n".iter().chain(&[b'x'; 20_000]).chain(b"\r\n"));
    let (mut args, mut unfinished) = (ArgList::default(), Unfinished::default());
    let started = std::time::Instant::now();
    for end in before..request.len() {
        args.clear();
        let split = split_request(&request[..end], &limits, &mut args, &mut unfinished);
        assert!(matches!(split, Ok(Split::Incomplete { needed, big_bulk: None }) if needed > end), "{split:?}");
        assert_eq!(unfinished.kept(), ARGUMENTS - 1);
    }
    // Copying the arguments for each byte would take a minute.
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    let split = split_request(&request, &limits, &mut args, &mut unfinished);
    let Ok(Split::Request { consumed, request: spans }) = split else { panic!("{split:?}") };
    assert_eq!((consumed, args.of(spans, &request).len(), unfinished.memory_bytes()), (request.len(), ARGUMENTS, 0));
}

#[test]
fn what_is_no_request_ends_the_stream_in_redis_words() {
    let error = |input: &str| whole(input).pop().expect("an error");
    for (input, expected) in [
        ("*1a\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*01\r\n", "invalid multibulk length"),
        ("*\r\n", "invalid multibulk length"),
        ("*1\rx", "invalid multibulk length"),
        ("*1001\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$5001\r\n", "invalid bulk length"),
        ("*1\r\n$9223372036854775808\r\n", "invalid bulk length"),
        ("*1\r\n:1\r\n", "expected '$', got ':'"),
        ("*1\r\n\n", "expected '$', got '\n'"),
        ("*1\r\n$1\r\nabc", "expected '\\r\\n' after an argument"),
        ("GET \"a\r\n", "unbalanced quotes in request"),
        ("GET \"a\"b\r\n", "unbalanced quotes in request"),
        ("GET 'a\r\n", "unbalanced quotes in request"),
        ("GET 'a'b\r\n", "unbalanced quotes in request"),
        ("GET \"\\\r\n", "unbalanced quotes in request"),
    ] {
        assert_eq!(error(input), format!("ERR Protocol error: {expected}"), "{input:?}");
    }
    assert_eq!(error(&format!("*{}", "1".repeat(100))), "ERR Protocol error: too big mbulk count string");
    assert_eq!(error(&format!("*1\r\n${}", "1".repeat(100))), "ERR Protocol error: too big bulk count string");
    assert_eq!(error(&"a".repeat(100)), "ERR Protocol error: too big inline request");
    assert_eq!(whole("a".repeat(99)), [""; 0]);
    // Known to be too long before it is there, by the lengths that are announced.
    assert!(error(&format!("*5\r\n{}$4999\r\n", format!("$4999\r\n{}\r\n", "x".repeat(4999)).repeat(3)))
        .contains("over the limit"));
    assert_eq!(whole("*1000\r\n$1000\r\n"), [""; 0]);
}

#[test]
fn how_much_is_missing_is_told_exactly_where_a_length_is_known() {
    let needed = |input: &str| {
        let split = split_request(input.as_bytes(), &LIMITS, &mut ArgList::default(), &mut Unfinished::default());
        let Ok(Split::Incomplete { needed, big_bulk: None }) = split else { panic!("{input:?}: {split:?}") };
        needed
    };
    assert_eq!(needed(""), 1);
    assert_eq!(needed("*"), 2);
    assert_eq!(needed("*2\r\n"), 4 + 2 * 6);
    assert_eq!(needed("*2\r\n$3\r\nGET"), 4 + 9 + 6);
    assert_eq!(needed("*2\r\n$3\r\nGET\r\n$100\r\nk"), 4 + 9 + 6 + 100 + 2);
    assert_eq!(needed("PING"), 5);
}

#[test]
fn a_large_last_argument_is_announced_before_it_is_there() {
    let head = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\n";
    let split = |input: &str, args: &mut ArgList| {
        split_request(input.as_bytes(), &LIMITS, args, &mut Unfinished::default()).expect("a part of a request")
    };
    for there in ["", "v", "vvvvvvvvvv"] {
        let (mut args, input) = (ArgList::default(), format!("{head}{there}"));
        let Split::Incomplete { needed, big_bulk: Some(big_bulk) } = split(&input, &mut args) else {
            panic!("{there}")
        };
        let BigBulk { request, value_start, value_bytes } = big_bulk;
        assert_eq!((needed, value_start, value_bytes), (head.len() + 1002, head.len(), 1000));
        let value = vec![b'v'; value_bytes];
        let words = args.of(request, input.as_bytes()).with_last(&value);
        assert_eq!(words.iter().map(<[u8]>::len).collect::<Vec<_>>(), [3, 1, 1000]);
    }
    let mut args = ArgList::default();
    for small in
        ["*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$999\r\n", "*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\n", "*1\r\n$1000\r\n"]
    {
        assert!(matches!(split(small, &mut args), Split::Incomplete { big_bulk: None, .. }), "{small:?}");
    }
    let whole = format!("{head}{}\r\n", "v".repeat(1000));
    assert!(matches!(split(&whole, &mut args), Split::Request { .. }));
}

#[test]
fn requests_decoded_ahead_share_one_list() {
    let input = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nGET 'b c'\r\n*2\r\n$3\r\nGET\r\n$1\r\nd\r\n";
    let (mut args, mut at, mut requests) = (ArgList::default(), 0, Vec::new());
    while let Ok(Split::Request { consumed, request }) =
        split_request(&input[at..], &LIMITS, &mut args, &mut Unfinished::default())
    {
        requests.push((at, request));
        at += consumed;
    }
    let second = |(at, request): &(usize, _)| args.of(*request, &input[*at..]).at(1).to_vec();
    assert_eq!(requests.iter().map(second).collect::<Vec<_>>(), [b"a".to_vec(), b"b c".to_vec(), b"d".to_vec()]);
    args.clear();
    args.shrink_to_bytes(0);
    assert_eq!(args.capacity_bytes(), 0);
}

#[test]
fn inline_words_are_quoted_as_in_a_shell() {
    for (line, words) in [
        (r#"set "a b" 'c d'"#, "set|a b|c d|"),
        (r#"set "\x41\x7a\n\r\t\b\a\\\"\q""#, r#"set|Az\n\r\t\x08\x07\\\"q|"#),
        (r#"set "\x4" "\xzz""#, "set|x4|xzz|"),
        (r"set 'it\'s' 'a\nb'", r"set|it\'s|a\\nb|"),
        (r#"a"b" c"#, "ab|c|"),
        ("  a \t b  ", "a|b|"),
        (r#""" '' x"#, "||x|"),
        ("a\u{b}b", r"a\x0bb|"),
        ("caf\u{e9}", r"caf\xc3\xa9|"),
    ] {
        assert_eq!(whole(format!("{line}\r\n")), [words], "{line}");
        assert_eq!(whole(format!("{line}\n")), [words], "{line}");
    }
}

#[test]
fn arguments_are_shown_in_part() {
    let (mut args, input) = (ArgList::default(), format!("*1\r\n$2000\r\n{}\r\n", "x".repeat(2000)));
    let Ok(Split::Request { request, .. }) =
        split_request(input.as_bytes(), &LIMITS, &mut args, &mut Unfinished::default())
    else {
        panic!("a whole request")
    };
    assert_eq!(format!("{:?}", args.of(request, input.as_bytes())), format!("1 arguments \"{}\"", "x".repeat(64)));
    assert_eq!(format!("{:?}", Args::EMPTY), "0 arguments");
}

fn written(version: RespVersion, write: impl FnOnce(&mut Writer<'_>)) -> String {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out, version));
    String::from_utf8(out).expect("text").replace("\r\n", " ")
}

#[test]
fn stored_values_become_text_arrays_and_maps() {
    let value = |version, value: &Value| {
        let mut encoded = Vec::new();
        value.encode(&mut encoded);
        written(version, |writer| writer.value(&encoded))
    };
    let list = Value::List(vec![Value::Null, Value::Int32(-7), Value::Bytes(b"ab".to_vec()), Value::List(vec![])]);
    let map = Value::Map(vec![(Value::String("k".into()), list.clone()), (Value::Int64(1), Value::Float64(1.5))]);
    assert_eq!(value(RespVersion::Two, &list), "*4 $-1 $2 -7 $2 ab *0 ");
    assert_eq!(value(RespVersion::Three, &list), "*4 _ $2 -7 $2 ab *0 ");
    assert_eq!(value(RespVersion::Two, &map), "*4 $1 k *4 $-1 $2 -7 $2 ab *0 $1 1 $3 1.5 ");
    assert_eq!(value(RespVersion::Three, &map), "%2 $1 k *4 _ $2 -7 $2 ab *0 $1 1 $3 1.5 ");
    for (scalar, text) in [
        (Value::Null, "$-1 "),
        (Value::String("text".into()), "$4 text "),
        (Value::Bytes(vec![b'x'; 128]), &format!("$128 {} ", "x".repeat(128))),
        (Value::Boolean(true), "$4 true "),
        (Value::Timestamp(5), "$1 5 "),
        (Value::Float64(3.0), "$1 3 "),
        (Value::Error { code: 1, message: "no".into() }, "$2 no "),
    ] {
        assert_eq!(value(RespVersion::Two, &scalar), text);
        assert_eq!(value(RespVersion::Two, &Value::List(vec![scalar])), format!("*1 {text}"));
    }
}

/// Steps that no comparison of a test takes.
const ENOUGH: usize = 1 << 30;

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    glob::matches(pattern, text, &mut { ENOUGH }).expect("enough steps")
}

fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    glob::matches_ignoring_case(pattern, text, &mut { ENOUGH }).expect("enough steps")
}

#[test]
fn patterns_describe_what_redis_says_they_do() {
    for (pattern, text) in [
        ("", ""),
        ("*", ""),
        ("**", "abc"),
        ("a*c", "abbbc"),
        ("*b*", "abc"),
        ("h?llo", "hello"),
        ("[abc]", "b"),
        ("[^abc]", "d"),
        ("[a-c]x", "bx"),
        ("[c-a]", "b"),
        ("[a-", "-"),
        ("[a", "a"),
        (r"\*", "*"),
        (r"a\", r"a\"),
        (r"[\]]", "]"),
        ("[^", "x"),
        ("*a*a*b", "aaaaab"),
        ("key:*:?", "key:12:x"),
        ("[a-]]", "]"),
        ("*?", "a"),
    ] {
        assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
    }
    for (pattern, text) in [
        ("", "a"),
        ("a", ""),
        ("?", ""),
        ("a*c", "abcd"),
        ("[abc]", "d"),
        ("[^abc]", "a"),
        ("[]", "]"),
        (r"\*", "a"),
        ("A", "a"),
        ("*a*a*b", "aaaa"),
        ("*?", ""),
        ("[a-c]", ""),
        ("a?", "a"),
    ] {
        assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
    }
    assert!(matches_ignoring_case(b"MAX*[A-C]?\\X", b"maxmemory-byx"));
    assert!(!matches_ignoring_case(b"max", b"may"));
}

#[test]
fn a_hostile_pattern_takes_steps_by_length_times_length() {
    let (pattern, text) = ("a*".repeat(5000) + "b", "a".repeat(20_000));
    assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    let (pattern, text) = ("*a".repeat(500) + "?", "a".repeat(2000));
    assert!(matches(pattern.as_bytes(), text.as_bytes()));
}

#[test]
fn a_comparison_stops_when_its_steps_are_used_up() {
    // A class is read whole for each byte, and every byte is compared.
    let class = format!("*[{}]zz", "a".repeat(1000));
    let mut steps = ENOUGH;
    assert_eq!(glob::matches(class.as_bytes(), &[b'a'; 16], &mut steps), Some(false));
    assert!((16_000..20_000).contains(&(ENOUGH - steps)), "{} steps", ENOUGH - steps);
    assert_eq!(glob::matches(class.as_bytes(), &[b'a'; 16], &mut 10_000), None);
    // One step for each byte of an ordinary pattern.
    let mut steps = 9;
    assert_eq!((glob::matches(b"user:1*", b"user:1000", &mut steps), steps), (Some(true), 2));
    assert_eq!(glob::matches_ignoring_case(b"a*b", &[b'a'; 1 << 20], &mut 1000), None);
}

/// The definition, without a thought for the time it takes.
fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| matches_by_definition(rest, &text[taken..])),
        ([b'?', rest @ ..], [_, text @ ..]) => matches_by_definition(rest, text),
        ([one, rest @ ..], [other, text @ ..]) => one == other && matches_by_definition(rest, text),
        _ => false,
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_alike_however_they_arrive(
        input in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let found = read(&input, [input.len()]);
        prop_assert_eq!(&read(&input, 0..=input.len()), &found);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(input.len());
        prop_assert_eq!(&read(&input, ends), &found);
    }

    #[test]
    fn what_was_encoded_is_found_again(words in vec(vec(any::<u8>(), 0..300), 1..90)) {
        let mut input = format!("*{}\r\n", words.len()).into_bytes();
        for word in &words {
            input.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            input.extend_from_slice(word);
            input.extend_from_slice(b"\r\n");
        }
        let expected: String = words.iter().map(|word| word.escape_ascii().to_string() + "|").collect();
        if input.len() <= LIMITS.request_bytes_max {
            prop_assert_eq!(read(&input, [input.len()]), vec![expected]);
        }
    }

    #[test]
    fn patterns_of_stars_and_marks_follow_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{1,10}") {
        let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(matches(pattern, text), matches_by_definition(pattern, text));
    }

    /// STRLEN, GETRANGE and INCRBYFLOAT see `text_of`; GET writes the value.
    #[test]
    fn the_text_that_is_written_is_the_text_that_is_asked_about(
        value in prop_oneof![
            any::<u64>().prop_map(|bits| Value::Float64(f64::from_bits(bits))),
            any::<f64>().prop_map(Value::Float64),
            (-400_i32..400, any::<i32>()).prop_map(|(power, digits)| {
                Value::Float64(f64::from(digits) * 10_f64.powi(power))
            }),
            any::<i32>().prop_map(Value::Int32),
            any::<i64>().prop_map(Value::Int64),
            any::<i64>().prop_map(Value::Timestamp),
            any::<bool>().prop_map(Value::Boolean),
            vec(any::<u8>(), 0..200).prop_map(Value::Bytes),
        ],
    ) {
        let mut encoded = Vec::new();
        value.encode(&mut encoded);
        let text = text_of(&encoded).expect("a value that has a text");
        for version in [RespVersion::Two, RespVersion::Three] {
            let (mut whole, mut expected) = (Vec::new(), format!("${}\r\n", text.len()).into_bytes());
            expected.extend_from_slice(text.as_bytes());
            expected.extend_from_slice(b"\r\n");
            Writer::new(&mut whole, version).value(&encoded);
            prop_assert_eq!(&whole, &expected);
            // Within a list it has the same one.
            let (mut list, mut in_list) = (Vec::new(), Vec::new());
            Value::List(vec![value.clone()]).encode(&mut list);
            Writer::new(&mut in_list, version).value(&list);
            prop_assert_eq!(in_list.strip_prefix(b"*1\r\n"), Some(&expected[..]));
            if let Value::Float64(number) = value {
                let mut double = Vec::new();
                Writer::new(&mut double, version).double(number);
                let two = version == RespVersion::Two;
                let line = [b",", text.as_bytes(), b"\r\n"].concat();
                prop_assert_eq!(double, if two { expected } else { line });
            }
        }
    }

    #[test]
    fn any_pattern_ends(pattern in vec(any::<u8>(), 0..20), text in vec(any::<u8>(), 0..20)) {
        let _ = (matches(&pattern, &text), matches_ignoring_case(&pattern, &text));
    }

    #[test]
    fn a_comparison_in_parts_finds_what_one_at_once_does(
        pattern in "[ab*?\\[\\]^-]{0,10}",
        text in "[ab]{0,12}",
        steps in 1_usize..6,
    ) {
        let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
        let mut comparison = Comparison::default();
        let found = (0..10_000).find_map(|_| comparison.go_on(pattern, text, &mut { steps }));
        prop_assert_eq!(found, Some(matches(pattern, text)));
    }
}

#[test]
fn an_empty_text_is_matched_by_one_star_and_not_by_two() {
    assert!(matches(b"*", b"") && matches(b"", b""));
    assert!(!matches(b"**", b"") && !matches(b"?", b"") && !matches(b"a*", b""));
}

/// Bytes that look like requests, and some that do not.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"),
        Just("*1\r\n"),
        Just("*3\r\n$3\r\nSET\r\n"),
        Just("$4\r\nPING\r\n"),
        Just("*0\r\n"),
        Just("\r\n"),
        Just("$"),
        Just("*"),
        Just("1"),
        Just("\r"),
        Just("\n"),
        Just("GET \"a b\"\r\n"),
        Just("-1"),
        Just("*70\r\n"),
        Just("$1\r\nx\r\n$1\r\ny\r\n$1\r\nz\r\n$1\r\nw\r\n"),
        Just("'"),
        Just("\\"),
        Just(" "),
    ];
    vec(part, 0..60).prop_map(|parts| parts.concat().into_bytes())
}
