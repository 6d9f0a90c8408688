//! The rules, as data: what is checked, where it does not hold, and why.

/// Longer than this and a file has two subjects (STYLE.md, measured table).
pub const FILE_LINES_MAX: usize = 600;

/// Unfinished work belongs in an issue, not in the tree. Cut in two, or this file would find itself.
pub const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!("),
    concat!("unimple", "mented!("),
];

/// Words that the glossary replaces by better ones; no defined name may contain them.
pub const WORDS_TO_KEEP_OUT: [&str; 13] = [
    "event",
    "txn",
    "chunk",
    "packet",
    "snapshot",
    "primary",
    "secondary",
    "follower",
    "leader",
    "manager",
    "helper",
    "util",
    "misc",
];

/// A name that may contain such a word all the same.
pub struct NameException {
    /// The defined name.
    pub name: &'static str,
    /// Why no better word will do.
    pub reason: &'static str,
}

/// All such names.
pub const NAME_EXCEPTIONS: [NameException; 0] = [];

/// Paths that may not be imported or named, except in some places.
pub struct ImportRule {
    /// Why.
    pub reason: &'static str,
    /// Absolute paths; each stands for all below it.
    pub paths: &'static [&'static str],
    /// Paths below those that are harmless.
    pub harmless: &'static [&'static str],
    /// Files or directories to which the rule applies.
    pub within: &'static [&'static str],
    /// Files or directories within those to which it does not apply.
    pub except: &'static [&'static str],
}

/// Addresses are values; only what opens a socket is meant by the rules.
const ADDRESSES: &[&str] = &[
    "std::net::AddrParseError",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "std::net::SocketAddrV4",
    "std::net::SocketAddrV6",
];

/// All import rules.
pub const IMPORTS: [ImportRule; 8] = [
    ImportRule {
        reason: "only fuse/ knows fuser: below it, functions take plain arguments (a second transport comes)",
        paths: &["fuser"],
        harmless: &[],
        within: &["tdfs/", "tdfs-host/", "tdfs-slave/", "tdfs-wire/"],
        except: &["tdfs/src/fuse/"],
    },
    ImportRule {
        reason: "only the two ends of a link and the control socket open sockets",
        paths: &["std::net", "tokio::net", "std::os::unix::net", "rustix::net"],
        harmless: ADDRESSES,
        within: &["tdfs/src/", "tdfs-host/src/", "tdfs-slave/src/", "tdfs-wire/src/"],
        except: &[
            "tdfs/src/ship/",
            "tdfs-slave/src/receive.rs",
            "tdfs-slave/src/receive/entry.rs",
            "tdfs-host/src/control.rs",
            "tdfs-host/src/tls.rs",
            "tdfs-host/src/tls/",
            // fusermount3 passes the mount's fd over a socket.
            "tdfs/src/fuse/mount.rs",
        ],
    },
    ImportRule {
        reason: "keys and TLS have one home: who decides about trust does no cryptography",
        paths: &["rustls", "tokio_rustls", "ring", "base64"],
        harmless: &[],
        within: &["tdfs/src/", "tdfs-host/src/", "tdfs-slave/src/", "tdfs-wire/src/"],
        except: &["tdfs-host/src/key.rs", "tdfs-host/src/tls.rs", "tdfs-host/src/tls/"],
    },
    ImportRule {
        reason: "passthrough and ship meet only in the log: a slave can't slow an application down",
        paths: &["tdfs::ship"],
        harmless: &[],
        within: &["tdfs/src/passthrough/", "tdfs/src/fuse/", "tdfs/src/commit/"],
        except: &[],
    },
    ImportRule {
        reason: "ship and passthrough meet only in the log: sending can't change the backing tree",
        paths: &["tdfs::passthrough", "tdfs::fuse"],
        harmless: &[],
        within: &["tdfs/src/ship/"],
        except: &[],
    },
    ImportRule {
        reason: "the master knows the slave's code only to run an embedded one",
        paths: &["tdfs_slave"],
        harmless: &[],
        within: &["tdfs/src/"],
        except: &["tdfs/src/embedded.rs"],
    },
    ImportRule {
        reason: "sessions, ops and frames decide without I/O: `now` is an argument, bytes are an argument",
        paths: &[
            "std::fs",
            "std::net",
            "std::thread",
            "std::env",
            "std::process",
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "rustix",
            "tokio",
        ],
        harmless: ADDRESSES,
        within: &["tdfs-wire/src/session/", "tdfs-wire/src/op/", "tdfs-wire/src/frame.rs"],
        except: &[],
    },
    ImportRule {
        reason: "what both ends must agree on has no place for either of them",
        paths: &["tdfs", "tdfs_slave", "tdfs_host"],
        harmless: &[],
        within: &["tdfs-wire/src/"],
        except: &[],
    },
];

/// Files that may contain `unsafe`: their whole subject is system calls that have no safe wrapper.
pub const UNSAFE_FILE: &str = "sys.rs";

/// A call that only some files may make.
pub struct CallRule {
    /// Why.
    pub reason: &'static str,
    /// The method's name.
    pub method: &'static str,
    /// Receivers that make it the call that is meant: the identifier before the dot.
    pub receivers: &'static [&'static str],
    /// Files or directories to which the rule applies.
    pub within: &'static [&'static str],
    /// Files or directories within those to which it does not apply.
    pub except: &'static [&'static str],
}

/// All call rules.
pub const CALLS: [CallRule; 2] = [
    CallRule {
        reason: "commit is the one choke point: every change is in the log, in the order in which it happened",
        method: "append",
        receivers: &["log", "writer"],
        within: &["tdfs/src/", "tdfs-host/src/", "tdfs-slave/src/"],
        except: &["tdfs/src/commit/", "tdfs/src/ship/tests.rs", "tdfs-slave/src/simulation/"],
    },
    CallRule {
        reason: "who reserves space in the log is about to append",
        method: "reserve",
        receivers: &["log", "writer"],
        within: &["tdfs/src/", "tdfs-host/src/", "tdfs-slave/src/"],
        except: &["tdfs/src/commit/", "tdfs/src/ship/tests.rs", "tdfs-slave/src/simulation/"],
    },
];

/// What a slave does to its replica and its position goes through `step`, or no test kills it there.
pub const STEP_PLACES: [&str; 4] = [
    "tdfs-slave/src/replay/",
    "tdfs-slave/src/applied.rs",
    "tdfs-host/src/object.rs",
    "tdfs-host/src/state.rs",
];

/// Calls that change something.
pub const STEP_CALLS: [&str; 19] = [
    "fs::mkdirat(",
    "fs::mknodat(",
    "fs::symlinkat(",
    "fs::linkat(",
    "fs::unlinkat(",
    "fs::renameat(",
    "fs::renameat_with(",
    "fs::ftruncate(",
    "fs::fallocate(",
    "fs::copy_file_range(",
    "fs::fchmod(",
    "fs::chmodat(",
    "fs::chownat(",
    "fs::utimensat(",
    "fs::fsetxattr(",
    "fs::setxattr(",
    "fs::removexattr(",
    "io::pwrite(",
    ".write_all_at(",
];

/// Long flags of other programs that a man page or the README may name.
pub const FOREIGN_FLAGS: [&str; 0] = [];

/// Crates whose modules the code map of ARCHITECTURE.md must name.
pub const MAPPED_CRATES: [&str; 4] = ["tdfs", "tdfs-host", "tdfs-slave", "tdfs-wire"];
