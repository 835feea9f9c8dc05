//! Properties of RESP: the splitting of a stream, the parser, the writer.

use eyot_protocol::command::Command;
use eyot_protocol::limits::MAX_KEY_BYTES;
use eyot_protocol::resp::command_reply::{put_command, put_help};
use eyot_protocol::resp::glob;
use eyot_protocol::resp::table::Access;
use eyot_protocol::resp::{
    parse, parse_unauthenticated, split_request, ArgList, Args, RespLimits, RespRequest, RespVersion, Split,
    Unfinished, Writer,
};
use eyot_protocol::tlv::Decoder;

/// Low, so that inputs of a few kilobytes reach them.
const LIMITS: RespLimits = RespLimits {
    arguments_max: 200,
    bulk_bytes_max: 1024,
    line_bytes_max: 256,
    request_bytes_max: 3000,
    big_bulk_bytes: 64,
    is_unauthenticated: false,
};
/// Any time will do.
const NOW_US: i64 = 1_700_000_000_000_000;
/// A text for patterns to be compared with.
const PATTERN_TEXT: &[u8] = b"user:[1]\\:*?-session";

/// What was found in a stream, in words, so that two readings can be compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    requests: Vec<String>,
    /// Why the stream ended, if not for want of bytes.
    broken: Option<String>,
}

/// One reader of a stream, and what it keeps between two receives.
#[derive(Default)]
struct Reader {
    found: Reading,
    args: ArgList,
    unfinished: Unfinished,
}

impl Reader {
    /// Takes whole requests off `stream` and returns how many bytes they took.
    fn take_requests(&mut self, stream: &[u8]) -> usize {
        let mut taken = 0;
        while self.found.broken.is_none() {
            self.args.clear();
            let rest = &stream[taken..];
            match split_request(rest, &LIMITS, &mut self.args, &mut self.unfinished) {
                Ok(Split::Request { consumed, request }) => {
                    assert!((1..=rest.len()).contains(&consumed));
                    self.found.requests.push(describe(self.args.of(request, rest)));
                    taken += consumed;
                }
                Ok(Split::Empty { consumed }) => {
                    assert!((1..=rest.len()).contains(&consumed));
                    taken += consumed;
                }
                Ok(Split::Incomplete { needed, big_bulk }) => {
                    assert!(needed > rest.len(), "waits for bytes that are there");
                    assert!(needed <= LIMITS.request_bytes_max.max(LIMITS.line_bytes_max), "waits for too much");
                    if let Some(big) = big_bulk {
                        assert!(big.value_bytes >= LIMITS.big_bulk_bytes && big.value_start <= rest.len());
                        assert_eq!(needed, big.value_start + big.value_bytes + 2);
                        let value = vec![0; big.value_bytes];
                        let args = self.args.of(big.request, rest).with_last(&value);
                        assert_eq!(args.iter().last(), Some(&value[..]));
                    }
                    break;
                }
                Err(error) => {
                    assert!(error.closes_connection());
                    self.found.broken = Some(error.line().to_owned());
                }
            }
        }
        taken
    }
}

/// Parses a request, and writes the reply if it needs nothing but the table.
fn describe(args: Args<'_>) -> String {
    assert!(!args.is_empty(), "a request has a name");
    match parse_unauthenticated(args) {
        Ok(first) => assert!(first.id.spec().access() == Access::Anyone, "{:?} before authentication", first.id),
        Err(error) => check_reply(|writer| writer.error(error.line())),
    }
    let words: Vec<_> = args.iter().map(|word| word.escape_ascii().to_string()).collect();
    let parsed = match parse(args, NOW_US) {
        Ok(parsed) => parsed,
        Err(error) => {
            check_reply(|writer| writer.error(error.line()));
            return format!("{words:?} {error}");
        }
    };
    assert!(parsed.id.takes(args.len()));
    match parsed.request {
        RespRequest::Write { command, .. } => check_command(&command),
        RespRequest::Read { key, .. } => assert!(key.len() <= MAX_KEY_BYTES),
        RespRequest::Command(command) => check_reply(|writer| put_command(writer, &command)),
        RespRequest::Help => check_reply(|writer| put_help(writer, parsed.id)),
        RespRequest::Keys { pattern } => {
            assert!(pattern.len() <= glob::MAX_PATTERN_BYTES);
            let found = glob::matches(pattern, PATTERN_TEXT, &mut { usize::MAX });
            glob::matches_ignoring_case(pattern, PATTERN_TEXT, &mut { usize::MAX });
            // The same, if it is interrupted again and again.
            let mut comparison = glob::Comparison::default();
            let mut parts = std::iter::repeat_with(|| comparison.go_on(pattern, PATTERN_TEXT, &mut 3));
            assert_eq!(parts.find(Option::is_some), Some(found));
        }
        _ => {}
    }
    format!("{words:?} {parsed:?}")
}

/// A command that was parsed can be logged, and is the same when it comes back.
fn check_command(command: &Command<'_>) {
    assert!(command.is_within_limits());
    let mut encoded = Vec::new();
    command.encode(&mut encoded);
    assert_eq!(encoded.len(), command.encoded_bytes());
    let decoded = Command::decode(&encoded).expect("an encoded command");
    assert_eq!((decoded.key(), decoded.encoded_bytes()), (command.key(), encoded.len()));
    let mut again = Vec::new();
    decoded.encode(&mut again);
    assert_eq!(again, encoded, "a command changed on the way");
}

/// In both versions, what `write` writes is exactly one reply.
fn check_reply(write: impl Fn(&mut Writer<'_>)) {
    for version in [RespVersion::Two, RespVersion::Three] {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out, version));
        assert_eq!(after_reply(&out), Some(&[][..]), "not one reply: {}", out.escape_ascii());
    }
}

/// What follows the first reply of `bytes`; `None` if they do not begin with one.
fn after_reply(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
    let (kind, text) = line.split_first()?;
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    let elements = match kind {
        b'+' | b'-' | b',' => return (!text.contains(&b'\n')).then_some(rest),
        b'_' => return text.is_empty().then_some(rest),
        b'#' => return matches!(text, b"t" | b"f").then_some(rest),
        b':' => return number.map(|_| rest),
        b'$' | b'*' if number == Some(-1) => return Some(rest),
        b'$' | b'=' => return rest.get(usize::try_from(number?).ok()?..)?.strip_prefix(b"\r\n"),
        b'*' | b'~' | b'>' => number?,
        b'%' => number?.checked_mul(2)?,
        _ => return None,
    };
    (0..elements).try_fold(rest, |rest, _| after_reply(rest))
}

/// Before authentication nothing beyond its low limits is waited for, and no value is received apart.
fn check_unauthenticated(input: &[u8]) {
    const LIMITS: RespLimits = RespLimits::unauthenticated();
    let (mut args, mut taken) = (ArgList::default(), 0);
    while let Ok(split) = split_request(&input[taken..], &LIMITS, &mut args, &mut Unfinished::default()) {
        match split {
            Split::Request { consumed, request } => {
                let request = args.of(request, &input[taken..]);
                let inline = input[taken] != b'*';
                assert!(inline || request.len() <= LIMITS.arguments_max);
                assert!(request.iter().all(|argument| argument.len() <= LIMITS.bulk_bytes_max));
                taken += consumed;
            }
            Split::Empty { consumed } => taken += consumed,
            Split::Incomplete { needed, big_bulk } => {
                assert!(needed <= LIMITS.request_bytes_max && big_bulk.is_none());
                return;
            }
        }
        args.clear();
    }
}

/// Reads `input` as a client's stream, at once and byte by byte; and as a stored value, if it is one.
///
/// # Panics
/// When the two readings differ, a request is not what an invariant says, or what is written is not one reply.
pub fn resp_request(input: &[u8]) {
    let mut at_once = Reader::default();
    at_once.take_requests(input);

    let (mut by_bytes, mut start) = (Reader::default(), 0);
    for end in 1..=input.len() {
        start += by_bytes.take_requests(&input[start..end]);
    }
    assert_eq!(at_once.found, by_bytes.found, "what is found depends on how the bytes arrive");

    check_unauthenticated(input);

    if let Ok(value) = Decoder::new(input).raw_value() {
        check_reply(|writer| writer.value(value));
    }
}
