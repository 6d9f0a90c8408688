//! Locks: flock(2), record locks of the process and of the open file.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::sys::RecordLock::{OpenFile, Process};
use harness::sys::lock_range;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{checks, run};

#[test]
fn locks() {
    run(checks![whole_files, records_of_open_files, records_of_processes, gone_with_the_owner]);
}

fn open(dir: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(dir.join("file")).unwrap()
}

fn whole_files(dir: &Path) {
    let (one, two) = (open(dir), open(dir));
    flock(&one, FlockOperation::LockExclusive).unwrap();
    assert_eq!(flock(&two, FlockOperation::NonBlockingLockShared), Err(Errno::AGAIN));
    flock(&one, FlockOperation::LockShared).unwrap();
    flock(&two, FlockOperation::NonBlockingLockShared).unwrap();
    assert_eq!(flock(&one, FlockOperation::NonBlockingLockExclusive), Err(Errno::AGAIN));
    drop(two);
    flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
}

fn records_of_open_files(dir: &Path) {
    let (one, two) = (open(dir), open(dir));
    lock_range(&one, OpenFile, 0..100, Some(true)).unwrap();
    lock_range(&two, OpenFile, 100..200, Some(true)).unwrap();
    let refused = lock_range(&two, OpenFile, 50..60, Some(false)).unwrap_err();
    assert_eq!(Errno::from_io_error(&refused), Some(Errno::AGAIN));
    lock_range(&one, OpenFile, 50..60, None).unwrap();
    lock_range(&two, OpenFile, 50..60, Some(false)).unwrap();
}

/// True when another process can have this lock. `flock` of util-linux would not do: it takes whole files.
fn another_process_can_lock(dir: &Path, range: &str) -> bool {
    let script = format!(
        "exec 9<>\"$1\"; perl -e 'use Fcntl; open(F, \"+<&=9\"); \
         $lock = pack(\"s s x4 q q i x4\", F_WRLCK, 0, {range}, 0); exit(fcntl(F, F_SETLK, $lock) ? 0 : 1)'"
    );
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh").arg(dir.join("file")).stderr(Stdio::inherit());
    command.status().unwrap().success()
}

fn records_of_processes(dir: &Path) {
    if !harness::require("records_of_processes", "perl", "perl-base") {
        return;
    }
    let file = open(dir);
    lock_range(&file, Process, 10..20, Some(true)).unwrap();
    assert!(!another_process_can_lock(dir, "15, 100"));
    assert!(another_process_can_lock(dir, "20, 100"));
    // POSIX: closing any fd of the file drops the process's locks on it.
    drop(open(dir));
    assert!(another_process_can_lock(dir, "15, 100"));
}

fn gone_with_the_owner(dir: &Path) {
    drop(open(dir));
    let mut holder = Command::new("sh");
    holder.arg("-c").arg("exec 9<>\"$1\"; flock -x 9 && echo locked && exec sleep 1000");
    holder.arg("sh").arg(dir.join("file")).stdout(Stdio::piped());
    if !harness::require("gone_with_the_owner", "flock", "util-linux") {
        return;
    }
    let mut holder = holder.spawn().unwrap();
    let mut line = [0; 7];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut line).unwrap();
    let file = open(dir);
    assert!(file.as_raw_fd() >= 0);
    assert_eq!(flock(&file, FlockOperation::NonBlockingLockExclusive), Err(Errno::AGAIN));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let free = || flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    harness::eventually(std::time::Duration::from_secs(5), "the lock is free", free);
}
