//! Checks the words in the names that the project defines.

use crate::lexer::{self, Token};
use crate::rules::{NAME_EXCEPTIONS, WORDS_TO_KEEP_OUT};
use crate::tree::Source;

/// What a name is defined by.
const KEYWORDS: [&str; 8] = ["fn", "struct", "enum", "mod", "trait", "type", "const", "static"];

/// Definitions whose name contains a word to keep out.
pub fn words_to_keep_out(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for name in definitions(source) {
        let excepted = NAME_EXCEPTIONS.iter().any(|exception| exception.name == name.text);
        for word in words_of(&name.text).iter().filter(|word| is_kept_out(word) && !excepted) {
            findings.push(format!("{}:{}: `{}` says {word}", source.path, name.line, name.text));
        }
    }
    findings
}

/// Exceptions for names that are not defined any more.
pub fn stale_exceptions(sources: &[Source]) -> Vec<String> {
    let stale = NAME_EXCEPTIONS.iter().filter(|exception| {
        !sources.iter().any(|source| definitions(source).iter().any(|name| name.text == exception.name))
    });
    stale.map(|exception| format!("rules.rs: no `{}` ({})", exception.name, exception.reason)).collect()
}

fn definitions(source: &Source) -> Vec<Token> {
    let tokens = lexer::tokens(&source.code);
    let defines = |pair: &&[Token]| KEYWORDS.contains(&pair[0].text.as_str()) && is_name(&pair[1].text);
    tokens.windows(2).filter(defines).map(|pair| pair[1].clone()).collect()
}

/// `const fn` and `fn(u8)` define nothing by their second word.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && !KEYWORDS.contains(&text)
}

/// Singular and plural.
fn is_kept_out(word: &str) -> bool {
    let singular = word.strip_suffix('s').unwrap_or(word);
    WORDS_TO_KEEP_OUT.contains(&word) || WORDS_TO_KEEP_OUT.contains(&singular)
}

/// The words of a snake, SCREAMING or Camel case name, in small letters.
fn words_of(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("begins with one word").extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(words_of("handle_FuseEvent"), ["handle", "fuse", "event"]);
        assert_eq!(words_of("TXN_MAX"), ["txn", "max"]);
    }

    #[test]
    fn a_bad_name_is_found_and_a_use_of_one_is_not() {
        let source =
            Source::new("a.rs", "pub const fn next_chunks() { x.chunks(1); y.events() }\nstruct MyHelper;");
        let findings = words_to_keep_out(&source);
        assert_eq!(findings, ["a.rs:1: `next_chunks` says chunks", "a.rs:2: `MyHelper` says helper"]);
    }

    #[test]
    fn words_inside_other_words_are_harmless() {
        let source = Source::new("a.rs", "fn eventually() {} fn utility_of() {} mod leadership {}");
        assert!(words_to_keep_out(&source).is_empty());
    }
}
