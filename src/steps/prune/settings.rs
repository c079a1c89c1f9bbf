//! What is asked for, checked: fields that a method does not have are told, and what follows from others is filled in, so that equal prunings have equal keys.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::sparse::{Pattern, Per};
use crate::steps::{Declared, Failure, Params, Problem, typed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Magnitude,
    Wanda,
    SparseGpt,
    Cut,
}

const ACTIONS: [(Action, &str); 4] =
    [(Action::Magnitude, "magnitude"), (Action::Wanda, "wanda"), (Action::SparseGpt, "sparsegpt"), (Action::Cut, "cut")];

impl Action {
    pub fn name(self) -> &'static str {
        ACTIONS.iter().find(|(action, _)| *action == self).map_or("", |(_, name)| name)
    }

    pub fn from_name(name: &str) -> Result<Action, Failure> {
        let found = ACTIONS.iter().find(|(_, known)| *known == name).map(|(action, _)| *action);
        found.ok_or_else(|| Failure::bug(format!("prune has no action `{name}`")))
    }

    /// Whether it needs a text.
    pub fn reads(self) -> bool {
        self != Action::Magnitude
    }
}

/// How much of the data is read.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    pub nsamples: usize,
    pub seqlen: usize,
}

/// Of zeros.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sparsity {
    pub sparsity_ratio: f64,
    pub sparsity_type: String,
    pub per: Option<String>,
    pub exclude_modules: Vec<String>,
    pub damp: Option<f64>,
    pub block_size: Option<usize>,
    pub text: Option<Text>,
}

impl Sparsity {
    pub fn pattern(&self) -> Pattern {
        match group(&self.sparsity_type) {
            Some((zeros, of)) => Pattern::Groups { zeros, of },
            None => {
                let per = if self.per.as_deref() == Some("output") { Per::Output } else { Per::Layer };
                Pattern::Unstructured { ratio: self.sparsity_ratio, per }
            }
        }
    }
}

/// Of a smaller shape.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    pub num_hidden_layers: Option<usize>,
    pub intermediate_size: Option<usize>,
    pub num_key_value_heads: Option<usize>,
    pub text: Text,
}

/// `2:4` → zeros in how many neighbours. N:M has N values left of M, which is as many as zeros in the patterns that there are.
fn group(name: &str) -> Option<(usize, usize)> {
    match name {
        "2:4" => Some((2, 4)),
        "4:8" => Some((4, 8)),
        _ => None,
    }
}

/// As the manifest has them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    nsamples: usize,
    seqlen: usize,
    prune_method: Option<String>,
    sparsity_ratio: Option<f64>,
    sparsity_type: String,
    per: Option<String>,
    exclude_modules: Vec<String>,
    damp: Option<f64>,
    block_size: Option<usize>,
    structured: Option<Params>,
}

const BLOCK_SIZE: usize = 128;

pub fn resolve(declared: &Declared) -> Result<(Action, Params), Vec<Problem>> {
    let fields: Fields = typed(&declared.params).map_err(|failure| vec![Problem::at("", failure.message)])?;
    let action = fields.action()?;
    let mut problems = match action {
        Action::Cut => fields.problems_of_cutting(),
        _ => fields.problems_of_zeros(action),
    };
    if action.reads() && declared.inputs("data").is_empty() {
        let what = if action == Action::Cut { "structured" } else { action.name() };
        let problem = Problem::at("", format!("`{what}` judges weights by what goes into them")).label("needs `data`");
        problems.push(problem.help("write `data = \"TEXTS\"`: a few ten thousand tokens that are not tested on"));
    }
    match problems.is_empty() {
        true => Ok((action, fields.params(action))),
        false => Err(problems),
    }
}

impl Fields {
    fn action(&self) -> Result<Action, Vec<Problem>> {
        let help = "write `prune_method = \"sparsegpt\"` with a `sparsity_ratio`, or `structured = { num_hidden_layers = … }`";
        match (&self.prune_method, &self.structured) {
            (None, None) => {
                Err(vec![Problem::at("", "nothing says what goes").label("needs a `prune_method`, or `structured`").help(help)])
            }
            (Some(_), Some(_)) => {
                let problem = Problem::at("structured", "zeros and a smaller shape are two steps").label("goes without `prune_method`");
                Err(vec![problem.help("prune the output of one step in another")])
            }
            (None, Some(_)) => Ok(Action::Cut),
            (Some(method), None) => Action::from_name(method).map_err(|failure| vec![Problem::at("prune_method", failure.message)]),
        }
    }

    fn problems_of_cutting(&self) -> Vec<Problem> {
        let given = [
            ("sparsity_ratio", self.sparsity_ratio.is_some()),
            ("per", self.per.is_some()),
            ("damp", self.damp.is_some()),
            ("block_size", self.block_size.is_some()),
            ("sparsity_type", self.sparsity_type != "unstructured"),
            ("exclude_modules", !self.exclude_modules.is_empty()),
        ];
        let given = given.into_iter().filter(|(_, given)| *given);
        let mut problems: Vec<Problem> =
            given.map(|(name, _)| Problem::at(name, format!("`{name}` belongs to `prune_method`")).label("not of `structured`")).collect();
        if self.structured.as_ref().is_some_and(Params::is_empty) {
            problems.push(Problem::at("structured", "no size is given").help("write `structured = { num_hidden_layers = … }`"));
        }
        problems
    }

    fn problems_of_zeros(&self, action: Action) -> Vec<Problem> {
        let mut problems = Vec::new();
        let group = group(&self.sparsity_type);
        match (group, self.sparsity_ratio) {
            (None, None) => problems.push(
                Problem::at("", "nothing says how many weights go").label("needs a `sparsity_ratio`").help("write `sparsity_ratio = 0.5`"),
            ),
            (Some((zeros, of)), Some(ratio)) if ratio * of as f64 != zeros as f64 => problems.push(
                Problem::at("sparsity_ratio", format!("`{}` has {zeros} zeros in every {of} weights", self.sparsity_type))
                    .label(format!("is not {ratio}"))
                    .help("leave it out, or write `sparsity_type = \"unstructured\"`"),
            ),
            _ => {}
        }
        if self.per.is_some() && (group.is_some() || action == Action::SparseGpt) {
            let why =
                if group.is_some() { "groups are compared within themselves" } else { "`sparsegpt` compares within blocks of columns" };
            problems.push(Problem::at("per", why).label("belongs to `magnitude` and `wanda`, unstructured"));
        }
        for (name, given) in [("damp", self.damp.is_some()), ("block_size", self.block_size.is_some())] {
            if given && action != Action::SparseGpt {
                let problem = Problem::at(name, format!("`{name}` belongs to the method `sparsegpt`"));
                problems.push(problem.label(format!("the method is `{}`", action.name())));
            }
        }
        if let (Some((_, of)), Some(size)) = (group, self.block_size)
            && !size.is_multiple_of(of)
        {
            let problem = Problem::at("block_size", format!("a block of {size} columns cuts through groups of {of}"));
            problems.push(problem.help(format!("choose a multiple of {of}")));
        }
        problems
    }

    fn params(&self, action: Action) -> Params {
        let text = json!({"nsamples": self.nsamples, "seqlen": self.seqlen});
        let mut params = match (action, &self.structured) {
            (Action::Cut, Some(shape)) => shape.clone(),
            _ => self.sparsity(action),
        };
        if action.reads() {
            params.insert("text".to_string(), text);
        }
        params
    }

    fn sparsity(&self, action: Action) -> Params {
        let mut params = Params::new();
        let mut set = |name: &str, value: Value| drop(params.insert(name.to_string(), value));
        let mut exclude = self.exclude_modules.clone();
        exclude.sort();
        exclude.dedup();
        set("sparsity_ratio", json!(self.sparsity_ratio.unwrap_or(0.5)));
        set("sparsity_type", json!(self.sparsity_type));
        set("exclude_modules", json!(exclude));
        if group(&self.sparsity_type).is_none() && action != Action::SparseGpt {
            let default = if action == Action::Wanda { "output" } else { "layer" };
            set("per", json!(self.per.as_deref().unwrap_or(default)));
        }
        if action == Action::SparseGpt {
            set("damp", json!(self.damp.unwrap_or(0.01)));
            set("block_size", json!(self.block_size.unwrap_or(BLOCK_SIZE)));
        }
        params
    }
}
