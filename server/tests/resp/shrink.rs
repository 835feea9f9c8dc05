//! From a long sequence that shows a fault to the few commands that it takes: delta debugging.

use super::lines::Step;

/// Runs that a shrinking may take: what is left then is short enough to read.
const RUNS_MAX: usize = 600;

/// A part of `steps` that still fails, of which no single step can be left out (unless `RUNS_MAX` ends the search).
pub fn shrink(steps: &[Step], mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut rest = steps.to_vec();
    let mut runs = 0;
    let mut size = rest.len() / 2;
    while size > 0 && runs < RUNS_MAX {
        let (mut at, mut removed) = (0, false);
        while at < rest.len() && rest.len() > 1 && runs < RUNS_MAX {
            let end = (at + size).min(rest.len());
            let without: Vec<Step> = rest[..at].iter().chain(&rest[end..]).cloned().collect();
            runs += 1;
            if fails(&without) {
                rest = without;
                removed = true;
            } else {
                at = end;
            }
        }
        // At single steps until none goes: one that was needed may be needless once another is gone.
        size = if size == 1 && removed { 1 } else { size / 2 };
    }
    rest
}

#[cfg(test)]
mod planted {
    use super::*;
    use crate::lines::Line;

    #[test]
    fn two_steps_far_apart_are_all_that_is_left() {
        let steps: Vec<Step> = (0..1_000).map(|number| Step::Lines(vec![Line::of(&format!("GET {number}"))])).collect();
        let needed = [steps[17].clone(), steps[803].clone()];
        let left = shrink(&steps, |part| needed.iter().all(|step| part.contains(step)));
        assert_eq!(left, needed);
    }
}
