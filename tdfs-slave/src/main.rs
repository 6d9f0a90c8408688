//! The slave daemon.

fn main() -> std::process::ExitCode {
    tdfs_slave::main_from_args()
}
