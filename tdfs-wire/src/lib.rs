//! What both ends of TDFS must agree on: ops, records, frames, messages, sessions, the log.
//!
//! The life of a record: the master's `passthrough` changes the backing tree and states the outcome as an
//! [`Op`]; `commit` drafts it ([`record::Draft`]) and the log places it at the next [`Lsn`]; a batch of
//! records becomes a [`Frame`], compressed once for all slaves; each slave's session sends it; the slave
//! parses it ([`record::Record`]), applies it to its replica, and acks.
//!
//! Invariants of the crate: no FUSE and no socket anywhere; no file, thread or clock but in `log`; every
//! length that came from outside is compared with a named limit before it is used; parsing says
//! "incomplete" or "corrupt, because", never a guess.

pub mod answer;
mod bytes;
pub mod codec;
mod compress;
pub mod frame;
pub mod log;
mod lsn;
pub mod message;
pub mod object;
pub mod op;
mod path;
pub mod record;
pub mod session;
pub mod text;
pub mod trail;
pub mod version;

pub use codec::CodecError;
pub use frame::Frame;
pub use lsn::{Epoch, Id, Lsn, Position, Time};
pub use op::Op;
pub use path::{NAME_BYTES_MAX, Name, PATH_BYTES_MAX, PathError, TreePath, check_name};
