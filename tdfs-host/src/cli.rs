//! What the command lines of both daemons have in common: exit codes, wrong use in one sentence, checks of
//! the paths that users give.

use crate::control::{self, AskError, Request};
use crate::state::{self, StateDir, StateError};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Exit code for what fails while running.
pub const FAILED: u8 = 1;
/// Exit code for wrong use.
pub const WRONG_USE: u8 = 2;
/// Most bytes of a command that is told.
const COMMAND_BYTES_MAX: usize = 800;
/// How long a daemon may take to answer a command.
const ASK_MAX: Duration = Duration::from_secs(10);
/// How often a daemon that is about to start, or to end, is asked again, and after how long each time.
const ASKS: u32 = 50;
const ASK_INTERVAL: Duration = Duration::from_millis(100);

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

/// Has the daemon that holds the state directory `state` do something; where none runs, `by_hand` does it, holding
/// the directory meanwhile.
pub fn ask_or_do(
    state: &Path,
    request: &Request,
    by_hand: impl FnOnce(StateDir) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    for ask in 0.. {
        match control::ask(state, request, Some(ASK_MAX)) {
            Ok(value) => return Ok(value),
            Err(AskError::Refused(why)) => return Err(WrongUse(why).into()),
            Err(AskError::NotRunning) => {}
            Err(e) => return Err(e.into()),
        }
        match StateDir::open(state) {
            Ok(held) => return by_hand(held),
            // A daemon that starts or ends at this moment.
            Err(StateError::Locked { .. }) if ask < ASKS => std::thread::sleep(ASK_INTERVAL),
            Err(e) => return Err(WrongUse(e.to_string()).into()),
        }
    }
    unreachable!("the last one returns");
}

/// A command for the daemon of a directory, as words for a shell: `tdfs repin -m DIR`, with its state directory where
/// that is not the default one. Too long a one, for a message, is told without its paths.
pub fn command_for(command: &str, side: state::Side, directory: &Path, state: &Path) -> String {
    let mut told = format!("{command} -m {}", shell_word(directory));
    if state::default_path(side, directory).ok().as_deref() != Some(state) {
        told.push_str(&format!(" --state {}", shell_word(state)));
    }
    if told.len() > COMMAND_BYTES_MAX { format!("{command} -m DIR") } else { told }
}

/// A path as a word for a shell.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+:@%,=".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
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
