//! A slave that is told to end while one long step goes on.

use std::fs;
use std::time::Duration;

use crate::{SOON, cluster};

/// The contract: a slave ends soon after SIGTERM. What is in hand then is redone, as after a kill.
#[test]
fn a_sync_that_hangs_does_not_keep_a_slave_from_ending() {
    let mut cluster = cluster().later().start();
    fs::write(cluster.mount().join("f"), "content").unwrap();
    let state = cluster.slaves[0].state.clone();
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("fail-syncfs"), "hang").unwrap();
    cluster.start_slave(0);
    harness::eventually(SOON, "a sync hangs", || !state.join("fail-syncfs").exists());
    harness::eventually(SOON, "the replica waits for it", || {
        fs::read(cluster.slaves[0].replica.join("f")).is_ok_and(|content| content == b"content")
    });
    // The margin is for a busy machine.
    cluster.slaves[0].process().stop_within(Duration::from_secs(10));
    cluster.start_slave(0);
    cluster.finish();
}
