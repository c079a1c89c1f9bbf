//! The metrics: what each needs, and how items add up to a figure.

use super::report::Item;

/// What they have in common is their [`Shape`].
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

    /// How items add up to a figure.
    pub fn shape(self) -> Shape {
        match self {
            MetricKind::ExactMatch | MetricKind::JsonValid | MetricKind::Flips | MetricKind::RegexMatch => Shape::ShareOfItems,
            MetricKind::JsonSchemaValid | MetricKind::JsonExactMatch => Shape::ShareOfItems,
            MetricKind::Acc | MetricKind::AccNorm | MetricKind::AccBytes | MetricKind::AccMutualInfo => Shape::ShareOfItems,
            MetricKind::Top1Agreement => Shape::ShareOfTokens,
            MetricKind::Perplexity | MetricKind::KlDivergence => Shape::Mean,
            MetricKind::KlDivergenceP99 => Shape::Percentile(0.99),
        }
    }

    /// Whether an item counts, for a share of items; nothing if it was not measured.
    pub fn flag(self, item: &Item) -> Option<bool> {
        match self {
            MetricKind::ExactMatch => item.exact_match,
            MetricKind::JsonValid => item.json_valid,
            MetricKind::Flips => Some(item.is_right()? != item.was_right()?),
            MetricKind::RegexMatch => item.regex_match,
            MetricKind::JsonSchemaValid => item.json_schema_valid,
            MetricKind::JsonExactMatch => item.json_exact_match,
            MetricKind::Acc => item.acc,
            MetricKind::AccNorm => item.acc_norm,
            MetricKind::AccBytes => item.acc_bytes,
            MetricKind::AccMutualInfo => item.acc_mutual_info,
            MetricKind::Perplexity | MetricKind::KlDivergence | MetricKind::KlDivergenceP99 | MetricKind::Top1Agreement => None,
        }
    }

    /// An item's part in the sums above and below the line, for a share or mean of tokens; nothing if it was not measured.
    pub fn sums(self, item: &Item) -> Option<(f64, f64)> {
        let above = match self {
            MetricKind::Perplexity => item.nll?,
            MetricKind::KlDivergence => item.kl_divergence?,
            MetricKind::Top1Agreement => item.top1_agree? as f64,
            _ => return None,
        };
        item.tokens.map(|tokens| (above, tokens as f64))
    }

    /// From the quotient of the sums to the figure.
    pub fn figure(self, quotient: f64) -> f64 {
        match self {
            MetricKind::Perplexity => crate::kernels::math::exp64(quotient),
            _ => quotient,
        }
    }

    /// How fast the figure moves with the quotient.
    pub fn slope(self, quotient: f64) -> f64 {
        match self {
            MetricKind::Perplexity => self.figure(quotient),
            _ => 1.0,
        }
    }
}

/// How items add up to a figure, which decides about its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// How many of the items: each counts or does not.
    ShareOfItems,
    /// How many of all items' tokens.
    ShareOfTokens,
    /// A sum over all items' tokens by their number.
    Mean,
    /// The value that so large a share of all items' tokens does not exceed.
    Percentile(f64),
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
