//! slmops and llama.cpp in turn on the same files, one thread each: `cargo bench --bench llama_cpp [-- FILE…] [rounds=N]`.
//!
//! Without files it takes the SmolLM2-135M that `tests/peers/install.sh` prepares. For each file it prints tokens per CPU second when 512 tokens are read at once and
//! when 64 follow one by one, the ratio of each pair of rounds as median and range, and the time from the start of the process to the first token.

#![expect(clippy::disallowed_methods, reason = "a benchmark only asks whether it can run")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use slmops::base::files;
use slmops::model::decoder::cache::Cache;
use slmops::model::decoder::{Batch, Decoder};
use slmops::model::generate::argmax;
use slmops::model::{Model, Stored};

const READ: usize = 512;
const WRITTEN: usize = 64;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let rounds = arguments.iter().find_map(|a| a.strip_prefix("rounds=")).map_or(5, |n| n.parse().expect("a number of rounds"));
    let mut paths: Vec<PathBuf> = arguments.iter().filter(|a| !a.contains('=')).map(PathBuf::from).collect();
    if paths.is_empty() {
        let of = |ty| root.join(format!("target/peers/smollm2/SmolLM2-135M-Instruct.{ty}.gguf"));
        paths = ["F16", "Q8_0", "Q4_0", "Q4_K_M"].map(of).to_vec();
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    for path in paths {
        assert!(path.exists(), "PEER MISSING: no {}; run: bash tests/peers/install.sh", path.display());
        let (mut theirs, loaded) = Peer::start(root, &path);
        let model = Model::open(&path).expect("a model");
        println!("{}", path.file_name().unwrap_or_default().display());
        pool.install(|| {
            let mut ours = Ours::new(&model);
            for (what, tokens) in [("prefill", READ), ("decode", WRITTEN)] {
                compare(what, tokens, rounds, &mut || ours.run(what, tokens), &mut || theirs.run(what, tokens));
            }
        });
        theirs.stop();
        first_token(root, &path, loaded, rounds);
    }
}

/// One round warms up, the others count.
fn compare(what: &str, tokens: usize, rounds: usize, ours: &mut dyn FnMut() -> f64, theirs: &mut dyn FnMut() -> f64) {
    let mut pairs: Vec<(f64, f64)> = (0..=rounds).map(|_| (tokens as f64 / ours(), tokens as f64 / theirs())).collect();
    pairs.remove(0);
    let [our_rate, their_rate] = [median(pairs.iter().map(|pair| pair.0)), median(pairs.iter().map(|pair| pair.1))];
    let ratios = || pairs.iter().map(|(ours, theirs)| ours / theirs);
    let (low, high) = (ratios().fold(f64::MAX, f64::min), ratios().fold(0.0, f64::max));
    let ratio = median(ratios());
    println!(
        "  {what:<7} {tokens:>3}: slmops {our_rate:>6.1} tokens/CPU s, llama.cpp {their_rate:>6.1}, ratio {ratio:.2} [{low:.2}, {high:.2}]"
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// llama.cpp has no comparable tool here: its figure is the time to load and to read 16 tokens, without the start of the Python that drives it.
fn first_token(root: &Path, path: &Path, theirs: f64, rounds: usize) {
    let binary = root.join("target/release/slmops");
    if !binary.exists() {
        println!("  first token: no {}, so it was not measured", binary.display());
        return;
    }
    let once = || {
        let start = Instant::now();
        let done = Command::new(&binary).arg("run").arg(path).args(["What is cold?", "--max-new-tokens", "1"]).output().expect("slmops");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        start.elapsed().as_secs_f64() * 1e3
    };
    once();
    let times: Vec<f64> = (0..rounds).map(|_| once()).collect();
    println!("  first token: slmops run {:.0} ms, llama.cpp {:.0} ms", median(times.iter().copied()), theirs * 1e3);
}

/// Seconds that all threads of this process have computed, by the scheduler's count.
fn cpu_seconds() -> f64 {
    let tasks = Path::new("/proc/self/task");
    let nanoseconds = |task| {
        let text = std::fs::read_to_string(tasks.join(task).join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0)
    };
    files::names(tasks).expect("Linux's /proc").into_iter().map(nanoseconds).sum::<f64>() * 1e-9
}

/// The tokens that both sides read.
fn token(i: usize) -> u32 {
    1000 + (i as u32) * 37 % 20000
}

struct Ours<'a> {
    model: &'a Model<Stored>,
    decoder: Decoder,
    cache: Cache,
    batch: Batch,
}

impl Ours<'_> {
    fn new(model: &Model<Stored>) -> Ours<'_> {
        let decoder = Decoder::new(&model.config).expect("a decoder");
        Ours { model, decoder, cache: Cache::new(&model.config, 1, 2048).expect("a cache"), batch: Batch::default() }
    }

    fn run(&mut self, what: &str, tokens: usize) -> f64 {
        let start = cpu_seconds();
        if what == "prefill" {
            self.batch.clear();
            self.batch.push(&(0..tokens).map(token).collect::<Vec<_>>(), tokens - 1..tokens);
            self.decoder.prefill(&self.model.weights, &self.batch, &mut self.cache, &[0]).expect("a pass");
            self.choose();
        } else {
            for i in 0..tokens {
                self.batch.clear();
                self.batch.push_next(token(i), i as u32);
                self.decoder.advance(&self.model.weights, &self.batch, &mut self.cache, &[0]).expect("a pass");
                self.choose();
            }
        }
        cpu_seconds() - start
    }

    fn choose(&mut self) {
        let chosen = self.decoder.logits(&self.model.weights, &mut |_, logits| {
            argmax(logits).expect("finite logits");
            Ok(())
        });
        chosen.expect("logits");
    }
}

/// llama.cpp, driven by `tests/peers/llama_cpp.py speed`.
struct Peer {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// The peer, and the seconds it took to load and to read 16 tokens.
    fn start(root: &Path, path: &Path) -> (Peer, f64) {
        let libraries = root.join("target/peers/llama.cpp");
        let mut command = Command::new("python3");
        command.arg(root.join("tests/peers/llama_cpp.py")).arg(libraries).arg("speed").arg(path);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("PEER MISSING: no python3");
        let (Some(ask), Some(answers)) = (child.stdin.take(), child.stdout.take()) else { panic!("no pipes") };
        let mut peer = Peer { child, ask, answers: BufReader::new(answers) };
        let loaded = peer.answer("wall_s");
        (peer, loaded)
    }

    fn run(&mut self, what: &str, tokens: usize) -> f64 {
        writeln!(self.ask, "{what} {tokens}").expect("the peer listens");
        self.answer("cpu_s")
    }

    fn answer(&mut self, field: &str) -> f64 {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the peer answers");
        let answer: serde_json::Value =
            serde_json::from_str(&line).expect("PEER MISSING: llama.cpp does not run; see tests/peers/install.sh");
        answer[field].as_f64().expect("seconds")
    }

    fn stop(mut self) {
        drop(self.ask);
        self.child.wait().expect("the peer's end");
    }
}
