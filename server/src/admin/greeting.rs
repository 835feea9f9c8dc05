//! The small replies: HELLO, TIME, LOLWUT.
//!
//! Place in the flow: step 9 of these commands, on the core that was asked. Pure.

use std::fmt::Write as _;

use eyot_protocol::resp::Writer;

use super::COMPATIBLE_VERSION;

/// HELLO: whom the client talks to. `reply` already writes in the version that was agreed on.
///
/// The server's name is the one that clients compare, and the version that of the replies; INFO tells them from ours.
pub fn hello(client_id: u64, cluster_enabled: bool, reply: &mut Writer<'_>) {
    let proto = reply.version.number();
    reply.map(7);
    for (name, value) in [("server", "redis"), ("version", COMPATIBLE_VERSION)] {
        reply.bulk_text(name);
        reply.bulk_text(value);
    }
    for (name, number) in [("proto", proto), ("id", client_id as i64)] {
        reply.bulk_text(name);
        reply.integer(number);
    }
    for (name, value) in [("mode", if cluster_enabled { "cluster" } else { "standalone" }), ("role", "master")] {
        reply.bulk_text(name);
        reply.bulk_text(value);
    }
    reply.bulk_text("modules");
    reply.array(0);
}

/// TIME: seconds, and microseconds within the second.
pub fn time(wall_us: i64, reply: &mut Writer<'_>) {
    reply.array(2);
    reply.bulk_integer(wall_us / 1_000_000);
    reply.bulk_integer(wall_us % 1_000_000);
}

const PICTURE_COLUMNS: usize = 64;
const PICTURE_ROWS: usize = 9;

/// LOLWUT: an island with trees in a river. Each `seed` has its own river.
pub fn lolwut(seed: u64) -> String {
    let mut rows = vec![vec![b' '; PICTURE_COLUMNS]; PICTURE_ROWS];
    let mut bits = seed | 1;
    let mut next = |below: usize| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (bits >> 33) as usize % below
    };
    for row in rows.iter_mut().skip(3) {
        let mut column = next(6);
        while column + 4 < PICTURE_COLUMNS {
            let length = 2 + next(3);
            row[column..column + length].fill(b'~');
            column += length + 2 + next(9);
        }
    }
    let (left, width) = (8 + next(12), 24 + next(16));
    for (depth, row) in rows[3..=5].iter_mut().enumerate() {
        let inset = depth * (3 + depth);
        row[left + inset..left + width - inset].fill(if depth == 0 { b'_' } else { b'.' });
        row[left + inset] = b'\\';
        row[left + width - inset - 1] = b'/';
    }
    for _ in 0..3 + next(3) {
        let trunk = left + 3 + next(width - 8);
        rows[0][trunk] = b'^';
        rows[1][trunk - 1..=trunk + 1].copy_from_slice(b"/^\\");
        rows[2][trunk] = b'|';
    }
    let mut text = String::new();
    for row in rows {
        text.push_str(String::from_utf8_lossy(&row).trim_end());
        text.push('\n');
    }
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(text, "\nEyot ver. {version} (answers as Redis ver. {COMPATIBLE_VERSION})");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyot_protocol::resp::RespVersion;

    fn written(version: RespVersion, write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out, version));
        String::from_utf8(out).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn hello_has_the_fields_of_redis_in_both_versions() {
        assert_eq!(
            written(RespVersion::Three, |reply| hello(3, true, reply)),
            "%7 $6 server $5 redis $7 version $6 7.0.15 $5 proto :3 $2 id :3 $4 mode $7 cluster $4 role $6 master \
             $7 modules *0 "
        );
        assert_eq!(
            written(RespVersion::Two, |reply| hello(3, false, reply)),
            "*14 $6 server $5 redis $7 version $6 7.0.15 $5 proto :2 $2 id :3 $4 mode $10 standalone $4 role \
             $6 master $7 modules *0 "
        );
    }

    #[test]
    fn time_is_two_texts() {
        assert_eq!(
            written(RespVersion::Three, |reply| time(1_795_262_303_540_906, reply)),
            "*2 $10 1795262303 $6 540906 "
        );
    }

    #[test]
    fn every_seed_draws_within_the_picture_and_tells_the_version() {
        for seed in 0..2000 {
            let text = lolwut(seed);
            assert!(text.lines().all(|line| line.len() <= 80 && line.is_ascii()), "{seed}:\n{text}");
            assert!(text.contains('^') && text.contains('~') && text.contains("Redis ver. 7.0.15"), "{seed}:\n{text}");
        }
        assert_ne!(lolwut(1), lolwut(2));
    }
}
