//! Fuzzes the decoder and the parser of RESP requests; what is checked stands in `eyot_fuzz::resp_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::resp_request(input));
