//! DESIGN section 7: "a slave refuses to make a directory equal that is neither empty nor its own replica of that
//! filesystem (`--adopt` to say yes)."

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::cluster::ClusterPaths;
use harness::{Cluster, TempTree};

use crate::{BINARIES, SOON, cluster, finish, refused_slave, resyncs, write_and_wait};

/// Somebody's data in the place of a replica.
fn fill(paths: &ClusterPaths) {
    let place = &paths.replicas[0];
    fs::create_dir_all(place.join("years/of")).unwrap();
    fs::write(place.join("years/of/work"), b"precious").unwrap();
    fs::hard_link(place.join("years/of/work"), place.join("thesis")).unwrap();
}

/// All of a tree as it was.
struct Copy {
    _tree: TempTree,
    of: PathBuf,
    copy: PathBuf,
}

impl Copy {
    fn of(dir: &Path) -> Copy {
        let tree = TempTree::new().unwrap();
        let copy = tree.path().join("copy");
        assert!(Command::new("cp").arg("-a").args([dir, &copy]).status().unwrap().success());
        Copy { _tree: tree, of: dir.to_owned(), copy }
    }

    /// Fails the test if anything is not as it was.
    #[track_caller]
    fn assert_unchanged(&self) {
        harness::assert_same(&self.copy, &self.of);
    }
}

/// The master's state is lost: the next start makes another filesystem.
fn begin_another_filesystem(cluster: &mut Cluster) {
    cluster.master.stop();
    // It is the same master by its key, or the slave would not hear of the filesystem.
    let key = fs::read(cluster.paths.state.join("key")).unwrap();
    fs::remove_dir_all(&cluster.paths.state).unwrap();
    fs::create_dir(&cluster.paths.state).unwrap();
    fs::write(cluster.paths.state.join("key"), key).unwrap();
    fs::set_permissions(cluster.paths.state.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(cluster.paths.backing.join("new"), b"content").unwrap();
    fs::remove_file(cluster.paths.backing.join("old")).unwrap();
    cluster.start_master();
}

/// Restarts slave 0 with the flag, waits until it is equal, and then restarts it without: it goes on by the log.
fn adopt_and_go_on(cluster: &mut Cluster) {
    cluster.slaves[0].process().stop();
    cluster.slaves[0].process().start_again_with(&["--adopt"]).unwrap();
    write_and_wait(cluster, "adopted");
    cluster.assert_equal();
    let before = resyncs(cluster);
    cluster.slaves[0].process().stop();
    cluster.start_slave(0);
    write_and_wait(cluster, "after");
    assert_eq!(resyncs(cluster), before, "the log did it, not a resync");
}

/// README: "A typo deletes nobody's data: a slave refuses a directory that is neither empty nor a replica of this filesystem".
#[test]
fn somebodys_directory_is_refused_and_then_adopted() {
    let builder = cluster().network(1).expect_log("neither empty nor a replica");
    let mut cluster = builder.prepare(fill).start();
    let copy = Copy::of(&cluster.slaves[0].replica);
    fs::write(cluster.mount().join("file"), b"of the master").unwrap();
    let words = refused_slave(&cluster, 0);
    assert!(words.contains("neither empty nor a replica") && words.contains("--adopt"), "{words}");
    copy.assert_unchanged();
    adopt_and_go_on(&mut cluster);
    finish(cluster);
}

/// tdfs-slave.8: "From then on it belongs to that filesystem, and another master is refused."
#[test]
fn another_filesystem_s_replica_is_refused_and_then_adopted() {
    let builder = cluster().network(1).expect_log("belongs to filesystem").expect_log("is a replica of");
    let mut cluster = builder.start();
    write_and_wait(&cluster, "old");
    let copy = Copy::of(&cluster.slaves[0].replica);
    begin_another_filesystem(&mut cluster);
    let words = refused_slave(&cluster, 0);
    assert!(words.contains("belongs to filesystem") && words.contains("--adopt"), "{words}");
    copy.assert_unchanged();
    adopt_and_go_on(&mut cluster);
    finish(cluster);
}

#[test]
fn the_same_inside_of_tdfs() {
    let builder = cluster().embedded().expect_log("neither empty nor a replica");
    let mut cluster = builder.prepare(fill).start();
    let copy = Copy::of(&cluster.slaves[0].replica);
    let words = refused_slave(&cluster, 0);
    assert!(words.contains("neither empty nor a replica") && words.contains("--adopt"), "{words}");
    copy.assert_unchanged();
    cluster.master.stop();
    cluster.master.start_again_with(&["--adopt"]).unwrap();
    cluster.wait_ready().unwrap();
    write_and_wait(&cluster, "adopted");
    cluster.assert_equal();
    let before = resyncs(&cluster);
    cluster.master.stop();
    cluster.start_master();
    write_and_wait(&cluster, "after");
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    finish(cluster);
}

/// tdfs-slave.8: "the first master that begins uses it up, and that is logged".
#[test]
fn adopting_is_for_one_filesystem() {
    let builder = cluster().network(1).slave_flag("--adopt").expect_log("belongs to filesystem");
    let mut cluster = builder.start();
    write_and_wait(&cluster, "old");
    let before = resyncs(&cluster);
    cluster.slaves[0].process().stop();
    cluster.start_slave(0);
    write_and_wait(&cluster, "second");
    assert_eq!(resyncs(&cluster), before, "a replica that is fine is left alone");
    let copy = Copy::of(&cluster.slaves[0].replica);
    begin_another_filesystem(&mut cluster);
    assert!(refused_slave(&cluster, 0).contains("--adopt"));
    copy.assert_unchanged();
    cluster.stop();
}

/// Who says it to tdfs alone would wait for ever.
#[test]
fn there_must_be_somebody_who_adopts() {
    let tree = TempTree::new().unwrap();
    let (dir, state) = (tree.dir("a").unwrap(), tree.path().join("state"));
    let mut args = vec!["-m".into(), dir.into(), "-c".into(), "127.0.0.1:1".into()];
    args.extend(["--state".into(), state.into(), "--insecure".into(), "--adopt".into()]);
    let output = harness::daemon::run_to_end(BINARIES.tdfs, &args, SOON).unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("tdfs-slave"), "{words}");
}
