//! Checks what a file names outside itself: paths, unsafe code, calls that belong to one place.
//!
//! Paths are made absolute first (`crate`, `self`, `super`, names that a `use` brought in), so a rule holds
//! however the path is written. Modules that are compiled for tests only are left out.

use std::collections::HashMap;

use crate::lexer::{self, Token};
use crate::rules::{CALLS, IMPORTS, ImportRule, UNSAFE_FILE};
use crate::tree::Source;

/// A path as it was written or brought in, with its line.
struct Named {
    line: usize,
    path: String,
}

/// Paths that a rule forbids here.
pub fn forbidden(source: &Source) -> Vec<String> {
    let rules: Vec<&ImportRule> =
        IMPORTS.iter().filter(|rule| applies(&source.path, rule.within, rule.except)).collect();
    if rules.is_empty() || is_test(&source.path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for named in paths_of(source) {
        for rule in rules.iter().filter(|rule| forbids(rule, &named.path)) {
            findings.push(format!("{}:{}: {}: {}", source.path, named.line, named.path, rule.reason));
        }
    }
    findings
}

/// `unsafe` in a file that is not made for it.
pub fn misplaced_unsafe(source: &Source) -> Vec<String> {
    if file_name(&source.path) == UNSAFE_FILE {
        return Vec::new();
    }
    let tokens = lexer::tokens(&source.code);
    let found = tokens.iter().filter(|token| token.text == "unsafe" || token.text == "unsafe_code");
    found
        .map(|token| format!("{}:{}: `{}` outside {UNSAFE_FILE}", source.path, token.line, token.text))
        .collect()
}

/// Calls that only another file may make.
pub fn misplaced_calls(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for rule in CALLS.iter().filter(|rule| applies(&source.path, rule.within, rule.except)) {
        let tokens = lexer::tokens_without_tests(&source.code);
        for (at, window) in tokens.windows(3).enumerate() {
            let [dot, method, bracket] = window else { continue };
            let is_call = dot.text == "." && method.text == rule.method && bracket.text == "(";
            if is_call && rule.receivers.contains(&receiver_of(&tokens[..at])) {
                findings.push(format!("{}:{}: {}(): {}", source.path, method.line, method.text, rule.reason));
            }
        }
    }
    findings
}

/// The name before the dot: `log` of `self.log` and of `self.log()`.
fn receiver_of(before: &[Token]) -> &str {
    let name = match before {
        [.., name, open, close] if open.text == "(" && close.text == ")" => Some(name),
        _ => before.last(),
    };
    name.map_or("", |name| name.text.as_str())
}

/// Places that rules name and that are not there: a rule that applies to nothing protects nothing.
pub fn stale_places(sources: &[Source]) -> Vec<String> {
    let is_there = |place: &str| sources.iter().any(|source| lies_in(&source.path, place));
    let mut findings = Vec::new();
    let rules = IMPORTS.iter().map(|rule| (rule.reason, rule.within, rule.except));
    for (reason, within, except) in
        rules.chain(CALLS.iter().map(|rule| (rule.reason, rule.within, rule.except)))
    {
        // A module may be a file or a directory; a rule may name both forms of it.
        let other_form = |place: &str| match place.strip_suffix('/') {
            Some(stem) => format!("{stem}.rs"),
            None => place.replace(".rs", "/"),
        };
        for place in
            within.iter().chain(except).filter(|place| !is_there(place) && !is_there(&other_form(place)))
        {
            findings.push(format!("rules.rs: nothing is at {place} ({reason})"));
        }
    }
    findings
}

fn applies(path: &str, within: &[&str], except: &[&str]) -> bool {
    within.iter().any(|place| lies_in(path, place)) && !except.iter().any(|place| lies_in(path, place))
}

/// A place is a file, or a directory with its slash.
fn lies_in(path: &str, place: &str) -> bool {
    path == place || (place.ends_with('/') && path.starts_with(place))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_test(path: &str) -> bool {
    file_name(path) == "tests.rs" || path.contains("/tests/")
}

fn forbids(rule: &ImportRule, path: &str) -> bool {
    let is_below = |root: &&&str| {
        path.strip_prefix(**root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    rule.paths.iter().any(|root| is_below(&root)) && !rule.harmless.iter().any(|root| is_below(&root))
}

/// Every path in the file, absolute.
fn paths_of(source: &Source) -> Vec<Named> {
    let tokens = lexer::tokens_without_tests(&source.code);
    let module = module_of(&source.path);
    let mut brought_in = HashMap::new();
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_use = tokens[at].text == "use" && tokens.get(at + 1).is_some_and(|next| next.text != "<");
        if is_use {
            let end =
                at + tokens[at..].iter().position(|token| token.text == ";").unwrap_or(tokens.len() - at);
            let mut tree = UseTree { tokens: &tokens[at + 1..end], at: 0, found: Vec::new() };
            tree.read("");
            for (line, path, name) in tree.found {
                let path = absolute(&path, &module, &HashMap::new());
                brought_in.insert(name, path.clone());
                found.push(Named { line, path });
            }
            at = end;
        } else if starts_path(&tokens, at) {
            let length = path_length(&tokens[at..]);
            let path: String = tokens[at..at + length].iter().map(|token| token.text.as_str()).collect();
            found.push(Named { line: tokens[at].line, path: absolute(&path, &module, &brought_in) });
            at += length;
        } else {
            at += 1;
        }
    }
    found
}

fn is_name(token: &Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn starts_path(tokens: &[Token], at: usize) -> bool {
    let follows = at.checked_sub(1).map(|before| tokens[before].text.as_str());
    is_name(&tokens[at]) && path_length(&tokens[at..]) > 1 && !matches!(follows, Some("::" | "."))
}

/// The number of tokens of `a::b::c`.
fn path_length(tokens: &[Token]) -> usize {
    let mut length = 1;
    while tokens.get(length).is_some_and(|token| token.text == "::")
        && tokens.get(length + 1).is_some_and(is_name)
    {
        length += 2;
    }
    length
}

/// Reads what stands between `use` and its semicolon.
struct UseTree<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Line, path, and the name by which the file knows it.
    found: Vec<(usize, String, String)>,
}

impl UseTree<'_> {
    /// Reads one tree below `prefix`, up to the comma or bracket that ends it.
    fn read(&mut self, prefix: &str) {
        let mut path = prefix.to_owned();
        let mut line = 0;
        while let Some(token) = self.tokens.get(self.at) {
            line = line.max(token.line);
            match token.text.as_str() {
                "," | "}" => break,
                "{" => return self.read_group(&path),
                "as" => {
                    let name =
                        self.tokens.get(self.at + 1).map_or("_", |token| token.text.as_str()).to_owned();
                    self.at += 2;
                    self.found.push((line, path, name));
                    return;
                }
                // `::std` at the very beginning adds nothing, and `self` in a group is the group's own path.
                "::" if path.is_empty() => {}
                "self" if !prefix.is_empty() => path = prefix.trim_end_matches("::").to_owned(),
                text => path.push_str(text),
            }
            self.at += 1;
        }
        let name = path.rsplit("::").next().unwrap_or_default().to_owned();
        self.found.push((line, path, name));
    }

    fn read_group(&mut self, prefix: &str) {
        while self.tokens.get(self.at).is_some_and(|token| token.text != "}") {
            self.at += 1;
            if self.tokens.get(self.at).is_some_and(|token| token.text != "}") {
                self.read(prefix);
            }
        }
        self.at += 1;
    }
}

/// `tdfs/src/ship/link.rs` is `tdfs::ship::link`.
fn module_of(path: &str) -> Vec<String> {
    let (package, inside) = path.split_once("/src/").unwrap_or(("", path));
    let mut module = vec![package.replace('-', "_")];
    let inside = inside.trim_end_matches(".rs");
    module
        .extend(inside.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main")).map(str::to_owned));
    module
}

fn absolute(path: &str, module: &[String], brought_in: &HashMap<String, String>) -> String {
    let mut parts = path.split("::");
    let first = parts.next().unwrap_or_default();
    let mut base = match first {
        "crate" => module[..1].to_vec(),
        "self" => module.to_vec(),
        "super" => module[..module.len().saturating_sub(1).max(1)].to_vec(),
        name => vec![brought_in.get(name).cloned().unwrap_or_else(|| name.to_owned())],
    };
    for part in parts {
        if part == "super" {
            base.truncate(base.len().saturating_sub(1).max(1));
        } else {
            base.push(part.to_owned());
        }
    }
    base.join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        forbidden(&Source::new(path, text)).len()
    }

    #[test]
    fn fuser_outside_fuse_is_found_however_it_is_written() {
        for text in [
            "use fuser::Errno;",
            "use ::fuser::{Errno, INodeNo};",
            "fn f(e: fuser::Errno) {}",
            "use fuser as f;",
        ] {
            assert!(found("tdfs/src/passthrough/data.rs", text) > 0, "{text}");
            assert_eq!(found("tdfs/src/fuse/mod.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn sockets_are_found_and_addresses_are_harmless() {
        assert_eq!(found("tdfs/src/resync.rs", "use std::{io, net::{SocketAddr, TcpStream}};"), 1);
        assert_eq!(found("tdfs/src/resync.rs", "use std::net::SocketAddr;"), 0);
        assert_eq!(found("tdfs/src/ship/link.rs", "use tokio::net::TcpStream;"), 0);
        assert_eq!(
            found("tdfs/src/resync.rs", "use tokio::net as n; fn f() { n::TcpStream::connect(a) }"),
            2
        );
    }

    #[test]
    fn passthrough_and_ship_do_not_meet() {
        assert_eq!(found("tdfs/src/passthrough/data.rs", "use crate::ship::Progress;"), 1);
        assert_eq!(found("tdfs/src/passthrough/mod.rs", "use super::ship;"), 1);
        assert_eq!(found("tdfs/src/passthrough/data.rs", "fn f() { super::super::ship::wake() }"), 1);
        assert_eq!(found("tdfs/src/ship/mod.rs", "use crate::{passthrough, status};"), 1);
        assert_eq!(found("tdfs/src/passthrough/data.rs", "use super::nodes; use crate::commit;"), 0);
    }

    #[test]
    fn clocks_and_files_in_a_session_are_found() {
        let wire = "tdfs-wire/src/session/master.rs";
        assert_eq!(found(wire, "use std::time::Instant; fn f(now: Instant) {}"), 0);
        assert_eq!(found(wire, "use std::time::Instant; fn f() { Instant::now(); }"), 1);
        assert_eq!(found(wire, "use std::time; fn f() { time::Instant::now(); }"), 1);
        assert_eq!(found(wire, "fn f() { std::fs::read(p); }"), 1);
        assert_eq!(found(wire, "#[cfg(test)] mod tests { use std::fs; }"), 0);
    }

    #[test]
    fn groups_nest_and_rename() {
        let source =
            Source::new("tdfs/src/a.rs", "use a::{self, b::{c as d, e}, f}; use g::*; fn x() { d::y() }");
        let paths: Vec<String> = paths_of(&source).into_iter().map(|named| named.path).collect();
        assert_eq!(paths, ["a", "a::b::c", "a::b::e", "a::f", "g::*", "a::b::c::y"]);
    }

    #[test]
    fn unsafe_is_found_outside_its_files() {
        let text = "#![allow(unsafe_code)]\nfn f() { unsafe { g() } } // unsafe\n";
        assert_eq!(misplaced_unsafe(&Source::new("tdfs/src/commit.rs", text)).len(), 2);
        assert!(misplaced_unsafe(&Source::new("tdfs/src/sys.rs", text)).is_empty());
    }

    #[test]
    fn appending_elsewhere_is_found() {
        let text = "fn f(&self) { self.log.append(op)?; log().append(op); log().reserve(1); \
            names.append(&mut more); options().append(true); names.reserve(1); }";
        assert_eq!(misplaced_calls(&Source::new("tdfs/src/passthrough/data.rs", text)).len(), 3);
        assert!(misplaced_calls(&Source::new("tdfs/src/commit/mod.rs", text)).is_empty());
    }

    #[test]
    fn a_rule_for_a_place_that_is_gone_is_found() {
        assert!(!stale_places(&[Source::new("tdfs/src/lib.rs", "")]).is_empty());
    }
}
