//! Fuzzes the decoders of frames and batches; what is checked stands in
//! `eyot_fuzz::raft_envelope`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::raft_envelope(input));
