//! Requests on all keys of a core, as they travel between cores.
//!
//! Place in the flow: step 4 (route). Rare beside requests on keys, so they own what they need.

use std::sync::Weak;

use eyot_protocol::resp::request::TypeFilter;
use eyot_protocol::tlv::{TYPE_LIST, TYPE_MAP};

use crate::shard::ScanCursor;

/// What is asked of the keys of one core.
#[derive(Debug, Clone)]
pub enum KeyspaceRequest {
    /// How many there are.
    Count,
    /// How many there are in a slot, which the core owns.
    CountInSlot(u16),
    /// Some of those in a slot, which the core owns: at most so many.
    KeysInSlot(u16, usize),
    /// One of them, chosen by this random number.
    RandomKey(u64),
    /// The next ones from a cursor on, whose slot the core owns.
    Scan {
        /// Where to begin.
        cursor: ScanCursor,
        /// What is wanted.
        request: OwnedScan,
    },
    /// All that are wanted, whatever the count.
    Walk(OwnedScan),
}

/// What a SCAN or KEYS wants.
#[derive(Debug, Clone)]
pub struct OwnedScan {
    /// Held by the connection that asks while it is there: what it asked for is dropped with it, on whichever core.
    pub asker: Weak<()>,
    /// COUNT: how many keys to look at, as a hint.
    pub count: usize,
    /// MATCH.
    pub pattern: Option<Box<[u8]>>,
    /// TYPE.
    pub filter: TypeFilter,
}

impl OwnedScan {
    /// Whether a key whose encoded value begins with `head` is of the type that is wanted.
    pub fn has_type(&self, head: &[u8]) -> bool {
        self.filter == TypeFilter::Any || self.filter == type_of(head)
    }
}

/// The type of the encoded value that begins with `head`, as Redis's clients know types.
fn type_of(head: &[u8]) -> TypeFilter {
    match head.first().copied() {
        Some(TYPE_LIST) => TypeFilter::List,
        Some(TYPE_MAP) => TypeFilter::Hash,
        Some(_) => TypeFilter::String,
        None => TypeFilter::Nothing,
    }
}
