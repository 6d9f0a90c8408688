//! The same calls on a plain directory and on the mount must end alike, to the errno.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::Path;

use harness::{Caller, Cluster, TempTree};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use crate::BINARIES;

/// DESIGN P4: "An application can't tell the mount from the backing tree: same results, same errno".
#[test]
fn outcome() {
    let plain = TempTree::new().unwrap();
    let expected = outcomes(&plain.dir("tree").unwrap());
    if std::env::var_os("TDFS_PLAIN_ONLY").is_some() {
        return;
    }
    let cluster = Cluster::builder(BINARIES).start();
    let tree = cluster.mount().join("tree");
    fs::create_dir(&tree).unwrap();
    let found = outcomes(&tree);
    let differing = expected.lines().zip(found.lines()).filter(|(expected, found)| expected != found);
    let differing: Vec<String> =
        differing.map(|(plain, mount)| format!("{plain} | on the mount {mount}")).collect();
    cluster.finish();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// One line a call: what was called and how it ended.
fn outcomes(dir: &Path) -> String {
    for name in ["empty", "full", "full/inner", "target"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("file"), b"content").unwrap();
    fs::hard_link(dir.join("file"), dir.join("link")).unwrap();
    symlink("file", dir.join("symlink")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    rustix::fs::mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut told = String::new();
    by_name(dir, &mut told);
    by_two_names(dir, &mut told);
    by_fd(dir, &mut told);
    Caller::nobody().run(|| as_nobody(dir, &mut told));
    told
}

fn tell<T>(told: &mut String, call: &str, result: std::io::Result<T>) {
    let outcome = match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => Errno::from_io_error(&error).map_or(format!("{error}"), |errno| format!("{errno:?}")),
    };
    writeln!(told, "{call}: {outcome}").unwrap();
}

const NAMES: [&str; 14] = [
    "missing",
    "file",
    "file/below",
    "empty",
    "full",
    "symlink",
    "symlink/below",
    "loop",
    "dangling",
    "fifo",
    "missing/below",
    "file/",
    "empty/.",
    "full/..",
];

fn by_name(dir: &Path, told: &mut String) {
    for name in NAMES {
        let path = dir.join(name);
        tell(told, &format!("rmdir {name}"), rustix::fs::rmdir(&path).map_err(Into::into));
        tell(told, &format!("mkdir {name}"), rustix::fs::mkdir(&path, Mode::RWXU).map_err(Into::into));
        tell(told, &format!("readlink {name}"), fs::read_link(&path));
        let truncated = rustix::fs::openat(
            CWD,
            &path,
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK,
            Mode::empty(),
        );
        tell(told, &format!("open for writing {name}"), truncated.map_err(Into::into));
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        tell(told, &format!("open without following {name}"), options.open(&path));
        options.custom_flags(libc::O_DIRECTORY);
        tell(told, &format!("open as directory {name}"), options.open(&path));
        let exclusive = File::options().write(true).create_new(true).open(&path);
        tell(told, &format!("create exclusively {name}"), exclusive);
        tell(told, &format!("symlink {name}"), symlink("x", &path));
        let node = rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0);
        tell(told, &format!("mknod {name}"), node.map_err(Into::into));
        let list = rustix::fs::listxattr(&path, &mut [0; 4096][..]);
        tell(told, &format!("listxattr {name}"), list.map_err(Into::into));
        tell(
            told,
            &format!("removexattr {name}"),
            rustix::fs::removexattr(&path, "user.x").map_err(Into::into),
        );
        tell(told, &format!("statfs {name}"), rustix::fs::statfs(&path).map_err(Into::into));
    }
}

fn by_two_names(dir: &Path, told: &mut String) {
    let names = [
        "missing",
        "file",
        "link",
        "empty",
        "full",
        "full/inner",
        "symlink",
        "fifo",
        "file/below",
        "full/new",
    ];
    for from in names {
        for to in names {
            let (from_path, to_path) = (dir.join(from), dir.join(to));
            let link = rustix::fs::linkat(CWD, &from_path, CWD, &to_path, AtFlags::empty());
            tell(told, &format!("link {from} {to}"), link.map_err(Into::into));
            for flags in [RenameFlags::NOREPLACE, RenameFlags::EXCHANGE, RenameFlags::empty()] {
                let renamed = rustix::fs::renameat_with(CWD, &from_path, CWD, &to_path, flags);
                tell(told, &format!("rename {from} {to} {flags:?}"), renamed.map_err(Into::into));
            }
        }
    }
}

fn by_fd(dir: &Path, told: &mut String) {
    fs::write(dir.join("fresh"), vec![1; 10_000]).unwrap();
    let file = File::options().read(true).write(true).open(dir.join("fresh")).unwrap();
    let reader = File::open(dir.join("fresh")).unwrap();
    for (name, flags) in [
        ("none", FallocateFlags::empty()),
        ("keep", FallocateFlags::KEEP_SIZE),
        ("punch", FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
        ("punch alone", FallocateFlags::PUNCH_HOLE),
    ] {
        for (offset, len) in [(0, 4096), (0, 0), (4096, 1 << 20), (u64::MAX, 1)] {
            let done = rustix::fs::fallocate(&file, flags, offset, len);
            tell(told, &format!("fallocate {name} {offset} {len}"), done.map_err(Into::into));
            let done = rustix::fs::fallocate(&reader, flags, offset, len);
            tell(told, &format!("fallocate read-only {name} {offset} {len}"), done.map_err(Into::into));
        }
    }
    for name in
        ["user.", "user", "", "nonsense.a", "security.a", "system.posix_acl_access", "system.a", "trusted."]
    {
        let set = rustix::fs::fsetxattr(&file, name, b"x", rustix::fs::XattrFlags::empty());
        tell(told, &format!("setxattr {name:?}"), set.map_err(Into::into));
        tell(
            told,
            &format!("getxattr {name:?}"),
            rustix::fs::fgetxattr(&file, name, &mut [0; 9][..]).map_err(Into::into),
        );
    }
    tell(told, "write read-only", reader.write_at(b"x", 0));
    tell(told, "truncate read-only", reader.set_len(1));
    tell(told, "truncate negative", file.set_len(u64::MAX));
    tell(told, "truncate too far", file.set_len(i64::MAX as u64));
    tell(told, "fsync a read-only file", reader.sync_all());
    let directory = File::open(dir).unwrap();
    tell(told, "read a directory", directory.read_at(&mut [0; 8], 0));
    tell(told, "fsync a directory", directory.sync_all());
}

fn as_nobody(dir: &Path, told: &mut String) {
    for name in ["missing", "fresh", "target", "full"] {
        let path = dir.join(name);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        tell(told, &format!("nobody: chmod {name}"), fs::set_permissions(&path, mode));
        tell(told, &format!("nobody: chown {name}"), std::os::unix::fs::chown(&path, Some(65534), None));
        tell(told, &format!("nobody: write {name}"), File::options().write(true).open(&path));
        tell(told, &format!("nobody: unlink {name}"), fs::remove_file(&path));
        tell(told, &format!("nobody: mkdir below {name}"), fs::create_dir(path.join("new")));
        tell(told, &format!("nobody: link {name}"), fs::hard_link(&path, path.join("new")));
        let set = rustix::fs::setxattr(&path, "user.a", b"x", rustix::fs::XattrFlags::empty());
        tell(told, &format!("nobody: setxattr user {name}"), set.map_err(Into::into));
        let set = rustix::fs::setxattr(&path, "trusted.a", b"x", rustix::fs::XattrFlags::empty());
        tell(told, &format!("nobody: setxattr trusted {name}"), set.map_err(Into::into));
        let times = File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH));
        tell(told, &format!("nobody: utimens {name}"), times);
    }
}
