//! Reads a daemon's log and finds the lines that nobody expected.

use std::path::Path;

/// WARN lines that every test accepts: what `--insecure` has to say, and that a slave was met for the first time.
const ALWAYS_EXPECTED: &[&str] =
    &["--insecure: records come", "--insecure: the tree goes", "its key was not known"];

/// The lines at WARN or ERROR, and panics, that hold none of the `expected` strings.
pub fn unexpected(log: &Path, expected: &[String]) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|line| is_alarming(line));
    let known = |line: &str| {
        ALWAYS_EXPECTED.iter().any(|part| line.contains(part))
            || expected.iter().any(|part| line.contains(part.as_str()))
    };
    lines.filter(|line| !known(line)).map(str::to_owned).collect()
}

/// True when a line of the log holds one of `parts` (letters of either case).
pub fn mentions(log: &Path, parts: &[&str]) -> bool {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).to_lowercase();
    parts.iter().any(|part| text.contains(&part.to_lowercase()))
}

/// The level stands before the message: among the first words of the line.
fn is_alarming(line: &str) -> bool {
    let plain = without_colours(line);
    let level = plain.split_whitespace().take(3).any(|word| word == "WARN" || word == "ERROR");
    level || plain.contains("panicked at")
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            letters.by_ref().take_while(|inner| *inner != 'm').for_each(drop);
        } else {
            plain.push(letter);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{is_alarming, unexpected};

    #[test]
    fn levels_are_found_and_messages_are_not() {
        assert!(is_alarming("2026-11-20T08:00:00Z  WARN tdfs::ship: away"));
        assert!(is_alarming("\u{1b}[2m2026\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m tdfs: x"));
        assert!(is_alarming("thread 'main' panicked at tdfs/src/lib.rs:1"));
        assert!(!is_alarming("2026-11-20T08:00:00Z  INFO tdfs: no ERROR in here"));
    }

    #[test]
    fn expected_lines_are_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "t WARN --insecure: records come in plain TCP\nt WARN a\nt WARN b\nt INFO c\n",
        )
        .unwrap();
        assert_eq!(unexpected(file.path(), &["WARN a".to_owned()]), ["t WARN b"]);
    }
}
