//! Fuzzes the decoder of request frames; what is checked stands in `eyot_fuzz::native_frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::native_frame(input));
