//! Starts the master daemon.

fn main() -> std::process::ExitCode {
    tdfs::main_from_args()
}
