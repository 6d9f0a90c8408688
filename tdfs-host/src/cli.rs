//! What the command lines of both daemons have in common: exit codes, wrong use in one sentence, checks of
//! the paths that users give.

use crate::state;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code for what fails while running.
pub const FAILED: u8 = 1;
/// Exit code for wrong use.
pub const WRONG_USE: u8 = 2;

/// Wrong use: one sentence for stderr that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUse(pub String);

/// Builds the error.
pub fn wrong<T>(sentence: String) -> Result<T, WrongUse> {
    Err(WrongUse(sentence))
}

/// Ends a program: says on stderr what failed, and tells wrong use from other failures by the exit code.
pub fn exit(program: &str, done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{program}: {e:#}");
            ExitCode::from(if e.is::<WrongUse>() { WRONG_USE } else { FAILED })
        }
    }
}

/// What a command line parser says of wrong words, in one line.
pub fn one_sentence(rendered: &str, program: &str) -> WrongUse {
    let sentence = rendered.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let sentence = words.join(" ");
    WrongUse(format!("{} ({program} --help says more)", sentence.trim_start_matches("error: ")))
}

/// The absolute path of a directory, its symbolic links followed.
pub fn absolute(path: &Path) -> Result<PathBuf, WrongUse> {
    state::absolute(path).map_err(|e| WrongUse(format!("{} can't be reached: {e}", path.display())))
}

/// As [`absolute`], for a path of which more than the last part may still have to be made.
pub fn absolute_to_make(path: &Path) -> Result<PathBuf, WrongUse> {
    match (state::absolute(path), path.parent(), path.file_name()) {
        (Err(e), Some(above), Some(name)) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(absolute_to_make(above)?.join(name))
        }
        (found, ..) => found.map_err(|e| WrongUse(format!("{} can't be reached: {e}", path.display()))),
    }
}

/// Says whether `path` is a directory that can be used.
pub fn check_directory(path: &Path) -> Result<(), WrongUse> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => wrong(format!("{shown} is no directory: give the path of one")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            wrong(format!("{shown} does not exist: make the directory first"))
        }
        Err(e) => wrong(format!("{shown} can't be used: {e}")),
    }
}

/// The file that stderr goes to, if it lies inside `tree`: each line there would be one more change.
pub fn stderr_inside(tree: &Path) -> Option<PathBuf> {
    let target = std::fs::read_link("/proc/self/fd/2").ok()?;
    target.starts_with(tree).then_some(target)
}
