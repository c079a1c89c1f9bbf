//! `[exec.NAME]`: a command of the user's own as a step. It runs in a sandbox, so that nothing undeclared can reach its output.

mod limits;
mod settle;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Arity, Artifact, Declared, Failure, Field, Io, Kind, Params, Part, PartPort, Problem, Task, Type, typed};
use crate::base::{Exit, files, rfc3339, trouble};
use crate::bundle::paths;
use crate::sandbox::{self, Access, Ended, Job, Mount, Said, SandboxError};
use limits::{Limits, OUT, TMP};

pub static KIND: ExecKind = ExecKind;

#[derive(Debug)]
pub struct ExecKind;

/// Whatever a step or source can be.
const ANYTHING: &[Artifact] = &[
    Artifact::Files,
    Artifact::Dataset,
    Artifact::Tokenizer,
    Artifact::Model,
    Artifact::Quantized,
    Artifact::Imatrix,
    Artifact::Labels,
    Artifact::Report,
    Artifact::Verdict,
    Artifact::Bundle,
];

static FIELDS: &[Field] = &[
    Field::required("command", Type::List(&Type::String), "The program and its arguments, with the sandbox's paths. No shell reads it."),
    Field::default("inputs", Type::NamedRefs(ANYTHING), "{}", "NAME = step or source: a file or folder, read-only at `/in/NAME`."),
    Field::default(
        "tools",
        Type::NamedRefs(&[Artifact::Files]),
        "{}",
        "NAME = source: a program at `/tools/NAME`, executable; or a folder there.",
    ),
    Field::optional(
        "root",
        Type::Ref(Arity::One, &[Artifact::Files]),
        "A folder whose entries (`bin`, `lib`, `usr` …) appear in `/`, read-only.",
    ),
    Field::default(
        "outputs",
        Type::List(&Type::String),
        "[]",
        "Names of folders that it fills below `/out`; others refer to them as `STEP.NAME`. Without them, `/out` is one output.",
    ),
    Field::default("env", Type::Map(&Type::String), "{}", "Environment variables besides the fixed ones."),
    Field::optional(
        "resources",
        Type::Table(limits::FIELDS),
        "What the step takes while it runs, and what its command may take at most. Reaches no result: a command that reaches a limit fails.",
    ),
];

/// Where programs are looked for.
const PATH: &str = "/tools:/usr/local/bin:/usr/bin:/bin";
/// Variables that are the same in every sandbox.
const FIXED: [&str; 5] = ["HOME", "LC_ALL", "PATH", "SOURCE_DATE_EPOCH", "TZ"];
/// Entries of a root folder that would hide the sandbox's own.
const OWN_FOLDERS: [&str; 5] = ["dev", "in", "out", "tmp", "tools"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    command: Vec<String>,
    /// With the fixed ones, so that they are part of the key.
    environment: BTreeMap<String, String>,
    outputs: Vec<String>,
    /// Only if it is not the usual number: the command can see it.
    #[serde(default = "usual_open_files")]
    open_files: u64,
    #[serde(default)]
    limits: Limits,
}

fn usual_open_files() -> u64 {
    limits::OPEN_FILES
}

impl Kind for ExecKind {
    fn name(&self) -> &'static str {
        "exec"
    }

    /// 2: what a command sees of its inputs besides their contents (times, permissions, empty folders, links) is the same everywhere.
    fn revision(&self) -> u32 {
        2
    }

    fn is_foreign(&self) -> bool {
        true
    }

    fn summary(&self) -> &'static str {
        "Run a command of your own in a sandbox"
    }

    fn help(&self) -> &'static str {
        include_str!("help.md")
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn unkeyed(&self) -> &'static [&'static str] {
        &["limits"]
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        let problems = problems(declared);
        if !problems.is_empty() {
            return Err(problems);
        }
        let outputs = strings(&declared.params, "outputs");
        let mut params = Params::new();
        params.insert("command".to_string(), declared.params.get("command").cloned().unwrap_or_default());
        params.insert("environment".to_string(), environment(declared));
        params.insert("outputs".to_string(), outputs.iter().copied().collect());
        params.insert("limits".to_string(), Limits::of(&declared.params).to_param());
        let open_files = limits::open_files(&declared.params);
        if open_files != limits::OPEN_FILES {
            params.insert("open_files".to_string(), open_files.into());
        }
        let named = |name: &str| name == "root" || name.starts_with("inputs.") || name.starts_with("tools.");
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Files,
            outputs: outputs.iter().map(|name| (name.to_string(), Artifact::Files)).collect(),
            task: Task { action: "exec", params },
            inputs: declared.ports.iter().filter(|port| named(&port.name)).map(|port| PartPort::pass(declared, &port.name)).collect(),
            resources: limits::resources(&declared.params),
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        let order: Order = typed(&task.params)?;
        let scratch = io.scratch();
        create(&scratch)?;
        close(&io.out)?;
        for name in &order.outputs {
            create(&io.out.join(name))?;
        }
        let job = job(&order, io, &scratch)?;
        let ended = sandbox::run(&job, &scratch, &io.cancel, &mut |said| tell(io, &said)).map_err(sandbox_failure)?;
        let program = order.command.first().map_or("", String::as_str);
        match ended {
            Ended::Exited(0) => {}
            Ended::Exited(code) => return Err(Failure::new(format!("`{program}` ended with exit code {code}"))),
            Ended::Killed(signal) => return Err(Failure::new(format!("`{program}` was ended by signal {signal}"))),
        }
        job.limits.folders.iter().filter(|limit| limit.shown == OUT).try_for_each(|limit| settle::settle(limit, &io.cancel))?;
        check_outputs(&order, &io.out)
    }
}

/// What the machine does not give is said once in a build, before the command has printed anything.
fn tell(io: &Io, said: &Said) {
    match said {
        Said::Line(line) => io.say(line),
        Said::Gaps([]) => {}
        Said::Gaps(gaps) => io.warn_of_machine(format!("sandboxes of `exec` steps lack something on this machine: {}", gaps.join("; "))),
    }
}

/// To other users of this machine.
const CLOSED: u32 = 0o700;

/// While the command runs, no other user of this machine may come near what it writes: a setuid program of root's, say. The output folder itself is the command's
/// to open to everybody, so the one around it is closed.
fn close(out: &Path) -> Result<(), Failure> {
    let around = out.parent().unwrap_or(out);
    for (folder, mode) in [(around, CLOSED), (out, 0o755)] {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).map_err(|error| Failure::file("set the mode of", folder, &error))?;
    }
    Ok(())
}

fn problems(declared: &Declared) -> Vec<Problem> {
    let mut problems = Vec::new();
    let command = strings(&declared.params, "command");
    if command.first().is_none_or(|program| program.is_empty()) {
        problems.push(Problem::at("command", "the command is empty").label("expected a program and its arguments"));
    }
    for (i, _) in command.iter().enumerate().filter(|(_, text)| text.contains('\0')) {
        problems.push(Problem::at(format!("command.{i}"), "an argument cannot hold a NUL character"));
    }
    let has = |prefix: &str| declared.ports.iter().any(|port| port.name.starts_with(prefix));
    if !has("tools.") && !has("root") {
        problems.push(
            Problem::at("", "the sandbox would be empty: there is no program to run")
                .help("declare a static program with `tools = { NAME = \"SOURCE\" }`, or a folder with programs and libraries with `root = \"SOURCE\"`"),
        );
    }
    for port in &declared.ports {
        let Some((_, name)) = port.name.split_once('.') else { continue };
        if !is_file_name(name) {
            problems.push(Problem::at(&port.name, format!("`{name}` cannot be a file's name")));
        }
        if port.inputs.len() != 1 {
            let variants: Vec<&str> = port.inputs.iter().map(|input| input.label.as_str()).collect();
            problems.push(Problem::at(&port.name, format!("`{name}` takes one input, not {}", variants.len())).help(variants.join(", ")));
        }
    }
    let outputs = strings(&declared.params, "outputs");
    for (i, name) in outputs.iter().enumerate() {
        if !is_file_name(name) || name.contains('.') {
            problems.push(
                Problem::at(format!("outputs.{i}"), format!("`{name}` cannot be an output's name")).help("letters, digits, `_` and `-`"),
            );
        }
        if outputs.iter().take(i).any(|other| other == name) {
            problems.push(Problem::at(format!("outputs.{i}"), format!("output `{name}` stands there twice")));
        }
    }
    for name in declared.params.get("env").and_then(Value::as_object).into_iter().flat_map(|map| map.keys()) {
        if FIXED.contains(&name.as_str()) {
            problems
                .push(Problem::at(format!("env.{name}"), format!("`{name}` is fixed in the sandbox, so that results do not depend on it")));
        } else if name.is_empty() || name.contains(['=', '\0']) {
            problems.push(Problem::at("env", format!("`{}` cannot be a variable's name", name.escape_default())));
        }
    }
    problems
}

fn is_file_name(name: &str) -> bool {
    paths::check(name).is_ok() && !name.contains('/')
}

fn strings<'a>(params: &'a Params, field: &str) -> Vec<&'a str> {
    params.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn environment(declared: &Declared) -> Value {
    let created = declared.project.created.as_deref().and_then(rfc3339::parse).unwrap_or(0);
    let mut environment = declared.params.get("env").and_then(Value::as_object).cloned().unwrap_or_default();
    let fixed = [("HOME", "/tmp"), ("LC_ALL", "C"), ("PATH", PATH), ("TZ", "UTC")];
    environment.extend(fixed.map(|(name, value)| (name.to_string(), Value::from(value))));
    environment.insert("SOURCE_DATE_EPOCH".to_string(), Value::from(created.max(0).to_string()));
    Value::Object(environment)
}

fn job(order: &Order, io: &Io, scratch: &Path) -> Result<Job, Failure> {
    let temporary = scratch.join("tmp");
    create(&temporary)?;
    let root = io.maybe("root").map(Path::to_path_buf);
    if let Some(root) = &root {
        check_root(root)?;
    }
    let mut mounts = vec![
        Mount { from: io.out.clone(), to: OUT.to_string(), access: Access::Write },
        Mount { from: temporary.clone(), to: TMP.to_string(), access: Access::Write },
    ];
    for (port, _) in &io.inputs {
        if let Some(name) = port.strip_prefix("inputs.") {
            mounts.push(Mount { from: io.one(port)?.to_path_buf(), to: format!("/in/{name}"), access: Access::Read });
        } else if let Some(name) = port.strip_prefix("tools.") {
            let from = tool(io.one(port)?)?;
            mounts.push(Mount { from, to: format!("/tools/{name}"), access: Access::Read });
        }
    }
    let limits = order.limits.for_sandbox(order.open_files, &io.out, &temporary);
    let Order { command, environment, .. } = order;
    Ok(Job { command: command.clone(), environment: environment.clone(), working_folder: OUT.to_string(), root, mounts, limits })
}

/// A single file becomes executable: sources need not have kept the mode. The file is the step's own copy.
fn tool(from: &Path) -> Result<PathBuf, Failure> {
    if !files::is_folder(from).map_err(|error| Failure::file("read", from, &error))? {
        fs::set_permissions(from, fs::Permissions::from_mode(0o555)).map_err(|error| Failure::file("set the mode of", from, &error))?;
    }
    Ok(from.to_path_buf())
}

fn check_root(root: &Path) -> Result<(), Failure> {
    if !files::is_folder(root).map_err(|error| Failure::file("read", root, &error))? {
        return Err(Failure::new("`root` is a file; it must be a folder whose entries are to appear in `/`"));
    }
    let names = files::names(root).map_err(|error| Failure::file("read", root, &error))?;
    match OWN_FOLDERS.into_iter().find(|own| names.iter().any(|name| name == own)) {
        Some(name) => Err(Failure::new(format!("`root` has an entry `{name}`, which the sandbox needs for itself"))),
        None => Ok(()),
    }
}

fn check_outputs(order: &Order, out: &Path) -> Result<(), Failure> {
    let names = |folder: &Path| crate::base::files::names(folder).map_err(|error| Failure::file("read", folder, &error));
    for name in &order.outputs {
        let folder = out.join(name);
        if !files::is_folder(&folder).map_err(|error| Failure::file("read", &folder, &error))? || names(&folder)?.is_empty() {
            return Err(Failure::new(format!("the command left nothing in its output `/out/{name}`")));
        }
    }
    match names(out)?.iter().find(|name| !order.outputs.is_empty() && !order.outputs.iter().any(|output| *name == output.as_str())) {
        Some(name) => Err(Failure::new(format!("the command wrote `/out/{}`, which is none of its `outputs`", name.display()))),
        None if names(out)?.is_empty() => Err(Failure::new("the command left nothing in `/out`")),
        None => Ok(()),
    }
}

/// A folder with the same permissions under every umask: the command sees them.
fn create(folder: &Path) -> Result<(), Failure> {
    let created = fs::create_dir(folder).and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)));
    created.map_err(|error| Failure::file("create", folder, &error))
}

fn sandbox_failure(error: SandboxError) -> Failure {
    let message = error.to_string();
    match error {
        SandboxError::Cancelled => Failure::cancelled(),
        SandboxError::Reached(reached) => limits::failure(&reached),
        SandboxError::Unavailable { help, .. } => Failure::environment(message).help(help),
        SandboxError::NotStarted { help, .. } => Failure { message, help, exit: Exit::Failed },
        SandboxError::Io { doing, error } => {
            Failure { help: trouble::thread_hint(&error).map(str::to_string), ..Failure::io(&format!("cannot {doing}"), &error) }
        }
        SandboxError::NoHelper => Failure::bug(message),
    }
}
