//! The commands, one file each: its arguments and its `run`. The only room that prints and reads the environment.

mod build;
mod cache;
mod check;
mod diff;
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

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::base::{Exit, process};
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

/// Of the thread that commands run on: what the shell allows the first one (`ulimit -s`) decides nothing.
const STACK_BYTES: usize = 16 << 20;

/// Runs the command line of this process.
pub fn main() -> Exit {
    process::explain_threads_without_memory();
    process::survive_file_size_limit();
    match thread::Builder::new().name("main".to_string()).stack_size(STACK_BYTES).spawn(command_line) {
        // A panic outside of a command has spoken by then.
        Ok(thread) => thread.join().unwrap_or(Exit::Bug),
        // Most commands need no second thread.
        Err(_) => command_line(),
    }
}

fn command_line() -> Exit {
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
    // This very program, even if another one has been installed in its place since.
    sandbox::set_helper("/proc/self/exe");
    // The panic's own message is on stderr by then; what is left to do is to say whose fault it is.
    let ran = catch_unwind(AssertUnwindSafe(|| arguments.command.run(&shell)));
    match ran.unwrap_or_else(|_| Err(Failure::bug("slmops has panicked").into())) {
        Ok(exit) => exit,
        Err(stop) => shell.stopped(stop),
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
    let shown = error.print();
    if error.use_stderr() {
        return Exit::Usage;
    }
    let shell = Shell::plain();
    shell.written(shown.and_then(|()| io::stdout().flush())).map_or_else(|stop| shell.stopped(stop), |()| Exit::Done)
}
