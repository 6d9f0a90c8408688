//! Runs test suites of others through a real mount with a slave attached, and then compares the replica.
//!
//! README.md says how and has the table, KNOWN.md which cases fail or can't run, each with its reason. A failure that
//! is not listed fails the test, and so does a listed one that passes.

mod fsx;
mod known;
mod links;
mod pjdfstest;
mod table;
mod tools;
mod user;
