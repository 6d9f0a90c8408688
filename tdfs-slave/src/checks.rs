//! Checks before anything is served: wrong use gets one sentence that says what to do.
//!
//! Called by `daemon`. Changes nothing.

use crate::args::{Of, Serve};
use std::path::{Path, PathBuf};
use tdfs_host::cli::{
    WrongUse, absolute, absolute_to_make, check_directory, command_for, stderr_inside, wrong,
};
use tdfs_host::state::{self, Side};

/// Where everything is: absolute paths without symbolic links.
#[derive(Clone, Debug)]
pub struct Places {
    /// The replica.
    pub directory: PathBuf,
    /// The slave's state.
    pub state: PathBuf,
}

impl Places {
    /// Finds them and checks that they can be used together.
    pub fn find(serve: &Serve) -> Result<Places, WrongUse> {
        if serve.insecure && !serve.allow.is_empty() {
            return wrong("--insecure asks no master for its key: leave out --allow, or --insecure".into());
        }
        let places = Places::of(&serve.directory, serve.state.as_deref())?;
        check_directory(&places.directory)?;
        let (directory, state) = (places.directory.display(), places.state.display());
        if places.state.starts_with(&places.directory) {
            return wrong(format!(
                "the state directory {state} would lie inside the replica {directory}: give one outside with --state"
            ));
        }
        if let Some(log) = stderr_inside(&places.directory) {
            let log = log.display();
            return wrong(format!(
                "stderr goes to {log}, which lies inside the replica {directory}: send it to a file outside"
            ));
        }
        Ok(places)
    }

    /// Where the state of the replica `of` is.
    pub fn named(of: &Of) -> Result<Places, WrongUse> {
        Places::of(&of.directory, of.state.as_deref())
    }

    /// What allows a master, but for its fingerprint, as words for a shell.
    pub fn allow_command(&self) -> String {
        command_for("tdfs-slave allow", Side::Slave, &self.directory, &self.state)
    }

    fn of(directory: &Path, state: Option<&Path>) -> Result<Places, WrongUse> {
        let directory = absolute(directory)?;
        let state = match state {
            Some(path) => absolute_to_make(path)?,
            None => state::default_path(Side::Slave, &directory)
                .map_err(|e| WrongUse(format!("no default state directory ({e}): give one with --state")))?,
        };
        Ok(Places { directory, state })
    }
}
