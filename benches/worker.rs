//! The slmops side of `benches/compare.py`: reads one task a line, answers with the seconds that one repetition took.
//!
//! It stays in memory between tasks, so that slmops and a peer can be timed in turn.

use std::io::{BufRead, Write as _};
use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use slmops::kernels::{AdamW, Divergence, Mat, Teacher, Write, adamw, cross_entropy, distill, isa, matmul, pages, sum_squares};
use slmops::model::decoder::cache::Cache;
use slmops::model::decoder::{Batch, Decoder, Keep};
use slmops::model::{Activation, Config, Family, Features, Model, ModelError, Stored, Weights};

fn main() {
    let threads = std::env::args().filter_map(|arg| arg.strip_prefix("--threads=").and_then(|n| n.parse().ok())).next();
    let Some(threads) = threads else {
        println!("benches/compare.py runs this program; see docs/performance.md");
        return;
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("a thread pool");
    let mut session: Option<(String, Session)> = None;
    let mut reader: Option<Reader> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
        let (seconds, check) = match words.first() {
            Some(&"peak") => (1.0, peak()),
            Some(&"sgemm") => sgemm(words[1], &numbers),
            Some(&"candle") => candle(words[1], &numbers),
            Some(&"prefill") => {
                if reader.as_ref().is_none_or(|reader| reader.path != words[1]) {
                    reader = Some(Reader::new(words[1]));
                }
                (reader.as_mut().expect("just made").read(numbers[0]), 0.0)
            }
            Some(&("train" | "distill")) => {
                if session.as_ref().is_none_or(|(known, _)| *known != line) {
                    session = Some((line.clone(), Session::new(&numbers)));
                }
                let (_, session) = session.as_mut().expect("just made");
                let start = Instant::now();
                let loss = session.step();
                (start.elapsed().as_secs_f64(), loss)
            }
            _ => panic!("unknown task `{line}`"),
        };
        println!("{seconds:e} {check:e}");
        std::io::stdout().flush().expect("a reader");
    }
}

/// What the processor can do at most, in floating-point operations a second: independent chains of fused multiply-adds.
fn peak() -> f64 {
    const ROUNDS: usize = 1 << 16;
    let once = || {
        let start = Instant::now();
        isa::chains(ROUNDS) as f64 / start.elapsed().as_secs_f64()
    };
    (0..50).map(|_| once()).fold(0.0, f64::max)
}

/// Numbers that both sides make alike.
fn numbers(len: usize, factor: usize, scale: f32) -> Vec<f32> {
    let mut numbers = pages::zeros(len);
    numbers.iter_mut().enumerate().for_each(|(i, x)| *x = ((i * factor % 1009) as f32 / 1009.0 - 0.5) * scale);
    numbers
}

/// The quickest of the runs that fit into a moment, so that other programs of the machine disturb little.
fn sgemm(layout: &str, shape: &[usize]) -> (f64, f64) {
    let [m, k, n] = shape[..] else { panic!("sgemm: m k n") };
    let (a, b) = (numbers(m * k, 7919, 1.0), numbers(k * n, 104_729, 1.0));
    let mut c = pages::zeros(m * n);
    let best = quickest(|| match layout {
        "NN" => matmul(Mat::new(&a, m, k), Mat::new(&b, k, n), &mut c, Write::Set),
        "NT" => matmul(Mat::new(&a, m, k), Mat::new(&b, n, k).t(), &mut c, Write::Set),
        "TN" => matmul(Mat::new(&a, k, m).t(), Mat::new(&b, k, n), &mut c, Write::Set),
        _ => panic!("unknown layout {layout}"),
    });
    (best, c.iter().map(|x| f64::from(*x)).sum())
}

/// The same by candle, which calls the `gemm` crate.
fn candle(layout: &str, shape: &[usize]) -> (f64, f64) {
    let [m, k, n] = shape[..] else { panic!("candle: m k n") };
    let tensor =
        |len: usize, factor, rows, cols| Tensor::from_vec(numbers(len, factor, 1.0), (rows, cols), &Device::Cpu).expect("a tensor");
    let a = if layout == "TN" { tensor(m * k, 7919, k, m).t().expect("a view") } else { tensor(m * k, 7919, m, k) };
    let b = if layout == "NT" { tensor(k * n, 104_729, n, k).t().expect("a view") } else { tensor(k * n, 104_729, k, n) };
    let product = || a.matmul(&b).expect("a product");
    let c = product().flatten_all().and_then(|c| c.to_vec1::<f32>()).expect("values");
    (quickest(|| drop(product())), c.iter().map(|x| f64::from(*x)).sum())
}

fn quickest(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.15 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// A model that reads tokens.
struct Reader {
    path: String,
    model: Model<Stored>,
    decoder: Decoder,
    cache: Cache,
}

impl Reader {
    fn new(path: &str) -> Reader {
        let model = Model::open(Path::new(path)).expect("a model");
        let (decoder, cache) = (Decoder::new(&model.config).expect("a decoder"), Cache::new(&model.config, 1, 2048).expect("a cache"));
        Reader { path: path.to_owned(), model, decoder, cache }
    }

    fn read(&mut self, tokens: usize) -> f64 {
        let mut batch = Batch::default();
        batch.push(&(0..tokens).map(|i| 1000 + i as u32 * 37 % 20000).collect::<Vec<_>>(), tokens - 1..tokens);
        let start = Instant::now();
        self.decoder.prefill(&self.model.weights, &batch, &mut self.cache, &[0]).expect("a pass");
        start.elapsed().as_secs_f64()
    }
}

/// A model in training, perhaps with a frozen teacher.
struct Session {
    decoder: Decoder,
    weights: Weights,
    gradients: Vec<f32>,
    moments: (Vec<f32>, Vec<f32>),
    batch: Batch,
    targets: Vec<u32>,
    losses: Vec<f32>,
    teacher: Option<(Decoder, Weights, Vec<f32>)>,
    steps: u64,
}

fn config(shape: &[usize]) -> Config {
    let [layers, d, heads, ff, vocab, seq] = shape[..] else { panic!("layers d heads ff vocab seq") };
    Config {
        family: Family::Llama,
        vocab_size: vocab,
        hidden_size: d,
        intermediate_size: ff,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: d / heads,
        max_position_embeddings: seq,
        hidden_act: Activation::Silu,
        sliding_window: None,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: false,
        bos_token_id: None,
        eos_token_id: None,
        pad_token_id: None,
        features: Features::default(),
    }
}

fn weights(config: &Config) -> Weights {
    let mut weights = Weights::zeros(config).expect("a model");
    for tensor in weights.layout.clone().tensors.iter() {
        let values = &mut weights.data[tensor.range.clone()];
        match tensor.shape.len() {
            1 => values.fill(1.0),
            _ => values.copy_from_slice(&numbers(tensor.range.len(), 7919, 0.07)),
        }
    }
    weights
}

impl Session {
    /// `train layers d heads ff vocab seq batch`, for `distill` then `layers d heads ff` of the teacher.
    fn new(shape: &[usize]) -> Session {
        let (vocab, seq, sequences) = (shape[4], shape[5], shape[6]);
        let student = config(&shape[..6]);
        let teacher = shape.get(7..11).map(|teacher| {
            let config = config(&[teacher, &[vocab, seq]].concat());
            (Decoder::new(&config).expect("a teacher"), weights(&config), Vec::new())
        });
        let mut batch = Batch::default();
        let mut targets = Vec::new();
        for s in 0..sequences {
            let tokens: Vec<u32> = (0..=seq).map(|i| ((s * 7919 + i * i * 31 + i * 17) % vocab) as u32).collect();
            batch.push(&tokens[..seq], 0..seq);
            targets.extend_from_slice(&tokens[1..]);
        }
        let weights = weights(&student);
        let zeros = || pages::zeros(weights.data.len());
        Session {
            decoder: Decoder::new(&student).expect("a student"),
            gradients: zeros(),
            moments: (zeros(), zeros()),
            losses: vec![0.0; targets.len()],
            weights,
            batch,
            targets,
            teacher,
            steps: 0,
        }
    }

    /// Forward, loss, backward, clipping to norm 1 and AdamW: the mean loss.
    fn step(&mut self) -> f64 {
        let Session { decoder, weights, gradients, moments, batch, targets, losses, teacher, steps } = self;
        let weight = 1.0 / targets.len() as f32;
        let vocab = decoder.config.vocab_size;
        if let Some((teacher, weights, _)) = teacher {
            teacher.forward(&*weights, batch, Keep::Nothing).expect("the teacher's pass");
        }
        decoder.forward(&*weights, batch, Keep::All).expect("a forward pass");
        let finite = |error: slmops::kernels::NotFinite| ModelError::Input(error.to_string());
        let sum = decoder.backward(&weights.data, batch, gradients, &mut |rows, logits| {
            let losses = &mut losses[rows.clone()];
            match teacher {
                None => cross_entropy(logits, vocab, &targets[rows], weight, losses).map_err(finite)?,
                Some((teacher, weights, theirs)) => {
                    teacher.logits_of(&*weights, rows, theirs);
                    distill(logits, vocab, &Teacher::Dense(theirs), Divergence::ForwardKl, 2.0, weight, losses).map_err(finite)?;
                }
            }
            Ok(losses.iter().map(|loss| f64::from(*loss)).sum())
        });
        *steps += 1;
        let norm = sum_squares(gradients).sqrt();
        let rule = AdamW {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            gradient_scale: (1.0 / norm.max(1.0)) as f32,
        };
        adamw(&mut weights.data, gradients, &mut moments.0, &mut moments.1, *steps, &rule);
        sum.expect("a finite loss") / targets.len() as f64
    }
}
