//! Tables and fields that belong to no kind: `[project]`, `[device.NAME]`, `[source]`, and what every step may have.

use crate::steps::{Field, Kind, Type};

/// What a step of this kind may have besides its own fields. A kind that has a `resources` of its own has that one instead.
pub fn of(kind: &dyn Kind) -> &'static [Field] {
    match STEP.split_first() {
        Some((resources, others)) if kind.fields().iter().any(|field| field.name == resources.name) => others,
        _ => STEP,
    }
}

/// Fields of every step besides `matrix` and `exclude`, which are no parameters.
pub static STEP: &[Field] = &[
    // The first one: see `of`.
    Field::optional(
        "resources",
        Type::Table(RESOURCES),
        "What the step takes while it runs, where the kind's own estimate is wrong. Reaches no result.",
    ),
    Field::optional(
        "timeout",
        Type::Duration,
        "Stops the step with an error after this time: `\"30 min\"`, or seconds. Reaches no result.",
    ),
    // Optional, so that a step without extras carries no map for them: ten thousand steps are common.
    Field::optional("tags", Type::List(&Type::String), "Words to find the step by."),
    Field::optional("description", Type::Template, "What the step is for; may use `project`, `step` and `matrix`."),
];

/// Their names, with those that make several steps of one.
pub const STEP_WORDS: [&str; 2] = ["matrix", "exclude"];
pub const MATRIX_DOC: &str = "One step for each value of a field: `matrix.type = [\"Q8_0\", \"Q4_0\"]`; several fields multiply. Values may be named: `matrix.arch.small = { … }`.";
pub const EXCLUDE_DOC: &str = "Combinations to leave out: `exclude = [{ type = \"Q4_0\", seed = 2 }]`.";

static RESOURCES: &[Field] = &[
    Field::optional("cpu", Type::Int(0, 4096), "Threads; 0 means all there are."),
    Field::optional("memory", Type::Size, "Memory: `\"1 GiB\"`, or bytes."),
    Field::optional("gpu", Type::Int(0, 64), "Graphics processors."),
];

pub static PROJECT: &[Field] = &[
    Field::required("name", Type::String, "Letters, digits, `_`, `-` and dots; bundles are named after it."),
    Field::default("version", Type::String, "\"0.0.0\"", "Letters, digits, `_`, `-`, `+` and dots; bundles are named after it."),
    Field::optional("description", Type::String, "One line that bundles carry."),
    Field::default("authors", Type::List(&Type::String), "[]", "Who made it; bundles carry it."),
    Field::optional("license", Type::String, "An SPDX expression; bundles carry it."),
    Field::optional(
        "created",
        Type::String,
        "RFC 3339; what bundles give as their creation time instead of 1970, since the day of a build reaches no byte.",
    ),
];

/// The kinds say what a device can be.
pub use crate::steps::device::FIELDS as DEVICE;

pub static SOURCE: &[Field] = &[
    Field::optional(
        "path",
        Type::String,
        "A file or folder, relative to this manifest; with another origin, one within the repository, archive or artifact.",
    ),
    Field::optional(
        "git",
        Type::String,
        "A git repository: an `https://` or `file://` URL, or a path. `slmops lock` pins its commit; Git LFS content is fetched.",
    ),
    Field::optional("branch", Type::String, "The branch to pin."),
    Field::optional("tag", Type::String, "The tag to pin."),
    Field::optional("rev", Type::String, "The commit to pin: 7 to 40 hex digits."),
    Field::optional("hf", Type::String, "A repository on the Hugging Face Hub: `org/name`. `slmops lock` pins its commit."),
    Field::optional("revision", Type::String, "The Hub's branch, tag or commit to pin; `main` if not given."),
    Field::optional("repo_type", Type::Choice(&["model", "dataset"]), "What the Hub's repository holds; a model if not given."),
    Field::optional(
        "include",
        Type::List(&Type::String),
        "Files of the Hub's repository to take: patterns, in which `*` also stands for slashes. If not given: all but pickles (`.bin`, `.pt` …), other frameworks' weights, and GGUF files beside safetensors.",
    ),
    Field::optional("exclude", Type::List(&Type::String), "Files of the Hub's repository to leave out of these: patterns."),
    Field::optional("url", Type::String, "One file at a web address. `slmops lock` pins its SHA-256."),
    Field::optional("sha256", Type::String, "What the file at `url` must be: 64 hex digits."),
    Field::optional("unpack", Type::Bool, "Whether the file at `url` is a tar archive, plain or with gzip, whose files are meant."),
    Field::optional(
        "oci",
        Type::String,
        "An artifact in a registry: `registry.example/team/model:1.0`, as slmops, KitOps or ORAS push it. `slmops lock` pins its digest.",
    ),
    Field::optional("description", Type::String, "What the data is."),
];

/// Top-level names that are no kinds, and what each is for.
pub const TOP: [(&str, &str); 9] = [
    ("slmops", "The edition of the manifest: 1. It fixes the meaning and the defaults of everything else."),
    ("project", "The name and version of what is built."),
    ("source", "Where data comes from: `NAME = { path = … }`, or `git`, `hf`, `url`, `oci`."),
    ("device", "What a bundle is for: `[device.NAME]`."),
    ("bundle", "What is built in the end: `[bundle.NAME]`."),
    ("defaults", "`[defaults.KIND]`: fields for every step of a kind that does not set them itself."),
    ("profile", "`[profile.NAME.KIND.STEP]`: fields that `--profile NAME` changes."),
    ("include", "Manifests whose tables belong to this one."),
    ("workspace", "`members = [\"a\", \"b/*\"]`: folders with manifests of their own."),
];

/// Kept for editions to come.
pub const RESERVED: [&str; 3] = ["site", "runtime", "test"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_described_as_they_are_read() {
        let names: Vec<&str> = SOURCE.iter().map(|field| field.name).collect();
        assert_eq!(names, crate::source::spec::FIELDS);
    }
}
