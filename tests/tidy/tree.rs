//! The files of the project: what git tracks or would track, or all files where git is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lexer;

/// The tree that this test was built from.
pub struct Tree {
    root: PathBuf,
    /// Paths below the root, sorted.
    pub paths: Vec<String>,
}

/// One text of the tree.
pub struct Source {
    /// Its path below the root.
    pub path: String,
    /// All of it.
    pub text: String,
    /// For Rust: the same without comments and without the insides of literals; lines stay where they are.
    pub code: String,
}

impl Source {
    /// A source made of text.
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { lexer::code_of(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }
}

impl Tree {
    /// Lists the files.
    pub fn open() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut paths: Vec<String> = listed_by_git(&root).unwrap_or_else(|| found_by_walking(&root));
        // A file that was removed and not yet committed is still listed.
        paths.retain(|path| root.join(path).is_file());
        Self { root, paths }
    }

    /// Reads one file that has to be there.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
    }

    /// All Rust sources.
    pub fn rust_sources(&self) -> Vec<Source> {
        self.sources(|path| path.ends_with(".rs"))
    }

    /// All that people write: sources, manifests, documents, man pages, scripts.
    pub fn texts(&self) -> Vec<Source> {
        let kinds = [".rs", ".toml", ".md", ".1", ".5", ".8", ".sh"];
        self.sources(|path| path.starts_with(".ci/") || kinds.iter().any(|kind| path.ends_with(kind)))
    }

    fn sources(&self, wanted: impl Fn(&str) -> bool) -> Vec<Source> {
        let wanted = self.paths.iter().filter(|path| wanted(path));
        wanted.map(|path| Source::new(path, &self.read(path))).collect()
    }
}

fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").arg("-C").arg(root).args(list).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    let paths: BTreeSet<String> =
        text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    Some(paths.into_iter().collect())
}

fn found_by_walking(root: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("list a directory of the tree").flatten() {
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match path.strip_prefix(root) {
                Ok(below) if is_dir && below != Path::new("target") && below != Path::new(".git") => {
                    open.push(path)
                }
                Ok(below) if !is_dir => {
                    found.insert(below.display().to_string());
                }
                _ => {}
            }
        }
    }
    found.into_iter().collect()
}

#[test]
fn walking_finds_what_git_lists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let walked = found_by_walking(&root);
    assert!(walked.iter().any(|path| path == "tests/tidy/tree.rs"));
    assert!(!walked.iter().any(|path| path.starts_with("target/")));
    if let Some(listed) = listed_by_git(&root) {
        assert!(listed.iter().any(|path| path == "tests/tidy/tree.rs"));
    }
}
