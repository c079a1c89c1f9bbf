//! `exec` steps run for real, in sandboxes of this machine's kernel. The tree that they see is put together from this machine's own shell.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;
use slmops::base::{Cancel, Exit};
use slmops::key::{self, Subject};
use slmops::sandbox;
use slmops::steps::io::Listener;
use slmops::steps::{Artifact, Declared, Failure, Input, InputId, Io, Kind, Params, Port, Problem, Project, Task, exec};
use tempfile::TempDir;

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    /// Asked to stop as soon as this line is heard.
    stop_at: Option<(&'static str, Cancel)>,
}

impl Listener for Lines {
    fn line(&self, text: &str) {
        if let Some((line, cancel)) = &self.stop_at
            && text == *line
        {
            cancel.cancel();
        }
        self.lines.lock().unwrap().push(text.to_string());
    }

    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

struct Space {
    dir: TempDir,
    inputs: Vec<(String, Vec<PathBuf>)>,
    params: Params,
    cancel: Cancel,
    listener: Lines,
}

impl Space {
    /// A space whose `root` holds bash and a few tools.
    fn new(script: &str) -> Space {
        sandbox::set_helper(env!("CARGO_BIN_EXE_slmops"));
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        copy_programs(
            &root,
            &[
                "bash", "cat", "ls", "mkdir", "ln", "chmod", "sleep", "touch", "id", "mount", "env", "hostname", "head", "mkfifo",
                "truncate",
            ],
        );
        let mut params = Params::new();
        params.insert("command".into(), json!(["/bin/bash", "-c", script]));
        params.insert("outputs".into(), json!([]));
        params.insert("env".into(), json!({}));
        let inputs = vec![("root".to_string(), vec![root])];
        Space { dir, inputs, params, cancel: Cancel::default(), listener: Lines::default() }
    }

    fn input(mut self, port: &str, name: &str, text: &str) -> Space {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        self.inputs.push((port.to_string(), vec![path]));
        self
    }

    fn declared(&self) -> Declared {
        let port = |(i, (name, _)): (usize, &(String, Vec<PathBuf>))| Port {
            name: name.clone(),
            inputs: vec![Input { id: InputId(i as u32), label: name.clone(), artifact: Artifact::Files }],
        };
        let project =
            Project { name: "p".into(), version: "1.0.0".into(), created: Some("2001-09-09T01:46:40Z".into()), ..Project::default() };
        Declared { name: "step".into(), params: self.params.clone(), ports: self.inputs.iter().enumerate().map(port).collect(), project }
    }

    fn task(&self) -> Task {
        exec::KIND.expand(&self.declared()).unwrap().remove(0).task
    }

    fn run(&self) -> Result<(), Failure> {
        let out = self.dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let mut io = Io {
            inputs: self.inputs.clone(),
            out,
            checkpoint: self.dir.path().join("checkpoint"),
            cancel: self.cancel.clone(),
            threads: 1,
            now: None,
            listener: &self.listener,
        };
        exec::KIND.run(&self.task(), &mut io)
    }

    fn out(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join("out").join(path)).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        self.listener.lines.lock().unwrap().clone()
    }
}

/// Copies programs and the libraries that `ldd` names. Needs a system with a shared libc, as Debian and Fedora are.
fn copy_programs(root: &Path, names: &[&str]) {
    let mut files = BTreeSet::new();
    for name in names {
        let path = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|path| path.exists());
        let path = path.unwrap_or_else(|| panic!("these tests need `{name}` in /usr/bin or /bin"));
        let ldd = Command::new("ldd").arg(&path).output().expect("these tests need `ldd`");
        let text = String::from_utf8(ldd.stdout).unwrap();
        files.extend(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
        let target = root.join("bin").join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    }
    for file in files {
        let target = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

#[test]
fn a_command_reads_its_inputs_and_fills_its_output() {
    let space = Space::new("echo hello; echo trouble >&2; cat /in/data > data.txt; tr < /dev/null; tool > tool.txt")
        .input("inputs.data", "data", "1 2 3\n")
        .input("tools.tool", "script", "#!/bin/bash\necho from a tool\n")
        .input("tools.tr", "true", "#!/bin/bash\n");
    space.run().unwrap();
    assert_eq!((space.out("data.txt").as_str(), space.out("tool.txt").as_str()), ("1 2 3\n", "from a tool\n"));
    let mut lines = space.lines();
    lines.sort();
    assert_eq!(lines, ["hello", "trouble"]);
}

#[test]
fn it_sees_nothing_of_the_machine() {
    let space = Space::new(
        "cd /; for f in *; do echo $f; done > /out/top; ls /tmp > /out/tmp; ls /dev > /out/dev; env > /out/env; hostname > /out/host; id > /out/id; echo $$ > /out/pid; ls / /root /home /proc /sys /etc > /out/ls 2>&1; true",
    );
    space.run().unwrap();
    let top: BTreeSet<String> = space.out("top").lines().map(str::to_string).collect();
    for name in &top {
        assert!(["bin", "dev", "lib", "lib64", "out", "tmp", "usr"].contains(&name.as_str()), "{top:?}");
    }
    assert_eq!(space.out("tmp"), "");
    assert_eq!(space.out("dev"), "full\nnull\nrandom\nurandom\nzero\n");
    let mut env: Vec<_> = space.out("env").lines().map(str::to_string).collect();
    env.sort();
    let fixed = ["HOME=/tmp", "LC_ALL=C", "PATH=/tools:/usr/local/bin:/usr/bin:/bin", "SOURCE_DATE_EPOCH=1000000000", "TZ=UTC"];
    // Bash itself adds these.
    env.retain(|line| !["OLDPWD=", "PWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own)));
    assert_eq!(env, fixed);
    assert_eq!(space.out("host"), "slmops\n");
    assert!(space.out("id").starts_with("uid=0"), "{}", space.out("id"));
    assert_eq!(space.out("pid"), "2\n");
}

#[test]
fn there_is_no_network_not_even_to_the_machine_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected > /out/net || echo none > /out/net");
    // The same command reaches the port from outside.
    let outside = script.replace("> /out/net", "");
    let outside = Command::new("bash").args(["-c", &outside]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&outside.stdout), "connected\n");
    let space = Space::new(&format!("({script}); cat /out/net || echo none > /out/net"));
    space.run().unwrap();
    assert_eq!(space.out("net"), "none\n");
    assert!(space.lines().iter().any(|line| line.contains("not supported")), "{:?}", space.lines());
}

#[test]
fn inputs_tools_and_root_cannot_be_changed() {
    let script = "for f in /in/data /tools/tool /bin/bash; do echo x > $f && echo wrote $f; done; touch /new /in/new /dev/new && echo made; \
                  mount -t tmpfs none /tmp && echo mounted; chmod 777 /in/data && echo changed; echo end > /out/end";
    let space = Space::new(script).input("inputs.data", "data", "1").input("tools.tool", "tool", "2");
    space.run().unwrap();
    assert_eq!(space.out("end"), "end\n");
    let done: Vec<_> = space
        .lines()
        .into_iter()
        .filter(|line| ["wrote", "made", "mounted", "changed"].iter().any(|word| line.starts_with(word)))
        .collect();
    assert_eq!(done, [""; 0]);
    assert_eq!(fs::read_to_string(space.dir.path().join("data")).unwrap(), "1");
}

#[test]
fn how_it_ends_is_told() {
    let failure = Space::new("exit 3").run().unwrap_err();
    assert_eq!((failure.message.as_str(), failure.exit), ("`/bin/bash` ended with exit code 3", Exit::Failed));
    let failure = Space::new("kill -9 $$").run().unwrap_err();
    assert_eq!(failure.message, "`/bin/bash` was ended by signal 9");
    let failure = Space::new("true").run().unwrap_err();
    assert_eq!(failure.message, "the command left nothing in `/out`");
    let mut space = Space::new("");
    space.params.insert("command".into(), json!(["/bin/missing"]));
    let failure = space.run().unwrap_err();
    assert!(failure.message.starts_with("cannot start `/bin/missing` in the sandbox"), "{}", failure.message);
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.help.unwrap().contains("loader"));
}

#[test]
fn odd_outputs_are_refused_and_modes_are_settled() {
    let failure = Space::new("ln -s /etc/passwd /out/link").run().unwrap_err();
    assert!(failure.message.contains("`/out/link`, which is neither"), "{}", failure.message);
    let space = Space::new(
        "mkdir a; echo 1 > a/x; echo 2 > b; chmod 700 b; chmod 0 a/x; chmod 0 a; mkdir /tmp/shut; touch /tmp/shut/f; chmod 0 /tmp/shut",
    );
    space.run().unwrap();
    let mode = |path: &str| fs::metadata(space.dir.path().join("out").join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/x"), mode("b")), (0o755, 0o644, 0o755));
    assert!(!space.dir.path().join("checkpoint").exists(), "only what may be resumed belongs there");
}

#[test]
fn named_outputs_are_made_ready_and_must_be_filled() {
    let mut space = Space::new("echo 1 > train/data.jsonl");
    space.params.insert("outputs".into(), json!(["train", "test"]));
    let failure = space.run().unwrap_err();
    assert_eq!(failure.message, "the command left nothing in its output `/out/test`");
    let mut space = Space::new("echo 1 > train/data.jsonl; echo 2 > more");
    space.params.insert("outputs".into(), json!(["train"]));
    assert!(space.run().unwrap_err().message.contains("`/out/more`, which is none of its `outputs`"));
    let parts = exec::KIND.expand(&space.declared()).unwrap();
    assert_eq!(parts[0].outputs, [("train".to_string(), Artifact::Files)]);
}

/// Whether any process of this machine has the word among its arguments.
fn is_running(word: &str) -> bool {
    let processes = slmops::base::files::names(Path::new("/proc")).unwrap();
    processes
        .iter()
        .filter_map(|name| fs::read(Path::new("/proc").join(name).join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(word))
}

#[test]
fn a_stop_kills_everything_at_once() {
    let mut space = Space::new("trap '' TERM INT; (trap '' TERM; sleep 987654) & echo ready; sleep 987654");
    space.listener.stop_at = Some(("ready", space.cancel.clone()));
    let start = Instant::now();
    let failure = space.run().unwrap_err();
    assert_eq!(failure.exit, Exit::Interrupted);
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(!is_running("987654"));
}

#[test]
fn what_runs_on_in_the_background_ends_with_the_command() {
    let space = Space::new("(sleep 976543 &) ; echo 1 > /out/x");
    space.run().unwrap();
    assert!(!is_running("976543"));
}

#[test]
fn endless_output_does_not_fill_the_memory() {
    let space = Space::new("head -c 50000000 /dev/zero; for i in {1..30000}; do echo $i; done; echo 1 > x");
    space.run().unwrap();
    assert!(space.lines().len() <= 20_000);
    assert!(space.lines().iter().all(|line| line.len() < 20_000));
}

#[test]
fn tricks_with_the_output_fail_the_step_and_not_the_machine() {
    let tricks = [
        ("ln -s /etc/passwd link", "`/out/link`, which is neither"),
        ("ln -s / link", "`/out/link`, which is neither"),
        ("mkfifo pipe", "`/out/pipe`, which is neither"),
        ("mkdir a; ln -s ../../../etc a/b", "`/out/a/b`, which is neither"),
        ("for i in {1..300}; do mkdir d; cd d; done; echo 1 > f", "nested folders too deeply"),
        ("n=$(printf %0200d 0); for i in {1..30}; do mkdir $n; cd $n; done; echo 1 > f", "nested folders too deeply"),
        ("truncate -s 2T holes", "more than 64.0 GiB into `/out`"),
        ("chmod 0 /out", "the command left nothing in `/out`"),
    ];
    for (script, says) in tricks {
        let failure = Space::new(script).run().unwrap_err();
        assert!(failure.message.contains(says), "{script}: {}", failure.message);
        assert_eq!(failure.exit, Exit::Failed, "{script}");
    }
}

#[test]
fn modes_and_second_names_are_no_trick() {
    let space = Space::new("echo 1 > a; chmod 6777 a; ln a b; mkdir s; chmod 7000 s; echo 2 > c; chmod 4000 c; chmod 0 /out");
    space.run().unwrap();
    let mode = |path: &str| fs::metadata(space.dir.path().join("out").join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(["a", "b", "s", "c"].map(mode), [0o755, 0o755, 0o755, 0o644]);
    // The folder around it is closed to others until it is taken in.
    assert_eq!((mode(".."), mode(".")), (0o700, 0o755));
}

#[test]
fn a_stop_counts_while_the_output_is_looked_through() {
    let mut space = Space::new("for i in {1..3000}; do echo > $i; done; echo done");
    space.listener.stop_at = Some(("done", space.cancel.clone()));
    assert_eq!(space.run().unwrap_err().exit, Exit::Interrupted);
}

#[test]
fn what_it_inherits_is_the_same_everywhere() {
    let space = Space::new("ulimit -a; umask; trap; echo $$; ls -ld /out; echo 1 > x");
    space.run().unwrap();
    let lines = space.lines().join("\n");
    for expected in ["-c) 0", "-n) 4096", "-u) 4096", "-l) 64", "-s) 8192", "-f) unlimited", "0022", "drwxr-xr-x"] {
        assert!(lines.contains(expected), "no `{expected}` in\n{lines}");
    }
}

#[test]
fn limits_are_in_no_key_but_the_one_that_is_seen() {
    let digest = |resources: serde_json::Value| {
        let mut space = Space::new("true");
        space.params.insert("resources".into(), resources);
        let task = space.task();
        key::of(&Subject { kind: &exec::KIND, task: &task, inputs: &[] })
    };
    let plain = key::of(&Subject { kind: &exec::KIND, task: &Space::new("true").task(), inputs: &[] });
    assert_eq!(digest(json!({"memory": 1_000_000, "processes": 7, "output": 5, "scratch": 5, "files": 5, "cpu": 2})), plain);
    assert_eq!(digest(json!({"open_files": 4096})), plain);
    assert_ne!(digest(json!({"open_files": 5000})), plain);
}

#[test]
fn the_hidden_command_says_so_when_a_person_types_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_slmops")).arg("sandbox-init").stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is started by slmops itself"));
}

fn problems(change: impl FnOnce(&mut Space)) -> Vec<Problem> {
    let mut space = Space::new("x");
    change(&mut space);
    exec::KIND.expand(&space.declared()).unwrap_err()
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let paths = |problems: Vec<Problem>| problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>();
    assert_eq!(paths(problems(|s| drop(s.params.insert("command".into(), json!([]))))), ["command"]);
    assert_eq!(paths(problems(|s| s.inputs.clear())), [""]);
    assert_eq!(paths(problems(|s| drop(s.params.insert("env".into(), json!({"TZ": "CET", "A=B": "", "OK": "1"}))))), ["env", "env.TZ"]);
    assert_eq!(paths(problems(|s| drop(s.params.insert("outputs".into(), json!(["a", "a", "../b"]))))), ["outputs.1", "outputs.2"]);
    assert_eq!(paths(problems(|s| s.inputs.push(("inputs.a/b".into(), Vec::new())))), ["inputs.a/b"]);
}
