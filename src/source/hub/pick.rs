//! Which files of a repository a source takes. Patterns match as the Hub's own tools match them: `*` also stands for slashes.

use super::HubError;
use super::listing::Entry;
use crate::source::origin::{Holds, HubOrigin};

/// Files that run code when they are opened.
const PICKLES: [&str; 9] = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*.npy", "*.npz"];
/// Weights of other frameworks, or the same weights again.
const OTHERS: [&str; 14] = [
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.onnx",
    "*.onnx_data",
    "*.tflite",
    "*.mlmodel",
    "*.mlpackage/*",
    "*.engine",
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "original/*",
    "consolidated*.safetensors",
];
const GGUF: &str = "*.gguf";
const SAFETENSORS: &str = "*.safetensors";
/// Of no use outside of git.
const GIT: &str = "*.gitattributes";

#[derive(Debug)]
pub struct Picked<'e> {
    pub files: Vec<&'e Entry>,
    pub left_out: Vec<String>,
}

/// In the order of the entries.
pub fn pick<'e>(entries: &'e [Entry], origin: &HubOrigin) -> Result<Picked<'e>, HubError> {
    if let Some(path) = &origin.path {
        let is_in = |entry: &&Entry| entry.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let files: Vec<&Entry> = entries.iter().filter(is_in).collect();
        return if files.is_empty() { Err(HubError::Path(path.clone())) } else { Ok(Picked { files, left_out: Vec::new() }) };
    }
    let has_safetensors = entries.iter().any(|entry| matches(SAFETENSORS, &entry.path));
    let is_wanted = |path: &str| match origin.include.as_slice() {
        [] => !is_left_out(path, has_safetensors, origin.holds),
        patterns => any(patterns, path),
    };
    let (files, rest): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| is_wanted(&entry.path) && !any(&origin.exclude, &entry.path));
    let left_out: Vec<String> = match origin.include.as_slice() {
        [] => {
            rest.iter().filter(|entry| !any(&origin.exclude, &entry.path) && !matches(GIT, &entry.path)).map(|e| e.path.clone()).collect()
        }
        _ => Vec::new(),
    };
    if files.is_empty() {
        return Err(HubError::Nothing { some: entries.iter().map(|entry| entry.path.clone()).collect() });
    }
    if origin.holds == Holds::Model && origin.include.is_empty() {
        is_a_model(&files, &left_out)?;
    }
    Ok(Picked { files, left_out })
}

fn is_left_out(path: &str, has_safetensors: bool, holds: Holds) -> bool {
    let is_one_of = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, path));
    match holds {
        Holds::Dataset => is_one_of(&PICKLES) || matches(GIT, path),
        Holds::Model => {
            let is_spare = has_safetensors && matches(GGUF, path);
            is_spare || is_one_of(&PICKLES) || is_one_of(&OTHERS) || matches(GIT, path)
        }
    }
}

/// A folder that is no model would be refused after hours of fetching.
fn is_a_model(files: &[&Entry], left_out: &[String]) -> Result<(), HubError> {
    let of = |pattern: &str| files.iter().filter(|entry| matches(pattern, &entry.path)).map(|entry| entry.path.clone()).collect::<Vec<_>>();
    let ggufs = of(GGUF);
    if ggufs.len() > 1 {
        return Err(HubError::Many(ggufs));
    }
    let weights: Vec<String> =
        left_out.iter().filter(|path| PICKLES.iter().chain(&OTHERS).any(|pattern| matches(pattern, path))).cloned().collect();
    if ggufs.is_empty() && of(SAFETENSORS).is_empty() && !weights.is_empty() {
        return Err(HubError::Unloved(weights));
    }
    Ok(())
}

fn any(patterns: &[String], path: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('/') {
        Some(folder) => matches(&format!("{folder}/*"), path),
        None => matches(pattern, path),
    })
}

/// `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`, as Python's `fnmatch` has them.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<char>, Vec<char>) = (pattern.chars().collect(), path.chars().collect());
    let (mut p, mut s) = (0, 0);
    // Where to go on after the last star if what follows does not fit.
    let mut star: Option<(usize, usize)> = None;
    while s < path.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, s));
            p += 1;
            continue;
        }
        match one(&pattern[p..], path[s]) {
            Some(length) => {
                p += length;
                s += 1;
            }
            None => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, s) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How much of the pattern one character takes, if it fits.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            let is_negated = pattern.get(1) == Some(&'!');
            let start = if is_negated { 2 } else { 1 };
            // A bracket that closes nothing stands for itself.
            let Some(length) = pattern.iter().skip(start + 1).position(|c| *c == ']').map(|at| at + 1) else {
                return (c == '[').then_some(1);
            };
            let set = &pattern[start..start + length];
            (is_in(set, c) != is_negated).then_some(start + length + 1)
        }
        literal => (*literal == c).then_some(1),
    }
}

fn is_in(set: &[char], c: char) -> bool {
    let mut at = 0;
    while at < set.len() {
        match set.get(at..at + 3) {
            Some([low, '-', high]) => {
                if (*low..=*high).contains(&c) {
                    return true;
                }
                at += 3;
            }
            _ => {
                if set[at] == c {
                    return true;
                }
                at += 1;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::listing::Content;
    use super::*;

    fn entries(paths: &[&str]) -> Vec<Entry> {
        paths.iter().map(|path| Entry { path: path.to_string(), size_bytes: 1, content: Content::Small([0; 20]) }).collect()
    }

    fn origin(holds: Holds) -> HubOrigin {
        HubOrigin { repository: "a/b".into(), holds, revision: "main".into(), path: None, include: Vec::new(), exclude: Vec::new() }
    }

    fn names(entries: &[Entry], origin: &HubOrigin) -> Vec<String> {
        pick(entries, origin).unwrap().files.iter().map(|entry| entry.path.clone()).collect()
    }

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, path) in [
            ("*.json", "a/b.json"),
            ("*", ""),
            ("a*b*c", "axxbyybc"),
            ("data/train-?????-of-*", "data/train-00001-of-9.parquet"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[x", "[x"),
            ("**", "a/b"),
            ("a]", "a]"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [("*.json", "a.jsonl"), ("", "a"), ("?", ""), ("[a-c]x", "dx"), ("[!a-c]x", "ax"), ("a*b", "ac"), ("A", "a")]
        {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
        assert!(!matches(&"*a".repeat(40), &"a".repeat(39)));
    }

    #[test]
    fn a_model_comes_without_pickles_and_other_frameworks() {
        let all = entries(&[
            ".gitattributes",
            "README.md",
            "config.json",
            "flax_model.msgpack",
            "m-Q4.gguf",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/config.json",
            "original/consolidated.00.pth",
            "pytorch_model.bin",
            "tokenizer.json",
        ]);
        let origin = origin(Holds::Model);
        assert_eq!(names(&all, &origin), ["README.md", "config.json", "model.safetensors", "tokenizer.json"]);
        let left_out = pick(&all, &origin).unwrap().left_out;
        assert!(left_out.contains(&"pytorch_model.bin".to_string()) && !left_out.contains(&".gitattributes".to_string()), "{left_out:?}");
        let chosen = HubOrigin { include: vec!["*.json".into(), "*.bin".into()], exclude: vec!["onnx/".into()], ..origin };
        assert_eq!(names(&all, &chosen), ["config.json", "pytorch_model.bin", "tokenizer.json"]);
    }

    #[test]
    fn what_cannot_be_meant_is_told_before_it_is_fetched() {
        let model = origin(Holds::Model);
        assert!(matches!(pick(&entries(&["config.json", "pytorch_model.bin"]), &model), Err(HubError::Unloved(_))));
        assert!(matches!(pick(&entries(&["README.md", "a-Q4.gguf", "a-Q8.gguf"]), &model), Err(HubError::Many(_))));
        assert_eq!(names(&entries(&["README.md", "a-Q4.gguf"]), &model), ["README.md", "a-Q4.gguf"]);
        assert_eq!(names(&entries(&["tokenizer.json"]), &model), ["tokenizer.json"]);
        let none = HubOrigin { include: vec!["*.x".into()], ..model.clone() };
        assert!(matches!(pick(&entries(&["a"]), &none), Err(HubError::Nothing { .. })));
        let one = HubOrigin { path: Some("a-Q8.gguf".into()), ..model };
        assert_eq!(names(&entries(&["a-Q4.gguf", "a-Q8.gguf", "a-Q8.gguf.txt"]), &one), ["a-Q8.gguf"]);
        assert_eq!(names(&entries(&["d/a", "d/b/c", "dd"]), &HubOrigin { path: Some("d".into()), ..one }), ["d/a", "d/b/c"]);
        assert_eq!(names(&entries(&["a.parquet", "b.pkl"]), &origin(Holds::Dataset)), ["a.parquet"]);
    }
}
