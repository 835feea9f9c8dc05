//! Fuzzes the decoders of the log's segment headers, batches and records; what is checked stands in
//! `eyot_fuzz::wal_batch`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::wal_batch(input));
