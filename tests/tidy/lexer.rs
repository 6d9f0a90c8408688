//! Just enough of Rust's lexical rules to tell code from comments and literals, and to read paths.

/// One token of code, with its line (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where it stands.
    pub line: usize,
    /// An identifier, `::`, or one other character that is not white space.
    pub text: String,
}

/// `text` with comments and the insides of literals turned into spaces.
pub fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = end_of_blank(&chars, at).unwrap_or(at);
        for c in &chars[at..end] {
            code.push(if *c == '\n' { '\n' } else { ' ' });
        }
        if end == at {
            code.push(chars[at]);
            // The whole identifier, so that its last letter is not taken for a literal's prefix.
            while is_word(chars[at]) && chars.get(at + 1).is_some_and(|c| is_word(*c)) {
                at += 1;
                code.push(chars[at]);
            }
            at += 1;
        } else {
            at = end;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; None if none begins there.
fn end_of_blank(chars: &[char], at: usize) -> Option<usize> {
    let starts = |offset: usize, pattern: &str| {
        pattern.chars().enumerate().all(|(i, c)| chars.get(at + offset + i) == Some(&c))
    };
    if starts(0, "//") {
        return Some(chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n));
    }
    if starts(0, "/*") {
        return Some(end_of_block_comment(chars, at));
    }
    if chars[at] == '\'' {
        return end_of_char(chars, at);
    }
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let after = prefix.len() + usize::from(prefix.ends_with('r')) * hashes(chars, at + prefix.len());
        starts(0, prefix) && starts(after, "\"")
    })?;
    let hashes = if prefix.ends_with('r') { hashes(chars, at + prefix.len()) } else { 0 };
    let inside = at + prefix.len() + hashes + 1;
    Some(end_of_string(chars, inside, prefix.ends_with('r').then_some(hashes)))
}

fn hashes(chars: &[char], at: usize) -> usize {
    chars.get(at..).unwrap_or_default().iter().take_while(|c| **c == '#').count()
}

/// Block comments nest.
fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

/// A character literal; a lifetime is none.
fn end_of_char(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        let rest = chars.get(at + 3..)?;
        return rest.iter().position(|c| *c == '\'').map(|n| at + 4 + n);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}

/// The end of a string from its first character; `raw` is its number of hashes.
fn end_of_string(chars: &[char], inside: usize, raw: Option<usize>) -> usize {
    let mut at = inside;
    while at < chars.len() {
        match (chars[at], raw) {
            ('\\', None) => at += 1,
            ('"', None) => return at + 1,
            ('"', Some(wanted)) if hashes(chars, at + 1) >= wanted => return at + 1 + wanted,
            _ => {}
        }
        at += 1;
    }
    chars.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The tokens of code that `code_of` has cleaned.
pub fn tokens(code: &str) -> Vec<Token> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                found.push(Token { line: number + 1, text: rest[..length].to_owned() });
            }
            rest = &rest[length..];
        }
    }
    found
}

/// The tokens outside modules that are compiled for tests only.
pub fn tokens_without_tests(code: &str) -> Vec<Token> {
    let all = tokens(code);
    let mut kept = Vec::with_capacity(all.len());
    let mut at = 0;
    while at < all.len() {
        if let Some(end) = end_of_test_module(&all[at..]) {
            at += end;
        } else {
            kept.push(all[at].clone());
            at += 1;
        }
    }
    kept
}

/// The number of tokens of the `#[cfg(test)] mod name { ... }` that begins here.
fn end_of_test_module(tokens: &[Token]) -> Option<usize> {
    let head = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let matches =
        tokens.len() > head.len() && head.iter().zip(tokens).all(|(text, token)| token.text == *text);
    if !matches || tokens.get(head.len() + 1)?.text != "{" {
        return None;
    }
    let mut depth = 0;
    for (number, token) in tokens.iter().enumerate().skip(head.len() + 1) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(number + 1);
        }
    }
    Some(tokens.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(&code_of(text)).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(words("a // b\nc /* d /* e */ f */ g"), ["a", "c", "g"]);
        assert_eq!(words(r##"a "b \" c" d r#"e " f"# g b"h" i"##), ["a", "d", "g", "i"]);
        assert_eq!(words(r"fn f<'a>(x: &'a u8) { '\'' ; 'x' ; y }").last().map(String::as_str), Some("}"));
        assert!(words(r"let q = '\u{1f600}'; unsafe").contains(&"unsafe".to_owned()));
        assert!(words("let var = 1; attr\"x\" ").contains(&"attr".to_owned()));
    }

    #[test]
    fn lines_stay_where_they_are() {
        let tokens = tokens(&code_of("/* 1\n 2 */\n\"a\nb\" x"));
        assert_eq!(tokens, [Token { line: 4, text: "x".to_owned() }]);
    }

    #[test]
    fn test_modules_are_left_out() {
        let kept = tokens_without_tests("fn a() {} #[cfg(test)] mod tests { fn b() { {} } } fn c() {}");
        assert!(kept.iter().any(|token| token.text == "c"));
        assert!(!kept.iter().any(|token| token.text == "b"));
    }
}
