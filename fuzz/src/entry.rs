//! Properties of the decoders of log entries' payloads.

use eyot_protocol::command::{Command, CommandError, EntryBuilder, EntryCommands, ENTRY_HEADER_BYTES};
use eyot_protocol::limits::MAX_COMMANDS_PER_ENTRY;
use eyot_protocol::value_part::{ValuePart, MAX_PART_BYTES};

/// Reads `input` as the payload of an entry.
///
/// # Panics
/// When reading goes on after an error, or when what was accepted is not what building it gives.
pub fn entry_commands(input: &[u8]) {
    let mut entry = match EntryCommands::new(input) {
        Ok(entry) => entry,
        Err(error) => {
            assert!(input.len() < ENTRY_HEADER_BYTES, "{error}");
            return;
        }
    };
    let decided_at_us = entry.decided_at_us();
    let result: Result<Vec<Command<'_>>, CommandError> = entry.by_ref().collect();
    assert_eq!(entry.next(), None, "after the end, or after an error, there is nothing more");
    let commands = match result {
        Ok(commands) => commands,
        Err(error) => {
            assert!(error.offset < error.length && error.length == input.len(), "{error}");
            return;
        }
    };
    let bytes: usize = commands.iter().map(Command::encoded_bytes).sum();
    assert_eq!(ENTRY_HEADER_BYTES + bytes, input.len());
    let mut alone = Vec::new();
    for command in &commands {
        assert!(command.is_within_limits(), "what was read can be written");
        alone.clear();
        command.encode(&mut alone);
        assert_eq!(Command::decode(&alone).as_ref(), Ok(command), "a command says the same without its entry");
        assert_eq!(command.keys().next(), command.key());
    }
    // The builder forms no entry without a command, and none with more than it has positions.
    if commands.is_empty() || commands.len() > MAX_COMMANDS_PER_ENTRY {
        return;
    }
    let mut builder = EntryBuilder::default();
    for (position, command) in commands.iter().enumerate() {
        assert_eq!(usize::from(builder.push(command, decided_at_us)), position);
    }
    assert_eq!(builder.take(), input, "an entry has one encoding");
}

/// Reads `input` as the payload of a part of a large value.
///
/// # Panics
/// When what was accepted is out of bounds, or not what encoding it gives.
pub fn value_part(input: &[u8]) {
    let Ok(part) = ValuePart::decode(input) else { return };
    let mut encoded = part.header().to_vec();
    if let ValuePart::Bytes { offset, total, bytes, .. } = part {
        assert!(!bytes.is_empty() && bytes.len() <= MAX_PART_BYTES && offset + bytes.len() as u64 <= total);
        encoded.extend_from_slice(bytes);
    }
    assert_eq!(encoded, input, "a part has one encoding");
}
