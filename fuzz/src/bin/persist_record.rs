//! Fuzzes the decoder of the consensus log's records; what is checked stands in
//! `eyot_fuzz::persist_record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::persist_record(input));
