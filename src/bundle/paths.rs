//! Which paths a bundle's files may have. A bundle comes from anywhere and is unpacked anywhere: nothing may leave its folder, and no two
//! files may fall together on a file system that ignores case.

use std::collections::BTreeMap;

/// In bytes. Longer ones do not fit every file system below a reasonable folder.
pub const PATH_MAX: usize = 512;
/// In bytes: the usual limit of file systems.
pub const NAME_MAX: usize = 255;

/// Why this is no path of a bundle, as a fragment that fits "`PATH` {why}".
pub fn check(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("is empty");
    }
    if path.len() > PATH_MAX {
        return Err("is longer than 512 bytes");
    }
    if path.starts_with('/') {
        return Err("is absolute");
    }
    if path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':')) {
        return Err("holds a control character, a backslash or a colon");
    }
    for name in path.split('/') {
        match name {
            "" => return Err("has an empty part"),
            "." | ".." => return Err("has a part `.` or `..`"),
            _ if name.len() > NAME_MAX => return Err("has a part of more than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// Pairs that cannot lie in one folder: the same path (but for case), or one that is a folder of the other.
pub fn clashes<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for path in paths {
        if let Some(other) = seen.insert(path.to_lowercase(), path) {
            found.push((other, path));
        }
    }
    for (folded, path) in &seen {
        for (end, _) in folded.match_indices('/') {
            if let Some(other) = folded.get(..end).and_then(|folder| seen.get(folder)) {
                found.push((other, path));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_are_taken() {
        for path in ["model.gguf", "a/b/c.json", "tokenizer..json", "naïve.txt"] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "C:x", "a\0b", "a\nb"] {
            assert!(check(path).is_err(), "{path:?}");
        }
        assert!(check(&"x".repeat(256)).is_err());
        assert!(check(&"x/".repeat(300)).is_err());
    }

    #[test]
    fn what_cannot_lie_together_is_found() {
        assert_eq!(clashes(["a", "b/c", "b/d"]), []);
        assert_eq!(clashes(["README.md", "readme.md"]), [("README.md", "readme.md")]);
        assert_eq!(clashes(["a/b/c", "A"]), [("A", "a/b/c")]);
    }
}
