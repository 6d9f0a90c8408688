//! An object with more xattrs than can be told: all else of it is carried, and status says so.

use std::fs;
use std::path::Path;

use harness::{Cluster, Compare};
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::cluster;

/// 400 names of so many bytes fit into one list, 700 do not (listxattr(2): 64 KiB).
const NAME_BYTES: usize = 111;
/// More values of 64 KiB than fit into one frame.
const LARGE: usize = 17;

fn name(number: usize) -> String {
    format!("user.{number:06}{}", "k".repeat(NAME_BYTES - 11))
}

fn set(path: &Path, numbers: std::ops::Range<usize>) {
    numbers.for_each(|number| setxattr(path, name(number), b"value", XattrFlags::empty()).unwrap());
}

fn remove(path: &Path, numbers: std::ops::Range<usize>) {
    numbers.for_each(|number| removexattr(path, name(number)).unwrap());
}

fn has_xattr(path: &Path, number: usize) -> bool {
    match getxattr(path, name(number), &mut [0; 8]) {
        Ok(_) => true,
        Err(Errno::NODATA) => false,
        Err(e) => panic!("{e}"),
    }
}

/// All but xattrs is equal, a verify finds nothing, and status names what is left out.
#[track_caller]
fn assert_equal_but_xattrs(cluster: &Cluster, named: &[&str]) {
    cluster.wait();
    for _ in 0..2 {
        let (code, words) = cluster.run("verify", &[]);
        assert_eq!(code, Some(0), "{words}");
    }
    let found = Compare { xattrs: &["security.", "system."], ..Compare::default() };
    let found = found.run(cluster.mount(), &cluster.slaves[0].replica).unwrap_or_default();
    assert_eq!(found, Vec::<String>::new());
    let told = cluster.slave_status(0).not_carried.join("; ");
    named.iter().for_each(|name| assert!(told.contains(name), "{name} is not in {told}"));
}

/// tdfs-slave.8, WHAT IS CARRIED: "Of an object whose xattrs are too many ..."; the first copy ends.
#[test]
fn too_many_xattrs_hold_nothing_up() {
    let cluster = cluster().network(1).expect_log("left out").prepare(|paths| {
        for name in ["many", "large", "plain"] {
            fs::write(paths.backing.join(name), name).unwrap();
        }
        fs::create_dir(paths.backing.join("dir")).unwrap();
        set(&paths.backing.join("many"), 0..700);
        set(&paths.backing.join("dir"), 0..700);
        set(&paths.backing.join("plain"), 0..3);
        for number in 0..LARGE {
            setxattr(paths.backing.join("large"), name(number), &[7; 65_536], XattrFlags::empty()).unwrap();
        }
    });
    let mut cluster = cluster.start();
    assert_equal_but_xattrs(&cluster, &["many", "dir", "large"]);
    let replica = cluster.slaves[0].replica.clone();
    assert!(has_xattr(&replica.join("plain"), 2));
    ["many", "dir", "large"].iter().for_each(|at| assert!(!has_xattr(&replica.join(at), 0), "{at}"));
    fs::write(cluster.mount().join("many"), "changed").unwrap();
    set(&cluster.mount().join("many"), 700..710);
    assert_equal_but_xattrs(&cluster, &["many"]);
    assert!(!has_xattr(&replica.join("many"), 705));
    cluster.stop();
}

/// The same: which xattrs a replica has follows from those of the object, not from its history.
#[test]
fn xattrs_go_when_they_become_too_many_and_come_back() {
    let mut cluster = cluster().network(1).expect_log("left out").start();
    let (file, copy) = (cluster.mount().join("f"), cluster.slaves[0].replica.join("f"));
    fs::write(&file, "content").unwrap();
    set(&file, 0..400);
    cluster.wait();
    assert!(has_xattr(&copy, 399));
    set(&file, 400..700);
    assert_equal_but_xattrs(&cluster, &["f"]);
    assert!(!has_xattr(&copy, 0) && !has_xattr(&copy, 699));
    remove(&file, 0..300);
    cluster.wait();
    cluster.assert_equal();
    assert!(!has_xattr(&copy, 0) && has_xattr(&copy, 300) && has_xattr(&copy, 699));
    cluster.stop();
}
