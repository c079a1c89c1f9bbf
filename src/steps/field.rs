//! How a kind describes its fields. One description serves parsing, defaults, the JSON schema, help and completion.

/// A field of a step.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub ty: Type,
    pub need: Need,
    /// One or two sentences, with the unit.
    pub doc: &'static str,
}

impl Field {
    pub const fn required(name: &'static str, ty: Type, doc: &'static str) -> Field {
        Field { name, ty, need: Need::Required, doc }
    }

    /// Absent from the parameters when it is not given.
    pub const fn optional(name: &'static str, ty: Type, doc: &'static str) -> Field {
        Field { name, ty, need: Need::Optional, doc }
    }

    /// `default` is a TOML value as a person would write it: `"3e-3"`, `"true"`, `"[]"`, `"\"forward_kl\""`.
    pub const fn default(name: &'static str, ty: Type, default: &'static str, doc: &'static str) -> Field {
        Field { name, ty, need: Need::Default(default), doc }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    Optional,
    Default(&'static str),
}

/// What may stand in a field, and what it becomes in the parameters.
#[derive(Debug)]
pub enum Type {
    Bool,
    /// min..=max
    Int(i64, i64),
    /// min..=max; an integer is taken by its value; `nan` and `inf` are refused.
    Float(f64, f64),
    String,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// `"1 MiB"` or an integer → bytes.
    Size,
    /// `"10 min"` or a number of seconds → milliseconds.
    Duration,
    /// A string that minijinja renders with `project`, `step` and `matrix`, strict about undefined names.
    Template,
    /// A list; a single value stands for a list of one.
    List(&'static Type),
    /// A table with these fields and no others.
    Table(&'static [Field]),
    /// A table with free keys.
    Map(&'static Type),
    /// The name of a source or step (`"student"`, `"student.baseline"`, `"small@type=Q8_0"`), or a list of them.
    Ref(Arity, &'static [Artifact]),
    /// A table NAME = reference; each becomes a port `field.NAME`. A list of references stands for a table of their own names.
    NamedRefs(&'static [Artifact]),
    /// The name of a `[device.NAME]`, or a list of them; the parameter becomes that device's whole table.
    Device(Arity),
}

/// How many inputs a reference may reach, and what a list or a matrix behind it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one: a list or a matrix here is an error that says how to pick a variant.
    One,
    /// Fans out: one step for each.
    Each,
    /// All of them together are one input, in order.
    All,
}

/// What an output is, so that a wrong reference is found before anything runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Artifact {
    /// A JSON lines file, or a folder of them. Every source counts as one of these or as `Files`.
    Dataset,
    /// A folder with `tokenizer.json`.
    Tokenizer,
    /// A Hugging Face folder.
    Model,
    /// A folder with one GGUF file and `quantize.json`.
    Quantized,
    /// A folder with an importance matrix, or its file.
    Imatrix,
    /// A teacher's completions and cached top-k logits.
    Labels,
    /// A folder with `report.json` and `items/`.
    Report,
    /// A folder with `verdict.json`.
    Verdict,
    /// A device bundle.
    Bundle,
    /// Anything: outputs of `exec`, sources. Accepted wherever the content can be checked when it is read.
    Files,
}

impl Artifact {
    /// For messages: `a model`.
    pub fn noun(self) -> &'static str {
        match self {
            Artifact::Dataset => "a dataset",
            Artifact::Tokenizer => "a tokenizer",
            Artifact::Model => "a model",
            Artifact::Quantized => "a quantized model",
            Artifact::Imatrix => "an importance matrix",
            Artifact::Labels => "a teacher's labels",
            Artifact::Report => "a report",
            Artifact::Verdict => "a gate's verdict",
            Artifact::Bundle => "a bundle",
            Artifact::Files => "files",
        }
    }
}
