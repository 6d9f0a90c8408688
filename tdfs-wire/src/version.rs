//! Versions of what leaves the process: the protocol on the wire, the files in a state directory.
//!
//! A change of a layout adds a line here, with its reason, or the golden tests fail.

/// Protocol versions, newest last:
///
/// * 1: the first.
/// * 2: checks, orders, resyncs that go on after a lost connection; how far a resync is.
/// * 3: a removed name tells what names its object has left; replicas in doubt after a crash.
/// * 4: a directory is asked for part by part, so that records come between the parts of a large one.
/// * 5: records tell whose the objects are that they change.
pub const PROTOCOL: u16 = 5;

/// Versions of the log segments' layout, newest last:
///
/// * 1: the first.
/// * 2: ops of protocol 3.
/// * 3: records of protocol 5.
pub const LOG: u16 = 3;

/// Versions of the state files, newest last:
///
/// * 1: the first.
pub const STATE: u16 = 1;
