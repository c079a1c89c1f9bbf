//! The commands, one file each: its arguments and its `run`. The only room that prints and reads the environment.

mod build;
mod cache;
mod check;
mod diff;
mod dist;
mod explain;
mod generate;
mod help;
mod init;
mod lock;
mod log;
mod network;
mod out;
mod plan;
mod project;
mod run;
mod shell;
mod verify;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::base::Exit;
use crate::sandbox;
use crate::steps::Failure;
pub use shell::Shell;
use shell::Stop;

/// Builds small language models: one manifest in, one reproducible bundle for each device out.
#[derive(Debug, Parser)]
#[command(name = "slmops", version, max_term_width = 100, disable_help_subcommand = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// Work in this folder
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true, help_heading = "Everywhere")]
    directory: Option<PathBuf>,
    /// Colours: auto | always | never
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto", hide_default_value = true, help_heading = "Everywhere")]
    color: shell::Color,
    /// Say only what is wrong
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    quiet: bool,
    /// Write JSON to stdout
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Check(check::Check),
    Plan(plan::Plan),
    Build(build::Build),
    Explain(explain::Explain),
    Out(out::Out),
    Log(log::Log),
    Lock(lock::Lock),
    Run(run::Run),
    Diff(diff::Diff),
    Verify(verify::Verify),
    Cache(cache::Cache),
    Help(help::Help),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// Runs the command line of this process.
pub fn main() -> Exit {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let shell = match Shell::new(&arguments.global) {
        Ok(shell) => shell,
        Err(stop) => return Shell::plain().stopped(stop),
    };
    if let Ok(program) = std::env::current_exe() {
        sandbox::set_helper(program);
    }
    // The panic's own message is on stderr by then; what is left to do is to say whose fault it is.
    match catch_unwind(AssertUnwindSafe(|| arguments.command.run(&shell))) {
        Ok(Ok(exit)) => exit,
        Ok(Err(stop)) => shell.stopped(stop),
        Err(_) => shell.stopped(Stop::Failure(Failure::bug("slmops has panicked"))),
    }
}

/// The command line as clap sees it: for completions, man pages and the reference.
pub fn command() -> clap::Command {
    Arguments::command()
}

impl Command {
    fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        match self {
            Command::Init(command) => command.run(shell),
            Command::Check(command) => command.run(shell),
            Command::Plan(command) => command.run(shell),
            Command::Build(command) => command.run(shell),
            Command::Explain(command) => command.run(shell),
            Command::Out(command) => command.run(shell),
            Command::Log(command) => command.run(shell),
            Command::Lock(command) => command.run(shell),
            Command::Run(command) => command.run(shell),
            Command::Diff(command) => command.run(shell),
            Command::Verify(command) => command.run(shell),
            Command::Cache(command) => command.run(shell),
            Command::Help(command) => command.run(shell),
            Command::Completions(command) => command.run(shell),
            Command::Man(command) => command.run(shell),
        }
    }
}

/// `--help` and `--version` go to stdout and are no mistake; the rest is the user's flags.
fn usage(error: &clap::Error) -> Exit {
    let shown: io::Result<()> = error.print();
    if error.use_stderr() || shown.is_err() { Exit::Usage } else { Exit::Done }
}
