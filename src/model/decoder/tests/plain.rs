//! A decoder of the Llama family in plain f64, which shares nothing with ours: the judge of gradients and of perplexity.

use std::collections::BTreeMap;

/// By their Hugging Face names.
pub type Tensors = BTreeMap<String, Vec<f64>>;

/// What the tensors' lengths do not tell.
#[derive(Clone, Copy)]
pub struct Shape {
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub eps: f64,
    pub theta: f64,
    pub window: Option<usize>,
    pub act: fn(f64) -> f64,
}

fn rms(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let inv = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * inv * w).collect()
}

fn linear(x: &[f64], weight: &[f64]) -> Vec<f64> {
    weight.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn turn(x: &mut [f64], head_dim: usize, position: usize, theta: f64) {
    let half = head_dim / 2;
    for head in x.chunks_mut(head_dim) {
        for i in 0..half {
            let angle = position as f64 * libm::pow(theta, -2.0 * i as f64 / head_dim as f64);
            let (cos, sin) = (libm::cos(angle), libm::sin(angle));
            let (a, b) = (head[i], head[i + half]);
            (head[i], head[i + half]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
}

pub fn silu(g: f64) -> f64 {
    g / (1.0 + libm::exp(-g))
}

/// Probabilities of scores.
pub fn soft(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::MIN, f64::max);
    let exps: Vec<f64> = scores.iter().map(|s| libm::exp(s - max)).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

/// Logits after every token of one sequence.
pub fn run(shape: Shape, w: &Tensors, tokens: &[u32]) -> Vec<Vec<f64>> {
    let Shape { layers, heads, kv_heads, head_dim: hd, eps, theta, window, act } = shape;
    let embed = &w["model.embed_tokens.weight"];
    let d = w["model.norm.weight"].len();
    let mut x: Vec<Vec<f64>> = tokens.iter().map(|t| embed[*t as usize * d..][..d].to_vec()).collect();
    for layer in 0..layers {
        let part = |name: &str| &w[&format!("model.layers.{layer}.{name}.weight")];
        let (mut q, mut k, mut v) = (vec![], vec![], vec![]);
        for (position, x) in x.iter().enumerate() {
            let h = rms(x, part("input_layernorm"), eps);
            let (mut one_q, mut one_k) = (linear(&h, part("self_attn.q_proj")), linear(&h, part("self_attn.k_proj")));
            turn(&mut one_q, hd, position, theta);
            turn(&mut one_k, hd, position, theta);
            q.push(one_q);
            k.push(one_k);
            v.push(linear(&h, part("self_attn.v_proj")));
        }
        for (i, x) in x.iter_mut().enumerate() {
            let mut attended = vec![];
            for head in 0..heads {
                let group = head / (heads / kv_heads);
                let score = |j: usize| (0..hd).map(|c| q[i][head * hd + c] * k[j][group * hd + c]).sum::<f64>() / (hd as f64).sqrt();
                let first = window.map_or(0, |window| (i + 1).saturating_sub(window));
                let p = soft(&(first..=i).map(score).collect::<Vec<_>>());
                attended.extend((0..hd).map(|c| (first..=i).map(|j| p[j - first] * v[j][group * hd + c]).sum::<f64>()));
            }
            x.iter_mut().zip(linear(&attended, part("self_attn.o_proj"))).for_each(|(x, y)| *x += y);
            let h = rms(x, part("post_attention_layernorm"), eps);
            let (gate, up) = (linear(&h, part("mlp.gate_proj")), linear(&h, part("mlp.up_proj")));
            let glu: Vec<f64> = gate.iter().zip(up).map(|(g, u)| act(*g) * u).collect();
            x.iter_mut().zip(linear(&glu, part("mlp.down_proj"))).for_each(|(x, y)| *x += y);
        }
    }
    let head = w.get("lm_head.weight").unwrap_or(embed);
    x.iter().map(|x| linear(&rms(x, &w["model.norm.weight"], eps), head)).collect()
}
