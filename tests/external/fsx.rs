//! fsx: random reads, writes, mapped stores, truncations and copies on one file, checked after each.
//!
//! All 14 operations that fsx 0.3.2 has. Every second pair of seeds leaves mapped stores to the kernel (no msync). With
//! `--passthrough` every second seed has its file held open to read by somebody else: only then is it passed on.

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::Cluster;
use harness::daemon::end_of;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::known::{Known, Outcome};
use crate::tools;
use harness::modes;

/// It takes seconds; a busy machine takes longer.
const LIMIT: Duration = Duration::from_secs(600);

/// Not of 0 bytes: posix_fallocate(3) refuses that everywhere, and fsx then gives up.
const CONFIG: &str = "
flen = 262144
nomsyncafterwrite = NO_MSYNC

[opsize]
min = 1
max = 65536

[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 3
fsync = 1
fdatasync = 1
posix_fallocate = 1
punch_hole = 1
sendfile = SENDFILE
posix_fadvise = 1
copy_file_range = 2
";

/// The program, and where it may leave what it has to say.
#[derive(Debug)]
pub struct Fsx {
    program: PathBuf,
    home: PathBuf,
    operations: u64,
}

impl Fsx {
    /// None after saying that `test` is skipped. `home` lies outside the mount.
    #[track_caller]
    pub fn new(test: &str, home: &Path, operations: u64) -> Option<Self> {
        let program = tools::require(test, "fsx", "0.3.2")?;
        Some(Self { program, home: home.to_owned(), operations })
    }

    /// Runs these seeds in `place`, each on a file of its own; calls `after` each. `held`: see this file's head.
    pub fn run(&self, place: &Path, seeds: RangeInclusive<u64>, held: bool, after: impl Fn()) -> Outcome {
        let mut outcome = Outcome::default();
        for seed in seeds {
            let case = format!("seed {seed}");
            let file = place.join(format!("file-{seed}"));
            match self.seed(seed, &file, held && seed % 2 == 1) {
                Ok(()) => drop(outcome.passed.insert(case)),
                Err(said) => drop(outcome.failed.insert(case, said)),
            }
            after();
        }
        outcome
    }

    fn seed(&self, seed: u64, file: &Path, is_held: bool) -> Result<(), String> {
        let config = self.home.join("fsx.toml");
        let no_msync = (seed % 4 >= 2).to_string();
        // KNOWN.md has the reason: sendfile may show what was stored in a mapping a moment later.
        let sendfile = if is_held { "0" } else { "2" };
        let text = CONFIG.replace("NO_MSYNC", &no_msync).replace("SENDFILE", sendfile);
        std::fs::write(&config, text).expect("write the configuration");
        let artifacts = self.home.join("artifacts");
        std::fs::create_dir_all(&artifacts).expect("make a directory for what fsx leaves");
        let reader = is_held.then(|| hold(file));
        let mut command = Command::new(&self.program);
        command.arg("-q").arg("-f").arg(&config).arg("-P").arg(&artifacts);
        command.arg("-S").arg(seed.to_string()).arg("-N").arg(self.operations.to_string()).arg(file);
        let output = end_of(command, LIMIT).map_err(|error| format!("{error:#}"))?;
        drop(reader);
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Err(format!("{}: {said} (TDFS_KEEP=1 keeps {})", output.status, artifacts.display()))
    }
}

/// Makes the file and opens it to read. By mknod(2): who opens it to write first has it cached.
fn hold(file: &Path) -> File {
    let mode = Mode::from_raw_mode(0o644);
    mknodat(CWD, file, FileType::RegularFile, mode, 0).expect("make the file");
    File::open(file).expect("hold the file open")
}

/// Waits for the slave and compares.
pub fn compare(cluster: &Cluster) {
    cluster.wait_for(300);
    cluster.assert_equal();
}

/// tdfs.8: "An application can't tell the mount from the backing tree". The long form is the table's.
#[test]
fn fsx_passes_in_every_mode() {
    let mut differences = Vec::new();
    for mode in modes::Mode::ALL {
        let cluster = mode.builder(harness::binaries!()).start();
        let Some(fsx) = Fsx::new("fsx_passes_in_every_mode", cluster.tree.path(), 2_000) else { return };
        let outcome = fsx.run(cluster.mount(), 1..=2, mode.passthrough, || compare(&cluster));
        let found = Known::of("fsx").differences(&outcome).into_iter();
        differences.extend(found.map(|difference| format!("{mode}: {difference}")));
        cluster.finish();
    }
    assert!(differences.is_empty(), "fsx:\n  {}", differences.join("\n  "));
}
