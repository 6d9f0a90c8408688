//! Runs a closure as another user, or with another umask or working directory, on a thread of its own.

use std::path::PathBuf;

use rustix::fs::{Gid, Mode, Uid};

/// Who asks, from where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Working directory, if not the test's.
    pub directory: Option<PathBuf>,
}

impl Caller {
    /// The superuser with umask 022.
    pub fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new(), umask: 0o022, directory: None }
    }

    /// Debian's nobody and nogroup.
    pub fn nobody() -> Self {
        Self { uid: 65534, gid: 65534, ..Self::root() }
    }

    /// The same with another umask.
    pub fn with_umask(self, umask: u32) -> Self {
        Self { umask, ..self }
    }

    /// The same with these supplementary groups.
    pub fn with_groups(self, groups: &[u32]) -> Self {
        Self { groups: groups.to_vec(), ..self }
    }

    /// The same in `directory`.
    pub fn inside(self, directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()), ..self }
    }

    /// Runs `act` as this caller and gives what it gave. A panic in it goes on here.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.become_it();
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// These system calls change the calling thread alone (only libc's wrappers reach all threads).
    fn become_it(&self) {
        crate::sys::own_umask_and_directory().expect("unshare umask and directory");
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        if let Some(directory) = &self.directory {
            rustix::process::chdir(directory).expect("change directory");
        }
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        if self.uid != 0 || self.gid != 0 {
            rustix::thread::set_thread_groups(&groups).expect("set groups");
            rustix::thread::set_thread_res_gid(gid, gid, gid).expect("set group");
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("set user");
        }
    }
}
