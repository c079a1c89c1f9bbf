//! `[dataset.NAME]`: JSON lines in, cleaned and split JSON lines out. What a line may be is in `record`, what is dropped in `clean`, who goes
//! where in `split`, when two texts are the same in `normal`.

mod clean;
pub mod normal;
pub mod record;
mod split;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::clean::{Dedup, Filter, Kept};
use self::record::Line;
use self::split::Split;
use super::{Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Params, Part, PartPort, Problem, Resources, Task, Type, typed};

#[derive(Debug)]
pub struct Dataset;

static SOURCES: &[Artifact] = &[Artifact::Dataset, Artifact::Files];
const COUNT: Type = Type::Int(1, i64::MAX);
static TEXT: Type = Type::String;
static SHARE: Type = Type::Float(0.0, 1.0);

static FILTER: &[Field] = &[
    Field::optional("min_chars", Type::Int(0, i64::MAX), "Fewest characters of prompt and completion together."),
    Field::optional("max_chars", Type::Int(0, i64::MAX), "Most characters of prompt and completion together."),
    Field::optional("has_completion", Type::Bool, "Keep only records with a completion (`true`), or only those without one (`false`)."),
    Field::optional("json_completion", Type::Bool, "Keep only completions that are JSON (`true`), or only those that are not (`false`)."),
    Field::optional(
        "contains",
        Type::List(&TEXT),
        "Keep only records with at least one of these strings, whatever their case, width or Unicode form.",
    ),
    Field::optional("excludes", Type::List(&TEXT), "Drop records with any of these strings, whatever their case, width or Unicode form."),
];

static FIELDS: &[Field] = &[
    Field::required("data", Type::Ref(Arity::All, SOURCES), "JSON lines to read, one after the other."),
    Field::optional("filter", Type::Table(FILTER), "Which records to keep."),
    Field::default(
        "dedup",
        Type::Choice(&["none", "exact", "normalized", "prompt"]),
        "\"none\"",
        "Keep the first of several records that are equal byte for byte (`exact`), equal after normalization (`normalized`), or ask the same (`prompt`).",
    ),
    Field::optional("disjoint_from", Type::Ref(Arity::All, SOURCES), "Data of which no prompt may be in the output: tests, say."),
    Field::default("on_leak", Type::Choice(&["fail", "drop"]), "\"fail\"", "Whether a leaked prompt stops the build or is left out."),
    Field::optional("sample", COUNT, "Keep this many records, drawn by a hash of the seed and their content."),
    Field::optional("limit", COUNT, "Keep the first so many records."),
    Field::optional("split", Type::Map(&SHARE), "Names and shares of the splits, which add up to 1."),
    Field::optional("group_by", Type::String, "A key of the records: those with the same value stay in one split."),
    Field::optional("stratify_by", Type::String, "A key of the records: each of its values is split in the given shares."),
    Field::default("shuffle", Type::Bool, "false", "Write the records in an order drawn from the seed."),
    Field::default("seed", Type::Int(0, i64::MAX), "0", "Decides sample, split and order."),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    filter: Filter,
    dedup: Dedup,
    on_leak: OnLeak,
    sample: Option<u64>,
    limit: Option<u64>,
    #[serde(default)]
    split: BTreeMap<String, f64>,
    group_by: Option<String>,
    stratify_by: Option<String>,
    shuffle: bool,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnLeak {
    Fail,
    Drop,
}

/// `dataset.json`: counts, and no word of the data.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    format: u32,
    read: u64,
    /// By reason: `filter.max_chars`, `duplicate`, `leak` …
    dropped: BTreeMap<String, u64>,
    written: u64,
    splits: BTreeMap<String, u64>,
    /// Keys that no model sees, and how many records have them.
    other_keys: BTreeMap<String, u64>,
}

impl Kind for Dataset {
    fn name(&self) -> &'static str {
        "dataset"
    }

    fn revision(&self) -> u32 {
        4
    }

    fn summary(&self) -> &'static str {
        "Filters, de-duplicates and splits JSON lines, and checks for leaks"
    }

    fn help(&self) -> &'static str {
        include_str!("help.md")
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn flow(&self, port: &str) -> Flow {
        match port {
            "data" => Flow::Passed,
            "disjoint_from" => Flow::KeptOut,
            _ => Flow::Made,
        }
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        let problems = problems(&declared.params);
        if !problems.is_empty() {
            return Err(problems);
        }
        let outputs = split_names(&declared.params).map(|name| (name.to_string(), Artifact::Dataset)).collect();
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Dataset,
            outputs,
            task: Task { action: "dataset", params: declared.params.clone() },
            inputs: ["data", "disjoint_from"]
                .iter()
                .filter(|name| declared.port(name).is_some())
                .map(|name| PartPort::pass(declared, name))
                .collect(),
            resources: Resources::default(),
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        let settings: Settings = typed(&task.params)?;
        let mut counts = Counts { format: 1, ..Counts::default() };
        let mut lines = clean::kept(&settings, io, &mut counts)?;
        let splits = if settings.split.is_empty() { Vec::new() } else { split::assign(&settings, &mut lines, &mut counts)? };
        if settings.shuffle {
            clean::shuffle(settings.seed, &mut lines);
        }
        counts.written = lines.len() as u64;
        write(&io.out, &lines, &splits, &mut counts).map_err(|error| Failure::file("write to", &io.out, &error))?;
        io.say(summary(&counts));
        if lines.is_empty() {
            return Err(Failure::new("no record is left").help("`dataset.json` is not kept; loosen `filter`, or look at the counts above"));
        }
        Ok(())
    }
}

fn split_names(params: &Params) -> impl Iterator<Item = &str> {
    params.get("split").and_then(|split| split.as_object()).into_iter().flatten().map(|(name, _)| name.as_str())
}

/// What the fields' types cannot say.
fn problems(params: &Params) -> Vec<Problem> {
    let mut found = Vec::new();
    for name in split_names(params).filter(|name| !is_folder_name(name)) {
        found.push(Problem::at(format!("split.{name}"), format!("`{name}` cannot name a split")).help("use letters, digits, `_` and `-`"));
    }
    let shares = || params.get("split").and_then(|split| split.as_object()).into_iter().flatten();
    for (name, _) in shares().filter(|(_, share)| share.as_f64() == Some(0.0)) {
        found.push(Problem::at(format!("split.{name}"), format!("the split `{name}` has no share")).label("must be above 0"));
    }
    let sum: f64 = shares().filter_map(|(_, share)| share.as_f64()).sum();
    if shares().next().is_some() && (sum - 1.0).abs() > 1e-6 {
        found.push(Problem::at("split", "the shares of `split` do not add up to 1").label(format!("they add up to {sum}")));
    }
    if params.contains_key("split") && shares().next().is_none() {
        found.push(Problem::at("split", "`split` names no split").help("leave it out to write one `data.jsonl`"));
    }
    for field in ["group_by", "stratify_by"] {
        let Some(key) = params.get(field).and_then(|key| key.as_str()) else { continue };
        if !params.contains_key("split") {
            found.push(Problem::at(field, format!("`{field}` needs a `split`")));
        }
        if ["prompt", "completion", "messages", "text"].contains(&key) {
            let help = "records with equal prompts stay together anyway; name another key of the records";
            found.push(Problem::at(field, format!("`{field}` cannot be `{key}`")).help(help));
        }
    }
    found
}

fn is_folder_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn write(out: &Path, lines: &[Kept], splits: &[Split], counts: &mut Counts) -> io::Result<()> {
    if splits.is_empty() {
        write_lines(&out.join("data.jsonl"), lines.iter().map(|kept| &kept.line))?;
    }
    for (number, split) in splits.iter().enumerate() {
        fs::create_dir(out.join(&split.name))?;
        let of_this = lines.iter().filter(|kept| kept.split == number).map(|kept| &kept.line);
        let written = write_lines(&out.join(&split.name).join("data.jsonl"), of_this)?;
        counts.splits.insert(split.name.clone(), written);
    }
    let mut json = serde_json::to_vec_pretty(counts)?;
    json.push(b'\n');
    fs::write(out.join("dataset.json"), json)
}

fn write_lines<'a>(path: &Path, lines: impl Iterator<Item = &'a Line>) -> io::Result<u64> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut written = 0;
    for line in lines {
        record::write(&mut out, line)?;
        written += 1;
    }
    out.flush()?;
    Ok(written)
}

/// `2000 records read, 1900 written (train 1700, validation 200); dropped: 90 duplicate, 10 leak`
fn summary(counts: &Counts) -> String {
    let listed = |counts: &BTreeMap<String, u64>| counts.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ");
    let mut text = format!("{} records read, {} written", counts.read, counts.written);
    if !counts.splits.is_empty() {
        text += &format!(" ({})", listed(&counts.splits));
    }
    if !counts.dropped.is_empty() {
        text += &format!("; dropped: {}", listed(&counts.dropped));
    }
    text
}

#[cfg(test)]
mod tests;
