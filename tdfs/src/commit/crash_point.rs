//! Crash points: where tests kill the master, between any two system calls that change the tree or the log.
//!
//! Called by `commit` and `passthrough`. Compiled to nothing without the feature `failpoints`.

/// A kill can come here. With the feature, the file that TDFS_CRASH_FILE names tells after how many of them: it
/// holds that number, counts down at each, and at 1 goes and takes the process with it.
#[cfg(feature = "failpoints")]
pub fn crash_point(name: &str) {
    use parking_lot::Mutex;
    static COUNTING: Mutex<()> = Mutex::new(());
    let Some(file) = std::env::var_os("TDFS_CRASH_FILE") else { return };
    let _alone = COUNTING.lock();
    let Some(left) = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok())
    else {
        return;
    };
    if left > 1 {
        std::fs::write(&file, (left - 1).to_string()).expect("count a crash point");
        return;
    }
    std::fs::remove_file(&file).expect("end the counting of crash points");
    tracing::info!("killed at the crash point {name:?}");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .expect("kill this process");
}

/// A kill can come here.
#[cfg(not(feature = "failpoints"))]
pub fn crash_point(_name: &str) {}
