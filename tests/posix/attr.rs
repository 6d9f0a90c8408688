//! Attributes: mode, owner, times, what the umask and setgid directories make of them, who may what.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use harness::Caller;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::io::Errno;

use crate::{checks, run};

#[test]
fn attr() {
    run(checks![
        modes,
        owners,
        owner_of_a_symlink,
        set_bits_go_with_the_owner,
        set_bits_go_with_a_write_of_another,
        times,
        times_at_the_ends_of_what_fits,
        times_now_and_omitted,
        created_as_the_caller,
        umask,
        setgid_directories,
        permissions_are_checked,
        sticky_directories,
        supplementary_groups,
        times_move_as_they_should,
    ]);
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().as_ref().and_then(Errno::from_io_error)
}

fn modes(dir: &Path) {
    fs::write(dir.join("file"), b"").unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    for name in ["file", "sub"] {
        for mode in [0o000, 0o777, 0o1755, 0o2711, 0o4711, 0o7777, 0o6750] {
            set_mode(&dir.join(name), mode);
            assert_eq!(mode_of(&dir.join(name)), mode);
        }
    }
    symlink("file", dir.join("link")).unwrap();
    set_mode(&dir.join("link"), 0o600);
    assert_eq!(mode_of(&dir.join("file")), 0o600);
    assert_eq!(
        errno(fs::set_permissions(dir.join("missing"), fs::Permissions::from_mode(0o000))),
        Some(Errno::NOENT)
    );
}

fn owners(dir: &Path) {
    fs::write(dir.join("file"), b"").unwrap();
    for (uid, gid, expected) in [
        (Some(1000), None, (1000, 0)),
        (None, Some(2000), (1000, 2000)),
        (Some(4_000_000_000), Some(4_000_000_001), (4_000_000_000, 4_000_000_001)),
        (None, None, (4_000_000_000, 4_000_000_001)),
    ] {
        chown(dir.join("file"), uid, gid).unwrap();
        let stat = fs::metadata(dir.join("file")).unwrap();
        assert_eq!((stat.uid(), stat.gid()), expected);
    }
}

fn owner_of_a_symlink(dir: &Path) {
    fs::write(dir.join("file"), b"").unwrap();
    symlink("file", dir.join("link")).unwrap();
    lchown(dir.join("link"), Some(7), Some(8)).unwrap();
    let stat = fs::symlink_metadata(dir.join("link")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), fs::metadata(dir.join("file")).unwrap().uid()), (7, 8, 0));
}

/// chown(2): set bits of a file that can be run are cleared; those of a directory stay.
fn set_bits_go_with_the_owner(dir: &Path) {
    fs::write(dir.join("program"), b"").unwrap();
    set_mode(&dir.join("program"), 0o6755);
    chown(dir.join("program"), Some(9), Some(9)).unwrap();
    assert_eq!(mode_of(&dir.join("program")), 0o755);
    fs::create_dir(dir.join("sub")).unwrap();
    set_mode(&dir.join("sub"), 0o2775);
    chown(dir.join("sub"), Some(9), Some(9)).unwrap();
    assert_eq!(mode_of(&dir.join("sub")), 0o2775);
}

/// FACTS section 1: who negotiates `HANDLE_KILLPRIV_V2` "must itself clear setuid/setgid".
fn set_bits_go_with_a_write_of_another(dir: &Path) {
    for name in ["written", "truncated", "kept"] {
        fs::write(dir.join(name), b"content").unwrap();
        set_mode(&dir.join(name), 0o6777);
    }
    Caller::nobody().run(|| {
        let open = |name| File::options().write(true).open(dir.join(name)).unwrap();
        open("written").write_all(b"X").unwrap();
        open("truncated").set_len(3).unwrap();
        drop(open("kept"));
    });
    assert_eq!(mode_of(&dir.join("written")), 0o777);
    assert_eq!(mode_of(&dir.join("truncated")), 0o777);
    assert_eq!(mode_of(&dir.join("kept")), 0o6777);
    // The superuser's writes leave them alone.
    fs::write(dir.join("kept"), b"by root").unwrap();
    assert_eq!(mode_of(&dir.join("kept")), 0o6777);
}

fn set_times(path: &Path, seconds: i64, nanoseconds: i64) {
    let at = |tv_sec| Timespec { tv_sec, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: at(12), last_modification: at(seconds) };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn mtime(path: &Path) -> (i64, i64) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.mtime(), stat.mtime_nsec())
}

/// DESIGN P3: "mtime in ns (directories too)".
fn times(dir: &Path) {
    fs::write(dir.join("file"), b"").unwrap();
    symlink("file", dir.join("link")).unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    for name in ["file", "link", "sub"] {
        for (seconds, nanoseconds) in [(0, 0), (0, 1), (1_700_000_000, 999_999_999), (4_294_967_296, 7)] {
            set_times(&dir.join(name), seconds, nanoseconds);
            assert_eq!(mtime(&dir.join(name)), (seconds, nanoseconds));
        }
    }
    // Before 1970, in whole seconds: with nanoseconds the kernel's request is damaged (FACTS section 2).
    set_times(&dir.join("file"), -1_000_000, 0);
    assert_eq!(mtime(&dir.join("file")), (-1_000_000, 0));
    assert_eq!(fs::metadata(dir.join("sub")).unwrap().atime(), 12);
}

/// What no time of the kernel's can be is the nearest one that can, in whole seconds; fuser is not to stumble over it.
fn times_at_the_ends_of_what_fits(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, b"").unwrap();
    for tv_sec in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
        for tv_nsec in [0, 1, 999_999_999] {
            let at = Timespec { tv_sec, tv_nsec };
            let both = Timestamps { last_access: at, last_modification: at };
            utimensat(CWD, &path, &both, AtFlags::empty()).unwrap();
            let is_end = tv_sec == i64::MIN || tv_sec == i64::MAX;
            let expected = (tv_sec, if is_end { 0 } else { tv_nsec });
            let stat = fs::metadata(&path).unwrap();
            assert_eq!((stat.mtime(), stat.mtime_nsec()), expected);
            assert_eq!((stat.atime(), stat.atime_nsec()), expected);
        }
    }
}

fn times_now_and_omitted(dir: &Path) {
    fs::write(dir.join("file"), b"").unwrap();
    set_times(&dir.join("file"), 1_000, 5);
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let omit =
        Timestamps { last_access: special(libc::UTIME_NOW), last_modification: special(libc::UTIME_OMIT) };
    utimensat(CWD, dir.join("file"), &omit, AtFlags::empty()).unwrap();
    assert_eq!(mtime(&dir.join("file")), (1_000, 5));
    let now =
        Timestamps { last_access: special(libc::UTIME_OMIT), last_modification: special(libc::UTIME_NOW) };
    utimensat(CWD, dir.join("file"), &now, AtFlags::empty()).unwrap();
    assert!(mtime(&dir.join("file")).0 > 1_700_000_000);
}

fn open_to_all(dir: &Path) {
    set_mode(dir, 0o777);
}

/// The contract: "Files owned as the caller".
fn created_as_the_caller(dir: &Path) {
    open_to_all(dir);
    Caller::nobody().run(|| {
        fs::write(dir.join("file"), b"mine").unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        symlink("file", dir.join("link")).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(CWD, dir.join("fifo"), kind, mode, 0).unwrap();
    });
    for name in ["file", "sub", "link", "fifo"] {
        let stat = fs::symlink_metadata(dir.join(name)).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (65534, 65534), "{name}");
    }
}

fn umask(dir: &Path) {
    for (umask, file, sub) in [(0o000, 0o666, 0o777), (0o077, 0o600, 0o700), (0o027, 0o640, 0o750)] {
        Caller::root().with_umask(umask).run(|| {
            fs::write(dir.join(format!("file{umask}")), b"").unwrap();
            fs::create_dir(dir.join(format!("sub{umask}"))).unwrap();
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o666));
            rustix::fs::mknodat(CWD, dir.join(format!("fifo{umask}")), kind, mode, 0).unwrap();
        });
        assert_eq!(mode_of(&dir.join(format!("file{umask}"))), file);
        assert_eq!(mode_of(&dir.join(format!("fifo{umask}"))), file);
        assert_eq!(mode_of(&dir.join(format!("sub{umask}"))), sub);
    }
}

fn setgid_directories(dir: &Path) {
    fs::create_dir(dir.join("shared")).unwrap();
    chown(dir.join("shared"), None, Some(1234)).unwrap();
    set_mode(&dir.join("shared"), 0o2777);
    Caller::nobody().run(|| {
        fs::write(dir.join("shared/file"), b"").unwrap();
        fs::create_dir(dir.join("shared/sub")).unwrap();
    });
    fs::create_dir(dir.join("shared/sub/by root")).unwrap();
    let stat = |name: &str| fs::metadata(dir.join(name)).unwrap();
    assert_eq!((stat("shared/file").uid(), stat("shared/file").gid()), (65534, 1234));
    for name in ["shared/sub", "shared/sub/by root"] {
        assert_eq!((stat(name).gid(), stat(name).mode() & 0o2000), (1234, 0o2000), "{name}");
    }
    assert_eq!(stat("shared/file").mode() & 0o2000, 0);
}

fn permissions_are_checked(dir: &Path) {
    fs::write(dir.join("secret"), b"for root alone").unwrap();
    set_mode(&dir.join("secret"), 0o600);
    fs::create_dir(dir.join("closed")).unwrap();
    fs::write(dir.join("closed/inner"), b"").unwrap();
    set_mode(&dir.join("closed"), 0o700);
    fs::write(dir.join("public"), b"for all").unwrap();
    set_mode(&dir.join("public"), 0o644);
    Caller::nobody().run(|| {
        assert_eq!(errno(fs::read(dir.join("secret"))), Some(Errno::ACCESS));
        assert_eq!(errno(fs::read(dir.join("closed/inner"))), Some(Errno::ACCESS));
        assert_eq!(errno(fs::read_dir(dir.join("closed"))), Some(Errno::ACCESS));
        assert_eq!(fs::read(dir.join("public")).unwrap(), b"for all");
        assert_eq!(errno(File::options().append(true).open(dir.join("public"))), Some(Errno::ACCESS));
        assert_eq!(errno(fs::write(dir.join("new"), b"")), Some(Errno::ACCESS));
        assert_eq!(errno(fs::remove_file(dir.join("public"))), Some(Errno::ACCESS));
        assert_eq!(errno(fs::rename(dir.join("public"), dir.join("moved"))), Some(Errno::ACCESS));
        let wide = fs::Permissions::from_mode(0o777);
        assert_eq!(errno(fs::set_permissions(dir.join("public"), wide)), Some(Errno::PERM));
        assert_eq!(errno(chown(dir.join("public"), Some(65534), None)), Some(Errno::PERM));
        let mut bytes = [0; 4];
        let trusted = rustix::fs::getxattr(dir.join("public"), "trusted.a", &mut bytes[..]);
        assert_eq!(trusted, Err(Errno::NODATA));
    });
}

fn sticky_directories(dir: &Path) {
    fs::create_dir(dir.join("tmp")).unwrap();
    set_mode(&dir.join("tmp"), 0o1777);
    fs::write(dir.join("tmp/of root"), b"").unwrap();
    Caller::nobody().run(|| {
        assert_eq!(errno(fs::remove_file(dir.join("tmp/of root"))), Some(Errno::PERM));
        assert_eq!(errno(fs::rename(dir.join("tmp/of root"), dir.join("tmp/x"))), Some(Errno::PERM));
        fs::write(dir.join("tmp/mine"), b"").unwrap();
        fs::rename(dir.join("tmp/mine"), dir.join("tmp/still mine")).unwrap();
    });
}

fn supplementary_groups(dir: &Path) {
    fs::create_dir(dir.join("group")).unwrap();
    chown(dir.join("group"), None, Some(4321)).unwrap();
    set_mode(&dir.join("group"), 0o770);
    Caller::nobody().with_groups(&[4321]).run(|| {
        fs::write(dir.join("group/file"), b"").unwrap();
        chown(dir.join("group/file"), None, Some(4321)).unwrap();
        set_mode(&dir.join("group/file"), 0o2660);
    });
    let stat = fs::metadata(dir.join("group/file")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (65534, 4321, 0o2660));
    Caller::nobody().run(|| assert_eq!(errno(fs::read(dir.join("group/file"))), Some(Errno::ACCESS)));
}

fn times_move_as_they_should(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, b"content").unwrap();
    let unmoved = (1_000_000, 3);
    set_times(&path, 1_000_000, 3);
    set_mode(&path, 0o600);
    fs::hard_link(&path, dir.join("link")).unwrap();
    fs::read(&path).unwrap();
    drop(File::options().write(true).open(&path).unwrap());
    assert_eq!(mtime(&path), unmoved);
    File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    assert_ne!(mtime(&path), unmoved);
    set_times(&path, 1_000_000, 3);
    File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
    assert_ne!(mtime(&path), unmoved);
    set_times(&path, 1_000_000, 3);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(2).unwrap();
    assert_ne!(mtime(&path), unmoved, "ftruncate to the same size moves mtime");
    let ctime = |path: &Path| (fs::metadata(path).unwrap().ctime(), fs::metadata(path).unwrap().ctime_nsec());
    let before = ctime(&path);
    harness::eventually(std::time::Duration::from_secs(2), "ctime moves with chmod", || {
        set_mode(&path, 0o640);
        ctime(&path) > before
    });
}
