//! Names of files as strangers give them: in a listing, a manifest of layers, an archive, a git tree. They must stay below the folder that they go to.

use std::path::PathBuf;

/// Deeper and longer than any honest one.
const MAX_DEPTH: usize = 64;
const MAX_BYTES: usize = 1024;
const MAX_PART_BYTES: usize = 255;

/// The path, if it leads to a file below wherever it is put; else what is wrong with it.
pub fn safe(path: &str) -> Result<PathBuf, &'static str> {
    if path.len() > MAX_BYTES {
        return Err("is longer than 1024 bytes");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err("has a control character or a backslash in its name");
    }
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > MAX_DEPTH {
        return Err("is in more than 64 folders");
    }
    for part in &parts {
        match *part {
            "" | "." | ".." => return Err("is not a plain relative path"),
            long if long.len() > MAX_PART_BYTES => return Err("has a part longer than 255 bytes"),
            // Git would take such a folder for its own, with commands in it that it runs.
            git if git.eq_ignore_ascii_case(".git") => return Err("is called as git calls its own folder"),
            _ => {}
        }
    }
    Ok(parts.iter().collect())
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
        for good in ["a", "a/b.json", "a b/ü", "..a/b..", "-x", ".gitattributes", "x.git/a"] {
            assert_eq!(safe(good), Ok(PathBuf::from(good)));
        }
        for bad in ["", "/", "/etc/passwd", "a/../b", "..", "./a", "a//b", "a/", "a\\b", "a\0", "a\nb", "a\u{7f}", ".git/config", "a/.GIT"]
        {
            assert!(safe(bad).is_err(), "{bad:?}");
        }
        assert!(safe(&vec!["a"; 64].join("/")).is_ok() && safe(&vec!["a"; 65].join("/")).is_err());
        assert!(safe(&"a".repeat(255)).is_ok() && safe(&"a".repeat(256)).is_err());
        assert!(safe(&format!("{}/a", vec!["a".repeat(200); 6].join("/"))).is_err());
        assert_eq!(file_name("a/b/c.jsonl"), "c.jsonl");
    }
}
