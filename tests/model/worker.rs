//! A process that does operations on both trees when told to, as a user of its own.
//!
//! It is this program again: the test `acts_when_told` does nothing unless it was started by [`Worker::start`]. It has
//! descriptors, locks and a umask of its own, as applications do.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::ops::{Names, Performer, generate};
use harness::{Caller, Rng};
use rustix::io::Errno;

const ROOTS: &str = "TDFS_MODEL_ROOTS";
const WHO: &str = "TDFS_MODEL_WHO";
/// Who they are.
pub const WORKERS: usize = 4;

/// The process.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    orders: BufReader<UnixStream>,
}

/// What a step gave on the plain directory and on the mount.
#[derive(Debug)]
pub struct Outcomes {
    pub plain: String,
    pub mount: String,
}

impl Worker {
    /// Starts worker `who` on two trees.
    pub fn start(who: usize, plain: &Path, mount: &Path) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["worker::acts_when_told", "--exact", "--nocapture"]);
        command.env(ROOTS, std::env::join_paths([plain, mount]).unwrap()).env(WHO, who.to_string());
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        Self { child: command.spawn().unwrap(), orders: BufReader::new(ours) }
    }

    /// A new sequence in the directory `name`; all that was open is closed.
    pub fn begin(&mut self, name: &str, mapped: bool) {
        self.tell(&format!("begin {name} {mapped}"));
        assert_eq!(self.answer(), "begun");
    }

    /// Does what this seed means.
    pub fn step(&mut self, seed: u64) -> Outcomes {
        self.tell(&format!("do {seed}"));
        Outcomes { plain: self.answer(), mount: self.answer() }
    }

    fn tell(&mut self, line: &str) {
        self.orders.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        let len = self.orders.read_line(&mut line).unwrap();
        assert!(len > 0, "a worker has ended: {:?}", self.child.try_wait());
        line.trim_end().to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends with its orders.
        let _ = self.orders.get_ref().shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// What the names are of which operations are drawn.
pub fn names(mapped: bool) -> Names {
    let names = Names::few(6, 3).in_turn();
    if mapped { names } else { names.without_mappings() }
}

fn caller(who: usize) -> Caller {
    let user = Caller { uid: 1000, gid: 1000, ..Caller::root() };
    match who {
        0 => Caller::root(),
        1 => user.with_groups(&[65534]).with_umask(0),
        2 => Caller::nobody().with_umask(0o027),
        _ => Caller::root().with_umask(0),
    }
}

#[test]
fn acts_when_told() {
    let (Some(roots), Ok(who)) = (std::env::var_os(ROOTS), std::env::var(WHO)) else { return };
    let roots: Vec<PathBuf> = std::env::split_paths(&roots).collect();
    let orders = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    caller(who.parse().unwrap()).run(|| serve(&roots, orders, who.parse().unwrap()));
}

fn serve(roots: &[PathBuf], mut answers: UnixStream, who: u64) {
    let orders = BufReader::new(answers.try_clone().unwrap());
    let mut performers: Vec<Performer> = Vec::new();
    let mut known = names(false);
    for line in orders.lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["begin", name, mapped] => {
                performers.clear();
                performers = roots.iter().map(|root| Performer::new(&root.join(name))).collect();
                known = names(mapped == "true");
                answers.write_all(b"begun\n").unwrap();
            }
            ["do", seed] => {
                for performer in &mut performers {
                    let mut rng = Rng::new(seed.parse().unwrap());
                    let op = generate(&mut rng, &known, who);
                    let outcome =
                        performer.attempt(&op, &mut rng).map_or_else(errno, |seen| format!("ok {seen}"));
                    answers.write_all(format!("{outcome}\n").as_bytes()).unwrap();
                }
            }
            _ => panic!("what does {line:?} mean?"),
        }
    }
}

fn errno(error: std::io::Error) -> String {
    Errno::from_io_error(&error).map_or_else(|| error.to_string(), |errno| format!("{errno:?}"))
}
