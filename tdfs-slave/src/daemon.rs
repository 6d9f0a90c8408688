//! The daemon: builds the parts, starts and stops them in order; and its commands.
//!
//! Called by `main`. Knows every part and does no part's work.

use crate::args::{Args, Command, Of, Serve};
use crate::checks::Places;
use crate::confine::confine;
use crate::receive::{self, Listener, Receive};
use crate::relay::Relay;
use crate::replica::Replica;
use crate::status::Status;
use anyhow::Context;
use clap::Parser;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tdfs_host::cli::{self, WrongUse, one_sentence};
use tdfs_host::control::{self, Answer, Control, Request};
use tdfs_host::daemon::{StopSignals, ignore_size_limit, init_log, prepare_process};
use tdfs_host::state::StateDir;
use tracing::{info, warn};

const PROGRAM: &str = "tdfs-slave";
/// How long the daemon may take to answer a command.
const ASK_MAX: Duration = Duration::from_secs(10);
/// How long the record or answer in hand, and the sync at the end, may take before the daemon ends all the same.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The whole program.
pub fn main_from_args() -> ExitCode {
    let done = match Args::try_parse() {
        Ok(Args { command: Some(Command::Status { of, json }), .. }) => status(&of, json),
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
    let replica = Replica::open(&places.directory, Arc::clone(&state), serve.adopt)
        .map_err(|e| WrongUse(format!("{e:#}")))?;
    let listener = listener.listen().context("listen")?;
    let control = Control::bind(&state).context("bind the control socket")?;
    warn!("--insecure: records come in plain TCP, from whoever can reach {}", listener.local_addr()?);
    let relay = Arc::new(Relay::start(Box::new(replica)).context("start the relay")?);
    let receive = Receive::new(Arc::clone(&relay), !serve.nagle);
    let answering = tokio::spawn(answer_commands(control, places, &relay, &receive));
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

fn answer_commands(
    control: Control,
    places: &Places,
    relay: &Arc<Relay>,
    receive: &Arc<Receive>,
) -> impl Future<Output = ()> + Send + 'static {
    let (directory, relay, receive) = (places.directory.clone(), Arc::clone(relay), Arc::clone(receive));
    control.serve(move |request| {
        let answer = match request {
            Request::Status => {
                let status = Status::new(&directory, relay.facts(), receive.status());
                serde_json::to_value(status).map_or_else(|e| Answer::Error(e.to_string()), Answer::Ok)
            }
            #[allow(unreachable_patterns, reason = "more commands come, and not all are a slave's")]
            _ => Answer::Error("a slave does not know this command".into()),
        };
        std::future::ready(answer)
    })
}

fn status(of: &Of, json: bool) -> anyhow::Result<()> {
    let places = Places::named(of)?;
    let value = control::ask(&places.state, &Request::Status, Some(ASK_MAX))
        .with_context(|| format!("no status of {}", places.directory.display()))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        print!("{}", serde_json::from_value::<Status>(value).context("read the daemon's status")?);
    }
    Ok(())
}
