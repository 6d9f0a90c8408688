//! Texts for humans in messages: short, and harmless wherever they are shown.
//!
//! A text that came from a peer has passed [`harmless`] when it was decoded, so it can go to a log, a terminal or
//! status as it is.

use serde::{Deserialize, Deserializer};

/// Most bytes of a text in a message.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most texts in a list; further ones are left out.
pub const TEXTS_MAX: usize = 32;

/// Escapes what could break a line, move a cursor or hide, and cuts the text to [`TEXT_BYTES_MAX`].
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for letter in text.chars() {
        let before = shown.len();
        match letter {
            '\\' | '"' | '\'' => shown.push(letter),
            letter => shown.extend(letter.escape_debug()),
        }
        if shown.len() > TEXT_BYTES_MAX {
            shown.truncate(before);
            break;
        }
    }
    shown
}

/// For `#[serde(deserialize_with = ...)]`: one text.
pub(crate) fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(harmless(&String::deserialize(deserializer)?))
}

/// As [`one`], of a text that may be missing.
pub(crate) fn maybe<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.as_deref().map(harmless))
}

/// As [`one`], of a list of texts: the first [`TEXTS_MAX`].
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    Ok(texts.iter().take(TEXTS_MAX).map(|text| harmless(text)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_do_no_harm() {
        let hostile = "a\u{1b}[2Jb\r\nc\u{9b}d\u{202e}e\u{2028}f\0\u{7f}\u{200b}";
        let shown = harmless(hostile);
        assert_eq!(shown, r"a\u{1b}[2Jb\r\nc\u{9b}d\u{202e}e\u{2028}f\0\u{7f}\u{200b}");
        assert_eq!(harmless(&shown), shown, "what is harmless stays as it is");
        let plain = "no space left: \"/d\u{e4}t\u{e4} \u{65e5}\u{672c}\" isn't \\ written";
        assert_eq!(harmless(plain), plain);
    }

    #[test]
    fn what_is_shown_is_short() {
        for text in ["\u{1b}", "x", "\u{65e5}"] {
            let shown = harmless(&text.repeat(100_000));
            assert!(shown.len() <= TEXT_BYTES_MAX && shown.len() > TEXT_BYTES_MAX - 8);
            assert_eq!(harmless(&shown), shown);
        }
    }
}
