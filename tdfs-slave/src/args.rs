//! The command line: the contract with users and outside tests.

use clap::{Args as ClapArgs, Parser, Subcommand};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use tdfs_host::key::Fingerprint;

/// Keeps a directory equal to a tree that tdfs distributes.
#[derive(Debug, Parser)]
#[command(
    name = "tdfs-slave",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
#[command(
    after_help = "Exit codes: 0 ended cleanly; 1 failed while running; 2 wrong use. See tdfs-slave(8)."
)]
pub struct Args {
    /// What to do instead of serving a replica.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to serve.
    #[command(flatten)]
    pub serve: Option<Serve>,
}

/// Serving a replica.
#[derive(Clone, Debug, ClapArgs)]
pub struct Serve {
    /// The directory that becomes and stays the replica.
    #[arg(short = 'm', long = "mirror", value_name = "DIR")]
    pub directory: PathBuf,
    /// Where to wait for the master [default: port 8337 of all addresses].
    #[arg(short = 'l', long = "listen", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Turn TCP_NODELAY off.
    #[arg(short = 'n', long = "nagle")]
    pub nagle: bool,
    /// Where the slave keeps its state [default: below /var/lib/tdfs, or $XDG_STATE_HOME/tdfs].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Make DIR equal to the master's tree whatever it is now: not empty, another directory than before, or another
    /// filesystem's replica.
    #[arg(long)]
    pub adopt: bool,
    /// Allow a master, while this slave runs; repeatable. `tdfs key` on the master shows its fingerprint.
    #[arg(long, value_name = "FINGERPRINT")]
    pub allow: Vec<Fingerprint>,
    /// Give up the right to set trusted xattrs (CAP_SYS_ADMIN), and leave them out of the replica.
    #[arg(long)]
    pub no_trusted_xattrs: bool,
    /// Talk to the master in plain TCP, without encryption and without asking who it is.
    #[arg(long)]
    pub insecure: bool,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how the replica stands.
    Status {
        /// Which replica.
        #[command(flatten)]
        of: Of,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the fingerprint of this slave's key; the key is made if there is none yet.
    Key {
        /// Which replica.
        #[command(flatten)]
        of: Of,
    },
    /// Allow a master to write to the replica.
    Allow {
        /// Which replica.
        #[command(flatten)]
        of: Of,
        /// Of the master's key: `tdfs key` shows it there.
        fingerprint: Fingerprint,
    },
    /// Allow a master no longer; its connection ends at once.
    Disallow {
        /// Which replica.
        #[command(flatten)]
        of: Of,
        /// Of the master's key.
        fingerprint: Fingerprint,
    },
    /// List the masters that are allowed.
    Allowed {
        /// Which replica.
        #[command(flatten)]
        of: Of,
    },
}

/// Which replica a command is for.
#[derive(Clone, Debug, ClapArgs)]
pub struct Of {
    /// The directory that is the replica.
    #[arg(short = 'm', long = "mirror", value_name = "DIR")]
    pub directory: PathBuf,
    /// Its state directory, if it is not the default one.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

impl Serve {
    /// The port of slaves.
    pub const PORT: u16 = 8337;

    /// The addresses to try, the first that this machine has is taken.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self.listen {
            Some(address) => vec![address],
            None => vec![(Ipv6Addr::UNSPECIFIED, Self::PORT).into(), ([0, 0, 0, 0], Self::PORT).into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdfs_host::cli::one_sentence;

    fn parse(words: &[&str]) -> Result<Args, String> {
        let words = std::iter::once("tdfs-slave").chain(words.iter().copied());
        Args::try_parse_from(words)
            .map_err(|e| one_sentence(&e.render().to_string(), "tdfs-slave").to_string())
    }

    #[test]
    fn the_contract_is_accepted() {
        let args = parse(&["-m", "d", "-l", "127.0.0.1:9000", "-n", "--state", "s", "--adopt", "--insecure"])
            .unwrap();
        let serve = args.serve.unwrap();
        assert!(serve.nagle && serve.adopt && serve.insecure && args.command.is_none());
        assert_eq!(serve.addresses(), ["127.0.0.1:9000".parse().unwrap()]);
        let serve = parse(&["-m", "d"]).unwrap().serve.unwrap();
        assert_eq!(serve.addresses()[1], "0.0.0.0:8337".parse().unwrap());
        let args = parse(&["status", "-m", "d", "--state", "s", "--json"]).unwrap();
        assert!(matches!(args.command, Some(Command::Status { json: true, .. })));
    }

    #[test]
    fn wrong_words_get_one_sentence() {
        for words in
            [&["--nonsense"][..], &[], &["-m"], &["-m", "d", "-l", "9000"], &["status"], &["status", "x"]]
        {
            match parse(words) {
                Ok(args) => assert!(args.serve.is_none() && args.command.is_none(), "{words:?}"),
                Err(said) => assert!(!said.contains('\n') && said.split(' ').count() > 4, "{said}"),
            }
        }
    }
}
