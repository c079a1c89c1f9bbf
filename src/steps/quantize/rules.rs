//! What a person says about single tensors: types by pattern, and a recipe that names the type of each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::preset::{Choice, fitting};
use crate::base::{files, json};
use crate::model::quant::BlockType;
use crate::model::read_limited;
use crate::steps::Failure;

/// A recipe has a line for each tensor.
const MAX_RECIPE: u64 = 64 << 20;

/// The file's name in the output of `fit`.
pub const RECIPE: &str = "recipe.json";

/// `recipe.json`: each tensor's type, by its name in the GGUF file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// 1
    pub format: u32,
    pub types: BTreeMap<String, String>,
}

impl Pinned {
    /// The file, or the one in the folder.
    pub fn read(path: &Path) -> Result<Pinned, Failure> {
        let is_folder = files::is_folder(path).map_err(|error| Failure::file("read", path, &error))?;
        let file = if is_folder { path.join(RECIPE) } else { path.to_path_buf() };
        let wrong = |why: String| {
            Failure::new(format!("cannot read the recipe `{}`: {why}", file.display()))
                .help("a recipe is JSON: {\"format\": 1, \"types\": {\"blk.0.attn_q.weight\": \"Q4_K\", …}}")
        };
        let pinned: Pinned = json::from_slice(&read_limited(&file, MAX_RECIPE)?).map_err(|error| wrong(error.to_string()))?;
        if pinned.format != 1 {
            return Err(wrong(format!("format {} is not known", pinned.format)));
        }
        match pinned.types.iter().find(|(_, ty)| ty.parse::<BlockType>().is_err()) {
            Some((name, ty)) => Err(wrong(format!("`{name}` has the unknown type `{ty}`"))),
            None => Ok(pinned),
        }
    }

    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Failure::bug(error.to_string()))?;
        files::write_atomic(path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file("write", path, &error))
    }
}

/// The types of single tensors.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub patterns: BTreeMap<String, BlockType>,
    pub pinned: Option<Pinned>,
}

impl Rules {
    /// What is said about a matrix: by the longest pattern that is found in its name, else by the recipe. `None` if nothing is.
    pub fn of(&self, name: &str) -> Option<BlockType> {
        self.longest(name).map(|(_, ty)| ty).or_else(|| self.pinned.as_ref()?.types.get(name)?.parse().ok())
    }

    /// A matrix's choice, once the rules have spoken.
    pub fn apply(&self, choice: Choice, name: &str, shape: &[usize]) -> Choice {
        match (shape, self.of(name)) {
            (&[_, columns], Some(wanted)) => Choice { ty: fitting(wanted, columns), wanted },
            _ => choice,
        }
    }

    /// Patterns that give no matrix its type, as none bears them or longer ones win everywhere, and tensors of the recipe that there are not: slips that would
    /// else stay silent.
    pub fn unused<'a>(&'a self, matrices: &[String], names: &[String]) -> Vec<&'a str> {
        let deciding: BTreeSet<&str> = matrices.iter().filter_map(|name| self.longest(name)).map(|(pattern, _)| pattern).collect();
        let patterns = self.patterns.keys().filter(|pattern| !deciding.contains(pattern.as_str()));
        let pinned = self.pinned.iter().flat_map(|pinned| pinned.types.keys()).filter(|name| !names.contains(name));
        patterns.chain(pinned).map(String::as_str).collect()
    }

    fn longest(&self, name: &str) -> Option<(&str, BlockType)> {
        let found = self.patterns.iter().filter(|(pattern, _)| is_in(pattern, name)).max_by_key(|(pattern, _)| pattern.len());
        found.map(|(pattern, ty)| (pattern.as_str(), *ty))
    }
}

/// Whether a pattern is found in a name; `*` stands for anything.
pub(in crate::steps) fn is_in(pattern: &str, name: &str) -> bool {
    let mut rest = name;
    pattern.split('*').all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pattern_speaks_and_then_the_recipe() {
        let patterns = [("ffn_down", BlockType::Q6K), ("blk.1.*down", BlockType::Q8_0), ("blk.1.", BlockType::Q5_1)];
        let types = [("blk.0.attn_q.weight".to_string(), "Q4_0".to_string()), ("blk.2.ffn_down.weight".to_string(), "Q4_0".to_string())];
        let rules = Rules {
            patterns: patterns.map(|(pattern, ty)| (pattern.to_string(), ty)).into(),
            pinned: Some(Pinned { format: 1, types: types.into() }),
        };
        for (name, expected) in [
            ("blk.0.ffn_down.weight", Some(BlockType::Q6K)),
            ("blk.1.ffn_down.weight", Some(BlockType::Q8_0)),
            ("blk.1.ffn_up.weight", Some(BlockType::Q5_1)),
            ("blk.11.ffn_up.weight", None),
            ("blk.0.attn_q.weight", Some(BlockType::Q4_0)),
            ("blk.2.ffn_down.weight", Some(BlockType::Q6K)),
        ] {
            assert_eq!(rules.of(name), expected, "{name}");
        }
        let names = ["blk.0.ffn_down.weight".to_string(), "blk.2.ffn_down.weight".to_string()];
        assert_eq!(rules.unused(&names, &names), ["blk.1.", "blk.1.*down", "blk.0.attn_q.weight"]);
        // Norms are packed as they are, and a longer pattern takes the rest.
        let patterns = ["down", "ffn_down", "norm"].map(|pattern| (pattern.to_string(), BlockType::Q4_0));
        let shadowed = Rules { patterns: patterns.into(), pinned: None };
        assert_eq!(shadowed.unused(&names, &[]), ["down", "norm"]);
    }

    #[test]
    fn a_recipe_reads_back_and_a_wrong_one_is_told() {
        let space = tempfile::tempdir().unwrap();
        let pinned = Pinned { format: 1, types: [("a.weight".to_string(), "Q2_K".to_string())].into() };
        pinned.write(&space.path().join(RECIPE)).unwrap();
        assert_eq!(Pinned::read(space.path()).unwrap(), pinned);
        for (text, said) in [
            ("{", "EOF"),
            ("{\"format\": 2, \"types\": {}}", "format 2"),
            ("{\"format\": 1, \"types\": {\"a\": \"Q9\"}}", "unknown type `Q9`"),
            ("{\"format\": 1, \"typen\": {}}", "unknown field"),
        ] {
            std::fs::write(space.path().join(RECIPE), text).unwrap();
            let failure = Pinned::read(space.path()).unwrap_err();
            assert!(failure.message.contains(said), "{failure}");
        }
    }
}
