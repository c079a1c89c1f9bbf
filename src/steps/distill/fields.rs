//! What there is to say about a teacher's lessons, whatever becomes of them.

use crate::steps::{Field, Type};

pub const MAX_NEW_TOKENS: Field = Field::default(
    "max_new_tokens",
    Type::Int(1, 1 << 22),
    "256",
    "Longest answer of the teacher. One that does not end by then is left out.",
);
pub const KD_RATIO: Field =
    Field::default("kd_ratio", Type::Float(0.0, 1.0), "1.0", "loss = (1 - kd_ratio) · cross-entropy + kd_ratio · T² · divergence.");
pub const TEMPERATURE: Field =
    Field::default("temperature", Type::Float(0.05, 100.0), "1.0", "T: both models' logits are divided by it in the divergence.");
pub const DIVERGENCE: Field = Field::default(
    "divergence",
    Type::Choice(&["forward_kl", "reverse_kl", "jsd", "skew_kl"]),
    "\"forward_kl\"",
    "What is measured between the two distributions.",
);
pub const BETA: Field = Field::optional("beta", Type::Float(0.0, 1.0), "Of `jsd`: the teacher's share of the mixture; 0.5 if not given.");
pub const SKEW_ALPHA: Field =
    Field::optional("skew_alpha", Type::Float(0.0, 0.999), "Of `skew_kl`: the teacher's share of the mixture; 0.1 if not given.");
