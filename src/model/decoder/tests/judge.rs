//! candle's autograd in f64. Only its basic operations: the fused ones have no backward pass and would drop gradients silently.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};

use super::super::super::{Config, Weights};
use super::super::Decoder;
use super::{assert_close, batch, gradient, targets, tiny, untied, weights};

struct Judge<'a> {
    config: &'a Config,
    vars: BTreeMap<String, Var>,
}

impl Judge<'_> {
    fn weight(&self, name: &str) -> &Tensor {
        self.vars[&format!("{name}.weight")].as_tensor()
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        x.matmul(&self.weight(name).t()?)
    }

    fn rms(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let inv = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(self.config.rms_norm_eps))?.sqrt()?;
        x.broadcast_div(&inv)?.broadcast_mul(self.weight(name))
    }

    /// rows × heads·dim → heads × rows × dim, turned.
    fn heads(&self, x: &Tensor, heads: usize, turned: bool) -> Result<Tensor> {
        let (rows, hd) = (x.dim(0)?, self.config.head_dim);
        let x = x.reshape((rows, heads, hd))?.transpose(0, 1)?.contiguous()?;
        if !turned {
            return Ok(x);
        }
        let angle = |p: usize, i: usize| p as f64 * libm::pow(f64::from(self.config.rope_theta), -2.0 * i as f64 / hd as f64);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = (0..rows).flat_map(|p| (0..hd / 2).map(move |i| (p, i))).map(|(p, i)| f(angle(p, i))).collect();
            Tensor::from_vec(values, (1, rows, hd / 2), &Device::Cpu)
        };
        let (cos, sin) = (table(libm::cos)?, table(libm::sin)?);
        let (a, b) = (x.narrow(2, 0, hd / 2)?, x.narrow(2, hd / 2, hd / 2)?);
        let low = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let high = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[low, high], 2)
    }

    fn softmax(x: &Tensor) -> Result<Tensor> {
        let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
        exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
    }

    fn attention(&self, x: &Tensor, layer: &str) -> Result<Tensor> {
        let (rows, heads, kv_heads) = (x.dim(0)?, self.config.num_attention_heads, self.config.num_key_value_heads);
        let q = self.heads(&self.linear(x, &format!("{layer}.self_attn.q_proj"))?, heads, true)?;
        let k = self.heads(&self.linear(x, &format!("{layer}.self_attn.k_proj"))?, kv_heads, true)?;
        let v = self.heads(&self.linear(x, &format!("{layer}.self_attn.v_proj"))?, kv_heads, false)?;
        let group: Vec<u32> = (0..heads).map(|head| (head / (heads / kv_heads)) as u32).collect();
        let group = Tensor::new(group, &Device::Cpu)?;
        let (k, v) = (k.index_select(&group, 0)?, v.index_select(&group, 0)?);
        let scores = (q.matmul(&k.transpose(1, 2)?)? / (self.config.head_dim as f64).sqrt())?;
        let mask: Vec<f64> = (0..rows * rows).map(|i| if i % rows > i / rows { -1e30 } else { 0.0 }).collect();
        let scores = scores.broadcast_add(&Tensor::from_vec(mask, (1, rows, rows), &Device::Cpu)?)?;
        let out = Self::softmax(&scores)?.matmul(&v)?.transpose(0, 1)?.contiguous()?.reshape((rows, self.config.query_size()))?;
        self.linear(&out, &format!("{layer}.self_attn.o_proj"))
    }

    fn logits(&self, tokens: &[u32]) -> Result<Tensor> {
        let mut x = self.weight("model.embed_tokens").index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)?;
        for layer in 0..self.config.num_hidden_layers {
            let layer = format!("model.layers.{layer}");
            x = (&x + self.attention(&self.rms(&x, &format!("{layer}.input_layernorm"))?, &layer)?)?;
            let h = self.rms(&x, &format!("{layer}.post_attention_layernorm"))?;
            let gate = self.linear(&h, &format!("{layer}.mlp.gate_proj"))?;
            let silu = (&gate / (gate.neg()?.exp()? + 1.0)?)?;
            let glu = (silu * self.linear(&h, &format!("{layer}.mlp.up_proj"))?)?;
            x = (&x + self.linear(&glu, &format!("{layer}.mlp.down_proj"))?)?;
        }
        let head = if self.config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
        self.linear(&self.rms(&x, "model.norm")?, head)
    }
}

fn vars(weights: &Weights) -> Result<BTreeMap<String, Var>> {
    let var = |(name, shape, values): (&str, &[usize], &[f32])| {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(DType::F64)?;
        Ok((name.to_string(), Var::from_tensor(&tensor)?))
    };
    weights.iter().map(var).collect()
}

#[test]
fn gradients_are_those_of_candle() {
    for config in [tiny(), untied()] {
        let weights = weights(&config);
        let batch = batch(&config);
        let targets = targets(&config, &batch);
        let (ours, gradient) = gradient(&mut Decoder::new(&config).unwrap(), &weights, &batch, &targets);
        let judge = Judge { config: &config, vars: vars(&weights).unwrap() };
        let rows: Vec<Tensor> = batch.starts.windows(2).map(|bounds| judge.logits(&batch.tokens[bounds[0]..bounds[1]]).unwrap()).collect();
        let wanted: Vec<u32> = batch.wanted.iter().map(|row| *row as u32).collect();
        let logits = Tensor::cat(&rows, 0).unwrap().index_select(&Tensor::new(wanted, &Device::Cpu).unwrap(), 0).unwrap();
        let log = Judge::softmax(&logits).unwrap().log().unwrap();
        let picked = log.gather(&Tensor::new(targets, &Device::Cpu).unwrap().unsqueeze(1).unwrap(), 1).unwrap();
        let loss = picked.mean_all().unwrap().neg().unwrap();
        let theirs = loss.to_scalar::<f64>().unwrap();
        assert!((ours - theirs).abs() < 1e-5 * theirs, "{ours} is not {theirs}");
        let store = loss.backward().unwrap();
        let all: Vec<f64> = weights
            .iter()
            .flat_map(|(name, _, _)| {
                let gradient = store.get(judge.vars[name].as_tensor()).unwrap_or_else(|| panic!("candle dropped the gradient of {name}"));
                gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap()
            })
            .collect();
        assert_close(&weights, &gradient, &all, 1e-5);
    }
}
