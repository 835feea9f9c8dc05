//! The extents of a value file against a model: every page in one place, whatever happens.
//!
//! Place in the flow: tests of `value_file`.

use proptest::prelude::*;

use super::*;

const PAGE: usize = 4096;

/// A range of pages of nothing.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    start: usize,
    bytes: usize,
    warm: bool,
}

impl Extent for Range {
    fn start(&self) -> usize {
        self.start
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_warm(&self) -> bool {
        self.warm
    }

    fn split_off(&mut self, at: usize) -> Self {
        assert!(at > 0 && at < self.bytes && at.is_multiple_of(PAGE), "split of {self:?} at {at}");
        let rest = Self { start: self.start + at, bytes: self.bytes - at, warm: self.warm };
        self.bytes = at;
        rest
    }

    fn join(&mut self, next: Self) {
        assert_eq!(self.start + self.bytes, next.start, "neighbours");
        assert_eq!(self.warm, next.warm, "of the same kind");
        self.bytes += next.bytes;
    }
}

fn extents(pages: usize) -> Extents<Range> {
    Extents::new(Range { start: 0, bytes: pages * PAGE, warm: false }, PAGE)
}

fn warmed(mut range: Range) -> Range {
    range.warm = true;
    range
}

fn cooled(mut range: Range) -> Range {
    range.warm = false;
    range
}

#[test]
fn the_smallest_that_fits_is_taken_and_what_is_warm_before_what_is_cold() {
    let mut extents = extents(100);
    let [a, b, c, d] = [10, 3, 5, 1].map(|pages| extents.allocate(pages * PAGE).unwrap());
    assert_eq!(extents.live_bytes(), 19 * PAGE);
    extents.free(warmed(a));
    extents.free(warmed(c));
    let taken = extents.allocate(4 * PAGE - 1).unwrap();
    assert_eq!((taken.start, taken.bytes), (13 * PAGE, 4 * PAGE), "the five pages are enough");
    let taken = extents.allocate(11 * PAGE).unwrap();
    assert_eq!(taken.start, 19 * PAGE, "no warm extent is large enough");
    assert_eq!(extents.warm_bytes(), 11 * PAGE);
    let _ = (b, d);
}

#[test]
fn neighbours_become_one_again() {
    let mut extents = extents(8);
    let pages: Vec<Range> = (0..8).map(|_| extents.allocate(PAGE).unwrap()).collect();
    assert!(extents.allocate(1).is_none());
    let (even, odd): (Vec<_>, Vec<_>) = pages.into_iter().partition(|page| page.start % (2 * PAGE) == 0);
    even.into_iter().for_each(|page| extents.free(warmed(page)));
    assert!(extents.allocate(2 * PAGE).is_none(), "holes of one page");
    odd.into_iter().for_each(|page| extents.free(warmed(page)));
    assert_eq!(extents.allocate(8 * PAGE).unwrap().bytes, 8 * PAGE);
}

#[test]
fn what_was_not_needed_for_an_interval_goes_back_and_what_was_needed_stays() {
    let mut extents = extents(100);
    let (a, b) = (extents.allocate(10 * PAGE).unwrap(), extents.allocate(20 * PAGE).unwrap());
    extents.free(warmed(a));
    extents.free(warmed(b));
    assert!(extents.take_to_give_back(usize::MAX).is_none(), "no interval has passed");
    extents.end_interval();
    assert!(extents.take_to_give_back(usize::MAX).is_none(), "it was not warm all the time");
    let used = extents.allocate(12 * PAGE).unwrap();
    extents.free(warmed(used));
    extents.end_interval();
    let back = extents.take_to_give_back(usize::MAX).unwrap();
    assert_eq!(back.bytes, 18 * PAGE, "twelve pages were in use meanwhile");
    extents.given_back(cooled(back));
    assert!(extents.take_to_give_back(usize::MAX).is_none());
    extents.end_interval();
    assert_eq!(extents.take_to_give_back(5 * PAGE).unwrap().bytes, 5 * PAGE, "in parts, if so asked");
    assert_eq!(extents.take_to_give_back(50 * PAGE).unwrap().bytes, 7 * PAGE);
    assert!(!extents.has_warm());
}

#[test]
fn more_than_the_bound_goes_back_at_once_and_so_does_what_never_became_a_value() {
    let pages = WARM_BYTES_MAX / PAGE;
    let mut extents = extents(2 * pages);
    let (a, b) = (extents.allocate(WARM_BYTES_MAX).unwrap(), extents.allocate(PAGE).unwrap());
    let spoiled = extents.allocate(3 * PAGE).unwrap();
    extents.free(warmed(a));
    assert!(extents.take_to_give_back(usize::MAX).is_none());
    extents.free(warmed(b));
    assert_eq!(extents.take_to_give_back(usize::MAX).unwrap().bytes, PAGE);
    extents.free(spoiled);
    assert_eq!(extents.live_bytes(), 0);
    assert_eq!(extents.take_to_give_back(2 * PAGE).unwrap().bytes, 2 * PAGE);
    assert_eq!(extents.take_to_give_back(2 * PAGE).unwrap().bytes, PAGE);
    assert!(extents.take_to_give_back(usize::MAX).is_none());
}

#[derive(Debug, Clone)]
enum Step {
    Allocate(usize),
    Free(usize, bool),
    EndInterval,
    GiveBack(usize),
    GivenBack(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_usize..40 * PAGE).prop_map(Step::Allocate),
        4 => (any::<usize>(), proptest::bool::weighted(0.8)).prop_map(|(which, warm)| Step::Free(which, warm)),
        1 => Just(Step::EndInterval),
        2 => (1_usize..30).prop_map(|pages| Step::GiveBack(pages * PAGE)),
        2 => any::<usize>().prop_map(Step::GivenBack),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn no_two_extents_overlap_and_every_byte_is_somewhere(steps in steps()) {
        const PAGES: usize = 256;
        let mut extents = extents(PAGES);
        let (mut live, mut leaving): (Vec<Range>, Vec<Range>) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Allocate(bytes) => {
                    let wanted = bytes.max(1).next_multiple_of(PAGE);
                    match extents.allocate(bytes) {
                        Some(extent) => {
                            prop_assert_eq!(extent.bytes, wanted);
                            live.push(extent);
                        }
                        None => {
                            let fits = |set: &FreeSet<Range>| set.by_start.values().any(|free| free.bytes >= wanted);
                            prop_assert!(!fits(&extents.warm) && !fits(&extents.cold), "there was room");
                        }
                    }
                }
                Step::Free(which, warm) if !live.is_empty() => {
                    let extent = live.swap_remove(which % live.len());
                    extents.free(Range { warm, ..extent });
                }
                Step::EndInterval => extents.end_interval(),
                Step::GiveBack(at_most) => {
                    if let Some(extent) = extents.take_to_give_back(at_most) {
                        prop_assert!(extent.bytes <= at_most);
                        leaving.push(extent);
                    }
                }
                Step::GivenBack(which) if !leaving.is_empty() => {
                    let extent = leaving.swap_remove(which % leaving.len());
                    extents.given_back(cooled(extent));
                }
                Step::Free(..) | Step::GivenBack(_) => {}
            }
            let mut all: Vec<(usize, usize)> = live.iter().chain(&leaving).chain(&extents.spoiled)
                .chain(extents.warm.by_start.values()).chain(extents.cold.by_start.values())
                .map(|extent| (extent.start, extent.bytes)).collect();
            all.sort_unstable();
            let mut end = 0;
            for (start, bytes) in all {
                prop_assert_eq!(start, end, "a gap or an overlap");
                end = start + bytes;
            }
            prop_assert_eq!(end, PAGES * PAGE);
            prop_assert_eq!(extents.live_bytes(), live.iter().map(|extent| extent.bytes).sum::<usize>());
            let warm: Vec<&Range> = extents.warm.by_start.values().collect();
            prop_assert!(warm.windows(2).all(|two| two[0].start + two[0].bytes < two[1].start), "not joined: {warm:?}");
            prop_assert_eq!(extents.warm.by_length.len(), warm.len());
        }
    }
}
