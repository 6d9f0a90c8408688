//! The daemon: builds the parts, starts and stops them in order; and its commands.
//!
//! Called by `main`. Knows every part and does no part's work.

use crate::allowed::Allowed;
use crate::args::{Args, Command, Serve};
use crate::checks::Places;
use crate::commands;
use crate::confine::confine;
use crate::receive::{self, Entry, Listener, Receive};
use crate::relay::Relay;
use crate::replica::Replica;
use crate::status::{Status, Trust};
use anyhow::Context;
use clap::Parser;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tdfs_host::cli::{self, WrongUse, one_sentence};
use tdfs_host::control::{Answer, Control, Request};
use tdfs_host::daemon::{StopSignals, ignore_size_limit, init_log, leave_no_core_file, prepare_process};
use tdfs_host::key::{Fingerprint, Key};
use tdfs_host::state::StateDir;
use tdfs_host::tls;
use tracing::{info, warn};

const PROGRAM: &str = "tdfs-slave";
/// How long the record or answer in hand, and the sync at the end, may take before the daemon ends all the same.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The whole program.
pub fn main_from_args() -> ExitCode {
    if let Err(e) = leave_no_core_file() {
        return cli::exit(PROGRAM, Err(anyhow::Error::from(e).context("turn core files off")));
    }
    let done = match Args::try_parse() {
        Ok(Args { command: Some(command), .. }) => match command {
            Command::Status { of, json } => commands::status(&of, json),
            Command::Key { of } => commands::key(&of),
            Command::Allow { of, fingerprint } => commands::allow(&of, fingerprint),
            Command::Disallow { of, fingerprint } => commands::disallow(&of, fingerprint),
            Command::Allowed { of } => commands::allowed(&of),
        },
        Ok(Args { serve: Some(serve), .. }) => run(&serve),
        Ok(_) => Err(WrongUse("no replica is named: give its directory with -m".into()).into()),
        Err(e) if e.use_stderr() => Err(one_sentence(&e.render().to_string(), PROGRAM).into()),
        Err(help) => help.print().map_err(Into::into),
    };
    cli::exit(PROGRAM, done)
}

/// Opens the replica in `dir` with its state in `state`: for a slave inside another process. Makes `dir` if
/// it is missing, but for a replica that was there before: then its disk is not mounted. `adopt` as in
/// [`Replica::open`].
///
/// # Errors
/// In words: another process has it, its state can't be used, or belongs to another directory.
pub fn open_replica(dir: &Path, state: &Path, adopt: bool) -> anyhow::Result<Replica> {
    let state = Arc::new(StateDir::open(state)?);
    if !adopt {
        Replica::check_is_there(dir, &state)?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("make directory {}", dir.display()))?;
    Replica::open(dir, state, adopt)
}

fn run(serve: &Serve) -> anyhow::Result<()> {
    let places = Places::find(serve)?;
    init_log();
    prepare_process();
    let state = StateDir::open(&places.state).map_err(|e| WrongUse(e.to_string()))?;
    let listener = receive::bind(&serve.addresses())?;
    // Before there is another thread: what is started from here on inherits it.
    confine(&places, !serve.no_trusted_xattrs).context("confine the slave to its replica")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(serve_until_stopped(serve, &places, (state, listener)));
    // What still runs is a connection that did not end in time.
    runtime.shutdown_background();
    served
}

async fn serve_until_stopped(
    serve: &Serve,
    places: &Places,
    (state, listener): (StateDir, Listener),
) -> anyhow::Result<()> {
    let signals = StopSignals::new().context("take over the signals")?;
    let _over_size = ignore_size_limit().context("take over SIGXFSZ")?;
    let state = Arc::new(state);
    let key = Key::open(&state).map_err(|e| WrongUse(e.to_string()))?;
    let allowed = Allowed::open(Arc::clone(&state), &serve.allow).map_err(|e| WrongUse(e.to_string()))?;
    let allowed = Arc::new(allowed);
    let replica = Replica::open(&places.directory, Arc::clone(&state), serve.adopt)
        .map_err(|e| WrongUse(format!("{e:#}")))?;
    let listener = listener.listen().context("listen")?;
    let control = Control::bind(&state).context("bind the control socket")?;
    let relay = Arc::new(Relay::start(Box::new(replica)).context("start the relay")?);
    let entry = if serve.insecure {
        warn!("--insecure: records come in plain TCP, from whoever can reach {}", listener.local_addr()?);
        Entry::Anybody
    } else {
        let (tls, allowed) = (tls::Server::new(&key), Arc::clone(&allowed));
        Entry::Allowed { tls, allowed, command: places.allow_command() }
    };
    let receive = Receive::new(Arc::clone(&relay), !serve.nagle, entry);
    let trusting = Trusting { key: key.fingerprint(), insecure: serve.insecure, allowed };
    trusting.greet(places);
    let answering = tokio::spawn(answer_commands(control, places, &relay, &receive, trusting));
    let listening = tokio::spawn(Arc::clone(&receive).listen(listener));
    info!("{} waits for its master; state in {}", places.directory.display(), places.state.display());

    let signal = signals.first().await;
    info!("{signal}: ending");
    answering.abort();
    listening.abort();
    receive.stop().await;
    let stopped = tokio::task::spawn_blocking(move || drop(relay.stop()));
    match tokio::time::timeout(STOP_MAX, stopped).await {
        Ok(stopped) => stopped.context("stop the relay")?,
        // A directory of many names, a deep tree to remove: it is redone, as after a kill.
        Err(_) => info!("what is in hand takes long: it is not waited for"),
    }
    info!("ended");
    Ok(())
}

/// Who this slave is, and who may come.
struct Trusting {
    key: Fingerprint,
    insecure: bool,
    allowed: Arc<Allowed>,
}

impl Trusting {
    fn status(&self) -> Trust {
        Trust { fingerprint: self.key, insecure: self.insecure, allowed: self.allowed.list() }
    }

    fn greet(&self, places: &Places) {
        info!("the key of this slave is {}", self.key);
        if !self.insecure && self.allowed.list().is_empty() {
            let command = places.allow_command();
            info!(
                "no master is allowed so far: `tdfs key` there shows its FINGERPRINT, then: {command} FINGERPRINT"
            );
        }
    }

    fn allow(&self, master: &str) -> Result<Value, String> {
        self.allowed.allow(master.parse()?).map_err(|e| e.to_string())?;
        info!("{master} is allowed from now on");
        Ok(Value::Null)
    }

    fn disallow(&self, master: &str) -> Result<Value, String> {
        let key = master.parse()?;
        if !self.allowed.disallow(key).map_err(|e| e.to_string())? {
            return Err(commands::not_allowed(key).to_string());
        }
        info!("{master} is not allowed any more");
        Ok(Value::Null)
    }
}

fn answer_commands(
    control: Control,
    places: &Places,
    relay: &Arc<Relay>,
    receive: &Arc<Receive>,
    trusting: Trusting,
) -> impl Future<Output = ()> + Send + 'static {
    let (directory, relay, receive) = (places.directory.clone(), Arc::clone(relay), Arc::clone(receive));
    let trusting = Arc::new(trusting);
    control.serve(move |request| {
        let told = |value: serde_json::Result<Value>| value.map_err(|e| e.to_string());
        let answer = match request {
            Request::Status => {
                let status = Status::new(&directory, relay.facts(), receive.status(), trusting.status());
                told(serde_json::to_value(status))
            }
            Request::Allow { master } => trusting.allow(&master),
            Request::Disallow { master } => trusting.disallow(&master),
            Request::Allowed => told(serde_json::to_value(trusting.allowed.list())),
            #[allow(unreachable_patterns, reason = "more commands come, and not all are a slave's")]
            _ => Err("a slave does not know this command".into()),
        };
        std::future::ready(answer.map_or_else(Answer::Error, Answer::Ok))
    })
}
