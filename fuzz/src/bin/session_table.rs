//! Fuzzes the decoder of session tables; what is checked stands in
//! `eyot_fuzz::session_table`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::session_table(input));
