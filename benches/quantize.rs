//! What quantizing costs a published model, slmops and llama.cpp side by side: `cargo bench --bench quantize [-- TYPE…] [windows=40] [fit=no]`.
//!
//! `tests/peers/install.sh` provides SmolLM2-135M, llama.cpp and texts. For each type, with and without an importance matrix, it prints the file's size, the processor time
//! of packing (one thread) and the KL divergence of the predictions from the reference's, in nats a token, on texts that nothing else has seen; the interval is that of the paired
//! difference, by the normal approximation over windows. Then `fit` at the sizes of llama.cpp's presets.
//!
//! The published weights lie on a Q4_1 grid, which flatters whatever restores it. The reference is therefore another model near it: noise as large as the grid's own rounding error,
//! then a short training in f32 that makes up for the noise, all from one seed; kept as F16 in `target/bench-quantize`.

#![expect(clippy::disallowed_methods, reason = "a benchmark only asks whether it can run")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use slmops::base::{Cancel, files};
use slmops::kernels::{AdamW, Divergence, Teacher, adamw, cross_entropy, distill, rng, sum_squares};
use slmops::model::decoder::{Batch, Decoder, Keep};
use slmops::model::gguf::pack::{Rounding, pack};
use slmops::model::imatrix::{Window, collect, windows};
use slmops::model::quant::BlockType;
use slmops::model::{Imatrix, Model, Scored, Stored, gguf};
use slmops::steps::io::{Io, Listener};
use slmops::steps::quantize::preset::{Calibrated, Mixture, Preset, Recipe, choose};
use slmops::steps::{self, Task};

const TYPES: &[&str] =
    &["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K"];
const FITTED: &[&str] = &["Q3_K_M", "Q4_0", "Q4_K_M", "Q5_K_M"];
const LENGTH: usize = 512;
/// Windows of the importance matrix.
const CALIBRATION: usize = 40;
const STEPS: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let count = arguments.iter().find_map(|a| a.strip_prefix("windows=")).map_or(40, |n| n.parse().expect("a number of windows"));
    let fits = !arguments.iter().any(|a| a == "fit=no");
    let chosen: Vec<&str> = arguments.iter().filter(|a| !a.contains('=')).map(String::as_str).collect();
    let types = if chosen.is_empty() { TYPES.to_vec() } else { chosen };
    let bench = Bench::set_up(count);
    println!("{} tokens to test on", bench.test.iter().map(|window| window.len() - 1).sum::<usize>());
    println!("| type | imatrix | bytes | llama.cpp | CPU s | llama.cpp | KL | llama.cpp | difference |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for name in types {
        for imatrix in [None, Some(bench.imatrix())] {
            let (ours, our_time) = bench.ours(name, imatrix.as_deref());
            let (theirs, their_time) = bench.theirs(name, imatrix.as_deref());
            let heeds = if imatrix.is_some() { "yes" } else { "" };
            bench.row(&format!("{name} | {heeds}"), (&ours, our_time), (&theirs, their_time));
        }
    }
    if fits {
        bench.fits();
    }
}

struct Bench {
    root: PathBuf,
    folder: PathBuf,
    reference: Model<Stored>,
    pool: rayon::ThreadPool,
    /// What is tested on, and the reference's logits on it (4 GB for 40 windows).
    test: Vec<Window>,
    logits: Vec<Vec<f32>>,
}

impl Bench {
    fn set_up(count: usize) -> Bench {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join("target/bench-quantize");
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("reference.gguf");
        if !path.exists() {
            make_reference(&root, &path);
        }
        let reference = Model::open(&path).expect("the reference");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        let test = windows(&tokens(&root, &reference, "test"), LENGTH, count);
        let scored: Vec<Scored> = test.iter().map(|window| Scored { tokens: window.clone(), from: 1 }).collect();
        let mut logits = Vec::new();
        reference.score(&scored, &mut |_, rows| logits.push(rows.to_vec())).expect("logits");
        Bench { root, folder, reference, pool, test, logits }
    }

    fn text(&self, part: &str, count: usize) -> Vec<Window> {
        windows(&tokens(&self.root, &self.reference, part), LENGTH, count)
    }

    fn imatrix(&self) -> PathBuf {
        let path = self.folder.join("imatrix.gguf");
        if !path.exists() {
            let imatrix = collect(&self.reference, &self.text("calibration", CALIBRATION), &mut |_| ControlFlow::Continue(()));
            imatrix.expect("an importance matrix").write(&path).expect("a file");
        }
        path
    }

    fn ours(&self, name: &str, imatrix: Option<&Path>) -> (PathBuf, f64) {
        let path = fresh(self.folder.join("ours.gguf"));
        let calibrated = if imatrix.is_some() { Calibrated::Yes } else { Calibrated::No };
        let preset = Preset::from_name(name).expect("a preset");
        let recipe = Recipe { preset, mixture: Mixture::Mixed, token_embedding: None, output: None, calibrated };
        let before = cpu_seconds();
        let time = self.pool.install(|| {
            let model = Model::open(&self.folder.join("reference.gguf")).expect("the reference");
            let imatrix = imatrix.map(|path| Imatrix::read(path).expect("an importance matrix"));
            let tensors = &model.weights.layout.tensors;
            let types: Vec<BlockType> = tensors.iter().map(|t| choose(&recipe, &model.config, &t.name, &t.shape).ty).collect();
            let number = gguf::file_type_id(name).expect("a number");
            let rounding = Rounding { imatrix: imatrix.as_ref(), ready: None };
            pack(&path, &model, number, &types, rounding, &mut |_| ControlFlow::Continue(())).expect("a file");
            cpu_seconds() - before
        });
        (path, time)
    }

    fn theirs(&self, name: &str, imatrix: Option<&Path>) -> (PathBuf, f64) {
        let path = fresh(self.folder.join("theirs.gguf"));
        let mut command = Command::new("python3");
        command.arg(self.root.join("tests/peers/llama_cpp.py")).arg(self.root.join("target/peers/llama.cpp"));
        command.arg("quantize").arg(self.folder.join("reference.gguf")).arg(&path).arg(name).args(imatrix);
        let output = command.output().expect("PEER MISSING: no python3");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
        (path, found["cpu_s"].as_f64().expect("a time"))
    }

    fn row(&self, what: &str, (ours, our_time): (&Path, f64), (theirs, their_time): (&Path, f64)) {
        let sizes = [ours, theirs].map(|path| std::fs::metadata(path).expect("a file").len());
        let open = [ours, theirs].map(|path| Model::open(path).expect("a file"));
        let [ours, theirs] = self.divergences(&open);
        let (a, b) = (mean(&ours), mean(&theirs));
        let gaps: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours - theirs).collect();
        let spread = gaps.iter().map(|gap| (gap - mean(&gaps)) * (gap - mean(&gaps))).sum::<f64>() / (gaps.len() - 1) as f64;
        let margin = 1.96 * (spread / gaps.len() as f64).sqrt();
        println!(
            "| {what} | {} | {} | {our_time:.2} | {their_time:.2} | {a:.5} | {b:.5} | {:+.1} % ± {:.1} % |",
            sizes[0],
            sizes[1],
            100.0 * (a - b) / b,
            100.0 * margin / b
        );
    }

    /// Mean divergences of each window from the reference's predictions.
    fn divergences<const N: usize>(&self, models: &[Model<Stored>; N]) -> [Vec<f64>; N] {
        let vocab = self.reference.config.vocab_size;
        let mut found = [const { Vec::new() }; N];
        for (window, theirs) in self.test.iter().zip(&self.logits) {
            let scored = [Scored { tokens: window.clone(), from: 1 }];
            for (model, found) in models.iter().zip(&mut found) {
                let mut losses = vec![0.0; window.len() - 1];
                let each = &mut |_: usize, logits: &[f32]| {
                    let mut logits = logits.to_vec();
                    distill(&mut logits, vocab, &Teacher::Dense(theirs), Divergence::ForwardKl, 1.0, 1.0, &mut losses).expect("finite");
                };
                model.score(&scored, each).expect("logits");
                found.push(losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len() as f64);
            }
        }
        found
    }

    /// `fit` against each preset with an importance matrix, in as many bytes.
    fn fits(&self) {
        let data = self.folder.join("calibration.jsonl");
        let lines: String = texts(&self.root, "calibration").iter().map(|text| format!("{}\n", json!({"text": text}))).collect();
        std::fs::write(&data, lines).expect("a file");
        let model = self.folder.join("reference.gguf");
        let shares = self.folder.join("shares");
        let mut time = 0.0;
        if !shares.join("shares.json").exists() {
            let inputs = [("model", &model), ("data", &data), ("imatrix", &self.imatrix())];
            time = run("measure", json!({"nsamples": 40, "seqlen": LENGTH, "probe_tokens": 512}), &inputs, &shares);
        }
        println!("fit: {time:.0} CPU s to measure");
        for name in FITTED {
            let (theirs, their_time) = self.theirs(name, Some(&self.imatrix()));
            let size = std::fs::metadata(&theirs).expect("a file").len();
            let out = self.folder.join("fit");
            let inputs = [("model", &model), ("data", &data), ("shares", &shares)];
            let time = run("fit", json!({"max_size": size, "probe_tokens": 512}), &inputs, &out);
            self.row(&format!("fit, {name} | yes"), (&out.join("model.gguf"), time), (&theirs, their_time));
        }
    }
}

struct Quiet;

impl Listener for Quiet {
    fn line(&self, text: &str) {
        eprintln!("{text}");
    }
    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

/// Runs an action of `fit`; its processor time.
fn run(action: &'static str, params: Value, inputs: &[(&str, &PathBuf)], out: &Path) -> f64 {
    std::fs::remove_dir_all(out).ok();
    std::fs::create_dir(out).expect("a folder");
    let inputs = inputs.iter().map(|(port, path)| (port.to_string(), vec![path.to_path_buf()])).collect();
    let mut io = Io { inputs, out: out.into(), checkpoint: out.into(), cancel: Cancel::default(), threads: 1, now: None, listener: &Quiet };
    let Value::Object(params) = params else { panic!("parameters are an object") };
    let kind = steps::kind("fit").expect("a kind");
    let before = cpu_seconds();
    kind.run(&Task { action, params }, &mut io).unwrap_or_else(|failure| panic!("{failure}"));
    cpu_seconds() - before
}

/// Every fifth speech is tested on, another fifth trains the reference, the others calibrate.
fn texts(root: &Path, part: &str) -> Vec<String> {
    let folder = root.join("target/peers/sotu");
    assert!(folder.exists(), "PEER MISSING: no {}; run: bash tests/peers/install.sh", folder.display());
    let names = files::names(&folder).expect("a folder");
    let names = names.iter().filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "txt"));
    let wanted = |i: &usize| match part {
        "test" => i.is_multiple_of(5),
        "training" => i % 5 == 1,
        _ => i % 5 > 1,
    };
    names.enumerate().filter(|(i, _)| wanted(i)).map(|(_, name)| std::fs::read_to_string(folder.join(name)).expect("a text")).collect()
}

/// The first 8 KiB of each speech.
fn tokens<W>(root: &Path, model: &Model<W>, part: &str) -> Vec<u32> {
    let texts = texts(root, part);
    let start = |text: &String| text.chars().take(8192).collect::<String>();
    texts.iter().flat_map(|text| model.encoder().text(&start(text)).expect("tokens").tokens).collect()
}

fn make_reference(root: &Path, path: &Path) {
    let published = root.join("target/peers/smollm2/SmolLM2-135M-Instruct.F16.gguf");
    assert!(published.exists(), "PEER MISSING: no {}; run: bash tests/peers/install.sh", published.display());
    let mut model = Model::load(&published).expect("the published model");
    let tensors = model.weights.layout.tensors.clone();
    for (index, tensor) in tensors.iter().enumerate().filter(|(_, tensor)| tensor.shape.len() == 2) {
        let values = &mut model.weights.data[tensor.range.clone()];
        for (block, values) in values.chunks_mut(32).enumerate() {
            let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
            // The step of Q4_1; the embedding is in Q8_0, with a step like this.
            let step = if index == 0 { (high - low) / 255.0 } else { (high - low) / 15.0 };
            for (i, value) in values.iter_mut().enumerate() {
                *value += step * 12.0f32.sqrt().recip() * rng::normal(7, index as u64, (block * 32 + i) as u64);
            }
        }
    }
    let text = windows(&tokens(root, &model, "training"), LENGTH, STEPS);
    train(&mut model, &text);
    let types: Vec<_> = tensors.iter().map(|t| if t.shape.len() == 2 { BlockType::F16 } else { BlockType::F32 }).collect();
    gguf::save(path, &model, 1, &types, &mut |_| ControlFlow::Continue(())).expect("a file");
}

/// One step a window.
fn train(model: &mut Model, windows: &[Window]) {
    let mut decoder = Decoder::new(&model.config).expect("a decoder");
    let mut gradients = vec![0.0; model.weights.data.len()];
    let (mut first, mut second) = (gradients.clone(), gradients.clone());
    let vocab = model.config.vocab_size;
    for (step, window) in windows.iter().enumerate() {
        let mut batch = Batch::default();
        let rows = window.len() - 1;
        batch.push(&window[..rows], 0..rows);
        decoder.forward(&model.weights, &batch, Keep::All).expect("a pass");
        let each = &mut |range: std::ops::Range<usize>, logits: &mut [f32]| {
            let mut losses = vec![0.0; range.len()];
            cross_entropy(logits, vocab, &window[1..][range], 1.0 / rows as f32, &mut losses).expect("finite logits");
            Ok(losses.iter().map(|loss| f64::from(*loss)).sum())
        };
        let loss = decoder.backward(&model.weights.data, &batch, &mut gradients, each).expect("a loss");
        eprintln!("reference, step {step}: loss {:.4}", loss / rows as f64);
        let gradient_scale = (1.0 / sum_squares(&gradients).sqrt().max(1.0)) as f32;
        let rule = AdamW { learning_rate: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, gradient_scale };
        adamw(&mut model.weights.data, &gradients, &mut first, &mut second, step as u64 + 1, &rule);
    }
}

fn fresh(path: PathBuf) -> PathBuf {
    std::fs::remove_file(&path).ok();
    path
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of the whole process, threads that have ended included, in hundredths.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux's /proc");
    let after = text.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
