//! MEMORY STATS and DOCTOR: where the memory is, and whether that is a reason to worry.
//!
//! Place in the flow: step 9 of these commands, once every core has reported. Pure.
//!
//! Invariant: names of STATS are those of Redis 7.0 (<https://redis.io/commands/memory-stats/>); what is not counted
//! here is left out, not 0, unless 0 is the truth.

use std::fmt::Write as _;

use eyot_protocol::resp::Writer;

use super::figures::NodeFigures;

/// A resident size of so many times the counted one, from [`WORTH_A_LOOK_BYTES`] on, is worth a sentence.
const FRAGMENTATION_WORTH_A_LOOK: f64 = 1.5;
/// Below this the fixed parts of the process are most of it, and ratios say nothing.
const WORTH_A_LOOK_BYTES: u64 = 64 << 20;
/// Above this part of the limit, room is short.
const NEAR_LIMIT: f64 = 0.9;

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / (whole as f64).max(1.0)
}

/// MEMORY STATS.
pub fn stats(figures: &NodeFigures, reply: &mut Writer<'_>) {
    let (parts, used) = (figures.memory, figures.memory.total());
    let peak = figures.memory_peak.max(used);
    let resident = figures.process.resident_bytes;
    let numbers: [(&str, u64); 15] = [
        ("peak.allocated", peak),
        ("total.allocated", used),
        ("startup.allocated", parts.fixed),
        ("replication.backlog", 0),
        ("clients.slaves", 0),
        ("clients.normal", parts.connections),
        ("cluster.links", 0),
        ("aof.buffer", parts.log_tail),
        ("overhead.total", parts.overhead()),
        ("keys.count", figures.keys),
        ("keys.bytes-per-key", used / figures.keys.max(1)),
        ("dataset.bytes", parts.data()),
        ("allocator.allocated", used),
        ("allocator.active", resident),
        ("allocator.resident", resident),
    ];
    let ratios: [(&str, f64); 3] = [
        ("dataset.percentage", 100.0 * ratio(parts.data(), used)),
        ("peak.percentage", 100.0 * ratio(used, peak)),
        ("fragmentation", ratio(resident, used)),
    ];
    let own: [(&str, u64); 3] =
        [("eyot.table", parts.table), ("eyot.in-flight", parts.in_flight), ("eyot.large-values", parts.large_values)];
    reply.map(numbers.len() + ratios.len() + own.len() + 1);
    for (name, number) in numbers.into_iter().chain(own) {
        reply.bulk_text(name);
        reply.integer(number as i64);
    }
    for (name, number) in ratios {
        reply.bulk_text(name);
        reply.double((number * 100.0).round() / 100.0);
    }
    reply.bulk_text("fragmentation.bytes");
    reply.integer(resident as i64 - used as i64);
}

/// MEMORY DOCTOR.
pub fn doctor(figures: &NodeFigures) -> String {
    let (used, resident) = (figures.memory.total(), figures.process.resident_bytes);
    let mut text = String::new();
    if figures.max_memory_bytes > 0 && ratio(used, figures.max_memory_bytes) >= NEAR_LIMIT {
        let percent = 100.0 * ratio(used, figures.max_memory_bytes);
        let _ = writeln!(
            text,
            "{percent:.0} % of maxmemory is used, and the policy is {}. Raise maxmemory, or store less.",
            figures.policy
        );
    }
    if resident >= WORTH_A_LOOK_BYTES && ratio(resident, used) >= FRAGMENTATION_WORTH_A_LOOK {
        let _ = writeln!(
            text,
            "The process takes {:.2} times the memory that is counted: after many deletes the allocator keeps room for \
             what comes next. A restart gives it back.",
            ratio(resident, used)
        );
    }
    if figures.memory.connections > used / 4 && figures.memory.connections >= WORTH_A_LOOK_BYTES {
        let _ = writeln!(
            text,
            "Clients take more than a quarter of the memory. CLIENT LIST says which (tot-mem); \
             client-output-buffer-limit bounds them."
        );
    }
    if text.is_empty() {
        text.push_str("Nothing to worry about.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::figures::MemoryParts;
    use eyot_protocol::resp::RespVersion;

    fn figures() -> NodeFigures {
        let mut figures = NodeFigures { keys: 10, policy: "noeviction", ..NodeFigures::default() };
        figures.memory = MemoryParts { entries: 750, table: 200, connections: 50, ..MemoryParts::default() };
        figures.process.resident_bytes = 1250;
        figures
    }

    #[test]
    fn stats_has_as_many_pairs_as_it_says() {
        let mut out = Vec::new();
        stats(&figures(), &mut Writer::new(&mut out, RespVersion::Two));
        let text = String::from_utf8(out).unwrap();
        let mut lines = text.split_terminator("\r\n");
        assert_eq!(lines.next(), Some("*44"));
        let replies = lines.filter(|line| line.starts_with([':', '$'])).count();
        assert_eq!(replies, 44, "{text}");
        for pair in
            ["total.allocated\r\n:1000\r\n", "dataset.percentage\r\n$2\r\n75\r\n", "fragmentation.bytes\r\n:250\r\n"]
        {
            assert!(text.contains(pair), "{pair} in {text}");
        }
    }

    #[test]
    fn the_doctor_names_what_is_wrong_and_nothing_else() {
        let mut figures = figures();
        assert_eq!(doctor(&figures), "Nothing to worry about.\n");
        figures.max_memory_bytes = 1100;
        assert!(doctor(&figures).starts_with("91 % of maxmemory"), "{}", doctor(&figures));
        figures.max_memory_bytes = 0;
        figures.process.resident_bytes = 128 << 20;
        figures.memory.entries = 64 << 20;
        assert!(doctor(&figures).starts_with("The process takes 2.00 times"), "{}", doctor(&figures));
        figures.memory.connections = 64 << 20;
        assert!(doctor(&figures).starts_with("Clients take more"), "{}", doctor(&figures));
    }
}
