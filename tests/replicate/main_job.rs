//! The main job: everything that a busy directory sees, at once, over 10,000 files that were there before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::daemon::end_of;
use harness::{ClusterBuilder, TempTree, require};

use crate::{cluster, sources};

const FILES: usize = 10_000;
/// Any one of the jobs; cargo has a whole crate to build on a busy machine.
const JOB_LIMIT: Duration = Duration::from_secs(600);

/// What TDFS is for, all at once.
#[test]
fn main_job() {
    let rounds = if harness::long_form() { 10 } else { 1 };
    for round in 1..=rounds {
        println!("main job, round {round} of {rounds}");
        run(cluster().network(1).compressed());
    }
}

/// Point 3: "The same with an embedded slave, with two slaves, and with MOUNTPOINT elsewhere."
#[test]
fn main_job_elsewhere_with_three_slaves() {
    if !harness::long_form() {
        println!("only in the long form (TDFS_LONG=1)");
        return;
    }
    run(cluster().embedded());
    run(cluster().network(2));
    run(cluster().network(1).elsewhere());
    run(cluster().network(2).embedded().elsewhere().compressed());
}

fn run(builder: ClusterBuilder) {
    let material = Material::new();
    if std::env::var_os("TDFS_PLAIN_ONLY").is_some() {
        let plain = TempTree::new().unwrap();
        sources::plant(plain.path(), FILES);
        all_jobs(&material, plain.path());
        return;
    }
    let cluster = builder.prepare(|paths| sources::plant(&paths.backing, FILES)).start();
    all_jobs(&material, cluster.mount());
    cluster.wait_for(300);
    cluster.finish();
}

/// Runs all jobs at once. In a plain directory (`TDFS_PLAIN_ONLY=1`) this shows that the jobs are right.
fn all_jobs(material: &Material, mount: &Path) {
    std::thread::scope(|scope| {
        let jobs: [fn(&Material, &Path); 5] = [untar, git_and_cargo, sqlite, rsync, remove_half];
        let threads = jobs.map(|job| scope.spawn(move || job(material, mount)));
        let failed = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        assert_eq!(failed, 0, "jobs failed");
    });
}

/// What the jobs start from, outside the mount.
struct Material {
    tree: TempTree,
}

impl Material {
    fn new() -> Self {
        let material = Self { tree: TempTree::new().unwrap() };
        sources::plant(&material.path("source"), 3_000);
        let mut pack = Command::new("tar");
        pack.arg("-cf").arg(material.path("source.tar")).arg("-C").arg(material.path("source"));
        done(pack.arg("files"));
        material.make_crate();
        material.make_repository();
        material
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tree.path().join(name)
    }

    /// A program of a few hundred modules without dependencies.
    fn make_crate(&self) {
        let root = self.path("repository");
        fs::create_dir_all(root.join("src")).unwrap();
        let manifest = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
        fs::write(root.join("Cargo.toml"), manifest).unwrap();
        let mut main = String::new();
        for number in 0..200 {
            main += &format!("mod part{number};\n");
            let part = format!("pub fn value() -> u64 {{ {number} }}\n");
            fs::write(root.join(format!("src/part{number}.rs")), part).unwrap();
        }
        let sum: Vec<String> = (0..200).map(|number| format!("part{number}::value()")).collect();
        main += &format!("fn main() {{ println!(\"{{}}\", {}); }}\n", sum.join(" + "));
        fs::write(root.join("src/main.rs"), main).unwrap();
    }

    /// Two commits with many files of difference, so that a checkout has work to do.
    fn make_repository(&self) {
        if !require("main_job", "git", "git") {
            return;
        }
        let root = self.path("repository");
        let git = |words: &[&str]| done(git_in(&root).args(words));
        git(&["init", "-q", "-b", "main"]);
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "first"]);
        sources::plant(&root, 1_000);
        git(&["add", "-A", "-f"]);
        git(&["commit", "-q", "-m", "second"]);
    }
}

fn git_in(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory);
    for name in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{name}_NAME"), "tdfs").env(format!("GIT_{name}_EMAIL"), "tdfs@localhost");
    }
    command.args(["-c", "gc.auto=0", "-c", "safe.directory=*"]);
    command
}

/// Runs a command that must succeed.
#[track_caller]
fn done(command: &mut Command) {
    let command = std::mem::replace(command, Command::new("true"));
    let told = format!("{command:?}");
    let output = end_of(command, JOB_LIMIT).unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told} ended with {}: {words}", output.status);
}

fn untar(material: &Material, mount: &Path) {
    let target = mount.join("untarred");
    fs::create_dir(&target).unwrap();
    done(Command::new("tar").arg("-xf").arg(material.path("source.tar")).arg("-C").arg(&target));
}

fn git_and_cargo(material: &Material, mount: &Path) {
    if !require("main_job", "git", "git") {
        return;
    }
    let clone = mount.join("clone");
    let mut command = git_in(mount);
    done(command.args(["clone", "-q", "--no-hardlinks"]).arg(material.path("repository")).arg(&clone));
    let git = |words: &[&str]| done(git_in(&clone).args(words));
    git(&["checkout", "-q", "HEAD~1"]);
    git(&["checkout", "-q", "main"]);
    git(&["fsck", "--no-progress"]);
    if require("main_job", "cargo", "cargo") {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--offline", "-q"]).current_dir(&clone);
        cargo.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        done(&mut cargo);
        done(&mut Command::new(clone.join("target/debug/small")));
    }
    let clean = end_of(
        {
            let mut command = git_in(&clone);
            command.args(["status", "--porcelain", "--untracked-files=no"]);
            command
        },
        JOB_LIMIT,
    );
    assert_eq!(String::from_utf8_lossy(&clean.unwrap().stdout), "", "git sees no change after all this");
}

fn sqlite(_: &Material, mount: &Path) {
    if !require("main_job", "sqlite3", "sqlite3") {
        return;
    }
    let database = mount.join("data.sqlite");
    let query = |text: &str| {
        let mut command = Command::new("sqlite3");
        command.arg("-cmd").arg(".timeout 20000").arg(&database).arg(text);
        let output = end_of(command, JOB_LIMIT).unwrap();
        assert!(output.status.success(), "sqlite3: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let mode = query("PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);");
    assert_eq!(mode, "wal");
    for _ in 0..40 {
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)";
        query(&format!("BEGIN; INSERT INTO t(text) {rows} SELECT hex(randomblob(100)) FROM n; COMMIT;"));
    }
    assert_eq!(query("SELECT count(*) FROM t; PRAGMA integrity_check;"), "2000\nok");
}

fn rsync(material: &Material, mount: &Path) {
    if !require("main_job", "rsync", "rsync") {
        return;
    }
    let mut command = Command::new("rsync");
    command.arg("-aHAX").arg(material.path("source/")).arg(mount.join("rsynced/"));
    done(&mut command);
    // Nothing to do the second time: what rsync reads back is what it wrote.
    let mut again = Command::new("rsync");
    again.args(["-aHAXi"]).arg(material.path("source/")).arg(mount.join("rsynced/"));
    let output = end_of(again, JOB_LIMIT).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "rsync finds differences in what it copied");
}

fn remove_half(_: &Material, mount: &Path) {
    let mut names: Vec<PathBuf> =
        fs::read_dir(mount.join("files")).unwrap().map(|found| found.unwrap().path()).collect();
    names.sort();
    for path in names.iter().step_by(2) {
        done(Command::new("rm").arg("-rf").arg(path));
    }
}
