//! What may go, in what order, and what stays whatever is asked.

use proptest::prelude::*;

use super::*;

const BYTES: u64 = 1024 * 1024;
const REQUEST: SegmentRequest = SegmentRequest { number: 100, bytes: BYTES };

/// Segment `number` of `log_id`, whose last batch has ten times its number, with `newest` of shards 0, 1, …
fn segment(log_id: u16, number: u64, newest: &[u64]) -> KeptSegment {
    let newest = (0..).map(ShardId).zip(newest.iter().copied().map(Index));
    let newest = newest.filter(|(_, index)| index.0 > 0).collect();
    KeptSegment { log_id, number, bytes: BYTES, last_sequence: Sequence(10 * number), newest }
}

/// Three segments of log 0, of which entries 10, 20 and 30 of shard 0 are the newest, and shard 1 has 5 in the second.
fn three() -> Retention {
    Retention::new(0, BYTES, &[segment(0, 1, &[10]), segment(0, 2, &[20, 5]), segment(0, 3, &[30])])
}

fn removals(retention: &mut Retention, durable: u64, needed_after: &[u64]) -> Vec<(u16, u64)> {
    let needed_after = |shard: ShardId| Index(needed_after[usize::from(shard.0)]);
    let mut removed = Vec::new();
    while let Some(removal) = retention.next_removal(Sequence(durable), &needed_after) {
        removed.push((removal.log_id, removal.number));
        retention.removed(removal);
    }
    removed
}

#[test]
fn a_segment_goes_when_every_shard_is_covered_and_not_before() {
    let superfluous = |needed_after: [u64; 2]| {
        let needed_after = |shard: ShardId| Index(needed_after[usize::from(shard.0)]);
        three().superfluous(0, Sequence(31), &needed_after).count()
    };
    for (needed_after, count) in
        [([0, 0], 0), ([9, 9], 0), ([10, 0], 1), ([29, 4], 1), ([29, 5], 2), ([30, 0], 1), ([30, 5], 3)]
    {
        assert_eq!(superfluous(needed_after), count, "{needed_after:?}");
    }
}

#[test]
fn a_few_stay_to_be_recycled_and_the_oldest_of_the_others_go() {
    let mut retention = three();
    assert_eq!(removals(&mut retention, 31, &[30, 5]), [(0, 1)]);
    assert_eq!((retention.count(), retention.bytes()), (2, 2 * BYTES));
    let all = |_: ShardId| Index(u64::MAX);
    for old in [2, 3] {
        let recycling = retention.next_recycling(REQUEST, Sequence(31), &all).unwrap();
        assert_eq!(recycling, Recycling { old, request: REQUEST });
        assert_eq!(retention.next_recycling(REQUEST, Sequence(31), &all), None, "one at a time");
        assert_eq!(retention.next_removal(Sequence(31), &all), None, "one at a time");
        retention.recycled(recycling);
    }
    assert_eq!(retention.next_recycling(REQUEST, Sequence(31), &all), None);
}

#[test]
fn the_last_segment_stays_until_what_follows_it_is_durable() {
    let all = |_: ShardId| Index(u64::MAX);
    let mut retention = Retention::new(0, BYTES, &[segment(0, 1, &[10])]);
    assert_eq!(retention.next_recycling(REQUEST, Sequence(10), &all), None);
    assert!(retention.next_recycling(REQUEST, Sequence(11), &all).is_some());
}

#[test]
fn a_file_of_another_size_is_removed_in_time_and_never_recycled() {
    let all = |_: ShardId| Index(u64::MAX);
    let mut retention = three();
    let larger = SegmentRequest { bytes: 2 * BYTES, ..REQUEST };
    assert_eq!(retention.next_recycling(larger, Sequence(31), &all), None);
    assert!(retention.next_recycling(REQUEST, Sequence(31), &all).is_some());
}

#[test]
fn after_a_failure_nothing_is_cut() {
    let all = |_: ShardId| Index(u64::MAX);
    let mut retention = three();
    assert!(retention.next_removal(Sequence(31), &all).is_some());
    retention.failed();
    assert!(retention.has_failed());
    assert_eq!(retention.next_removal(Sequence(31), &all), None);
    assert_eq!(retention.next_recycling(REQUEST, Sequence(31), &all), None);
    retention.retired(segment(0, 4, &[40]));
    assert_eq!(retention.count(), 4, "they are still there");
}

#[test]
fn of_a_core_that_is_gone_everything_goes_but_the_last() {
    let mut retention = Retention::new(0, BYTES, &[segment(0, 7, &[0, 3]), segment(2, 1, &[10]), segment(2, 2, &[11])]);
    assert_eq!(removals(&mut retention, 1000, &[9, 9]), []);
    assert_eq!(removals(&mut retention, 1000, &[u64::MAX, u64::MAX]), [(2, 1)]);
    assert_eq!(retention.count(), 2);
}

#[test]
fn a_segment_of_another_size_does_not_stand_in_the_way_of_the_others() {
    let odd = KeptSegment { bytes: BYTES - 4096, ..segment(0, 1, &[10]) };
    let mut retention = Retention::new(0, BYTES, &[odd, segment(0, 2, &[20]), segment(0, 3, &[30])]);
    retention.recycle_up_to(10);
    let all = |_: ShardId| Index(u64::MAX);
    assert_eq!(retention.next_recycling(REQUEST, Sequence(31), &all), None, "it is of no use");
    assert_eq!(removals(&mut retention, 31, &[u64::MAX]), [(0, 1)], "so it goes, however many may stay");
    assert_eq!(retention.next_recycling(REQUEST, Sequence(31), &all).map(|recycling| recycling.old), Some(2));
}

#[test]
#[should_panic(expected = "out of order")]
fn a_segment_out_of_order_is_a_bug() {
    three().retired(segment(0, 5, &[]));
}

proptest! {
    /// Whatever is covered and wanted when: what is cut was superfluous, oldest first, and what is left has no gap.
    #[test]
    fn any_history_cuts_only_what_is_superfluous(
        steps in proptest::collection::vec((0_u8..4, 0_u64..4, 0_u64..4), 1..80),
        recyclable in 0_usize..6,
    ) {
        let mut retention = Retention::new(0, BYTES, &[]);
        retention.recycle_up_to(recyclable);
        let (mut number, mut next_left, mut newest, mut covered) = (0, 1, [0; 2], [0; 2]);
        let mut tops = vec![[0; 2]];
        for (what, left, right) in steps {
            let durable = Sequence(10 * number + left % 2);
            let floors = covered;
            let needed_after = |shard: ShardId| Index(floors[usize::from(shard.0)]);
            match what {
                0 => {
                    number += 1;
                    newest = [newest[0] + left, newest[1] + right];
                    tops.push(newest);
                    retention.retired(segment(0, number, &newest));
                }
                1 => covered = [newest[0].min(covered[0] + left), newest[1].min(covered[1] + right)],
                2 => if let Some(removal) = retention.next_removal(durable, &needed_after) {
                    prop_assert_eq!(removal.number, next_left);
                    retention.removed(removal);
                    next_left += 1;
                },
                _ => if let Some(recycling) = retention.next_recycling(REQUEST, durable, &needed_after) {
                    prop_assert_eq!(recycling.old, next_left);
                    retention.recycled(recycling);
                    next_left += 1;
                },
            }
            for gone in 1..next_left {
                let top = tops[gone as usize];
                prop_assert!(top[0] <= covered[0] && top[1] <= covered[1]);
            }
            prop_assert_eq!(retention.count() as u64, number + 1 - next_left);
        }
        // With everything covered, a bounded number stays.
        let there = retention.count();
        let all = |_: ShardId| Index(u64::MAX);
        while let Some(removal) = retention.next_removal(Sequence(u64::MAX), &all) {
            retention.removed(removal);
        }
        prop_assert_eq!(retention.count(), there.min(recyclable.max(RECYCLABLE_SEGMENTS_MIN)));
    }
}
