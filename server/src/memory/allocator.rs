//! How the program's allocator is set.
//!
//! Place in the flow: the first thing that the program does.
//!
//! mimalloc gives freed memory back to the system 10 ms after it was freed. Tables that grow free pages all the time,
//! so while a database fills, pages are given back in the middle of what had been huge pages, and taken anew a moment
//! later: each such piece is small pages from then on, and every look-up in it misses the translation of its address
//! besides the line. After loading a million keys 65 to 70 % of the memory was in huge pages; with 100 ms it is 83 to
//! 97 %, and with a second all of it, by which durable SETs at pipeline 64 took 9 % less of the core. But what large
//! values have needed for a moment stays that long, too: with a second 10 to 12 MiB beside their file, with 100 ms 7
//! to 9.
//!
//! Deliberately not here: which allocator it is (`main.rs`).

#![allow(unsafe_code)]

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// How long freed memory stays with the process, in milliseconds.
const PURGE_DELAY_MS: c_long = 100;
/// How many times as long whole regions stay: not longer. As it comes it is ten times, which made it the same 100 ms.
const ARENA_PURGE_FACTOR: c_long = 1;

/// `mi_option_purge_delay` and `mi_option_arena_purge_mult`, as `mimalloc.h` of version 2 counts its options; the crate
/// has no names for them.
const PURGE_DELAY: mi_option_t = 15;
/// See [`PURGE_DELAY`].
const ARENA_PURGE_MULT: mi_option_t = 24;

/// Has freed memory stay with the process a little longer; `MIMALLOC_PURGE_DELAY` and `MIMALLOC_ARENA_PURGE_MULT` in
/// the environment win.
pub fn keep_huge_pages_whole() {
    for (option, value) in [(PURGE_DELAY, PURGE_DELAY_MS), (ARENA_PURGE_MULT, ARENA_PURGE_FACTOR)] {
        // SAFETY: it sets one number of the allocator's own, which it reads anew each time it is needed, and the option
        // is one that it has. It is not to be called beside another thread, and the program has none yet.
        unsafe { mi_option_set_default(option, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_those_of_the_documentation() {
        // SAFETY: it reads one number of the allocator's own.
        let get = |option| unsafe { libmimalloc_sys::mi_option_get(option) };
        assert_eq!((get(PURGE_DELAY), get(ARENA_PURGE_MULT)), (10, 10), "others, if they have other defaults");
        keep_huge_pages_whole();
        assert_eq!((get(PURGE_DELAY), get(ARENA_PURGE_MULT)), (PURGE_DELAY_MS, ARENA_PURGE_FACTOR));
    }
}
