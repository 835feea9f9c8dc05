//! What a command will take when it is applied, judged before it enters an entry.
//!
//! Place in the flow: between steps 3 (admit) and 5 (execute). Most commands take what they say. Some make more of a
//! few bytes: SETRANGE fills with zeros, COPY doubles a value, APPEND and RENAME copy one, GETDEL returns one. What
//! those will find is known as far as it is applied; what waits before them is counted in full, so a cost is never too
//! low.
//!
//! Deliberately not here: limits, which admission has, and the lengths themselves, which the driver knows.

use eyot_protocol::command::Command;

use super::foreseen::ENTRY_OVERHEAD_BYTES;

/// Bytes of values that the commands of one entry touch beside their own, at which it is sealed: an entry is applied in
/// one piece, and this is some tenths of a millisecond of copying. A single longer value is touched in one piece.
pub const MAX_ENTRY_TOUCHED_BYTES: usize = 1 << 20;

/// What a command will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Bytes of memory that it may add.
    pub growth: usize,
    /// Bytes of values that applying it copies, beside the command's own.
    pub touched: usize,
    /// Those of them that its reply will have.
    pub returned: usize,
    /// How long the value is that it stores under its first key, and how much it appends to the one there.
    pub(super) stored: usize,
    pub(super) appended: usize,
    /// How long the value is that it gives to its second key, if it has one.
    pub(super) moved: usize,
}

/// What is known of the value under a command's first key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    /// How long it is for sure, or will have made room for as many bytes.
    pub at_least: usize,
    /// How long it may be when the command is applied.
    pub at_most: usize,
    /// Whether it is in a value file for sure, where it is shared and sent without being copied.
    pub in_file: bool,
}

impl Length {
    /// Bytes that are copied where nothing else is done with the value.
    fn copied(self) -> usize {
        if self.in_file {
            0
        } else {
            self.at_most
        }
    }
}

/// What a command takes that says itself what it adds.
#[inline]
pub(super) fn said(command: &Command<'_>) -> usize {
    if command.grows() {
        command.encoded_bytes() + ENTRY_OVERHEAD_BYTES
    } else {
        0
    }
}

/// Whether what `command` takes depends on the value that it finds.
#[inline]
pub(super) fn depends(command: &Command<'_>) -> bool {
    match command {
        Command::Append { .. } | Command::SetRange { .. } | Command::Rename { .. } | Command::Copy { .. } => true,
        _ => command.returns_value(),
    }
}

impl Cost {
    /// Of a command that takes what it says.
    #[inline]
    pub(super) fn said(command: &Command<'_>) -> Self {
        let growth = said(command);
        Self { growth, stored: growth, ..Self::default() }
    }

    /// Of a command whose first key has a value of `length`.
    pub(super) fn found(command: &Command<'_>, length: Length) -> Self {
        let said = Self::said(command);
        let (copied, at_most) = (length.copied(), length.at_most);
        match command {
            Command::SetRange { bytes: [], .. } => said,
            Command::SetRange { offset, bytes, .. } => {
                let end = *offset as usize + bytes.len();
                let growth = said.growth + end.saturating_sub(length.at_least);
                Self { growth, touched: at_most.max(end), stored: end, ..said }
            }
            Command::Append { bytes, .. } => {
                Self { touched: at_most + bytes.len(), stored: 0, appended: bytes.len(), ..said }
            }
            Command::Rename { .. } => Self { touched: copied, stored: 0, moved: at_most, ..said },
            Command::Copy { .. } => {
                Self { growth: said.growth + copied, touched: copied, stored: 0, moved: at_most, ..said }
            }
            _ => Self { touched: copied, returned: copied, ..said },
        }
    }
}

#[cfg(test)]
mod tests {
    use eyot_protocol::command::{Condition, NewExpiry, Value};

    use super::*;

    const FOUND: Length = Length { at_least: 1000, at_most: 5000, in_file: false };
    const IN_FILE: Length = Length { in_file: true, ..FOUND };

    fn range(offset: u32, bytes: &[u8]) -> Command<'_> {
        Command::SetRange { key: b"k", offset, bytes }
    }

    #[test]
    fn a_range_is_charged_for_what_it_adds_behind_the_end() {
        let cost = |command: &Command<'_>| Cost::found(command, FOUND);
        let (inside, beyond) = (range(10, b"x"), range(1_000_000, b"x"));
        assert_eq!(cost(&inside), Cost { growth: said(&inside), touched: 5000, stored: 11, ..Cost::default() });
        assert_eq!(cost(&beyond).growth, said(&beyond) + 999_001);
        assert_eq!((cost(&beyond).touched, cost(&beyond).stored), (1_000_001, 1_000_001));
        assert_eq!(cost(&range(1_000_000, b"")).touched, 0, "it changes nothing");
    }

    #[test]
    fn a_copy_is_charged_for_what_it_doubles_and_a_new_name_for_nothing() {
        let copy = Command::Copy { from: b"k", to: b"l", replace: false };
        let rename = Command::Rename { from: b"k", to: b"l", if_absent: false };
        let expected = Cost { growth: said(&copy) + 5000, touched: 5000, moved: 5000, ..Cost::default() };
        assert_eq!(Cost::found(&copy, FOUND), expected);
        assert_eq!(Cost::found(&copy, IN_FILE), Cost { growth: said(&copy), touched: 0, ..expected });
        assert_eq!(Cost::found(&rename, FOUND), Cost { growth: said(&rename), ..expected });
    }

    #[test]
    fn what_is_returned_counts_unless_it_is_referred_to() {
        let (expiry, condition) = (NewExpiry::Never, Condition::Always);
        let set = Command::Set { key: b"k", value: Value::Bytes(b"v"), expiry, condition, return_old: true };
        let take = Command::TakeOut { key: b"k" };
        assert_eq!((Cost::found(&take, FOUND).returned, Cost::found(&take, IN_FILE).returned), (5000, 0));
        assert_eq!((Cost::found(&set, FOUND).returned, Cost::found(&set, IN_FILE).returned), (5000, 0));
        assert_eq!(Cost::found(&take, FOUND).growth, 0);
    }
}
