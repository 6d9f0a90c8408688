//! Users: who has no right to something learns nothing of it, and set bits and capabilities go as they should.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use harness::ops::Acl;
use harness::{Caller, Cluster};
use rustix::fs::{Access, FallocateFlags, XattrFlags};
use rustix::io::Errno;

use crate::{BINARIES, checks, run};

/// `CAP_NET_RAW`, permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn rights() {
    run(checks![
        what_is_closed_tells_nothing,
        rights_hold_from_the_moment_they_change,
        set_bits_and_capabilities_go,
        set_bits_that_stay,
        setgid_goes_with_a_change_by_who_is_not_in_the_group,
        setgid_goes_with_the_group,
        setgid_goes_with_an_acl,
        what_is_made_belongs_to_its_maker,
    ]);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn refused<T>(what: &str, result: std::io::Result<T>) {
    let errno = result.map(drop).map_err(|error| Errno::from_io_error(&error));
    assert_eq!(errno, Err(Some(Errno::ACCESS)), "{what}");
}

/// Even what does not exist is not told from what does; and the kernel has cached all of it for root before.
fn what_is_closed_tells_nothing(dir: &Path) {
    let closed = dir.join("closed");
    fs::create_dir_all(closed.join("sub")).unwrap();
    fs::write(closed.join("file"), b"secret").unwrap();
    symlink("file", closed.join("link")).unwrap();
    rustix::fs::setxattr(closed.join("file"), "user.a", b"secret", XattrFlags::empty()).unwrap();
    set_mode(&closed, 0o700);
    let names = ["file", "link", "sub", "missing", "sub/missing"];
    for name in names {
        // Root knows, and so does the kernel's cache.
        let _ = fs::symlink_metadata(closed.join(name));
        let _ = fs::read(closed.join(name));
    }
    assert_eq!(fs::read_dir(&closed).unwrap().count(), 3);
    Caller::nobody().run(|| {
        refused("list", fs::read_dir(&closed));
        for path in names.map(|name| closed.join(name)) {
            refused("stat", fs::symlink_metadata(&path));
            refused("access", rustix::fs::access(&path, Access::EXISTS).map_err(Into::into));
            refused("open", File::open(&path));
            refused("readlink", fs::read_link(&path));
            let value = rustix::fs::lgetxattr(&path, "user.a", &mut [0; 9][..]);
            refused("getxattr", value.map_err(Into::into));
            refused("listxattr", rustix::fs::llistxattr(&path, &mut [0; 99][..]).map_err(Into::into));
            refused("create", File::create_new(&path));
            refused("mkdir", fs::create_dir(&path));
            refused("unlink", fs::remove_file(&path));
            refused("rename", fs::rename(&path, dir.join("mine")));
            refused("link", fs::hard_link(&path, dir.join("mine")));
            refused("chmod", fs::set_permissions(&path, fs::Permissions::from_mode(0o777)));
            refused(
                "truncate",
                rustix::fs::open(&path, rustix::fs::OFlags::TRUNC, 0.into()).map_err(Into::into),
            );
        }
    });
    // A file that may be seen and not be read keeps its content and its user xattrs.
    set_mode(&closed, 0o755);
    set_mode(&closed.join("file"), 0o600);
    Caller::nobody().run(|| {
        assert_eq!(fs::metadata(closed.join("file")).unwrap().len(), 6);
        refused("open", File::open(closed.join("file")));
        let value = rustix::fs::getxattr(closed.join("file"), "user.a", &mut [0; 9][..]);
        refused("getxattr", value.map_err(Into::into));
        let value = rustix::fs::getxattr(closed.join("file"), "trusted.a", &mut [0; 9][..]);
        assert_eq!(value, Err(Errno::NODATA), "trusted xattrs are root's");
    });
}

/// No cached answer outlives the right to it.
fn rights_hold_from_the_moment_they_change(dir: &Path) {
    let (closed, file) = (dir.join("sub"), dir.join("sub/file"));
    fs::create_dir(&closed).unwrap();
    fs::write(&file, b"content").unwrap();
    let reads = || Caller::nobody().run(|| fs::read(&file).is_ok());
    let acl = |user| Acl { owner: 7, user, group: 0, mask: 7, others: 0 };
    let set_acl = |path: &Path, user| {
        let bytes = acl(user).bytes();
        rustix::fs::setxattr(path, "system.posix_acl_access", &bytes, XattrFlags::empty()).unwrap();
    };
    let user = Caller { uid: 1000, gid: 1000, ..Caller::nobody() };
    let by_acl = || user.run(|| fs::read(&file).is_ok());
    for _ in 0..20 {
        for (directory, mode, may) in
            [(0o755, 0o644, true), (0o700, 0o644, false), (0o711, 0o604, true), (0o711, 0o640, false)]
        {
            set_mode(&closed, directory);
            set_mode(&file, mode);
            assert_eq!(reads(), may, "{directory:o} {mode:o}");
        }
        chown(&file, Some(65534), Some(65534)).unwrap();
        assert!(reads());
        chown(&file, Some(0), Some(0)).unwrap();
        assert!(!reads());
        for (at_directory, at_file, may) in [(7, 7, true), (7, 0, false), (0, 7, false), (5, 4, true)] {
            set_acl(&closed, at_directory);
            set_acl(&file, at_file);
            assert_eq!(by_acl(), may, "{at_directory} {at_file}");
        }
        for path in [&closed, &file] {
            rustix::fs::removexattr(path, "system.posix_acl_access").unwrap();
        }
        assert!(!by_acl());
    }
}

fn bits(path: &Path) -> (u32, bool) {
    let value = rustix::fs::getxattr(path, "security.capability", &mut [0; 99][..]);
    (fs::metadata(path).unwrap().permissions().mode() & 0o7777, value.is_ok())
}

fn program(dir: &Path, name: &str, mode: u32) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, vec![b'.'; 10_000]).unwrap();
    set_mode(&path, mode);
    rustix::fs::setxattr(&path, "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
    path
}

type Change = fn(&File) -> std::io::Result<()>;

const CHANGES: [(&str, Change); 5] = [
    ("write", |file| file.write_all_at(b"x", 5)),
    ("append", |mut file| file.write_all(b"x")),
    ("truncate", |file| file.set_len(77)),
    ("allocate", |file| {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(file, punch, 0, 4096)?)
    }),
    ("copy", |file| {
        let (mut from, mut to) = (0, 5_000);
        rustix::fs::copy_file_range(file, Some(&mut from), file, Some(&mut to), 100)?;
        Ok(())
    }),
];

/// FACTS section 1: who negotiates `HANDLE_KILLPRIV_V2` "must itself clear setuid/setgid and security.capability on write,
/// truncate and chown by an unprivileged caller, as the kernel would have". A capability goes with root's, too.
fn set_bits_and_capabilities_go(dir: &Path) {
    for (what, change) in CHANGES {
        let (theirs, roots) = (program(dir, what, 0o6777), program(dir, &format!("{what}-root"), 0o6777));
        // It is open to read, so with --passthrough these go past the kernel's cache.
        for held in [false, true] {
            rustix::fs::setxattr(&theirs, "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
            set_mode(&theirs, 0o6777);
            let reader = held.then(|| File::open(&theirs).unwrap());
            Caller::nobody().run(|| {
                change(&File::options().read(true).write(true).open(&theirs).unwrap()).unwrap();
            });
            assert_eq!(bits(&theirs), (0o777, false), "{what} by another user, held: {held}");
            drop(reader);
        }
        change(&File::options().read(true).write(true).open(&roots).unwrap()).unwrap();
        assert_eq!(bits(&roots), (0o6777, false), "{what} by root");
    }
    let path = program(dir, "opened with O_TRUNC", 0o6777);
    Caller::nobody().run(|| File::options().write(true).truncate(true).open(&path).unwrap());
    assert_eq!(bits(&path), (0o777, false));
    let path = program(dir, "given away", 0o6755);
    chown(&path, Some(1), None).unwrap();
    assert_eq!(bits(&path), (0o755, false));
    let path = program(dir, "changed owner to the same", 0o6755);
    chown(&path, Some(0), Some(0)).unwrap();
    assert_eq!(bits(&path), (0o755, false));
}

/// setgid without the right to execute is no set bit that could give a group away; and reading changes nothing.
fn set_bits_that_stay(dir: &Path) {
    let path = program(dir, "read", 0o6777);
    Caller::nobody().run(|| fs::read(&path).unwrap());
    assert_eq!(bits(&path), (0o6777, true));
    let path = program(dir, "renamed", 0o6777);
    fs::rename(&path, dir.join("new name")).unwrap();
    assert_eq!(bits(&dir.join("new name")), (0o6777, true));
    // tmpfs knows no such range, and says so first. (A capability is taken away by the kernel's FUSE, before it asks.)
    let path = program(dir, "not allocated", 0o6777);
    Caller::nobody().run(|| {
        let file = File::options().write(true).open(&path).unwrap();
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        assert_eq!(rustix::fs::fallocate(&file, zero, 0, 4096), Err(Errno::OPNOTSUPP));
    });
    assert_eq!(bits(&path).0, 0o6777);
    let path = program(dir, "chmod by root", 0o755);
    set_mode(&path, 0o4755);
    assert_eq!(bits(&path), (0o4755, true));
    // chmod by the owner who is not in the group takes setgid away.
    chown(&path, Some(65534), Some(7)).unwrap();
    Caller::nobody().run(|| set_mode(&path, 0o6755));
    assert_eq!(bits(&path).0, 0o4755);
}

/// A file of group 1234, which is not to be run by it.
fn of_group(dir: &Path, name: &str, uid: u32, mode: u32) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, vec![b'.'; 10_000]).unwrap();
    chown(&path, Some(uid), Some(1234)).unwrap();
    set_mode(&path, mode);
    path
}

/// Who changes a file, and whether its setgid bit stays.
fn changers() -> [(&'static str, Caller, bool); 4] {
    [
        ("no member", Caller::nobody().with_groups(&[1233, 1235]), false),
        ("member", Caller::nobody().with_groups(&[7, 1234]), true),
        ("member by the group itself", Caller { gid: 1234, ..Caller::nobody() }, true),
        ("root", Caller::root(), true),
    ]
}

fn mode_of(path: &Path) -> u32 {
    bits(path).0
}

/// fs/attr.c, `setattr_should_drop_sgid`: where the group may not execute, it depends on who asks.
fn setgid_goes_with_a_change_by_who_is_not_in_the_group(dir: &Path) {
    for (who, caller, stays) in changers() {
        let left = if stays { 0o2666 } else { 0o666 };
        for (what, change) in CHANGES {
            let path = of_group(dir, &format!("{what} by {who}"), 0, 0o2666);
            caller.run(|| change(&File::options().read(true).write(true).open(&path).unwrap()).unwrap());
            assert_eq!(mode_of(&path), left, "{what} by {who}");
        }
        let path = of_group(dir, &format!("opened with O_TRUNC by {who}"), 0, 0o2666);
        caller.run(|| File::options().write(true).truncate(true).open(&path).unwrap());
        assert_eq!(mode_of(&path), left, "opened with O_TRUNC by {who}");
    }
}

/// It is the group that the file had before that counts.
fn setgid_goes_with_the_group(dir: &Path) {
    for (who, caller, stays) in changers() {
        let path = of_group(dir, &format!("of {who}"), caller.uid, 0o2644);
        caller.run(|| chown(&path, None, Some(caller.gid)).unwrap());
        assert_eq!(mode_of(&path), if stays { 0o2644 } else { 0o644 }, "{who}");
        let path = of_group(dir, &format!("to be run, of {who}"), caller.uid, 0o2755);
        caller.run(|| chown(&path, None, Some(caller.gid)).unwrap());
        assert_eq!(mode_of(&path), 0o755, "{who}");
        let path = dir.join(format!("directory of {who}"));
        fs::create_dir(&path).unwrap();
        chown(&path, Some(caller.uid), Some(1234)).unwrap();
        set_mode(&path, 0o2755);
        caller.run(|| chown(&path, None, Some(caller.gid)).unwrap());
        assert_eq!(mode_of(&path), 0o2755, "{who}");
    }
}

/// fs/posix_acl.c, `posix_acl_update_mode`, and CVE-2016-7097: an ACL is no way around the rule for chmod.
fn setgid_goes_with_an_acl(dir: &Path) {
    let bytes = Acl { owner: 7, user: 5, group: 5, mask: 7, others: 5 }.bytes();
    for (who, caller, stays) in changers() {
        let file = of_group(dir, &format!("of {who}"), caller.uid, 0o2755);
        let sub = dir.join(format!("directory of {who}"));
        fs::create_dir(&sub).unwrap();
        chown(&sub, Some(caller.uid), Some(1234)).unwrap();
        set_mode(&sub, 0o2755);
        for path in [file, sub] {
            caller.run(|| {
                rustix::fs::setxattr(&path, "system.posix_acl_access", &bytes, XattrFlags::empty()).unwrap();
            });
            assert_eq!(mode_of(&path), if stays { 0o2775 } else { 0o775 }, "{who}: {}", path.display());
            let mut found = [0; 99];
            let len = rustix::fs::getxattr(&path, "system.posix_acl_access", &mut found[..]).unwrap();
            assert_eq!(found[..len], bytes[..]);
        }
    }
}

fn what_is_made_belongs_to_its_maker(dir: &Path) {
    set_mode(dir, 0o777);
    let makers = [(1, 2, vec![]), (3, 4, vec![5, 6]), (7, 0, vec![]), (0, 9, vec![])];
    for (uid, gid, groups) in makers {
        let name = dir.join(format!("{uid}-{gid}"));
        Caller { uid, gid, groups, ..Caller::root() }.run(|| {
            fs::create_dir(&name).unwrap();
            fs::write(name.join("file"), b"").unwrap();
            symlink("x", name.join("link")).unwrap();
            fs::hard_link(name.join("file"), name.join("other")).unwrap();
        });
        for made in ["", "file", "link", "other"] {
            let meta = fs::symlink_metadata(name.join(made)).unwrap();
            use std::os::unix::fs::MetadataExt;
            assert_eq!((meta.uid(), meta.gid()), (uid, gid), "{made} of {uid}");
        }
    }
}

/// tdfs(8): "In the state directory, all readable by their owner only". And /proc tells a user nothing of the daemons.
#[test]
fn daemons_tell_others_nothing() {
    let mut cluster = Cluster::builder(BINARIES).network(1).elsewhere().start();
    fs::create_dir(cluster.mount().join("hidden")).unwrap();
    fs::write(cluster.mount().join("hidden/file"), b"secret").unwrap();
    cluster.wait();
    let states = [cluster.paths.state.clone(), cluster.slaves[0].state.clone()];
    for state in &states {
        let mut pending = vec![state.clone()];
        while let Some(path) = pending.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            assert_eq!(meta.permissions().mode() & 0o077, 0, "{} is open to others", path.display());
            if meta.is_dir() {
                pending.extend(fs::read_dir(&path).unwrap().map(|found| found.unwrap().path()));
            }
        }
    }
    let pids = [cluster.master.pid(), cluster.slaves[0].process().pid()].map(|pid| pid.as_raw_pid());
    let args = ["status", "-m"].map(std::ffi::OsString::from).to_vec();
    let ask = [args, vec![cluster.paths.backing.clone().into(), "--state".into(), states[0].clone().into()]]
        .concat();
    let asked = Caller::nobody().run(|| {
        for state in &states {
            refused("list the state", fs::read_dir(state));
            refused("connect", UnixStream::connect(state.join("control.sock")));
        }
        for pid in pids {
            for name in ["fd", "maps", "mem", "environ", "root", "cwd", "io", "map_files"] {
                let path = format!("/proc/{pid}/{name}");
                let read = fs::read_dir(&path).map(drop).or_else(|_| fs::read(&path).map(drop));
                assert!(read.is_err() && fs::read_link(&path).is_err(), "{path}");
            }
        }
        Command::new("/bin/sh").args(["-c", "exec \"$@\"", "sh", BINARIES.tdfs]).args(&ask).output()
    });
    if let Ok(output) = asked {
        let words = [output.stdout, output.stderr].concat();
        assert!(!output.status.success(), "nobody reads the status");
        assert!(!String::from_utf8_lossy(&words).contains("streaming"));
    }
    cluster.finish();
}
