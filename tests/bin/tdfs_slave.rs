//! The slave daemon as a program of this package, so that the tests can start and kill it.

fn main() -> std::process::ExitCode {
    tdfs_slave::main_from_args()
}
