//! Programs that a test needs and a machine may lack, and the switches in the environment.

use std::path::PathBuf;

/// Finds `program` in PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// True when `program` is there. If not, says that `test` is skipped, or panics under `TDFS_REQUIRE_ALL=1`.
#[track_caller]
pub fn require(test: &str, program: &str, package: &str) -> bool {
    if find(program).is_some() {
        return true;
    }
    let sentence = format!("SKIPPED: {test} needs {program} (Debian package {package})");
    println!("{sentence}");
    assert!(!switched_on("TDFS_REQUIRE_ALL"), "{sentence}, and TDFS_REQUIRE_ALL is set");
    false
}

/// True when the long forms of the tests were asked for (`TDFS_LONG=1`).
pub fn long_form() -> bool {
    switched_on("TDFS_LONG")
}

fn switched_on(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

#[cfg(test)]
mod tests {
    use super::require;

    #[test]
    fn finds_sh_and_not_nonsense() {
        assert!(require("this test", "sh", "dash"));
        assert!(super::find("no-such-program-anywhere").is_none());
    }
}
