//! Tests of the encoding of commands: golden bytes, round trips, cuts, bytes that are no entry.

use super::*;
use crate::limits::MAX_COMMANDS_PER_ENTRY;
use crate::value_part::UploadId;
use proptest::prelude::*;

const PAIRS: &[(&[u8], &[u8])] = &[(b"a", b"one"), (b"", b""), (b"b", &[0xFF; 200])];

fn sets() -> Vec<Command<'static>> {
    let mut sets = Vec::new();
    for condition in [Condition::Always, Condition::IfAbsent, Condition::IfPresent, Condition::IfVersion(3 << 16 | 1)] {
        for expiry in [NewExpiry::Never, NewExpiry::At(1_700_000_000_000_000), NewExpiry::Keep] {
            for return_old in [false, true] {
                for value in [Value::Encoded(&[1, 1, b'v']), Value::Upload(UploadId::new(3, 4))] {
                    sets.push(Command::Set { key: b"key", value, expiry, condition, return_old });
                }
            }
        }
    }
    sets
}

fn expiries() -> Vec<Command<'static>> {
    let mut expiries = Vec::new();
    for condition in [
        ExpiryCondition::Always,
        ExpiryCondition::IfNone,
        ExpiryCondition::IfAny,
        ExpiryCondition::IfLater,
        ExpiryCondition::IfSooner,
        ExpiryCondition::IfAnySooner,
    ] {
        for at_us in [None, Some(-1)] {
            for return_value in [false, true] {
                expiries.push(Command::SetExpiry { key: b"until", at_us, condition, return_value });
            }
        }
    }
    expiries
}

fn every_shape() -> Vec<Command<'static>> {
    let mut commands = vec![
        Command::Delete { key: b"gone" },
        Command::Expire { key: b"old", version: 9 << 16 },
        Command::TakeOut { key: b"out" },
        Command::Append { key: b"log", bytes: b"more", length_max: None },
        Command::Append { key: b"", bytes: b"", length_max: None },
        Command::Append { key: b"log", bytes: b"more", length_max: Some(9) },
        Command::Append { key: b"", bytes: b"", length_max: Some(u32::MAX) },
        Command::Increment { key: b"n", by: i64::MIN },
        Command::IncrementFloat { key: b"f", by: b"1.5e3" },
        Command::SetRange { key: b"s", offset: u32::MAX, bytes: b"xyz" },
        Command::Rename { from: b"from", to: b"to", if_absent: false },
        Command::Rename { from: b"from", to: b"", if_absent: true },
        Command::Copy { from: b"from", to: b"to", replace: false },
        Command::Copy { from: b"from", to: b"to", replace: true },
        Command::Clear,
    ];
    commands.extend(sets());
    commands.extend(expiries());
    commands
}

fn encode(commands: &[Command<'_>]) -> Vec<u8> {
    let mut builder = EntryBuilder::default();
    for (position, command) in commands.iter().enumerate() {
        let before = builder.payload_bytes().max(ENTRY_HEADER_BYTES);
        assert!(command.is_within_limits());
        assert_eq!(usize::from(builder.push(command, 42)), position);
        assert_eq!(builder.payload_bytes() - before, command.encoded_bytes());
    }
    builder.take()
}

fn alone(command: &Command<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    assert_eq!(bytes.len(), command.encoded_bytes());
    bytes
}

/// What was written into logs must be read for ever: no line of this may ever change.
#[test]
fn golden_bytes() {
    let set = |value, expiry, condition, return_old| Command::Set { key: b"k", value, expiry, condition, return_old };
    let small = Value::Encoded(&[2, 42, 0, 0, 0]);
    let set_expiry = |at_us, condition, return_value| Command::SetExpiry { key: b"k", at_us, condition, return_value };
    #[rustfmt::skip]
    let golden: &[(Command<'_>, &str)] = &[
        (set(small, NewExpiry::Never, Condition::Always, false), "01000000 01000000 05000000 6b 022a000000"),
        (set(small, NewExpiry::At(258), Condition::IfVersion(0x0001_0002), false),
            "01090000 01000000 05000000 0201000000000000 0200010000000000 6b 022a000000"),
        (set(small, NewExpiry::Never, Condition::IfAbsent, false), "01020000 01000000 05000000 6b 022a000000"),
        (set(small, NewExpiry::Never, Condition::IfPresent, false), "01040000 01000000 05000000 6b 022a000000"),
        (set(small, NewExpiry::Keep, Condition::Always, true), "01300000 01000000 05000000 6b 022a000000"),
        (set(Value::Bytes(b"hi"), NewExpiry::Never, Condition::Always, false),
            "01000000 01000000 04000000 6b 07026869"),
        (Command::Delete { key: b"k" }, "02000000 01000000 00000000 6b"),
        (Command::Expire { key: b"k", version: 0x0001_0002 }, "03080000 01000000 00000000 0200010000000000 6b"),
        (Command::TakeOut { key: b"k" }, "04000000 01000000 00000000 6b"),
        (Command::Append { key: b"k", bytes: b"xy", length_max: None }, "05000000 01000000 02000000 6b 7879"),
        (Command::Increment { key: b"k", by: -2 }, "06000000 01000000 00000000 feffffffffffffff 6b"),
        (Command::IncrementFloat { key: b"k", by: b".5" }, "07000000 01000000 02000000 6b 2e35"),
        (Command::SetRange { key: b"k", offset: 258, bytes: b"xy" }, "08000000 01000000 02000000 02010000 6b 7879"),
        (set_expiry(Some(258), ExpiryCondition::Always, false), "09010000 01000000 00000000 0201000000000000 6b"),
        (set_expiry(Some(258), ExpiryCondition::IfNone, false), "09030000 01000000 00000000 0201000000000000 6b"),
        (set_expiry(Some(258), ExpiryCondition::IfAny, false), "09050000 01000000 00000000 0201000000000000 6b"),
        (set_expiry(Some(258), ExpiryCondition::IfLater, false), "09410000 01000000 00000000 0201000000000000 6b"),
        (set_expiry(Some(258), ExpiryCondition::IfSooner, false), "09810000 01000000 00000000 0201000000000000 6b"),
        (set_expiry(Some(258), ExpiryCondition::IfAnySooner, false),
            "09850000 01000000 00000000 0201000000000000 6b"),
        (set_expiry(None, ExpiryCondition::Always, true), "09200000 01000000 00000000 6b"),
        (Command::Rename { from: b"k", to: b"to", if_absent: false }, "0a000000 01000000 02000000 6b 746f"),
        (Command::Rename { from: b"k", to: b"to", if_absent: true }, "0a020000 01000000 02000000 6b 746f"),
        (Command::Copy { from: b"k", to: b"to", replace: true }, "0b000000 01000000 02000000 6b 746f"),
        (Command::Copy { from: b"k", to: b"to", replace: false }, "0b020000 01000000 02000000 6b 746f"),
        (Command::SetAllIfAbsent { pairs: PairList::new(&[(b"a", b"1"), (b"bc", b"")]) },
            "0c000000 00000000 18000000 02000000 01000000 03000000 61 070131 02000000 02000000 6263 0700"),
        (Command::Clear, "0d000000 00000000 00000000"),
        (set(Value::Upload(UploadId(0x0102)), NewExpiry::At(258), Condition::IfAbsent, true),
            "0e230000 01000000 08000000 0201000000000000 6b 0201000000000000"),
        (Command::Append { key: b"k", bytes: b"xy", length_max: Some(258) },
            "0f000000 01000000 02000000 02010000 6b 7879"),
    ];
    for (command, hex) in golden {
        #[allow(clippy::format_collect)] // A few bytes.
        let written: String = alone(command).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, hex.replace(' ', ""), "{command:?}");
    }
    let entry = encode(&[golden[0].0, Command::Clear]);
    assert_eq!(entry[..ENTRY_HEADER_BYTES], 42_i64.to_le_bytes());
    assert_eq!(entry[ENTRY_HEADER_BYTES..], [alone(&golden[0].0), alone(&Command::Clear)].concat());
}

#[test]
fn every_shape_round_trips() {
    let commands = every_shape();
    let payload = encode(&commands);
    let decoded = EntryCommands::new(&payload).unwrap();
    assert_eq!(decoded.decided_at_us(), 42);
    assert_eq!(decoded.collect::<Result<Vec<_>, _>>().unwrap(), commands);
    for command in &commands {
        assert_eq!(Command::decode(&alone(command)).unwrap(), *command);
    }
}

#[test]
fn raw_values_become_encoded_ones_on_their_way() {
    let long = [b'x'; 300];
    for bytes in [&b""[..], b"v", &long[..127], &long[..128], &long] {
        let mut encoded = Vec::new();
        tlv::Encoder::new(&mut encoded).bytes(bytes);
        let set = |value| Command::Set {
            key: b"k",
            value,
            expiry: NewExpiry::Never,
            condition: Condition::Always,
            return_old: false,
        };
        assert_eq!(Value::Bytes(bytes).encoded_bytes(), encoded.len());
        assert_eq!(alone(&set(Value::Bytes(bytes))), alone(&set(Value::Encoded(&encoded))));
    }
    let command = Command::SetAllIfAbsent { pairs: PairList::new(PAIRS) };
    let bytes = alone(&command);
    let Ok(Command::SetAllIfAbsent { pairs }) = Command::decode(&bytes) else { panic!("not read back") };
    assert_eq!((pairs.len(), pairs.is_empty()), (3, false));
    for ((key, value), (read_key, read_value)) in PAIRS.iter().zip(pairs) {
        let mut encoded = Vec::new();
        Value::Bytes(value).encode(&mut encoded);
        assert_eq!((*key, Value::Encoded(&encoded)), (read_key, read_value));
    }
    assert_eq!(alone(&Command::SetAllIfAbsent { pairs }), bytes, "what was read is written as it was");
}

#[test]
fn a_command_names_all_its_keys() {
    let keys = |command: Command<'static>| command.keys().collect::<Vec<_>>();
    assert_eq!(keys(Command::Delete { key: b"k" }), [b"k"]);
    assert_eq!(keys(Command::Rename { from: b"a", to: b"b", if_absent: false }), [b"a", b"b"]);
    assert_eq!(keys(Command::Copy { from: b"a", to: b"b", replace: false }), [b"a", b"b"]);
    let all = Command::SetAllIfAbsent { pairs: PairList::new(PAIRS) };
    assert_eq!((keys(all), all.key()), (vec![&b"a"[..], b"", b"b"], Some(&b"a"[..])));
    assert_eq!((keys(Command::Clear), Command::Clear.key()), (vec![], None));
}

#[test]
fn a_forwarded_command_is_pushed_as_it_came() {
    let commands = every_shape();
    let mut builder = EntryBuilder::default();
    for command in &commands {
        builder.push_encoded(&alone(command), 42);
    }
    assert_eq!(builder.len(), commands.len());
    assert_eq!(builder.take(), encode(&commands));
}

#[test]
fn every_truncation_ends_in_an_error_or_at_a_command_boundary() {
    let mut commands = every_shape();
    commands.push(Command::SetAllIfAbsent { pairs: PairList::new(PAIRS) });
    let payload = encode(&commands);
    let mut boundaries = vec![ENTRY_HEADER_BYTES];
    for command in &commands {
        boundaries.push(boundaries.last().unwrap() + command.encoded_bytes());
    }
    for length in 0..payload.len() {
        let outcome = EntryCommands::new(&payload[..length]).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        assert_eq!(outcome.is_ok(), boundaries.contains(&length), "cut at {length}");
    }
    for command in &commands {
        let mut bytes = alone(command);
        bytes.push(0);
        assert_eq!(Command::decode(&bytes).unwrap_err().problem, "bytes after the command");
    }
}

#[test]
fn a_length_bomb_is_refused_without_being_believed() {
    let mut payload = encode(&[Command::Delete { key: b"k" }]);
    payload[ENTRY_HEADER_BYTES + 4..ENTRY_HEADER_BYTES + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = EntryCommands::new(&payload).unwrap().next().unwrap().unwrap_err();
    assert_eq!(error.problem, "a length over the limit");
    assert_eq!(error.offset, ENTRY_HEADER_BYTES);
    assert_eq!(EntryCommands::new(&[0; 7]).unwrap_err().problem, "shorter than its header");
}

#[test]
fn pairs_that_are_not_what_they_say_are_refused() {
    let good = alone(&Command::SetAllIfAbsent { pairs: PairList::new(&[(b"a", b"1"), (b"bc", b"")]) });
    let refused = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Command::decode(&bytes).unwrap_err().problem
    };
    // The count stands behind the header, the first pair's lengths behind it.
    assert_eq!(refused(12, 0), "the number of pairs is another one");
    assert_eq!(refused(12, 1), "the number of pairs is another one");
    assert_eq!(refused(12, 3), "a pair is cut off");
    assert_eq!(refused(15, 0xFF), "a pair is cut off");
    assert_eq!(refused(16, 30), "a pair is cut off");
    assert_eq!(refused(19, 1), "a length over the limit");
    assert_eq!(refused(23, 0xFF), "a length over the limit");
}

#[test]
fn a_new_key_over_the_limit_is_refused() {
    for kind in [kind::RENAME, kind::COPY] {
        let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&(MAX_KEY_BYTES as u32 + 1).to_le_bytes());
        bytes.resize(bytes.len() + MAX_KEY_BYTES + 1, b'k');
        assert_eq!(Command::decode(&bytes).unwrap_err().problem, "a length over the limit");
    }
    let long = vec![b'k'; MAX_KEY_BYTES + 1];
    assert!(!Command::Rename { from: b"k", to: &long, if_absent: false }.is_within_limits());
    assert!(!Command::Delete { key: &long }.is_within_limits());
    assert!(!Command::SetAllIfAbsent { pairs: PairList::new(&[(&long, b"v")]) }.is_within_limits());
    assert!(!Command::SetAllIfAbsent { pairs: PairList::new(&[]) }.is_within_limits());
}

#[test]
#[should_panic(expected = "entry is full")]
fn a_command_too_many_is_a_bug() {
    let mut builder = EntryBuilder::default();
    for _ in 0..=MAX_COMMANDS_PER_ENTRY {
        builder.push(&Command::Clear, 0);
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail_without_a_panic(
        kind in 0..17_u8,
        options in prop_oneof![3 => Just(0), 1 => any::<u8>()],
        lengths in (0..20_u32, 0..20_u32),
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let (key_bytes, value_bytes) = lengths;
        let mut payload = vec![0; ENTRY_HEADER_BYTES];
        payload.extend_from_slice(&[kind, options, 0, 0]);
        payload.extend_from_slice(&key_bytes.to_le_bytes());
        payload.extend_from_slice(&value_bytes.to_le_bytes());
        payload.extend_from_slice(&bytes);
        for payload in [&payload, &bytes] {
            let Ok(commands) = EntryCommands::new(payload) else { continue };
            let mut offset = ENTRY_HEADER_BYTES;
            for command in commands {
                let Ok(command) = command else { break };
                // One encoding: what was accepted is what is written for it.
                let written = alone(&command);
                prop_assert_eq!(&written[..], &payload[offset..offset + written.len()]);
                offset += written.len();
            }
        }
    }
}
