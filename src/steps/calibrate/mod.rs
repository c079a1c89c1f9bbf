//! `[calibrate.NAME]`: a model reads a text → how much each input of its matrices matters. What is added up is in `model::imatrix`.

use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;

use super::dataset::record::{self, Record};
use super::io::on_threads;
use super::{Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Part, PartPort, Problem, Resources, Task, Type, typed};
use crate::base::{Digest, files};
use crate::model::imatrix::{Window, collect, windows};
use crate::model::{Encoder, Imatrix, Model, ModelError};

/// The output's file.
pub const FILE: &str = "imatrix.gguf";

#[derive(Debug)]
pub struct Calibrate;

static FIELDS: &[Field] = &[
    Field::required(
        "model",
        Type::Ref(Arity::One, &[Artifact::Model, Artifact::Quantized]),
        "The model that reads, best before it is quantized.",
    ),
    Field::required(
        "data",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "What it reads: texts of the kind that it will meet. Not what it is tested on.",
    ),
    Field::default(
        "nsamples",
        Type::Int(1, 1 << 20),
        "128",
        "Windows to read, evenly spread over the data; fewer if the data has no more.",
    ),
    Field::default("seqlen", Type::Int(2, 1 << 20), "512", "Tokens of a window, at most as many as the model takes."),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    nsamples: usize,
    seqlen: usize,
}

impl Kind for Calibrate {
    fn name(&self) -> &'static str {
        "calibrate"
    }

    fn revision(&self) -> u32 {
        3
    }

    fn summary(&self) -> &'static str {
        "Measures on a text which inputs of a model's matrices matter"
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
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Imatrix,
            outputs: Vec::new(),
            task: Task { action: "calibrate", params: declared.params.clone() },
            inputs: vec![PartPort::pass(declared, "model"), PartPort::pass(declared, "data")],
            resources: Resources { cpu: 0, ..Resources::default() },
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        let settings: Settings = typed(&task.params)?;
        on_threads(io, |io| run(&settings, io))
    }
}

fn run(settings: &Settings, io: &Io) -> Result<(), Failure> {
    let model = Model::open(io.one("model")?)?.at(io.now);
    let windows = text(&model, io, settings.seqlen, settings.nsamples)?;
    let total = windows.len() as u64;
    let mut imatrix = collect(&model, &windows, &mut |done| {
        io.progress(done as u64, total, "windows", "");
        if io.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    imatrix.datasets = vec![format!("blake3:{}", digest(&windows))];
    imatrix.write(&io.out.join(FILE))?;
    let silent: usize = imatrix.entries.values().map(|entry| entry.sums.iter().filter(|sum| **sum == 0.0).count()).sum();
    let note = if silent > 0 { format!("; {silent} inputs were never anything but 0") } else { String::new() };
    let tokens: usize = windows.iter().map(Vec::len).sum();
    io.say(format!("{} matrices, {tokens} tokens in {} windows{note}", imatrix.entries.len(), windows.len()));
    Ok(())
}

/// The tokens of a text name it: neither a path nor a time would be the same elsewhere.
fn digest(windows: &[Window]) -> Digest {
    let bytes: Vec<u8> = windows.iter().flatten().flat_map(|token| token.to_le_bytes()).collect();
    Digest::of(&bytes)
}

/// The windows of the port `data`'s records, behind each other as the model would meet them.
pub fn text<W: Sync>(model: &Model<W>, io: &Io, length: usize, most: usize) -> Result<Vec<Window>, Failure> {
    let limit = model.config.max_position_embeddings;
    if length > limit {
        return Err(Failure::new(format!("`seqlen` is {length}; the model takes {limit} tokens")));
    }
    let encoder = model.encoder();
    let records = record::of_port(io, "data")?;
    let encoded = records.par_iter().enumerate().map(|(i, record)| encode(record, encoder).map_err(|error| records.wrong(i, error)));
    let tokens = encoded.collect::<Result<Vec<_>, Failure>>()?.concat();
    let windows = windows(&tokens, length, most);
    match tokens.len() {
        0 => Err(Failure::new("the data is empty")
            .help("a dataset is JSON lines: {\"text\": …}, {\"prompt\", \"completion\"} or {\"messages\"}")),
        _ => Ok(windows),
    }
}

fn encode(record: &Record, encoder: Encoder) -> Result<Vec<u32>, ModelError> {
    match record {
        Record::Text(text) => encoder.text(text).map(|example| example.tokens),
        Record::Pair { prompt, completion: None } => encoder.prompt(prompt),
        Record::Pair { prompt, completion: Some(completion) } => encoder.pair(prompt, completion).map(|example| example.tokens),
        Record::Messages(chat) => encoder.conversation(chat).map(|example| example.tokens),
    }
}

/// A `calibrate` step's output, or a file that llama-imatrix wrote.
pub fn read(path: &Path) -> Result<Imatrix, Failure> {
    if !files::is_folder(path).map_err(|error| Failure::file("read", path, &error))? {
        return Ok(Imatrix::read(path)?);
    }
    let names = files::names(path).map_err(|error| Failure::file("read", path, &error))?;
    let known = |name: &&std::ffi::OsString| {
        Path::new(name).extension().is_some_and(|ending| ["gguf", "dat", "imatrix"].iter().any(|known| ending == *known))
    };
    match names.iter().filter(known).collect::<Vec<_>>().as_slice() {
        [name] => Ok(Imatrix::read(&path.join(name))?),
        found => Err(Failure::new(format!("`{}` holds {} importance matrices, not one", path.display(), found.len()))
            .help("an importance matrix is a file that ends in .gguf, .dat or .imatrix")),
    }
}

#[cfg(test)]
mod tests;
