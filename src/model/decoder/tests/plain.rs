//! A decoder of the Llama family in plain f64, which shares nothing with ours: the judge of gradients and of perplexity.

use std::collections::BTreeMap;

/// By their Hugging Face names.
pub type Tensors = BTreeMap<String, Vec<f64>>;

/// What the tensors and their lengths do not tell.
pub struct Shape<'a> {
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub eps: f64,
    pub act: fn(f64) -> f64,
    pub embedding_scale: f64,
    pub score_scale: f64,
    /// Of each layer.
    pub windows: Vec<Option<usize>>,
    /// Of each layer, for sequences of so many tokens: how far one position turns each pair, and what the result is multiplied by.
    pub turns: &'a dyn Fn(usize, usize) -> (Vec<f64>, f64),
}

fn rms(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let inv = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * inv * w).collect()
}

fn linear(x: &[f64], weight: &[f64]) -> Vec<f64> {
    weight.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn turn(x: &mut [f64], head_dim: usize, position: usize, (turns, magnitude): &(Vec<f64>, f64)) {
    let half = turns.len();
    for head in x.chunks_mut(head_dim) {
        for i in 0..half {
            let angle = position as f64 * turns[i];
            let (cos, sin) = (libm::cos(angle) * magnitude, libm::sin(angle) * magnitude);
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
pub fn run(shape: &Shape, w: &Tensors, tokens: &[u32]) -> Vec<Vec<f64>> {
    let Shape { layers, heads, kv_heads, head_dim: hd, eps, act, .. } = *shape;
    let embed = &w["model.embed_tokens.weight"];
    let d = w["model.norm.weight"].len();
    let mut x: Vec<Vec<f64>> =
        tokens.iter().map(|t| embed[*t as usize * d..][..d].iter().map(|x| x * shape.embedding_scale).collect()).collect();
    for layer in 0..layers {
        let any = |name: &str| w.get(&format!("model.layers.{layer}.{name}"));
        let part = |name: &str| &w[&format!("model.layers.{layer}.{name}.weight")];
        let biased = |h: &[f64], name: &str| {
            let mut y = linear(h, part(name));
            any(&format!("{name}.bias")).into_iter().for_each(|bias| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
            y
        };
        let heads_normed = |y: Vec<f64>, name: &str| match any(name) {
            Some(norm) => y.chunks(hd).flat_map(|head| rms(head, norm, eps)).collect(),
            None => y,
        };
        let has_post = any("pre_feedforward_layernorm.weight").is_some();
        let behind = |y: Vec<f64>, name: &str| if has_post { rms(&y, part(name), eps) } else { y };
        let turns = (shape.turns)(layer, tokens.len());
        let (mut q, mut k, mut v) = (vec![], vec![], vec![]);
        for (position, x) in x.iter().enumerate() {
            let h = rms(x, part("input_layernorm"), eps);
            let mut one_q = heads_normed(biased(&h, "self_attn.q_proj"), "self_attn.q_norm.weight");
            let mut one_k = heads_normed(biased(&h, "self_attn.k_proj"), "self_attn.k_norm.weight");
            turn(&mut one_q, hd, position, &turns);
            turn(&mut one_k, hd, position, &turns);
            q.push(one_q);
            k.push(one_k);
            v.push(biased(&h, "self_attn.v_proj"));
        }
        for (i, x) in x.iter_mut().enumerate() {
            let mut attended = vec![];
            for head in 0..heads {
                let group = head / (heads / kv_heads);
                let score = |j: usize| (0..hd).map(|c| q[i][head * hd + c] * k[j][group * hd + c]).sum::<f64>() * shape.score_scale;
                let first = shape.windows[layer].map_or(0, |window| (i + 1).saturating_sub(window));
                let p = soft(&(first..=i).map(score).collect::<Vec<_>>());
                attended.extend((0..hd).map(|c| (first..=i).map(|j| p[j - first] * v[j][group * hd + c]).sum::<f64>()));
            }
            let attended = behind(linear(&attended, part("self_attn.o_proj")), "post_attention_layernorm");
            x.iter_mut().zip(attended).for_each(|(x, y)| *x += y);
            let h = rms(x, part(if has_post { "pre_feedforward_layernorm" } else { "post_attention_layernorm" }), eps);
            let (gate, up) = (linear(&h, part("mlp.gate_proj")), linear(&h, part("mlp.up_proj")));
            let glu: Vec<f64> = gate.iter().zip(up).map(|(g, u)| act(*g) * u).collect();
            let mlp = behind(linear(&glu, part("mlp.down_proj")), "post_feedforward_layernorm");
            x.iter_mut().zip(mlp).for_each(|(x, y)| *x += y);
        }
    }
    let head = w.get("lm_head.weight").unwrap_or(embed);
    x.iter().map(|x| linear(&rms(x, &w["model.norm.weight"], eps), head)).collect()
}
