//! fsx: random reads, writes, mapped stores, truncations and copies on one file, checked after each.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::daemon::end_of;
use harness::{Cluster, ClusterBuilder, long_form};

use crate::known::{Known, Outcome};
use crate::tools;

const VERSION: &str = "0.3.2";
const LIMIT: Duration = Duration::from_secs(300);

const CONFIG: &str = "
flen = 262144

[opsize]
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
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
";

/// tdfs.8: "An application can't tell the mount from the backing tree".
#[test]
fn fsx_passes_through_the_mount() {
    let Some(program) = tools::require("fsx_passes_through_the_mount", "fsx", VERSION) else { return };
    passes(&program, Cluster::builder(harness::binaries!()).embedded().compressed());
}

/// The same where the kernel reads files itself.
#[test]
fn fsx_passes_with_passthrough() {
    let Some(program) = tools::require("fsx_passes_with_passthrough", "fsx", VERSION) else { return };
    passes(&program, Cluster::builder(harness::binaries!()).embedded().flag("--passthrough"));
}

fn passes(program: &Path, builder: ClusterBuilder) {
    let (seeds, operations) = if long_form() { (20, 20_000) } else { (2, 2_000) };
    let cluster = builder.start();
    let config = cluster.tree.path().join("fsx.toml");
    std::fs::write(&config, CONFIG).expect("write the configuration");
    let artifacts = cluster.tree.dir("artifacts").expect("make a directory for what fsx leaves");
    let mut outcome = Outcome::default();
    for seed in 1..=seeds {
        let case = format!("seed {seed}");
        let mut command = Command::new(program);
        command.arg("-q").arg("-f").arg(&config).arg("-P").arg(&artifacts);
        command.arg("-S").arg(seed.to_string()).arg("-N").arg(operations.to_string());
        command.arg(cluster.mount().join(format!("file-{seed}")));
        match run(command, &artifacts) {
            Ok(()) => drop(outcome.passed.insert(case)),
            Err(said) => drop(outcome.failed.insert(case, said)),
        }
    }
    let differences = Known::of("fsx").differences(&outcome);
    assert!(differences.is_empty(), "fsx:\n  {}", differences.join("\n  "));
    cluster.finish();
}

fn run(command: Command, artifacts: &Path) -> Result<(), String> {
    let output = end_of(command, LIMIT).map_err(|error| format!("{error:#}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Err(format!("{}: {said} (TDFS_KEEP=1 keeps {})", output.status, artifacts.display()))
}
