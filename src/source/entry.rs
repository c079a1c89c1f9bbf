//! Names of files as strangers give them: in a listing, a manifest of layers, an archive. They must stay below the folder that they go to.

use std::path::PathBuf;

/// Deeper and longer than any honest one.
const MAX_DEPTH: usize = 64;
const MAX_BYTES: usize = 1024;

/// The path, if it leads to a file below wherever it is put.
pub fn safe(path: &str) -> Option<PathBuf> {
    let is_text = path.len() <= MAX_BYTES && !path.chars().any(|c| c.is_control() || c == '\\');
    let parts: Vec<&str> = path.split('/').collect();
    let is_inner = |part: &&str| !part.is_empty() && *part != "." && *part != ".." && part.len() <= 255;
    (is_text && parts.len() <= MAX_DEPTH && parts.iter().all(is_inner)).then(|| parts.iter().collect())
}

/// The last part of a path: what a single file is called.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_below_is_safe() {
        for good in ["a", "a/b.json", "a b/ü", "..a/b..", "-x"] {
            assert_eq!(safe(good), Some(PathBuf::from(good)));
        }
        for bad in ["", "/", "/etc/passwd", "a/../b", "..", "./a", "a//b", "a/", "a\\b", "a\0", "a\nb"] {
            assert_eq!(safe(bad), None, "{bad:?}");
        }
        assert_eq!(safe(&vec!["a"; 65].join("/")), None);
        assert_eq!(safe(&"a".repeat(256)), None);
        assert_eq!(file_name("a/b/c.jsonl"), "c.jsonl");
    }
}
