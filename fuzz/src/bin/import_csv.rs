//! Fuzzes the reader of CSV that is imported; what is checked stands in `eyot_fuzz::import_csv`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eyot_fuzz::import_csv(input));
