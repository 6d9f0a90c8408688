//! Runs test suites of others through a real mount with a slave attached, and then compares the replica.
//!
//! README.md says how, KNOWN.md which cases fail or can't run, each with its reason. A failure that is not
//! listed fails the test, and so does a listed one that passes.

mod fsx;
mod known;
mod pjdfstest;
mod tools;
