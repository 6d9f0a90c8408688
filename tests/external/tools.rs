//! Finds the external programs: in $TDFS_TOOLS/bin, where .ci/run puts them, or in PATH.

use std::env;
use std::path::PathBuf;

/// Where .ci/run installs without being told, below the user's cache directory.
const CACHE_NAME: &str = "tdfs-ci";

/// The program; None after saying that `test` is skipped. Panics instead under `TDFS_REQUIRE_ALL=1`.
#[track_caller]
pub fn require(test: &str, program: &str, version: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        let sentence =
            format!("SKIPPED: {test} needs {program} (cargo install {program}@{version} --locked)");
        println!("{sentence}");
        let required = env::var_os("TDFS_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!required, "{sentence}, and TDFS_REQUIRE_ALL is set");
    }
    found
}

fn find(program: &str) -> Option<PathBuf> {
    let given = env::var_os("TDFS_TOOLS").map(PathBuf::from);
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let own =
        [given, cache.map(|cache| cache.join(CACHE_NAME))].into_iter().flatten().map(|root| root.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let all = own.chain(env::split_paths(&path));
    all.map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[test]
fn a_program_in_path_is_found_and_nonsense_is_not() {
    assert!(find("sh").is_some());
    assert!(find("no-such-program-anywhere").is_none());
}
