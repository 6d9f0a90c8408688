//! Checks a file as a whole: its length, its head, its characters, what it leaves unfinished.

use crate::rules::{FILE_LINES_MAX, STEP_CALLS, STEP_PLACES, UNFINISHED};
use crate::tree::Source;

/// A file that is too long.
pub fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let found = (lines > FILE_LINES_MAX)
        .then(|| format!("{}: {lines} lines, more than {FILE_LINES_MAX}", source.path));
    found.into_iter().collect()
}

/// A file that does not begin by saying what it owns.
pub fn no_head(source: &Source) -> Vec<String> {
    let found =
        (!source.text.starts_with("//! ")).then(|| format!("{}:1: does not begin with //!", source.path));
    found.into_iter().collect()
}

/// Lines with other characters than ASCII.
pub fn not_ascii(source: &Source) -> Vec<String> {
    lines_with(source, "not ASCII", |line| !line.is_ascii())
}

/// Lines that say that something is still to be done.
pub fn unfinished(source: &Source) -> Vec<String> {
    lines_with(source, "unfinished", |line| UNFINISHED.iter().any(|word| has_word(line, word)))
}

/// Whether `word` stands there by itself, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let joins_after = word.ends_with(char::is_alphanumeric);
    line.match_indices(word).any(|(at, _)| {
        let after = line[at + word.len()..].chars().next();
        let is_longer = is_part(line[..at].chars().next_back()) || (joins_after && is_part(after));
        !is_longer
    })
}

/// System calls that change something and are not made through `step`.
pub fn outside_steps(source: &Source) -> Vec<String> {
    let is_test = source.path.contains("/tests");
    if is_test || !STEP_PLACES.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for call in STEP_CALLS {
        for (at, _) in source.code.match_indices(call) {
            let before =
                source.code[..at].trim_end_matches(|c: char| c.is_alphanumeric() || ":._&".contains(c));
            let before = before.trim_end().trim_end_matches('{').trim_end();
            if !before.ends_with("step(||") {
                let line = source.code[..at].lines().count();
                findings.push(format!("{}:{line}: {call}..) is not made through step(||", source.path));
            }
        }
    }
    findings
}

fn lines_with(source: &Source, what: &str, is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = source.text.lines().enumerate().filter(|(_, line)| is_bad(line));
    lines.map(|(number, line)| format!("{}:{}: {what}: {}", source.path, number + 1, line.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_too_many_is_found() {
        assert!(too_long(&Source::new("a.rs", &"\n".repeat(FILE_LINES_MAX))).is_empty());
        assert_eq!(too_long(&Source::new("a.rs", &"\n".repeat(FILE_LINES_MAX + 1))).len(), 1);
    }

    #[test]
    fn a_missing_head_is_found() {
        assert!(no_head(&Source::new("a.rs", "//! Owns a.\n")).is_empty());
        assert_eq!(no_head(&Source::new("a.rs", "// Owns a.\n")).len(), 1);
    }

    #[test]
    fn other_characters_are_found_with_their_line() {
        assert_eq!(not_ascii(&Source::new("a.rs", "a\n\u{fc}\n")), ["a.rs:2: not ASCII: \u{fc}"]);
    }

    #[test]
    fn a_change_without_a_step_is_found() {
        let found = |text: &str| outside_steps(&Source::new("tdfs-slave/src/replay/data.rs", text)).len();
        assert_eq!(found("let done = rustix::fs::ftruncate(&file, 0);"), 1);
        assert_eq!(found("step(|| rustix::fs::ftruncate(&file, 0))?;"), 0);
        assert_eq!(found("match step(|| {\n    rustix::fs::linkat(a, b)\n}) {"), 0);
        assert_eq!(found("step(|| self.file.write_all_at(&bytes, 0))?;\nfile.write_all_at(&bytes, 0)"), 1);
    }

    #[test]
    fn unfinished_work_is_found() {
        for word in UNFINISHED {
            assert_eq!(unfinished(&Source::new("a.md", &format!("first\n{word} later\n"))).len(), 1);
        }
        let longer = UNFINISHED.map(|word| format!("y{word}X")).join(" ");
        assert!(unfinished(&Source::new("a.md", &longer)).is_empty());
    }
}
