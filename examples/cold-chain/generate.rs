//! Writes the example's data files: `cargo run --example generate-cold-chain [FOLDER]`. The same files every time, on every machine. With `gold`
//! behind the folder it writes `gold.jsonl` instead: the right answers that nobody has.

mod generator;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("examples/cold-chain/data"), PathBuf::from);
    let wants_gold = std::env::args().nth(2).is_some_and(|what| what == "gold");
    match if wants_gold { generator::write_gold(&folder) } else { generator::write_all(&folder) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write to `{}`: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
