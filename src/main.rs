//! Parses, runs, exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = slmops::sandbox::init::run_if_asked() {
        return code;
    }
    ExitCode::from(slmops::cli::main().code())
}
