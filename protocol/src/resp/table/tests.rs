//! The table is sound, and every name is found.

use super::*;

#[test]
fn every_name_is_found_in_any_case_and_no_other() {
    for id in CommandId::ALL {
        let name = id.name();
        assert_eq!(lookup(name.as_bytes()), Some(id), "{name}");
        assert_eq!(lookup(name.to_uppercase().as_bytes()), Some(id), "{name}");
        let mut mixed = name.to_owned().into_bytes();
        mixed[0] = mixed[0].to_ascii_uppercase();
        assert_eq!(lookup(&mixed), Some(id), "{name}");
        for at in 0..name.len() {
            // A byte that differs from a letter in other bits than the case.
            for bit in [1_u8, 0x40, 0x80] {
                let mut other = name.as_bytes().to_vec();
                other[at] ^= bit;
                let expected = CommandId::ALL.into_iter().find(|id| id.name().as_bytes() == other);
                assert_eq!(lookup(&other), expected, "{other:?}");
            }
        }
        assert_eq!(lookup(format!("{name}\0").as_bytes()), None);
    }
    for name in
        [&b""[..], b"g", b"ge", b"gett", b"abcdefghijklmnop", b"abcdefghijklmnopq", &[0; 16], &[0; 3], &[b' '; 3]]
    {
        assert_eq!(lookup(name), None, "{name:?}");
    }
}

#[test]
fn names_are_packed_alike_by_the_compiler_and_by_the_server() {
    for length in 1..=MAX_NAME_BYTES {
        let name = &b"abcdefghijklmnop"[..length];
        assert_eq!(pack(name), Some(pack_slowly(name)));
        assert_eq!(pack(&name.to_ascii_uppercase()), Some(pack_slowly(name)));
    }
}

#[test]
fn what_is_said_of_a_command_is_complete() {
    let specs = COMMANDS.iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    for spec in specs {
        assert!(spec.summary.ends_with('.'), "{}", spec.name);
        assert!(!spec.complexity.is_empty() && !spec.since.is_empty(), "{}", spec.name);
        assert!(spec.arity != 0, "{}", spec.name);
        let fewest = usize::from(spec.arity.unsigned_abs());
        for key in spec.key_specs {
            assert!(usize::from(key.first) < fewest && key.step > 0, "{}: a key that may not be there", spec.name);
        }
        assert!(!(spec.flags.has(Flags::WRITE) && spec.flags.has(Flags::READONLY)), "{}", spec.name);
        assert!(spec.flags.has(Flags::WRITE) || !spec.flags.has(Flags::DENY_OOM), "{}", spec.name);
    }
    for spec in &COMMANDS {
        for sub in spec.subcommands {
            assert_eq!(sub.name, format!("{}|{}", spec.name, sub.short_name()));
            assert_eq!(spec.subcommand(sub.short_name().to_uppercase().as_bytes()), Some(sub));
        }
        let names: Vec<_> = spec.subcommands.iter().map(|sub| sub.name).collect();
        assert!(names.is_sorted(), "{names:?}");
    }
}

#[test]
fn key_positions_follow_the_specs() {
    let positions = |id: CommandId, count| id.spec().key_positions(count).map(|(at, _)| at).collect::<Vec<_>>();
    assert_eq!(positions(CommandId::Get, 2), [1]);
    assert_eq!(positions(CommandId::Set, 7), [1]);
    assert_eq!(positions(CommandId::Del, 4), [1, 2, 3]);
    assert_eq!(positions(CommandId::MSet, 5), [1, 3]);
    assert_eq!(positions(CommandId::MSet, 4), [1, 3]);
    assert_eq!(positions(CommandId::Rename, 3), [1, 2]);
    assert!(positions(CommandId::Ping, 2).is_empty());
    let spec = CommandId::MSet.spec();
    assert_eq!((spec.first_key(), spec.last_key(), spec.key_step()), (1, -1, 2));
    let spec = CommandId::Copy.spec();
    assert_eq!((spec.first_key(), spec.last_key(), spec.key_step()), (1, 2, 1));
}
