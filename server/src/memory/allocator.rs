//! How the program's allocator is set.
//!
//! Place in the flow: the first thing that the program does.
//!
//! mimalloc gives freed memory back to the system 10 ms after it was freed. Tables that grow free pages all the time, so
//! while a database fills, pages are given back in the middle of what had been huge pages, and taken anew a moment
//! later: each such piece is small pages from then on, and every look-up in it misses the translation of its address
//! besides the line. After loading a million keys half of the memory was in huge pages; with a second in place of 10 ms
//! all of it is, and durable SETs at pipeline 64 take 9 % less of the core. What is really free goes back as before, a
//! second later.
//!
//! Deliberately not here: which allocator it is (`main.rs`).

#![allow(unsafe_code)]

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// How long freed memory stays with the process, in milliseconds.
const PURGE_DELAY_MS: c_long = 1000;

/// `mi_option_purge_delay`, as `mimalloc.h` of version 2 counts its options; the crate has no name for it.
const PURGE_DELAY: mi_option_t = 15;

/// Has freed memory stay with the process for a second; `MIMALLOC_PURGE_DELAY` in the environment wins.
pub fn keep_huge_pages_whole() {
    // SAFETY: it sets one number of the allocator's own, which it reads anew each time it is needed, and the option is
    // one that it has. It is not to be called beside another thread, and the program has none yet.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: it reads one number of the allocator's own.
        let delay_ms = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay_ms(), 10, "the default of the documentation: another option if it is not");
        keep_huge_pages_whole();
        assert_eq!(delay_ms(), PURGE_DELAY_MS);
    }
}
