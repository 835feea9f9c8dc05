//! Fuzzes the decoders of recorded histories, and the checkers with what they let through; what is checked stands in
//! `eyot_fuzz::history_lines`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::history_lines(input));
