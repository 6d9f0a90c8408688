//! Checks documents against the program: flags and subcommands in man pages and README, modules in the code map.

use std::collections::BTreeSet;
use std::process::Command;

use crate::rules::{FOREIGN_FLAGS, MAPPED_CRATES};

/// What a program's own help says.
#[derive(Debug, Default)]
pub struct Usage {
    /// `-m`, `--state` and so on, of the program and its subcommands.
    pub flags: BTreeSet<String>,
    /// Its subcommands.
    pub subcommands: BTreeSet<String>,
}

impl Usage {
    /// Asks the program, and each of its subcommands.
    pub fn ask(program: &str) -> Self {
        let mut usage = Self::default();
        usage.add(&help_of(program, &[]));
        for subcommand in usage.subcommands.clone() {
            usage.add(&help_of(program, &[&subcommand]));
        }
        usage
    }

    /// Reads one help text as clap prints it.
    fn add(&mut self, help: &str) {
        let mut in_commands = false;
        for line in help.lines() {
            let is_heading = !line.starts_with(' ') && line.ends_with(':');
            if is_heading {
                in_commands = line == "Commands:";
            }
            let first = line.split_whitespace().next().unwrap_or_default();
            if in_commands && line.starts_with("  ") && !line.starts_with("   ") && first != "help" {
                self.subcommands.insert(first.to_owned());
            }
            if first.starts_with('-') {
                let described = line.trim_start().split("  ").next().unwrap_or_default();
                self.flags.extend(flags_in(described));
            }
        }
    }
}

fn help_of(program: &str, subcommand: &[&str]) -> String {
    let output = Command::new(program).args(subcommand).arg("--help").output();
    let output = output.unwrap_or_else(|error| panic!("run {program} --help: {error}"));
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// Flags and subcommands that the page lacks, and long flags in it that do not exist.
pub fn page_against_usage(path: &str, page: &str, usage: &Usage) -> Vec<String> {
    let plain = plain_text(page);
    let named = flags_in(&plain);
    let words: BTreeSet<&str> = plain.split(|c: char| !(c.is_alphanumeric() || c == '-')).collect();
    let mut findings = Vec::new();
    for flag in usage.flags.iter().filter(|flag| !named.contains(*flag)) {
        findings.push(format!("{path}: does not name {flag}"));
    }
    for subcommand in usage.subcommands.iter().filter(|name| !words.contains(name.as_str())) {
        findings.push(format!("{path}: does not name the subcommand {subcommand}"));
    }
    let is_known = |flag: &String| usage.flags.contains(flag) || FOREIGN_FLAGS.contains(&flag.as_str());
    for flag in named.iter().filter(|flag| flag.starts_with("--") && !is_known(flag)) {
        findings.push(format!("{path}: names {flag}, which does not exist"));
    }
    findings
}

/// Flags in a document's examples of `program` that do not exist.
pub fn examples_against_usage(path: &str, document: &str, program: &str, usage: &Usage) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in document.lines().enumerate() {
        for example in line.split('`').filter_map(|part| arguments_of(part, program)) {
            for flag in flags_in(example).into_iter().filter(|flag| !usage.flags.contains(flag)) {
                findings.push(format!("{path}:{}: {program} has no {flag}", number + 1));
            }
        }
    }
    findings
}

/// Subcommands whose examples are looked at.
const COMMANDS: [&str; 11] =
    ["status", "wait", "verify", "resync", "add", "forget", "key", "repin", "allow", "disallow", "allowed"];

/// What follows the program's name in a command line, also when cargo runs it.
fn arguments_of<'a>(text: &'a str, program: &str) -> Option<&'a str> {
    let text = text.split(" #").next()?.trim_start().trim_start_matches(['$', '#']).trim_start();
    let by_cargo = format!("-p {program} -- ");
    if let Some((_, arguments)) = text.split_once(&by_cargo) {
        return Some(arguments);
    }
    text.strip_prefix(program).filter(|rest| {
        rest.starts_with(" -") || COMMANDS.iter().any(|word| rest.starts_with(&format!(" {word} ")))
    })
}

/// A man page without its markup: `.Fl -state`, `\-\-state` and `\fB\-\-state\fR` all become `--state`.
fn plain_text(page: &str) -> String {
    let mut plain = String::with_capacity(page.len());
    for line in page.lines().filter(|line| !line.starts_with(".\\\"") && !line.starts_with("'\\\"")) {
        let line = line.replace("\\-", "-").replace("\\(en", "-");
        let line = ["\\fB", "\\fI", "\\fR", "\\fP"].iter().fold(line, |line, font| line.replace(font, ""));
        let is_macro = line.starts_with('.');
        let mut words = line.split(' ').peekable();
        while let Some(word) = words.next() {
            let word = if is_macro && word.trim_start_matches('.') == "Fl" {
                format!("-{}", words.next().unwrap_or_default())
            } else {
                word.to_owned()
            };
            plain.push_str(&word);
            plain.push(' ');
        }
        plain.push('\n');
    }
    plain
}

/// Everything that looks like a flag: one hyphen and one letter, or two hyphens and a word.
fn flags_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let is_long = |word: &str| {
        word.strip_prefix("--").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let is_short = |word: &str| {
        word.len() == 2 && word.starts_with('-') && word.ends_with(|c: char| c.is_ascii_alphabetic())
    };
    words.filter(|word| is_long(word) || is_short(word)).map(str::to_owned).collect()
}

/// Modules at the top of a crate that the code map does not name.
pub fn missing_in_code_map(paths: &[String], code_map: &str) -> Vec<String> {
    let mut modules = BTreeSet::new();
    for path in paths {
        let Some((package, inside)) = path.split_once("/src/") else { continue };
        if MAPPED_CRATES.contains(&package) {
            let name = inside.split_once('/').map_or_else(|| inside.to_owned(), |(dir, _)| format!("{dir}/"));
            modules.insert((package, name));
        }
    }
    let is_named = |name: &str| {
        let mut words = code_map.split(|c: char| !(c.is_alphanumeric() || "_-./".contains(c)));
        words.any(|word| {
            word == name
                || word.ends_with(&format!("/{name}"))
                || word.starts_with(name) && name.ends_with('/')
        })
    };
    let missing = modules.into_iter().filter(|(_, name)| !is_named(name));
    missing.map(|(package, name)| format!("ARCHITECTURE.md: does not name {package}/src/{name}")).collect()
}

/// Tests that a table of rules names in its last column, and that do not exist in `sources`.
pub fn tests_that_are_gone(path: &str, table: &str, sources: &str) -> Vec<String> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.rsplit_once(" | "));
    let named = rows.flat_map(|(_, tests)| tests.split('`').skip(1).step_by(2));
    let gone = named.filter(|name| !sources.contains(&format!("fn {name}(")));
    gone.map(|name| format!("{path}: no test {name}")).collect()
}

/// So many words in a row are a quotation.
const QUOTED_WORDS: usize = 5;

/// Sentences of the section `heading` of a document that no test quotes.
pub fn unquoted(path: &str, document: &str, heading: &str, tests: &str) -> Vec<String> {
    let section = document.split("\n## ").find_map(|section| section.strip_prefix(heading));
    let Some(section) = section else { return vec![format!("{path}: has no section {heading}")] };
    let quoted = words_of(&tests.replace("///", " ").replace("//!", " "));
    let is_quoted = |sentence: &str| {
        let words = words_of(sentence);
        let words: Vec<&str> = words.split(' ').collect();
        words.windows(QUOTED_WORDS.min(words.len())).any(|some| quoted.contains(&some.join(" ")))
    };
    let sentences = section.split(['.', ':', ';', '*']).map(str::trim).filter(|text| text.contains(' '));
    let unquoted = sentences.filter(|sentence| !is_quoted(sentence));
    unquoted.map(|sentence| format!("{path}: no test quotes {sentence:?}")).collect()
}

/// Its words in small letters, with one space between them.
fn words_of(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_whose_test_is_gone_is_found() {
        let table = "| rule | tests |\n|---|---|\n| `never` | `one`, `two` |\n";
        assert!(tests_that_are_gone("R", table, "fn one() fn two()").is_empty());
        assert_eq!(tests_that_are_gone("R", table, "fn two() fn one_more()"), ["R: no test one"]);
    }

    #[test]
    fn a_promise_that_no_test_quotes_is_found() {
        let document = "# X\n\n## Promises\n\n* **A.** One two three\n  four five six: no\n  harm.\n\n## More\n\nSeven eight.\n";
        let tests = "/// README: \"two three four\n/// five six\". And: \"No harm\".";
        assert!(unquoted("R", document, "Promises", tests).is_empty());
        let findings = unquoted("R", document, "Promises", "/// Two three, four five, six.");
        assert_eq!(findings, ["R: no test quotes \"no\\n  harm\""]);
        assert_eq!(unquoted("R", document, "Limits", tests).len(), 1);
    }

    const HELP: &str = "Mirrors.\n\nUsage: x [OPTIONS]\n\nCommands:\n  status  Says\n          more\n  help    Prints\n\n\
        Options:\n  -m, --master <DIR>  The -q dir\n      --state <DIR>\n          Long --wrong text\n";

    fn usage() -> Usage {
        let mut usage = Usage::default();
        usage.add(HELP);
        usage
    }

    #[test]
    fn help_is_understood() {
        assert_eq!(usage().flags.into_iter().collect::<Vec<_>>(), ["--master", "--state", "-m"]);
        assert_eq!(usage().subcommands.into_iter().collect::<Vec<_>>(), ["status"]);
    }

    #[test]
    fn a_page_must_name_all_and_nothing_else() {
        let good = ".Fl m | Fl -master\n.B \\-\\-state\nstatus\n";
        assert!(page_against_usage("x.8", good, &usage()).is_empty());
        let findings = page_against_usage("x.8", ".Fl m , Fl -master\n\\fB\\-\\-gone\\fR\n", &usage());
        let expected = [
            "x.8: does not name --state",
            "x.8: does not name the subcommand status",
            "x.8: names --gone, which does not exist",
        ];
        assert_eq!(findings, expected);
    }

    #[test]
    fn examples_must_work() {
        let text = "Run `x -m a --gone b` or\n    cargo run -p x -- --nope # --comment\n    other -q\n";
        let findings = examples_against_usage("R", text, "x", &usage());
        assert_eq!(findings, ["R:1: x has no --gone", "R:2: x has no --nope"]);
    }

    #[test]
    fn a_module_that_the_map_forgot_is_found() {
        let paths = ["tdfs/src/commit.rs", "tdfs/src/ship/link.rs", "tests/a.rs"].map(str::to_owned);
        assert!(missing_in_code_map(&paths, "`commit.rs` orders; `ship/` sends").is_empty());
        assert_eq!(
            missing_in_code_map(&paths, "commit.rs"),
            ["ARCHITECTURE.md: does not name tdfs/src/ship/"]
        );
    }
}
