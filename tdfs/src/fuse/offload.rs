//! A few threads for what sleeps on the disk (fsync), so that it never holds up the FUSE workers.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Disks take only so many flushes at once.
const THREADS: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs in the order they came, a few at a time. The number that wait is bounded by the kernel: each is
/// a request of a process that waits for its answer.
pub struct Offload {
    jobs: Sender<Job>,
}

impl Offload {
    /// Starts the threads; they end when this is dropped and the jobs are done.
    pub fn start() -> io::Result<Offload> {
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..THREADS {
            let waiting = waiting.clone();
            thread::Builder::new().name(format!("fsync-{number}")).spawn(move || work(&waiting))?;
        }
        Ok(Offload { jobs })
    }

    /// Runs a job on one of the threads.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        if self.jobs.send(Box::new(job)).is_err() {
            panic!("the threads of the offload live as long as it");
        }
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
