//! Content that was there before: made equal while applications go on.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use harness::ops::{Names, Writers};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::{cluster, sources, writers};

/// Something of every type and attribute, and enough files that the copy takes a while.
fn plant(dir: &Path) {
    sources::plant(dir, 2_000);
    let odd = dir.join("odd");
    fs::create_dir_all(odd.join("empty/nested")).unwrap();
    symlink("../files", odd.join("link")).unwrap();
    rustix::fs::mknodat(CWD, odd.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, odd.join("device"), FileType::CharacterDevice, Mode::RWXU, device).unwrap();
    fs::write(odd.join("one"), b"three names").unwrap();
    fs::hard_link(odd.join("one"), odd.join("two")).unwrap();
    fs::hard_link(odd.join("one"), dir.join("three")).unwrap();
    rustix::fs::setxattr(odd.join("one"), "user.mark", b"value", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(&odd, "trusted.mark", b"on a directory", XattrFlags::empty()).unwrap();
    std::os::unix::fs::chown(odd.join("empty"), Some(77), Some(78)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o6751);
    fs::set_permissions(odd.join("two"), mode).unwrap();
    let sparse = fs::File::create(odd.join("sparse")).unwrap();
    sparse.set_len(1 << 32).unwrap();
    sparse.write_all_at(b"island", 1 << 31).unwrap();
    fs::write(odd.join("large"), harness::Rng::new(9).bytes(40 << 20)).unwrap();
    fs::write(odd.join("closed"), b"no mode at all").unwrap();
    fs::set_permissions(odd.join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    for path in [odd.join("empty"), odd.join("large"), odd, dir.to_owned()] {
        fs::File::open(path).unwrap().set_modified(old).unwrap();
    }
}

#[test]
fn initial_copy_at_rest() {
    let cluster = cluster().network(1).prepare(|paths| plant(&paths.backing)).start();
    cluster.finish();
}

#[test]
fn initial_copy_to_an_embedded_slave() {
    let cluster = cluster().embedded().prepare(|paths| plant(&paths.backing)).start();
    cluster.finish();
}

/// DESIGN section 7: "It runs while the master keeps changing and records keep streaming." README: "What was in `/data`
/// before is copied first, while applications go on".
#[test]
fn initial_copy_while_writers_run() {
    let cluster = cluster().network(2).compressed().prepare(|paths| plant(&paths.backing)).start();
    let general = writers(&cluster);
    // These meet the files that are being copied.
    let below = cluster.mount().join("files");
    let inside = Writers::start(&below, &Names::few(40, 6), harness::rng::run_seed(), 2, Some(4_000));
    inside.join();
    let applied = || cluster.status().slaves.iter().all(|slave| slave.applied > 1_000);
    harness::eventually(crate::SOON, "both apply", applied);
    general.stop();
    cluster.finish();
}

/// Moves and links between what was copied already and what was not are the hard part (rules 5 to 8).
#[test]
fn initial_copy_while_directories_move() {
    let cluster = cluster().network(1).prepare(|paths| plant(&paths.backing)).start();
    let files = cluster.mount().join("files");
    let mut rng = harness::Rng::new(harness::rng::run_seed());
    let names: Vec<_> = fs::read_dir(&files).unwrap().map(|found| found.unwrap().file_name()).collect();
    for round in 0..400 {
        let name = rng.pick(&names);
        let (inside, outside) = (files.join(name), cluster.mount().join(name));
        let _ = fs::rename(&inside, &outside);
        if round % 3 == 0 {
            let _ = fs::rename(&outside, files.join(rng.pick(&names)).join("moved"));
        }
        let _ = fs::hard_link(cluster.mount().join("odd/one"), files.join(format!("link{round}")));
        if round % 50 == 0 {
            let _ = fs::rename(cluster.mount().join("odd"), cluster.mount().join(format!("odd{round}")));
            let _ = fs::rename(cluster.mount().join(format!("odd{round}")), cluster.mount().join("odd"));
        }
    }
    cluster.finish();
}
