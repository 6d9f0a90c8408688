//! What a running tdfs answers to its commands.
//!
//! Called by `daemon` for each request on the control socket, on threads that may block.

use super::{Daemon, FIND_LOST_MAX, check_key};
use crate::embedded;
use crate::ship::{CONFIRM, NamedSlave, SlaveAddress};
use crate::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tdfs_host::control::{Answer, Control, Request};
use tdfs_wire::frame::Codec;

/// Comparisons are told apart by these, also from those of an earlier tdfs.
static VERIFY_LAST: AtomicU64 = AtomicU64::new(0);

impl Daemon {
    pub(super) async fn answer_commands(self: Arc<Self>, control: Control) {
        control
            .serve(move |request| {
                let this = Arc::clone(&self);
                async move {
                    let answered = tokio::task::spawn_blocking(move || this.answer(request)).await;
                    match answered {
                        Ok(Ok(value)) => Answer::Ok(value),
                        Ok(Err(why)) => Answer::Error(why),
                        Err(e) => Answer::Error(e.to_string()),
                    }
                }
            })
            .await;
    }

    fn answer(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::Status => self.told_status(),
            Request::Sync => {
                self.write_back().map_err(|e| format!("write mapped pages out: {e}"))?;
                // Their checks are records, too, which the caller wants to see applied.
                self.passthrough.lost().wait_until_found(FIND_LOST_MAX);
                self.told_status()
            }
            Request::Resync { slaves, checksum, confirm } => {
                for slave in self.named(&slaves)? {
                    if confirm {
                        self.ship.confirm(&slave, checksum);
                    } else {
                        self.ship.resync(&slave, checksum);
                    }
                }
                Ok(Value::Null)
            }
            Request::Verify { slaves, repair } => {
                let (slaves, id) = (self.named(&slaves)?, new_verify_id());
                for slave in &slaves {
                    self.ship.verify(slave, id, repair);
                }
                let slaves: Vec<String> = slaves.iter().map(ToString::to_string).collect();
                Ok(json!({ "id": id, "slaves": slaves }))
            }
            Request::Verified { id, slave, from } => {
                let gone = || format!("the comparison with {slave} was given up for another one");
                let status = self.ship.verified(&address(&slave)?, id, from).ok_or_else(gone)?;
                serde_json::to_value(status).map_err(|e| e.to_string())
            }
            Request::CancelVerify { id } => {
                self.ship.cancel_verify(id);
                Ok(Value::Null)
            }
            Request::Add { slave } => self.add(slave.parse()?),
            Request::Forget { slave } => self.forget(&address(&slave)?),
            Request::Repin { slave } => self.ship.repin(&slave.parse()?).map(|()| Value::Null),
            Request::Allow { .. } | Request::Disallow { .. } | Request::Allowed => {
                Err("masters are allowed on the slave: see tdfs-slave(8)".into())
            }
        }
    }

    /// Those slaves, or all; a name that is none of theirs is an error.
    fn named(&self, slaves: &[String]) -> Result<Vec<SlaveAddress>, String> {
        let all = self.ship.addresses();
        if slaves.is_empty() {
            return Ok(all);
        }
        let one = |slave: &String| {
            let address = address(slave)?;
            if all.contains(&address) { Ok(address) } else { Err(unknown(&address)) }
        };
        slaves.iter().map(one).collect()
    }

    fn add(&self, slave: NamedSlave) -> Result<Value, String> {
        check_key(&slave, self.insecure).map_err(|e| e.to_string())?;
        if self.ship.addresses().contains(&slave.address) {
            return Err(format!("{} is a slave already", slave.address));
        }
        if let Some(path) = embedded::path_of(&slave.address) {
            self.places.check_replica(path).map_err(|e| e.to_string())?;
            self.embedded.add(path, false).map_err(|e| format!("{e:#}"))?;
        }
        self.ship.add(slave);
        Ok(Value::Null)
    }

    fn forget(&self, slave: &SlaveAddress) -> Result<Value, String> {
        let runtime = tokio::runtime::Handle::current();
        let known = runtime.block_on(self.ship.forget(slave));
        if let Some(path) = embedded::path_of(slave) {
            runtime.block_on(self.embedded.remove(path));
        }
        if known { Ok(Value::Null) } else { Err(unknown(slave)) }
    }

    fn told_status(&self) -> Result<Value, String> {
        serde_json::to_value(self.status()).map_err(|e| e.to_string())
    }

    fn status(&self) -> Status {
        let log = self.identity.log();
        let trouble = self.passthrough.commit().trouble();
        let lost = self.passthrough.lost().is_pending(); // before the head: when it is over, its record is in
        let head = log.head().get();
        let mut slaves = self.ship.status();
        for slave in &mut slaves {
            slave.checking |= lost;
            slave.needs_resync |= trouble.is_some();
            slave.not_carried.extend(self.passthrough.left_out().words());
            if slave.resync.as_ref().is_some_and(|resync| resync.phase == CONFIRM) {
                slave.last_error = Some(self.asks_to_confirm(&slave.address));
            }
        }
        Status {
            role: "master".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            directory: self.places.directory.clone(),
            mountpoint: self.places.mountpoint.clone(),
            filesystem: self.identity.filesystem().to_string(),
            fingerprint: self.fingerprint,
            insecure: self.insecure,
            codec: if self.codec == Codec::Lzf { "lzf" } else { "none" }.into(),
            epoch: log.epoch().number,
            head,
            last_error: trouble.map(|why| format!("{why}: changes are not recorded, a new epoch will begin")),
            below_mount: self.below.clone(),
            slaves,
        }
    }

    /// What a resync says that waits for a human.
    fn asks_to_confirm(&self, slave: &str) -> String {
        let directory = self.places.directory.display();
        format!(
            "the resync would remove more than half of the replica: see that {directory} is as it should be, then \
             allow it by: tdfs resync -m {directory} -c {slave} --confirm"
        )
    }
}

fn address(text: &str) -> Result<SlaveAddress, String> {
    text.parse()
}

fn unknown(slave: &SlaveAddress) -> String {
    format!("{slave} is no slave of this tdfs: `tdfs status` lists them")
}

fn new_verify_id() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(0);
    VERIFY_LAST.fetch_max(now, Ordering::Relaxed);
    VERIFY_LAST.fetch_add(1, Ordering::Relaxed)
}
