//! Parses, runs, exits.

use std::process::ExitCode;

use slmops::base::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    if let Some(code) = slmops::sandbox::init::run_if_asked() {
        return code;
    }
    ExitCode::from(slmops::cli::main().code())
}
