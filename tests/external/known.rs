//! Reads KNOWN.md and compares it with what a suite reported.

use std::collections::{BTreeMap, BTreeSet};

/// What KNOWN.md says of one suite.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Cases that fail, with reasons.
    pub failing: BTreeMap<String, String>,
    /// Cases that can't run, with reasons.
    pub not_run: BTreeMap<String, String>,
}

/// What a suite reported.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases that passed.
    pub passed: BTreeSet<String>,
    /// Cases that failed, with what was printed.
    pub failed: BTreeMap<String, String>,
    /// Cases that did not run, with what was printed.
    pub skipped: BTreeMap<String, String>,
}

impl Outcome {
    /// Takes over what `later` reports of cases, in place of what stands here of them.
    pub fn replace(&mut self, later: Self) {
        for case in later.passed.iter().chain(later.failed.keys()).chain(later.skipped.keys()) {
            self.passed.remove(case);
            self.failed.remove(case);
            self.skipped.remove(case);
        }
        self.passed.extend(later.passed);
        self.failed.extend(later.failed);
        self.skipped.extend(later.skipped);
    }
}

impl Known {
    /// Reads the section of `suite` in this repository's KNOWN.md.
    pub fn of(suite: &str) -> Self {
        Self::parse(include_str!("KNOWN.md"), suite)
    }

    /// Headings are `## SUITE: fails` and `## SUITE: not run`; lines below them `- CASE: reason`, where the
    /// reason goes on in indented lines.
    fn parse(text: &str, suite: &str) -> Self {
        let mut known = Self::default();
        let mut section = "";
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                section = heading.strip_prefix(suite).and_then(|rest| rest.strip_prefix(": ")).unwrap_or("");
            }
            let Some(item) = line.strip_prefix("- ") else { continue };
            let Some((case, reason)) = item.split_once(": ") else {
                panic!("KNOWN.md: a case without a reason: {line}");
            };
            assert!(!reason.trim().is_empty(), "KNOWN.md: a case without a reason: {line}");
            match section {
                "fails" => known.failing.insert(case.to_owned(), reason.to_owned()),
                "not run" => known.not_run.insert(case.to_owned(), reason.to_owned()),
                _ => None,
            };
        }
        known
    }

    /// Where the outcome is not what is known, in words; empty when all is as it should be.
    pub fn differences(&self, outcome: &Outcome) -> Vec<String> {
        let mut found = Vec::new();
        for (case, said) in outcome.failed.iter().filter(|(case, _)| !self.failing.contains_key(*case)) {
            found.push(format!("{case} fails and is not in KNOWN.md: {said}"));
        }
        for (case, said) in outcome.skipped.iter().filter(|(case, _)| !self.not_run.contains_key(*case)) {
            found.push(format!("{case} did not run and is not in KNOWN.md: {said}"));
        }
        for case in self.failing.keys().filter(|case| !outcome.failed.contains_key(*case)) {
            found.push(format!("{case} is in KNOWN.md as failing, and does not fail: remove the line"));
        }
        for case in self.not_run.keys().filter(|case| !outcome.skipped.contains_key(*case)) {
            found.push(format!("{case} is in KNOWN.md as not run, and ran: remove the line"));
        }
        found
    }

    /// Cases that pass on the backing file system and not on the mount, but for those that are known.
    pub fn worse(&self, plain: &Outcome, mount: &Outcome) -> Vec<String> {
        let lost = plain.passed.difference(&mount.passed);
        let lost = lost.filter(|case| !self.failing.contains_key(*case) && !self.not_run.contains_key(*case));
        lost.map(|case| {
            let said = mount.failed.get(case).or_else(|| mount.skipped.get(case));
            format!(
                "{case} passes on the backing file system and not here: {}",
                said.map_or("", String::as_str)
            )
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Known\n\n## a: fails\n\n- x::y: the kernel\n  does it\n\n## a: not run\n\n- z: no disk\n\n\
        ## b: fails\n\n- q: other\n";

    fn outcome(passed: &[&str], failed: &[&str], skipped: &[&str]) -> Outcome {
        let said =
            |cases: &[&str]| cases.iter().map(|case| ((*case).to_owned(), "said".to_owned())).collect();
        let passed = passed.iter().map(|case| (*case).to_owned()).collect();
        Outcome { passed, failed: said(failed), skipped: said(skipped) }
    }

    #[test]
    fn sections_belong_to_their_suite() {
        let known = Known::parse(TEXT, "a");
        assert_eq!(known.failing.keys().collect::<Vec<_>>(), ["x::y"]);
        assert_eq!(known.not_run.keys().collect::<Vec<_>>(), ["z"]);
        assert_eq!(Known::parse(TEXT, "b").failing.len(), 1);
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let known = Known::parse(TEXT, "a");
        assert!(known.differences(&outcome(&["p"], &["x::y"], &["z"])).is_empty());
        assert_eq!(known.differences(&outcome(&[], &["x::y", "new"], &["z"])).len(), 1);
        assert_eq!(known.differences(&outcome(&[], &["x::y"], &["z", "new"])).len(), 1);
        assert_eq!(known.differences(&outcome(&["x::y"], &[], &["z"])).len(), 1);
        assert_eq!(known.differences(&outcome(&["z"], &["x::y"], &[])).len(), 1);
    }

    #[test]
    fn what_passes_below_must_pass_on_the_mount() {
        let known = Known::parse(TEXT, "a");
        let plain = outcome(&["p", "z", "x::y"], &["q"], &[]);
        assert!(known.worse(&plain, &outcome(&["p"], &["x::y", "q"], &["z"])).is_empty());
        assert_eq!(known.worse(&plain, &outcome(&["z"], &["p"], &[])).len(), 1);
        assert_eq!(known.worse(&plain, &outcome(&[], &[], &["p"])).len(), 1);
        assert_eq!(known.worse(&plain, &outcome(&[], &[], &[])).len(), 1);
    }

    #[test]
    fn a_later_report_replaces_an_earlier_one() {
        let mut all = outcome(&["p"], &[], &["r"]);
        all.replace(outcome(&["r"], &["p"], &[]));
        assert!(all.passed.iter().eq(["r"]) && all.failed.contains_key("p") && all.skipped.is_empty());
    }

    #[test]
    #[should_panic(expected = "without a reason")]
    fn a_case_needs_a_reason() {
        Known::parse("## a: fails\n- x: \n", "a");
    }
}
