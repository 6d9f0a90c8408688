//! The fd check: how many files tdfs has open at most while find(1) looks at 100,000 files.
//!
//! The kernel then remembers 100,000 inodes; a filesystem that keeps one fd for each ends at RLIMIT_NOFILE.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::subject::{Place, Subject};
use crate::workload;

/// Its name on the command line.
pub const NAME: &str = "fds";
/// What it does, for a reader of the table.
pub const WHAT: &str = "most files tdfs has open while find looks at 100,000 files";

const DIRS: usize = 1_000;
const FILES_PER_DIR: usize = 100;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// The most open files seen while the whole tree was looked at.
pub fn most_open(place: &Place) -> anyhow::Result<usize> {
    let backing = place.fresh()?;
    workload::make_tree(&backing.join("tree"), DIRS, FILES_PER_DIR)?;
    let mounted = Subject::Tdfs.mount(place)?;
    let pid = mounted.pid().context("tdfs has no process")?;
    let done = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(pid, &done));
        // The size makes find look at each file, not only at the directories.
        let found = workload::find(&mounted.path().join("tree"), &["-printf", "%s\\n"]);
        done.store(true, Ordering::Relaxed);
        let most = sampler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        found.and(most)
    })?;
    mounted.unmount()?;
    Ok(most)
}

/// Counts until `done`, and once more after it: what is kept open is still open then.
fn sample(pid: u32, done: &AtomicBool) -> anyhow::Result<usize> {
    let mut most = 0;
    loop {
        let last = done.load(Ordering::Relaxed);
        let open = fs::read_dir(format!("/proc/{pid}/fd")).context("list the fds of tdfs")?.count();
        most = most.max(open);
        if last {
            return Ok(most);
        }
        std::thread::sleep(SAMPLE_INTERVAL);
    }
}
