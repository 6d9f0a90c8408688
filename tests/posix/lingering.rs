//! `--passthrough` behind the last close: what is mapped goes on being stored into, though no descriptor is left.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::cluster::ClusterPaths;
use harness::sys::{Mapping, Shown};
use harness::{Cluster, ClusterBuilder};

use crate::BINARIES;

const SIZE: usize = 20_000;
/// Longer than the time from the last close to all that follows from it.
const MOMENT: Duration = Duration::from_millis(300);

/// With a directory that stays reachable below the mount.
fn builder() -> ClusterBuilder {
    Cluster::builder(BINARIES).flag("--passthrough").elsewhere()
}

fn file_of(cluster: &Cluster, name: &str) -> PathBuf {
    let path = cluster.mount().join(name);
    fs::write(&path, vec![b'.'; SIZE]).unwrap();
    path
}

fn to_write(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// A mapping to store into, made while the kernel passes the file on; none of its descriptors is left.
fn mapped_past_us(path: &Path) -> Mapping {
    let reading = File::open(path).unwrap();
    let mapping = Mapping::shared(&to_write(path), SIZE).unwrap();
    drop(reading);
    mapping
}

fn read(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

/// How many descriptors of the file the master has.
fn held_by_master(cluster: &Cluster, name: &str) -> usize {
    let path = cluster.paths.backing.join(name);
    let fds = harness::temp_tree::fds_of(&cluster.master.pid().as_raw_nonzero().to_string());
    fds.iter().filter(|(_, target)| *target == path).count()
}

/// tdfs(8): "also behind its last close, as long as anything of it is mapped".
#[test]
fn stores_behind_the_last_close_arrive() {
    for builder in [builder(), builder().on_disk()] {
        let cluster = builder.start();
        let path = file_of(&cluster, "file");
        let mut mapping = mapped_past_us(&path);
        std::thread::sleep(MOMENT);
        let moved = cluster.mount().join("moved");
        fs::rename(&path, &moved).unwrap();
        for text in [b"first", b"again"] {
            mapping.store(5_000, text);
            let replica = cluster.slaves[0].replica.join("moved");
            harness::eventually(Duration::from_secs(20), "what was stored arrives", || {
                fs::read(&replica).is_ok_and(|found| found[5_000..5_005] == *text)
            });
        }
        mapping.store(9_000, b"waited for");
        cluster.wait();
        cluster.assert_equal();
        mapping.store(100, b"last");
        drop(mapping);
        std::thread::sleep(Duration::from_secs(2));
        cluster.wait();
        cluster.assert_equal();
        harness::eventually(Duration::from_secs(20), "the file is let go", || {
            held_by_master(&cluster, "moved") == 0
        });
        cluster.finish();
    }
}

/// Who opens a file that is still mapped so sees the stores, and its own stores are seen.
#[test]
fn who_opens_a_mapped_file_shares_it() {
    let cluster = builder().start();
    let path = file_of(&cluster, "file");
    let mut mapping = mapped_past_us(&path);
    std::thread::sleep(MOMENT);
    let writing = to_write(&path);
    assert_eq!(read(&writing, 0, 5), b".....");
    mapping.store(0, b"store");
    assert_eq!(read(&writing, 0, 5), b"store");
    let mut second = Mapping::shared(&writing, SIZE).unwrap();
    mapping.store(100, b"by the first");
    second.store(200, b"by the second");
    assert_eq!(
        (second.load(100..112), mapping.load(200..213)),
        (b"by the first".to_vec(), b"by the second".to_vec())
    );
    drop((mapping, second, writing));
    std::thread::sleep(MOMENT);
    let found = fs::read(&path).unwrap();
    assert_eq!((&found[100..112], &found[200..213]), (&b"by the first"[..], &b"by the second"[..]));
    cluster.finish();
}

/// A mapping to read, whose descriptor is closed, shows what others store and write later.
#[test]
fn a_mapping_to_read_goes_on() {
    let cluster = builder().start();
    let path = file_of(&cluster, "file");
    let shown = Shown::of(&File::open(&path).unwrap(), SIZE).unwrap();
    assert_eq!(shown.load(0..5), b".....");
    std::thread::sleep(MOMENT);
    let writing = to_write(&path);
    let mut storing = Mapping::shared(&writing, SIZE).unwrap();
    storing.store(0, b"store");
    writing.write_all_at(b"write", 100).unwrap();
    assert_eq!((shown.load(0..5), shown.load(100..105)), (b"store".to_vec(), b"write".to_vec()));
    drop((shown, storing, writing));
    cluster.finish();
}

/// tdfs(8): "While 4096 files linger, no further one is passed on": that one is served as without the option.
#[test]
fn more_mappings_than_may_linger() {
    const FILES: usize = 4_150;
    let cluster = builder().start();
    let paths: Vec<PathBuf> = (0..FILES).map(|number| file_of(&cluster, &format!("{number}"))).collect();
    let shown = |path| Shown::of(&File::open(path).unwrap(), SIZE).unwrap();
    let read_only: Vec<Shown> = paths.iter().map(shown).collect();
    std::thread::sleep(MOMENT);
    for path in [&paths[0], &paths[FILES - 1]] {
        let mut mapping = mapped_past_us(path);
        mapping.store(50, b"stored");
        assert_eq!(read(&to_write(path), 50, 6), b"stored");
    }
    assert_eq!(read_only[0].load(50..56), b"stored");
    cluster.wait_for(120);
    cluster.assert_equal();
    drop(read_only);
    std::thread::sleep(Duration::from_secs(2));
    for path in &paths {
        to_write(path).write_all_at(b"w", 0).unwrap();
    }
    cluster.wait_for(120);
    cluster.finish();
}

/// A copy of what was stored unseen holds it on the replica, too.
#[test]
fn what_is_copied_is_what_was_stored() {
    let cluster = builder().start();
    let path = file_of(&cluster, "from");
    cluster.wait();
    let reading = File::open(&path).unwrap();
    let writing = to_write(&path);
    let mut mapping = Mapping::shared(&writing, SIZE).unwrap();
    mapping.store(0, b"new content");
    let to = File::create(cluster.mount().join("to")).unwrap();
    let (mut from_offset, mut to_offset) = (0, 0);
    let mut left = SIZE;
    while left > 0 {
        left -=
            rustix::fs::copy_file_range(&writing, Some(&mut from_offset), &to, Some(&mut to_offset), left)
                .unwrap();
    }
    drop((mapping, writing, reading, to));
    std::thread::sleep(Duration::from_secs(1));
    cluster.wait();
    assert_eq!(&fs::read(cluster.slaves[0].replica.join("to")).unwrap()[..11], b"new content");
    cluster.finish();
}

/// The last store of each file arrives, though looks and stores met again and again before.
#[test]
fn no_store_falls_between_two_looks() {
    const FILES: usize = 40;
    let mut cluster = builder().prepare(own_ext4).start();
    let paths: Vec<PathBuf> = (0..FILES).map(|number| file_of(&cluster, &format!("{number}"))).collect();
    let rounds = if harness::long_form() { 20 } else { 2 };
    for round in 0..rounds {
        let files: Vec<[File; 2]> =
            paths.iter().map(|path| [File::open(path).unwrap(), to_write(path)]).collect();
        let mut mappings: Vec<Mapping> =
            files.iter().map(|[_, file]| Mapping::shared(file, SIZE).unwrap()).collect();
        let stop = AtomicBool::new(false);
        let last = std::thread::scope(|scope| {
            let storing = scope.spawn(|| {
                let mut count = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    count += 1;
                    mappings.iter_mut().for_each(|mapping| mapping.store(0, &count.to_le_bytes()));
                }
                count
            });
            std::thread::sleep(Duration::from_millis(2_300 + round * 170));
            stop.store(true, Ordering::Relaxed);
            storing.join().unwrap()
        });
        std::thread::sleep(Duration::from_secs(2));
        cluster.wait_for(60);
        for number in 0..FILES {
            let found = fs::read(cluster.slaves[0].replica.join(number.to_string())).unwrap();
            assert_eq!(found[..8], last.to_le_bytes(), "file {number} in round {round}");
        }
        drop((mappings, files));
    }
    stop_and_unmount(&mut cluster);
}

/// An ext4 of its own: nothing else is written there, so that looks come close behind one another.
fn own_ext4(paths: &ClusterPaths) {
    let image = paths.backing.with_file_name("image");
    File::create(&image).unwrap().set_len(256 << 20).unwrap();
    assert!(Command::new("mkfs.ext4").arg("-q").arg(&image).status().unwrap().success());
    mount(&["-o", "loop"], &image, &paths.backing);
}

fn mount(options: &[&str], source: &Path, place: &Path) {
    let mut mount = Command::new("mount");
    assert!(mount.args(options).arg(source).arg(place).status().unwrap().success());
}

#[track_caller]
fn stop_and_unmount(cluster: &mut Cluster) {
    cluster.wait();
    cluster.assert_equal();
    cluster.master.stop();
    harness::temp_tree::unmount_below(cluster.tree.path());
    cluster.stop();
}

/// What is executed from the directory below can't be opened to write: by the error that says so.
#[test]
fn what_is_executed_below_is_busy() {
    let sleep = |paths: &ClusterPaths| {
        fs::copy("/bin/sleep", paths.backing.join("program")).unwrap();
    };
    let cluster = builder().prepare(sleep).start();
    let path = cluster.mount().join("program");
    let mut running = Command::new(cluster.paths.backing.join("program")).arg("60").spawn().unwrap();
    let reading = File::open(&path).unwrap();
    for read in [true, false] {
        let refused = File::options().read(read).write(true).open(&path).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ETXTBSY));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    drop(to_write(&path));
    drop(reading);
    cluster.finish();
}

/// tdfs(8): "Files that are opened with O_DIRECT take any length, offset and memory."
#[test]
fn direct_opens_take_any_length() {
    let cluster = builder().on_disk().start();
    let path = file_of(&cluster, "file");
    let direct = || File::options().read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let first = direct();
    assert_eq!(read(&first, 7, 100), [b'.'; 100]);
    drop(first);
    let reading = File::open(&path).unwrap();
    let second = direct();
    assert_eq!(read(&second, 7, 100), [b'.'; 100]);
    assert_eq!(read(&reading, 7, 100), [b'.'; 100]);
    drop((reading, second));
    cluster.finish();
}

/// Where the file system below has no O_DIRECT it is refused as there, or taken.
#[test]
fn direct_opens_without_support_below() {
    let ramfs = |paths: &ClusterPaths| mount(&["-t", "ramfs"], Path::new("none"), &paths.backing);
    let mut cluster = builder().prepare(ramfs).start();
    let path = file_of(&cluster, "file");
    let direct = || File::options().read(true).custom_flags(libc::O_DIRECT).open(&path);
    assert_eq!(read(&direct().unwrap(), 7, 100), [b'.'; 100]);
    std::thread::sleep(MOMENT);
    let reading = File::open(&path).unwrap();
    assert_eq!(direct().unwrap_err().raw_os_error(), Some(libc::EINVAL));
    drop(reading);
    stop_and_unmount(&mut cluster);
}

/// tdfs(8): "A kill -9 of tdfs loses nothing": what was stored unseen right before it neither, nor behind it.
#[test]
fn stores_before_a_kill_arrive() {
    let mut cluster = Cluster::builder(BINARIES).flag("--passthrough").start();
    let path = file_of(&cluster, "file");
    cluster.wait();
    let mut mapping = mapped_past_us(&path);
    std::thread::sleep(MOMENT);
    cluster.expect_log("a mapping of /file"); // who stores there from now on is not seen
    mapping.store(0, b"before the kill");
    cluster.master.kill();
    mapping.store(100, b"behind the kill");
    cluster.start_master();
    assert!(fs::read_to_string(cluster.master.log()).unwrap().contains("a mapping of /file"));
    cluster.wait();
    cluster.assert_equal();
    let found = fs::read(cluster.slaves[0].replica.join("file")).unwrap();
    assert_eq!((&found[..15], &found[100..115]), (&b"before the kill"[..], &b"behind the kill"[..]));
    drop(mapping);
    cluster.finish();
}
