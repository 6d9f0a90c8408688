//! Who can reach below the mount: descriptors, working directories, mappings and bind mounts from before it.
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

/// What one process holds below the directory: its working directory, its root, its descriptors, its mappings.
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
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    let mut mapped: Vec<&str> = maps.lines().filter_map(|line| mapped_file(line, directory)).collect();
    mapped.sort_unstable();
    mapped.dedup();
    let shown_mapping = |path: &str| format!("{who}: a mapping of {path}");
    links.filter(reaches).map(shown).chain(mapped.into_iter().map(shown_mapping)).collect()
}

/// The file below the directory that a line of /proc/PID/maps (proc_pid_maps(5)) shows as mapped shared.
///
/// What is mapped through a mount of a tdfs that is gone, and reaches the directory all the same (`--passthrough`), is shown by
/// its path in that mount; its inode number is the right one.
fn mapped_file<'a>(line: &'a str, directory: &Path) -> Option<&'a str> {
    let mut fields = line.splitn(6, ' ').skip(1);
    let (permissions, ino) = (fields.next()?, fields.nth(2)?.parse::<u64>().ok()?);
    let path = fields.next()?.trim_start();
    let in_mount = || {
        let path = directory.join(path.strip_prefix('/')?);
        Some(fs::symlink_metadata(path).ok()?.ino() == ino)
    };
    let reaches = Path::new(path).starts_with(directory) || in_mount() == Some(true);
    (permissions.ends_with('s') && reaches).then_some(path)
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
    fn shared_mappings_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a file");
        fs::write(&path, "").unwrap();
        let ino = fs::metadata(&path).unwrap().ino();
        let found = |permissions: &str, ino: u64, path: &str| {
            let line = format!("7fe9eeff4000-7fe9eeff9000 {permissions} 00000000 00:2a {ino}      {path}");
            mapped_file(&line, directory.path()).map(str::to_owned)
        };
        let path = path.to_str().unwrap();
        assert_eq!(found("rw-s", 7, path).as_deref(), Some(path));
        assert_eq!(found("rw-p", 7, path), None);
        assert_eq!(found("rw-s", ino, "/a file").as_deref(), Some("/a file"));
        assert_eq!(found("rw-s", ino + 1, "/a file"), None);
        assert_eq!(found("rw-s", ino, "/another"), None);
        assert_eq!(mapped_file("7fe9eeff4000-7fe9eeff9000 rw-p 00000000 00:00 0 ", directory.path()), None);
    }

    #[test]
    fn nobody_is_found_in_a_directory_that_nobody_uses() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(find(directory.path()), Vec::<String>::new());
    }
}
