//! The command line: the contract with users and outside tests.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Mirrors a live directory tree to slaves, by way of FUSE and one ordered log.
#[derive(Debug, Parser)]
#[command(name = "tdfs", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Exit codes: 0 ended cleanly; 1 failed while running; 2 wrong use. See tdfs(8).")]
pub struct Args {
    /// What to do instead of serving a directory.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to serve.
    #[command(flatten)]
    pub serve: Option<Serve>,
}

/// Serving a directory.
#[derive(Clone, Debug, ClapArgs)]
pub struct Serve {
    /// The directory that is distributed.
    #[arg(short = 'm', long = "master", value_name = "DIR")]
    pub directory: PathBuf,
    /// A slave: HOST, HOST:PORT, `[V6]:PORT`, each with #SHA256:... where its key is known, or a path of this machine
    /// (beginning with / ./ ../); repeatable.
    #[arg(short = 'c', long = "connect", value_name = "SLAVE", required = true)]
    pub slaves: Vec<String>,
    /// Compression on the wire: 0 none, 1 LZF.
    #[arg(short = 'z', long = "compress", value_name = "0|1", value_enum, default_value = "0")]
    pub compress: Compress,
    /// Turn TCP_NODELAY off.
    #[arg(short = 'n', long = "nagle")]
    pub nagle: bool,
    /// Where tdfs keeps its log and state [default: below /var/lib/tdfs, or $XDG_STATE_HOME/tdfs].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Most bytes of log that are kept for slaves that lag behind.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30)]
    pub log_max: u64,
    /// Most bytes a second that a resync may compare or send for each slave [default: no bound].
    #[arg(long, value_name = "BYTES_PER_S", value_parser = clap::value_parser!(u64).range(1..))]
    pub resync_rate: Option<u64>,
    /// Do not compare the slaves with the directory at the start: nothing has changed in it meanwhile.
    #[arg(long)]
    pub no_check: bool,
    /// Serve a directory in which other file systems are mounted, without what is in those.
    #[arg(long)]
    pub skip_mounts: bool,
    /// Let the kernel read files itself where that can be (Linux 6.9, as root): faster where content is not cached.
    #[arg(long)]
    pub passthrough: bool,
    /// Mean DIR as it is now, though it is not the directory (or not the disk) that the state belongs to.
    #[arg(long)]
    pub new: bool,
    /// Make replicas of embedded slaves equal, whatever lies there: a foreign directory, or another filesystem's.
    #[arg(long)]
    pub adopt: bool,
    /// Refuse slaves whose key was not given with -c.
    #[arg(long)]
    pub strict_keys: bool,
    /// Talk to slaves in plain TCP, without encryption and without asking who they are.
    #[arg(long)]
    pub insecure: bool,
    /// Where to mount [default: over DIR itself].
    pub mountpoint: Option<PathBuf>,
}

/// Values of `-z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compress {
    /// None.
    #[value(name = "0")]
    Stored,
    /// LZF.
    #[value(name = "1")]
    Lzf,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how master and slaves stand.
    Status {
        /// Which tdfs.
        #[command(flatten)]
        of: Of,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Wait until every slave has applied all that was changed so far.
    Wait {
        /// Which tdfs.
        #[command(flatten)]
        of: Of,
        /// Give up after so many seconds [default: never].
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Compare replicas with the directory, contents by hashes: 0 equal, 1 not, 2 could not.
    Verify {
        /// Which tdfs.
        #[command(flatten)]
        of: Of,
        /// Which slave; repeatable [default: all].
        #[arg(short = 'c', long = "connect", value_name = "SLAVE")]
        slaves: Vec<String>,
        /// Make equal what differs.
        #[arg(long)]
        repair: bool,
        /// Tell the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make replicas equal by comparing all of them; returns at once.
    Resync {
        /// Which tdfs.
        #[command(flatten)]
        of: Of,
        /// Which slave; repeatable [default: all].
        #[arg(short = 'c', long = "connect", value_name = "SLAVE")]
        slaves: Vec<String>,
        /// Compare contents by hashes, whatever sizes and mtimes say.
        #[arg(long)]
        checksum: bool,
        /// Allow the removal of more than half of a replica.
        #[arg(long)]
        confirm: bool,
    },
    /// Mirror to one more slave, until tdfs ends.
    Add {
        /// Which tdfs.
        #[command(flatten)]
        of: Of,
        /// As for -c.
        slave: String,
    },
    /// Mirror to a slave no longer, and keep no log for it.
    Forget {
        /// Which tdfs.
        #[command(flatten)]
        of: Of,
        /// As it was given with -c.
        slave: String,
    },
    /// Show the fingerprint of this master's key; the key is made if there is none yet.
    Key {
        /// Which tdfs.
        #[command(flatten)]
        of: Of,
    },
    /// Forget the key of a slave, so that the next one it shows is taken; or, with #SHA256:... behind it, take that one.
    Repin {
        /// Which tdfs.
        #[command(flatten)]
        of: Of,
        /// As for -c.
        slave: String,
    },
}

/// Which tdfs a command is for.
#[derive(Clone, Debug, ClapArgs)]
pub struct Of {
    /// The directory that it serves.
    #[arg(short = 'm', long = "master", value_name = "DIR")]
    pub directory: PathBuf,
    /// Its state directory, if it is not the default one.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}
