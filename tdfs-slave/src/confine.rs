//! Takes from this process, before it talks to anyone, what it does not need: so that whoever takes it over gets a
//! replica and its state, and nothing else of the machine.
//!
//! Called by `daemon` on the thread that starts all others, which inherit it. Never by an embedded slave: that is part
//! of tdfs. No seccomp filter: replaying takes most calls on files that there are, and a list of all that Rust, libc
//! and tokio make besides would be long, different on each machine, and wrong one day.

use crate::checks::Places;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::path::Path;
use tracing::{info, warn};

/// What replaying takes of root's rights: owners, getting in, modes and times of what others own, setgid that stays,
/// device nodes, file capabilities, and, for `trusted.` xattrs, what the kernel asks for.
pub const REPLAYING: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_ADMIN);

/// The newest Landlock that is asked for; of an older kernel's, what it can.
const NEWEST: ABI = ABI::V7;
/// With the first Landlock no name can be moved to another directory.
const OLDEST: ABI = ABI::V2;
/// Where replaying looks once, to tell a crash of the machine from a kill.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Confines the calling thread, and all that it starts.
///
/// # Errors
/// When the kernel refuses what it has; what it does not have is said in the log.
pub fn confine(places: &Places, trusted_xattrs: bool) -> anyhow::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    keep_capabilities(if trusted_xattrs { REPLAYING } else { REPLAYING - CapabilitySet::SYS_ADMIN })?;
    reach_only(places)
}

/// Gives up all capabilities but `wanted`, in every set, for good.
fn keep_capabilities(wanted: CapabilitySet) -> Result<(), Errno> {
    rustix::thread::clear_ambient_capability_set()?;
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Err(Errno::INVAL) => break, // there are no more
            Ok(true) if !wanted.contains(one) => {
                match rustix::thread::remove_capability_from_bounding_set(one) {
                    // Who may not is no root, and can't get any: no new privileges.
                    Err(Errno::PERM) => break,
                    done => done?,
                }
            }
            asked => drop(asked?),
        }
    }
    let kept = rustix::thread::capabilities(None)?.permitted & wanted;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}

/// Landlock: the replica, the state, no other file; no socket to anywhere, no signal to others.
fn reach_only(places: &Places) -> anyhow::Result<()> {
    let ruleset = landlock::Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(OLDEST));
    let ruleset = match ruleset {
        Ok(ruleset) => ruleset.set_compatibility(CompatLevel::BestEffort),
        Err(why) => {
            warn!("this kernel does not confine the slave to its replica (Landlock since Linux 5.19): {why}");
            return Ok(());
        }
    };
    let created = ruleset
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rule(beneath(&places.directory, in_replica())?)?
        .add_rule(beneath(&places.state, in_state())?)?
        .add_rule(beneath(Path::new(BOOT_ID), AccessFs::ReadFile.into())?)?;
    let status = created.restrict_self()?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => {}
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            info!("this kernel confines the slave in part (Landlock {effective_abi:?} of {NEWEST:?})");
        }
        (_, landlock) => warn!("this kernel does not confine the slave to its replica: {landlock:?}"),
    }
    Ok(())
}

fn beneath(path: &Path, access: BitFlags<AccessFs>) -> anyhow::Result<PathBeneath<PathFd>> {
    Ok(PathBeneath::new(PathFd::new(path)?, access))
}

/// All but to run a program, and to control a device.
fn in_replica() -> BitFlags<AccessFs> {
    AccessFs::from_all(NEWEST) & !(AccessFs::Execute | AccessFs::IoctlDev)
}

/// Files, and the control socket.
fn in_state() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::RemoveFile
        | AccessFs::MakeReg
        | AccessFs::MakeSock
}

/// What this process may do that changes what a replica can carry: its effective capabilities.
pub fn rights() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}
