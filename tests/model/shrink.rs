//! Makes a failing sequence short: leaves out ever smaller parts of it, as long as it fails.

/// The shortest sequence that was found for which `fails` is true; it is true for `all`.
pub fn shrunk<T: Clone>(all: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = all;
    let mut part = kept.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        let mut is_shorter = false;
        while at < kept.len() {
            let end = (at + part).min(kept.len());
            let fewer = [&kept[..at], &kept[end..]].concat();
            if fails(&fewer) {
                kept = fewer;
                is_shorter = true;
            } else {
                at = end;
            }
        }
        // Once more with single steps: what one needed may be gone.
        part = if part == 1 && is_shorter { 1 } else { part / 2 };
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::shrunk;

    #[test]
    fn only_what_is_needed_is_kept() {
        let all: Vec<u32> = (0..100).collect();
        let needs = |steps: &[u32]| {
            let at = |wanted| steps.iter().position(|step| *step == wanted);
            matches!((at(17), at(58), at(59)), (Some(first), Some(second), Some(_)) if first < second)
        };
        assert_eq!(shrunk(all, needs), [17, 58, 59]);
    }

    #[test]
    fn what_one_step_needs_goes_after_it() {
        // A step is allowed only behind the one before it; 5 fails by itself.
        let mut tried = 0;
        let fails = |steps: &[u32]| {
            tried += 1;
            steps.contains(&5)
                && steps.iter().all(|step| *step > 7 || *step == 5 || steps.contains(&(step + 1)))
        };
        assert_eq!(shrunk((0..10).collect(), fails), [5]);
        assert!(tried < 100, "{tried}");
    }
}
