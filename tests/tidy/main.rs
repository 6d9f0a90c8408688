//! Checks the sources themselves: sizes, heads, words, imports, flags against man pages, the code map.
//!
//! The rules are data in `rules.rs`, each with its reason. Each checker has a test of its own which shows
//! that it can fail. Looks at what git tracks or would track, so a new file is checked before it is committed.

mod documents;
mod identifiers;
mod imports;
mod lexer;
mod rules;
mod shape;
mod tree;

use tree::{Source, Tree};

/// Fails with all findings at once.
#[track_caller]
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n  {}", findings.len(), findings.join("\n  "));
}

/// What `check` finds in all Rust sources of the tree.
fn in_all_sources(check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    let sources = Tree::open().rust_sources();
    assert!(sources.len() > 20, "only {} sources found: looked in the wrong place", sources.len());
    sources.iter().flat_map(check).collect()
}

#[test]
fn files_are_short() {
    assert_none(&in_all_sources(shape::too_long));
}

#[test]
fn files_say_first_what_they_own() {
    assert_none(&in_all_sources(shape::no_head));
}

#[test]
fn sources_are_ascii() {
    assert_none(&in_all_sources(shape::not_ascii));
}

#[test]
fn nothing_is_left_unfinished() {
    assert_none(&Tree::open().texts().iter().flat_map(shape::unfinished).collect::<Vec<_>>());
}

#[test]
fn changes_of_a_replica_are_steps_that_tests_can_kill_at() {
    assert_none(&in_all_sources(shape::outside_steps));
}

#[test]
fn names_come_from_the_glossary() {
    assert_none(&in_all_sources(identifiers::words_to_keep_out));
}

#[test]
fn modules_import_only_what_they_may() {
    assert_none(&in_all_sources(imports::forbidden));
}

#[test]
fn unsafe_stays_in_the_modules_for_system_calls() {
    assert_none(&in_all_sources(imports::misplaced_unsafe));
}

#[test]
fn only_commit_appends() {
    assert_none(&in_all_sources(imports::misplaced_calls));
}

#[test]
fn exceptions_of_the_rules_are_still_needed() {
    let sources = Tree::open().rust_sources();
    let mut findings = identifiers::stale_exceptions(&sources);
    findings.extend(imports::stale_places(&sources));
    assert_none(&findings);
}

#[test]
fn the_code_map_names_every_module() {
    let tree = Tree::open();
    assert_none(&documents::missing_in_code_map(&tree.paths, &tree.read("ARCHITECTURE.md")));
}

/// CONTRIBUTING: "Every promise has a test that quotes it."
#[test]
fn a_test_quotes_every_promise() {
    let tree = Tree::open();
    let sources = tree.rust_sources();
    // Not the test of the checker, which quotes nothing.
    let tests = sources.iter().filter(|source| {
        let is_test = ["tests/", "/tests", "simulation"].iter().any(|part| source.path.contains(part));
        is_test && !source.path.starts_with("tests/tidy/")
    });
    let tests: Vec<&str> = tests.map(|source| &source.text[..]).collect();
    assert_none(&documents::unquoted(
        "README.md",
        &tree.read("README.md"),
        "What it promises",
        &tests.join("\n"),
    ));
}

#[test]
fn man_pages_and_readme_name_the_flags_that_exist_and_no_others() {
    let tree = Tree::open();
    let readme = tree.read("README.md");
    let mut findings = Vec::new();
    let programs = [
        ("tdfs", env!("CARGO_BIN_EXE_tdfs-under-test")),
        ("tdfs-slave", env!("CARGO_BIN_EXE_tdfs-slave-under-test")),
    ];
    for (name, program) in programs {
        let usage = documents::Usage::ask(program);
        assert!(usage.flags.contains("--state"), "{name} --help was not understood: {usage:?}");
        let page = format!("man/{name}.8");
        findings.extend(documents::page_against_usage(&page, &tree.read(&page), &usage));
        findings.extend(documents::examples_against_usage("README.md", &readme, name, &usage));
    }
    assert_none(&findings);
}
