//! The metrics: what each needs, and how items add up to a figure.

use super::report::Item;

/// Most are a sum over items divided by another; the others are percentiles of tokens. One bootstrap of the items serves all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricKind {
    ExactMatch,
    JsonValid,
    Perplexity,
    KlDivergence,
    KlDivergenceP99,
    Top1Agreement,
    Flips,
    RegexMatch,
    JsonSchemaValid,
    JsonExactMatch,
    Acc,
    AccNorm,
    AccBytes,
    AccMutualInfo,
}

/// As the manifest names them, in the order of the enum.
pub const NAMES: &[&str] = &[
    "exact_match",
    "json_valid",
    "perplexity",
    "kl_divergence",
    "kl_divergence_p99",
    "top1_agreement",
    "flips",
    "regex_match",
    "json_schema_valid",
    "json_exact_match",
    "acc",
    "acc_norm",
    "acc_bytes",
    "acc_mutual_info",
];

const KINDS: [MetricKind; 14] = [
    MetricKind::ExactMatch,
    MetricKind::JsonValid,
    MetricKind::Perplexity,
    MetricKind::KlDivergence,
    MetricKind::KlDivergenceP99,
    MetricKind::Top1Agreement,
    MetricKind::Flips,
    MetricKind::RegexMatch,
    MetricKind::JsonSchemaValid,
    MetricKind::JsonExactMatch,
    MetricKind::Acc,
    MetricKind::AccNorm,
    MetricKind::AccBytes,
    MetricKind::AccMutualInfo,
];

impl MetricKind {
    pub fn from_name(name: &str) -> Option<MetricKind> {
        NAMES.iter().position(|known| *known == name).and_then(|index| KINDS.get(index).copied())
    }

    pub fn name(self) -> &'static str {
        match self {
            MetricKind::ExactMatch => "exact_match",
            MetricKind::JsonValid => "json_valid",
            MetricKind::Perplexity => "perplexity",
            MetricKind::KlDivergence => "kl_divergence",
            MetricKind::KlDivergenceP99 => "kl_divergence_p99",
            MetricKind::Top1Agreement => "top1_agreement",
            MetricKind::Flips => "flips",
            MetricKind::RegexMatch => "regex_match",
            MetricKind::JsonSchemaValid => "json_schema_valid",
            MetricKind::JsonExactMatch => "json_exact_match",
            MetricKind::Acc => "acc",
            MetricKind::AccNorm => "acc_norm",
            MetricKind::AccBytes => "acc_bytes",
            MetricKind::AccMutualInfo => "acc_mutual_info",
        }
    }

    /// Read off greedy answers. So are flips, unless they are of choices.
    pub fn needs_answers(self) -> bool {
        let of_json = matches!(self, MetricKind::JsonValid | MetricKind::JsonSchemaValid | MetricKind::JsonExactMatch);
        of_json || matches!(self, MetricKind::ExactMatch | MetricKind::RegexMatch | MetricKind::Flips)
    }

    /// Read off the likelihoods of given choices.
    pub fn is_of_choices(self) -> bool {
        matches!(self, MetricKind::Acc | MetricKind::AccNorm | MetricKind::AccBytes | MetricKind::AccMutualInfo)
    }

    /// Read off the probabilities of given texts.
    pub fn needs_scores(self) -> bool {
        matches!(self, MetricKind::Perplexity) || self.needs_reference_scores()
    }

    pub fn needs_reference(self) -> bool {
        matches!(self, MetricKind::Flips) || self.needs_reference_scores()
    }

    /// Needs the other model's probabilities, not only its answers.
    pub fn needs_reference_scores(self) -> bool {
        matches!(self, MetricKind::KlDivergence | MetricKind::KlDivergenceP99 | MetricKind::Top1Agreement)
    }

    /// The share of tokens that lie at or below the figure, for a percentile.
    pub fn percentile(self) -> Option<f64> {
        matches!(self, MetricKind::KlDivergenceP99).then_some(0.99)
    }

    /// An item's part in the sums above and below the line; nothing if the item was not measured. A percentile has none.
    pub fn terms(self, item: &Item) -> Option<(f64, f64)> {
        let share = |yes: bool| (f64::from(u8::from(yes)), 1.0);
        let per_token = |sum: f64| item.tokens.map(|tokens| (sum, tokens as f64));
        match self {
            MetricKind::ExactMatch => item.exact_match.map(share),
            MetricKind::JsonValid => item.json_valid.map(share),
            MetricKind::Flips => Some(share(item.is_right()? != item.was_right()?)),
            MetricKind::RegexMatch => item.regex_match.map(share),
            MetricKind::JsonSchemaValid => item.json_schema_valid.map(share),
            MetricKind::JsonExactMatch => item.json_exact_match.map(share),
            MetricKind::Acc => item.acc.map(share),
            MetricKind::AccNorm => item.acc_norm.map(share),
            MetricKind::AccBytes => item.acc_bytes.map(share),
            MetricKind::AccMutualInfo => item.acc_mutual_info.map(share),
            MetricKind::Perplexity => per_token(item.nll?),
            MetricKind::KlDivergence => per_token(item.kl_divergence?),
            MetricKind::KlDivergenceP99 => None,
            MetricKind::Top1Agreement => per_token(item.top1_agree? as f64),
        }
    }

    /// From the quotient of the sums to the figure.
    pub fn figure(self, quotient: f64) -> f64 {
        match self {
            MetricKind::Perplexity => crate::kernels::math::exp64(quotient),
            _ => quotient,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for (name, kind) in NAMES.iter().zip(KINDS) {
            assert_eq!((MetricKind::from_name(name), kind.name()), (Some(kind), *name));
        }
        assert_eq!(MetricKind::from_name("accurate"), None);
    }
}
