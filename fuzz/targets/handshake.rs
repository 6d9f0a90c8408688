//! Sessions of both sides, driven by whatever a peer may say from the first byte on.
//!
//! The bytes are a script: the first one says which side is played, then each step is what came from the peer, or
//! what the shell around the session has to tell. The shell keeps to the contract; the peer to nothing.

mod master;
mod slave;

use super::Script;

/// One connection or, of a master, several.
pub fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    if script.byte() % 2 == 0 {
        slave::play(script);
    } else {
        master::play(script);
    }
}
