//! Fuzzes the reader of JSON lines that are imported; what is checked stands in `eyot_fuzz::import_jsonl`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::import_jsonl(input));
