//! What the fuzz targets check: for every decoder, that no bytes can make it panic, and that what it accepts is what
//! its encoder writes.
//!
//! Place in the flow: beside it. Each function takes arbitrary bytes and panics when a property does not hold; the
//! binary of the same name under `src/bin` hands them what libFuzzer makes up, the tests here what is committed in
//! `corpus/`.
//!
//! Invariant: a function here depends on its input alone, so that a finding repeats.

#![deny(unsafe_code)]

mod entry;
mod history;
mod native;
mod raft;
mod resp;
mod rows;
mod snapshot;
mod tlv;
mod wal;

pub use entry::{entry_commands, value_part};
pub use history::history_lines;
pub use native::{native_frame, native_response};
pub use raft::{peer_message, persist_record, raft_envelope, session_table};
pub use resp::resp_request;
pub use rows::{import_csv, import_jsonl};
pub use snapshot::snapshot_decode;
pub use tlv::tlv_decode;
pub use wal::wal_batch;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs a target over its committed corpus, and over every input with its end cut off and one bit turned.
    fn over_the_corpus(name: &str, target: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
            let mut input = fs::read(entry.expect("a readable entry").path()).expect("a readable input");
            target(&input);
            target(&input[..input.len() / 2]);
            if let Some(middle) = input.len().checked_sub(1).map(|last| last / 2) {
                input[middle] ^= 1;
                target(&input);
            }
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", corpus.display());
        target(&[]);
    }

    macro_rules! over_the_corpora {
        ($($target:ident),+ $(,)?) => {
            $(#[test]
            fn $target() {
                over_the_corpus(stringify!($target), super::$target);
            })+
        };
    }

    over_the_corpora!(
        tlv_decode,
        entry_commands,
        value_part,
        native_frame,
        native_response,
        resp_request,
        wal_batch,
        snapshot_decode,
        history_lines,
        import_jsonl,
        import_csv,
        peer_message,
        persist_record,
        raft_envelope,
        session_table,
    );
}
