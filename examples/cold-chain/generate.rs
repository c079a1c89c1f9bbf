//! Writes the example's data files: `cargo run --release --example generate-cold-chain [FOLDER]`. The same files every time, on every machine.

mod generator;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("examples/cold-chain/data"), PathBuf::from);
    match generator::write_all(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write to `{}`: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
