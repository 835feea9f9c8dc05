//! Fuzzes the decoder of TLV values; what is checked stands in `eyot_fuzz::tlv_decode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::tlv_decode(input));
