//! The daemon: builds the parts, starts and stops them in order; and its commands.
//!
//! Called by `main`. Knows every part and does no part's work. `control` answers the commands to it.

mod control;

use crate::args::{Args, Command, Compress, Serve};
use crate::checks::Places;
use crate::commit::Commit;
use crate::embedded::{self, Embedded};
use crate::fuse::barrier::Barrier;
use crate::fuse::mount::{self, Mount};
use crate::fuse::session;
use crate::fuse::watch::Watch;
use crate::identity::{Accepted, Identity, random_id};
use crate::passthrough::Passthrough;
use crate::resync::Answers;
use crate::ship::{self, NamedSlave, Ship, Trust};
use anyhow::Context;
use clap::Parser;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tdfs_host::cli::{self, WrongUse};
use tdfs_host::control::Control;
use tdfs_host::daemon::{StopSignals, init_log, leave_no_core_file, prepare_process};
use tdfs_host::key::{Fingerprint, Key};
use tdfs_host::root::Root;
use tdfs_host::state::{Side, StateDir};
use tdfs_host::tls;
use tdfs_wire::Position;
use tdfs_wire::frame::Codec;
use tdfs_wire::log::Extent;
use tokio::sync::oneshot;

/// How long slaves may take at the end to apply what they lack.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long the write-back of mapped pages may take, for `tdfs wait` and at the end.
const WRITE_BACK_MAX: Duration = Duration::from_secs(60);
/// How long `tdfs wait` waits for names of objects that were changed without a known one.
const FIND_LOST_MAX: Duration = Duration::from_secs(3600);
/// How often tree and log are synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The whole program.
pub fn main_from_args() -> ExitCode {
    if let Err(e) = leave_no_core_file() {
        return cli::exit("tdfs", Err(anyhow::Error::from(e).context("turn core files off")));
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) if e.use_stderr() => {
            return cli::exit("tdfs", Err(cli::one_sentence(&e.render().to_string(), "tdfs").into()));
        }
        Err(help) => return cli::exit("tdfs", help.print().context("print help")),
    };
    let done = match (args.command, args.serve) {
        (Some(Command::Status { of, json }), _) => crate::commands::status(&of, json),
        (Some(Command::Wait { of, timeout }), _) => {
            return crate::commands::wait(&of, timeout.map(Duration::from_secs));
        }
        (Some(Command::Verify { of, slaves, repair, json }), _) => {
            return crate::commands::verify(&of, &slaves, repair, json);
        }
        (Some(Command::Resync { of, slaves, checksum, confirm }), _) => {
            crate::commands::resync(&of, &slaves, checksum, confirm)
        }
        (Some(Command::Add { of, slave }), _) => crate::commands::add(&of, &slave),
        (Some(Command::Forget { of, slave }), _) => crate::commands::forget(&of, &slave),
        (Some(Command::Key { of }), _) => crate::commands::key(&of),
        (Some(Command::Repin { of, slave }), _) => crate::commands::repin(&of, &slave),
        (None, Some(serve)) => run(&serve),
        (None, None) => {
            Err(WrongUse("no directory is named: give the one to distribute with -m".into()).into())
        }
    };
    cli::exit("tdfs", done)
}

fn run(serve: &Serve) -> anyhow::Result<()> {
    #[cfg(feature = "failpoints")]
    let _fail_points = fail::FailScenario::setup();
    let slaves = addresses(serve)?;
    let replicas = slaves.iter().filter_map(|slave| embedded::path_of(&slave.address));
    let replicas: Vec<PathBuf> = replicas.map(Path::to_path_buf).collect();
    mount::check_device().map_err(WrongUse)?;
    let places = Places::find(serve, &replicas)?;
    places.check_mounts_below(serve.skip_mounts)?;
    places.check_files_device()?;
    let (root, lock) = places.take_directory()?;
    init_log();
    log_of_fuser();
    prepare_process();
    if let Err(e) = tdfs_host::daemon::respect_quotas() {
        tracing::debug!("give up CAP_SYS_RESOURCE: {e}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(Daemon::serve(serve, slaves, &places, root, lock));
    // What still runs is a connection that did not end in time.
    runtime.shutdown_background();
    served
}

/// Who can reach below a mount in place; said in a warning, and in status.
fn below_mount(places: &Places) -> Vec<String> {
    if places.mountpoint != places.directory {
        return Vec::new();
    }
    let below = crate::below::find(&places.directory);
    if !below.is_empty() {
        tracing::warn!("what these write below the mount is not seen: {}", below.join("; "));
    }
    below
}

/// fuser's warnings go to our log, but for "can't send the reply": then the process that asked was killed, or
/// the mount is gone, and nobody has to look.
fn log_of_fuser() {
    let tracer = tracing_log::LogTracer::builder()
        .with_max_level(tracing_log::log::LevelFilter::Warn)
        .ignore_crate("fuser::reply");
    if let Err(e) = tracer.init() {
        tracing::debug!("fuser logs elsewhere: {e}");
    }
}

fn addresses(serve: &Serve) -> Result<Vec<NamedSlave>, WrongUse> {
    if serve.insecure && serve.strict_keys {
        return cli::wrong(
            "--insecure asks no slave for its key: leave out --strict-keys, or --insecure".into(),
        );
    }
    let mut slaves: Vec<NamedSlave> = Vec::new();
    for text in &serve.slaves {
        let named = crate::commands::named(text)?;
        check_key(&named, serve.insecure)?;
        if slaves.iter().any(|slave| slave.address == named.address) {
            return cli::wrong(format!("-c {text} is given twice: give each slave once"));
        }
        slaves.push(named);
    }
    Ok(slaves)
}

fn check_key(slave: &NamedSlave, insecure: bool) -> Result<(), WrongUse> {
    if insecure && slave.key.is_some() {
        let address = &slave.address;
        return cli::wrong(format!(
            "--insecure asks no slave for its key: name it {address}, or leave out --insecure"
        ));
    }
    Ok(())
}

/// The parts of a running master.
struct Daemon {
    places: Places,
    codec: Codec,
    state: Arc<StateDir>,
    identity: Identity,
    passthrough: Arc<Passthrough>,
    mount: Mount,
    barrier: Arc<Barrier>,
    /// With `--passthrough`.
    watch: Option<Arc<Watch>>,
    ship: Ship,
    embedded: Arc<Embedded>,
    /// Network slaves may be talked to in plain TCP.
    insecure: bool,
    /// Of our own key.
    fingerprint: Fingerprint,
    /// Who can reach below the mount.
    below: Vec<String>,
    /// The directory, open for syncfs; its flock keeps other tdfs off.
    directory: OwnedFd,
}

impl Daemon {
    async fn serve(
        serve: &Serve,
        slaves: Vec<NamedSlave>,
        places: &Places,
        root: OwnedFd,
        directory: OwnedFd,
    ) -> anyhow::Result<()> {
        let signals = StopSignals::new().context("take over the signals")?;
        let _over_size = tdfs_host::daemon::ignore_size_limit().context("take over SIGXFSZ")?;
        let state = Arc::new(StateDir::open(&places.state).map_err(|e| WrongUse(e.to_string()))?);
        let key = Key::open(&state).map_err(|e| WrongUse(e.to_string()))?;
        let root_now = Root::of(root.as_fd()).context("identify the directory")?;
        let accepted = Accepted::check(&state, &places.directory, root_now, serve.new)?;
        // Who is refused finds his state as it was: embedded slaves are asked before the identity changes.
        let embedded = Embedded::start(&slaves, &state, serve.adopt)?;
        let (identity, slots) = Identity::open(&state, accepted)?;
        let control = Control::bind(&state).context("bind the control socket")?;
        let codec = if serve.compress == Compress::Lzf { Codec::Lzf } else { Codec::Stored };
        let commit = Commit::new(Arc::clone(identity.log()), slots);
        let passthrough = Arc::new(Passthrough::new(root, commit).context("open the directory")?);
        passthrough.finish_unfinished().context("find out what was in hand when tdfs was killed")?;
        tracing::info!("the key of this master is {}", key.fingerprint());
        if serve.insecure && slaves.iter().any(|slave| embedded::path_of(&slave.address).is_none()) {
            tracing::warn!(
                "--insecure: the tree goes over the network in plain TCP, to whoever answers there"
            );
        }
        let barrier = Arc::new(Barrier::new(session::workers(), random_id()?));
        let below = below_mount(places);
        let trees = (places.directory.as_path(), places.mountpoint.as_path());
        let (mount, watch, session_ended) = session::start(trees, &passthrough, &barrier, serve.passthrough)?;
        // Only now: what a slave is answered before the mount is there could be changed behind our back.
        let ship = Ship::start(ship::Config {
            log: Arc::clone(identity.log()),
            filesystem: identity.filesystem(),
            lineage: identity.lineage(),
            slaves,
            trust: Trust {
                tls: (!serve.insecure).then(|| tls::Client::new(&key)),
                strict: serve.strict_keys,
                repin: cli::command_for("tdfs repin", Side::Master, &places.directory, &places.state),
            },
            codec,
            nodelay: !serve.nagle,
            state: Arc::clone(&state),
            log_bytes_max: serve.log_max,
            resync_rate: serve.resync_rate,
            check: !serve.no_check,
            answerer: Arc::new(Answers::new(Arc::clone(&passthrough), codec)),
            connect_embedded: embedded.connector(),
        })?;
        let places = places.clone();
        let daemon = Arc::new(Daemon {
            places,
            codec,
            state,
            identity,
            passthrough,
            mount,
            barrier,
            watch,
            ship,
            embedded,
            insecure: serve.insecure,
            fingerprint: key.fingerprint(),
            below,
            directory,
        });
        daemon.run(control, signals, session_ended).await;
        daemon.stop().await
    }

    /// Runs until a signal comes or the mount goes.
    async fn run(
        self: &Arc<Self>,
        control: Control,
        signals: StopSignals,
        session_ended: oneshot::Receiver<()>,
    ) {
        let answering = tokio::spawn(self.clone().answer_commands(control));
        let syncing = tokio::spawn(self.clone().sync_often());
        let passthrough = Arc::clone(&self.passthrough);
        tokio::task::spawn_blocking(move || passthrough.find_lost());
        let places = &self.places;
        tracing::info!(
            "{} is mirrored, mounted on {}",
            places.directory.display(),
            places.mountpoint.display()
        );
        tokio::select! {
            signal = signals.first() => {
                tracing::info!("{signal}: ending");
                self.detach().await;
            }
            _ = session_ended => tracing::info!("the mount was taken away: ending"),
        }
        answering.abort();
        syncing.abort();
    }

    /// Takes the mount away so that nothing is lost that an application has stored.
    async fn detach(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            if let Err(e) = this.write_back() {
                tracing::warn!("write mapped pages out: {e}");
            }
            if let Err(e) = this.mount.unmount() {
                tracing::warn!("{e:#}");
            }
        });
        // A panic ends the process, so joining can't fail.
        let _ = done.await;
    }

    async fn stop(self: Arc<Self>) -> anyhow::Result<()> {
        let proven = self.close().await;
        if !self.ship.drain(DRAIN_MAX).await {
            tracing::info!("slaves lack records; they get them when tdfs runs again");
        }
        self.ship.stop().await;
        self.embedded.stop().await;
        let this = Arc::clone(&self);
        let synced = tokio::task::spawn_blocking(move || {
            rustix::fs::syncfs(&this.directory).context("sync the directory")?;
            this.identity.mark_ended(&this.state, proven)
        });
        synced.await.context("mark the state clean")??;
        tracing::info!("ended");
        Ok(())
    }

    /// Lets nothing change any more, nor be answered to slaves: others can change the directory now. Files that
    /// are still open get ENOTCONN when the process ends. True if every change is surely in the log.
    async fn close(self: &Arc<Self>) -> bool {
        let this = Arc::clone(self);
        let closed = tokio::task::spawn_blocking(move || {
            let found = this.passthrough.lost().wait_until_found(DRAIN_MAX);
            this.passthrough.lost().close();
            std::mem::forget(this.passthrough.commit().order().exclusive());
            found && this.passthrough.commit().trouble().is_none()
        });
        match tokio::time::timeout(2 * DRAIN_MAX, closed).await {
            Ok(Ok(true)) => true,
            _ => {
                tracing::warn!(
                    "a change of the backing tree could not be recorded in time: slaves are made equal by a \
                     resync when tdfs runs again"
                );
                false
            }
        }
    }

    /// Has the kernel write out all dirty pages of mapped files, and waits until they and what was stored past us are recorded.
    fn write_back(&self) -> std::io::Result<()> {
        self.mount.sync()?;
        self.barrier.pass(self.mount.mountpoint(), WRITE_BACK_MAX)?;
        if let Some(watch) = &self.watch {
            watch.settle();
        }
        Ok(())
    }

    /// Once a second: tree and log go to the disk, and slaves hear up to where. A log that has failed is replaced
    /// by that of a new epoch.
    async fn sync_often(self: Arc<Self>) {
        let mut synced = None;
        let mut complaint = None;
        loop {
            tokio::time::sleep(SYNC_INTERVAL).await;
            if self.passthrough.commit().trouble().is_some() {
                let this = Arc::clone(&self);
                match tokio::task::spawn_blocking(move || this.begin_epoch()).await {
                    Ok(Ok(())) => complaint = None,
                    Ok(Err(e)) => {
                        let why = format!("begin a new epoch: {e:#}; trying again");
                        if complaint.as_ref() != Some(&why) {
                            tracing::error!("{why}");
                        }
                        complaint = Some(why);
                    }
                    Err(_) => return, // the runtime ends
                }
                continue;
            }
            let now = self.identity.log().extent();
            if synced == Some((now.epoch, now.head)) {
                continue;
            }
            let this = Arc::clone(&self);
            let done = tokio::task::spawn_blocking(move || {
                let Extent { epoch, head, .. } = this.identity.log().extent();
                rustix::fs::syncfs(&this.directory)?;
                this.identity.log().sync()?;
                this.ship.set_durable(Position { epoch, lsn: head });
                anyhow::Ok((epoch, head))
            });
            match done.await {
                Ok(Ok(done)) => synced = Some(done),
                Ok(Err(e)) => tracing::error!("sync tree and log: {e:#}"),
                Err(_) => return, // the runtime ends
            }
        }
    }

    /// Replaces a log that could not take a record.
    fn begin_epoch(&self) -> anyhow::Result<()> {
        let next = self.identity.prepare_epoch(&self.state)?;
        self.ship.expect_epoch(self.identity.lineage());
        self.passthrough.commit().begin_epoch(next);
        self.ship.epoch_began();
        let number = self.identity.log().epoch().number;
        tracing::warn!(
            "epoch {number} has begun: changes are recorded again, slaves are made equal by resync"
        );
        Ok(())
    }
}
