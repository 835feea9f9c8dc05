//! Fuzzes the decoder of log entries' payloads; what is checked stands in `eyot_fuzz::entry_commands`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::entry_commands(input));
