//! From the faults of a world that fails to few of them that still make it fail.
//!
//! Place in the flow: after a violation. The world is run again and again with some of its faults left out; what is
//! left out longest was not needed. The dice of each fault are its own, so the ones that stay do what they did.
//!
//! Source: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002 (ddmin).

/// Runs at most: a shrinker that has not finished by then hands out what it has.
pub const RUNS_MAX: usize = 2_000;

/// The fewest of `faults` that it found with which `fails` is still true, and how many runs it took. The result is
/// minimal by one: leaving out any single one makes the failure go away, unless [`RUNS_MAX`] ended the search.
pub fn shrink(faults: &[usize], mut fails: impl FnMut(&[usize]) -> bool) -> (Vec<usize>, usize) {
    let mut kept = faults.to_vec();
    let mut runs = 0;
    let mut parts = 2;
    while kept.len() > 1 && runs < RUNS_MAX {
        parts = parts.min(kept.len());
        let smaller = complements(&kept, parts).take(RUNS_MAX - runs).find(|candidate| {
            runs += 1;
            fails(candidate)
        });
        match smaller {
            Some(candidate) => {
                kept = candidate;
                parts = (parts - 1).max(2);
            }
            None if parts >= kept.len() => break,
            None => parts *= 2,
        }
    }
    if kept.len() == 1 && runs < RUNS_MAX {
        runs += 1;
        if fails(&[]) {
            kept.clear();
        }
    }
    (kept, runs)
}

/// `whole` without each of its `parts` parts in turn.
fn complements(whole: &[usize], parts: usize) -> impl Iterator<Item = Vec<usize>> + '_ {
    let edge = move |part: usize| part * whole.len() / parts;
    (0..parts).map(move |part| [&whole[..edge(part)], &whole[edge(part + 1)..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        let all: Vec<usize> = (0..100).collect();
        for needed in [vec![], vec![7], vec![0, 99], vec![3, 50, 51, 97]] {
            let fails = |kept: &[usize]| needed.iter().all(|fault| kept.contains(fault));
            let (kept, runs) = shrink(&all, fails);
            assert_eq!(kept, needed);
            assert!(runs < 300, "{runs} runs for {needed:?}");
        }
    }

    #[test]
    fn a_search_without_end_ends() {
        let all: Vec<usize> = (0..5_000).collect();
        let (kept, runs) = shrink(&all, |kept| kept.len() == 5_000);
        assert_eq!(kept.len(), 5_000);
        assert!(runs <= RUNS_MAX);
    }
}
