//! Fuzzes the decoder of messages between replicas, and the replica that gets them; what is checked stands in
//! `eyot_fuzz::peer_message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::peer_message(input));
