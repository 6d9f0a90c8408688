//! Attributes that the kernel has to ask for again, though it was just told them.
//!
//! After a change of a directory, of an ACL, and after the write-back of a mapped page the kernel marks the
//! attributes it holds as stale. An answer to an earlier question that arrives after the change takes that
//! mark away again, and would stand for ever. So a moment later, when such answers are in, each of these
//! nodes is marked once more. Also drops pages that the kernel cached of a file that it reads itself.

use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// How long an answer may take from our look at the object to the kernel.
const DELAY: Duration = Duration::from_millis(100);

/// Marks nodes a moment after they changed.
pub struct Freshen {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    notifier: Arc<OnceLock<fuser::Notifier>>,
}

#[derive(Default)]
struct State {
    nodes: HashSet<u64>,
    closed: bool,
}

impl Freshen {
    /// Starts the thread that does it; it ends when this is dropped.
    pub fn start(notifier: Arc<OnceLock<fuser::Notifier>>) -> io::Result<Freshen> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), notifier });
        let work = Arc::clone(&shared);
        thread::Builder::new().name("freshen".into()).spawn(move || work.run())?;
        Ok(Freshen { shared })
    }

    /// The node's attributes are to be asked for again a moment from now: to be called behind the change.
    pub fn later(&self, node: u64) {
        let mut state = self.shared.state.lock();
        if state.nodes.insert(node) && state.nodes.len() == 1 {
            self.shared.changed.notify_one();
        }
    }

    /// The kernel is to forget these pages of the node's content. Not from a thread that answers requests.
    pub fn pages(&self, node: u64, offset: u64, size: u32) {
        let (Some(notifier), Ok(offset)) = (self.shared.notifier.get(), i64::try_from(offset)) else {
            return;
        };
        if let Err(e) = notifier.inval_inode(fuser::INodeNo(node), offset, size.into()) {
            tracing::debug!("forget pages of node {node}: {e}");
        }
    }

    /// The node's attributes are to be asked for again from now on.
    pub fn now(&self, node: u64) {
        self.shared.mark(node);
    }
}

impl Drop for Freshen {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut state = self.state.lock();
            while state.nodes.is_empty() && !state.closed {
                self.changed.wait(&mut state);
            }
            if state.closed {
                return;
            }
            // Taken before the pause: who comes during it gets a whole one, too.
            let nodes = std::mem::take(&mut state.nodes);
            drop(state);
            thread::sleep(DELAY);
            nodes.into_iter().for_each(|node| self.mark(node));
        }
    }

    /// With a negative offset no page is dropped and no lock of an inode is taken.
    fn mark(&self, node: u64) {
        let Some(notifier) = self.notifier.get() else { return };
        if let Err(e) = notifier.inval_inode(fuser::INodeNo(node), -1, 0) {
            // ENOENT: the kernel has forgotten it. Other errors: the mount is going away.
            tracing::debug!("mark the attributes of node {node}: {e}");
        }
    }
}
