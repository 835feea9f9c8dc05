//! The end of all keys: at once for whoever looks, step by step for the allocator.

use super::*;

/// A shard of `count` keys, every second of which expires.
fn filled(count: usize) -> Log {
    let mut log = Log::new();
    let keys: Vec<String> = (0..count).map(|n| format!("key:{n}")).collect();
    for chunk in keys.chunks(1000) {
        let sets: Vec<_> = chunk
            .iter()
            .enumerate()
            .map(|(n, key)| match n % 2 {
                0 => set(key.as_bytes(), b"value"),
                _ => set_until(key.as_bytes(), b"value", NOW_US + SECOND_US),
            })
            .collect();
        log.apply(&sets, NOW_US);
    }
    log
}

#[test]
fn a_cleared_shard_is_empty_at_once_whatever_it_held() {
    for count in [0, 10, 5000] {
        let mut log = filled(count);
        assert_eq!(log.one(Command::Clear, NOW_US), Outcome::Done);
        assert_eq!((log.shard.key_count(), log.shard.expiring_key_count()), (0, 0), "{count} keys");
        assert_eq!((log.get(b"key:1", NOW_US), log.shard.next_expiry_us()), (None, None));
        assert!(swept(&mut log.shard, NOW_US + 10 * SECOND_US, 100).is_empty());
        assert_eq!(log.shard.digest(), Log::new().shard.digest());
        // It goes on like a new one.
        log.one(set_until(b"key:1", b"new", NOW_US + SECOND_US), NOW_US);
        assert_eq!(log.get(b"key:1", NOW_US).unwrap().version, log.latest());
        assert_eq!(swept(&mut log.shard, NOW_US + 10 * SECOND_US, 100).len(), 1);
    }
}

#[test]
fn its_memory_is_counted_until_it_is_freed_and_then_it_is_free() {
    let mut log = filled(50_000);
    let before = log.shard.memory_bytes();
    log.one(Command::Clear, NOW_US);
    let mut left = log.shard.memory_bytes();
    assert!(left > before * 3 / 4, "{left} of {before} bytes");
    let mut steps = 0;
    while log.shard.free_some(1000) {
        let now = log.shard.memory_bytes();
        assert!(now <= left);
        left = now;
        steps += 1;
        check_counts(&log.shard);
    }
    assert!(steps > 10, "{steps} steps: all at once would hold the core");
    let empty = Log::new().shard.memory_bytes();
    assert!(log.shard.memory_bytes() < empty + 64 * 1024, "{} bytes are left", log.shard.memory_bytes());
    assert!(!log.shard.free_some(1000));
}

#[test]
fn a_log_of_clears_frees_what_it_has_cleared_without_any_help() {
    let mut log = filled(20_000);
    let most = log.shard.memory_bytes();
    for round in 0..5 {
        log.one(Command::Clear, NOW_US);
        for n in 0..20_000 {
            log.index += 1;
            let payload = entry(&[set(format!("key:{n}").as_bytes(), &[0; 40])], NOW_US);
            log.shard.apply(Index(log.index), &payload, |_, _| ()).unwrap();
        }
        assert!(log.shard.memory_bytes() < most * 2, "round {round}: {} of {most}", log.shard.memory_bytes());
    }
    // All of it was freed by what came after it.
    assert!(!log.shard.free_some(0));
}

#[test]
fn many_clears_in_one_entry_do_not_pile_up() {
    let mut log = Log::new();
    let pair = [set_until(b"k", b"v", NOW_US + SECOND_US), Command::Clear];
    let commands: Vec<_> = pair.iter().cycle().take(2000).copied().collect();
    let outcomes = log.apply(&commands, NOW_US);
    assert!(outcomes[1..].iter().step_by(2).all(|outcome| *outcome == Outcome::Done));
    assert!(log.shard.memory_bytes() < Log::new().shard.memory_bytes() + 128 * 1024);
}
