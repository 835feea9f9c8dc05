//! Fuzzes the decoder of the parts of large values in the log; what is checked stands in `eyot_fuzz::value_part`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::value_part(input));
