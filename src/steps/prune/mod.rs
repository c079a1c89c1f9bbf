//! `[prune.NAME]`: a model with fewer weights. Single weights become zero ([`weights`]), or whole layers, heads and channels go ([`cut`]); what is asked for is read in [`settings`].

pub mod cut;
pub mod settings;
pub mod weights;

use std::path::Path;

use super::io::on_threads;
use super::{Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Part, PartPort, Problem, Resources, Task, Type, calibrate, typed};
use crate::model::imatrix::Window;
use crate::model::sparse::Ledger;
use crate::model::{Model, ModelError};
use settings::{Action, Text, resolve};

#[derive(Debug)]
pub struct Prune;

static STRUCTURED: &[Field] = &[
    Field::optional("num_hidden_layers", Type::Int(1, 512), "Layers that remain: those that change their input most (block influence)."),
    Field::optional("intermediate_size", Type::Int(1, 1 << 17), "Channels of each MLP that remain: those that add most to its output."),
    Field::optional(
        "num_key_value_heads",
        Type::Int(1, 1024),
        "Key and value heads of each layer that remain, each with the query heads that share it: those that add most to the attention's output.",
    ),
];

static FIELDS: &[Field] = &[
    Field::required("model", Type::Ref(Arity::One, &[Artifact::Model]), "The model to prune."),
    Field::optional(
        "data",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "Texts of the kind that the model will meet; `magnitude` alone needs and reads none. Not what it is tested on.",
    ),
    Field::default(
        "nsamples",
        Type::Int(1, 1 << 20),
        "128",
        "Windows to read, evenly spread over the data; fewer if the data has no more.",
    ),
    Field::default("seqlen", Type::Int(2, 1 << 20), "512", "Tokens of a window, at most as many as the model takes."),
    Field::optional(
        "prune_method",
        Type::Choice(&["magnitude", "wanda", "sparsegpt"]),
        "Which weights become zero: the smallest; the smallest by what goes into them; or those that the weights behind them make good best. Either this or `structured`.",
    ),
    Field::optional("sparsity_ratio", Type::Float(0.0, 0.99), "Share of each matrix's weights that become zero; `2:4` and `4:8` are 0.5."),
    Field::default(
        "sparsity_type",
        Type::Choice(&["unstructured", "2:4", "4:8"]),
        "\"unstructured\"",
        "Where zeros may be: anywhere, or so many in each group of neighbours in a row.",
    ),
    Field::optional(
        "per",
        Type::Choice(&["output", "layer"]),
        "Within what unstructured weights are compared: a row or a whole matrix; `wanda` takes `output` if it is not given, `magnitude` `layer`.",
    ),
    Field::default(
        "exclude_modules",
        Type::List(&Type::String),
        "[]",
        "Matrices that stay dense: patterns found in their names (`down_proj`, `layers.0.`; `*` stands for anything).",
    ),
    Field::optional(
        "damp",
        Type::Float(0.0, 1.0),
        "Of `sparsegpt`: added to the Hessian's diagonal, as a share of its mean; 0.01 if not given.",
    ),
    Field::optional("block_size", Type::Int(1, 1 << 17), "Of `sparsegpt`: columns that are chosen among at a time; 128 if not given."),
    Field::optional(
        "structured",
        Type::Table(STRUCTURED),
        "The shape to be left, as in `config.json`: whole layers, channels and heads go.",
    ),
];

impl Kind for Prune {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn revision(&self) -> u32 {
        3
    }

    fn summary(&self) -> &'static str {
        "Takes weights out of a model: single ones, or layers, heads and channels"
    }

    fn help(&self) -> &'static str {
        include_str!("help.md")
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn is_numeric(&self) -> bool {
        true
    }

    fn flow(&self, port: &str) -> Flow {
        match port {
            "data" => Flow::Learned,
            _ => Flow::Made,
        }
    }

    fn renders_chats(&self) -> bool {
        true
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        let (action, params) = resolve(declared)?;
        let mut inputs = vec![PartPort::pass(declared, "model")];
        if action.reads() {
            inputs.push(PartPort::pass(declared, "data"));
        }
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Model,
            outputs: Vec::new(),
            task: Task { action: action.name(), params },
            inputs,
            resources: Resources::ALONE,
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        let action = Action::from_name(task.action)?;
        on_threads(io, |io| match action {
            Action::Cut => cut::run(&typed(&task.params)?, io),
            Action::Magnitude | Action::Wanda | Action::SparseGpt => weights::run(action, &typed(&task.params)?, io),
        })
    }
}

/// The model, widened, and the text that it reads.
fn load(text: Option<&Text>, io: &Io) -> Result<(Model, Vec<Window>), Failure> {
    let model = Model::load(io.one("model")?)?.at(io.now);
    let windows = match text {
        Some(text) => calibrate::text(&model, io, text.seqlen, text.nsamples)?,
        None => Vec::new(),
    };
    Ok((model, windows))
}

/// Writes the model and, if zeros are meant in it, their ledger.
fn save(model: &Model, ledger: Option<Ledger>, out: &Path) -> Result<(), ModelError> {
    model.save(out)?;
    ledger.map_or(Ok(()), |ledger| ledger.write(out))
}

#[cfg(test)]
mod tests;
