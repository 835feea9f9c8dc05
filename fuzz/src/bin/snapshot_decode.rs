//! Fuzzes the decoder of snapshots; what is checked stands in `eyot_fuzz::snapshot_decode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::snapshot_decode(input));
