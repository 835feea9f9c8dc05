//! Fuzzes the decoder of reply frames; what is checked stands in `eyot_fuzz::native_response`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::native_response(input));
