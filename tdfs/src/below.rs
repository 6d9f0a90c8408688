//! Who can reach below the mount: descriptors, working directories and bind mounts from before it.
//!
//! Called by `daemon` once, before it mounts in place. What is written through them is not seen, so the
//! operator has to know. Changes nothing, and finds only what this user may look at.

use crate::fuse::mount;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// So many are named; the rest is counted.
const NAMED_MAX: usize = 20;

/// Describes all who reach into `directory` other than by its path.
pub fn find(directory: &Path) -> Vec<String> {
    let mut found = bind_mounts(directory);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| is_process(&entry.file_name())) {
        if process.file_name() != *std::process::id().to_string() {
            found.extend(uses(&process.path(), directory));
        }
    }
    let more = found.len().saturating_sub(NAMED_MAX);
    found.truncate(NAMED_MAX);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    found
}

fn is_process(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// What one process holds below the directory: its working directory, its root, its descriptors.
fn uses(process: &Path, directory: &Path) -> Vec<String> {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let who = format!("process {} ({})", process.file_name().unwrap_or_default().display(), name.trim());
    let descriptors =
        fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let links = [process.join("cwd"), process.join("root")].into_iter().chain(descriptors);
    let reaches = |link: &PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(directory));
    let shown = |link: PathBuf| {
        let what = link.strip_prefix(process).unwrap_or(&link).display().to_string();
        format!("{who}: {what} is {}", fs::read_link(&link).unwrap_or_default().display())
    };
    links.filter(reaches).map(shown).collect()
}

/// Other mounts that show the directory, or a part of it, elsewhere.
fn bind_mounts(directory: &Path) -> Vec<String> {
    let (Ok(mounts), Ok(here)) = (mount::mounts(), fs::metadata(directory)) else { return Vec::new() };
    let device = format!("{}:{}", rustix::fs::major(here.dev()), rustix::fs::minor(here.dev()));
    let own = mounts.iter().filter(|mount| directory.starts_with(&mount.mountpoint));
    let Some(own) = own.max_by_key(|mount| mount.mountpoint.as_os_str().len()) else { return Vec::new() };
    let Ok(inside) = directory.strip_prefix(&own.mountpoint) else { return Vec::new() };
    let root = own.root.join(inside);
    let elsewhere = |mount: &&mount::MountInfo| {
        mount.device == device && mount.root.starts_with(&root) && !mount.mountpoint.starts_with(directory)
    };
    let shown = |mount: &mount::MountInfo| format!("a bind mount on {}", mount.mountpoint.display());
    mounts.iter().filter(elsewhere).filter(|mount| mount.mountpoint != own.mountpoint).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_below_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(fs::File::open(&path).unwrap())
            .spawn()
            .expect("run sleep(1)");
        let found = find(&fs::canonicalize(directory.path()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        let expected = format!("process {} (", child.id());
        assert!(found.iter().any(|who| who.starts_with(&expected) && who.contains("fd/0")), "{found:?}");
    }

    #[test]
    fn nobody_is_found_in_a_directory_that_nobody_uses() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(find(directory.path()), Vec::<String>::new());
    }
}
