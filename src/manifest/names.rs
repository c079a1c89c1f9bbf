//! Names and references: `student`, `student.baseline`, `small@type=Q8_0`, `small@Q8_0`.

use std::fmt;

use crate::base::Place;

const MAX_NAME: usize = 100;

/// What is wrong with a name of a step, source, device or bundle; it becomes part of paths and references.
pub fn fault(name: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() {
        Some("a name may not be empty".to_string())
    } else if name.len() > MAX_NAME {
        Some(format!("a name has at most {MAX_NAME} characters"))
    } else if name.starts_with('-') || !name.chars().all(good) {
        Some("a name consists of letters, digits, `_` and `-`, and does not start with `-`".to_string())
    } else {
        None
    }
}

/// What is wrong with the name of an entry (`data = { seen = … }`), which becomes a file's name: as [`fault`], but dots may stand inside.
pub fn entry_fault(name: &str) -> Option<String> {
    if name.split('.').any(str::is_empty) {
        return Some("dots stand between letters, digits, `_` and `-`".to_string());
    }
    fault(&name.replace('.', "_"))
}

/// What is wrong with an entry's name that may be a path of such names (`files = { "docs/manual.txt" = … }`); it stays below where it is put.
pub fn path_fault(name: &str) -> Option<String> {
    name.split('/').find_map(entry_fault)
}

/// A reference as written: a step or source, maybe a part of it, maybe picked from its variants.
#[derive(Clone, Debug)]
pub struct Reference {
    /// As written.
    pub text: String,
    pub name: String,
    /// After the dot: another output (`student.baseline`) or a named subfolder (`split.train`).
    pub part: Option<String>,
    /// After the `@`.
    pub picks: Vec<Pick>,
    pub place: Place,
}

/// `type=Q8_0`, or only `Q8_0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    pub axis: Option<String>,
    pub value: String,
}

impl Reference {
    /// Without the part after `@`.
    pub fn base(&self) -> String {
        match &self.part {
            Some(part) => format!("{}.{part}", self.name),
            None => self.name.clone(),
        }
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.axis {
            Some(axis) => write!(f, "{axis}={}", self.value),
            None => f.write_str(&self.value),
        }
    }
}

/// Reads a reference; the error is a sentence about what is wrong with it.
pub fn reference(text: &str, place: &Place) -> Result<Reference, String> {
    let (base, picks) = match text.split_once('@') {
        Some((base, picks)) => (base, picks.split(',').map(pick).collect::<Result<Vec<_>, String>>()?),
        None => (text, Vec::new()),
    };
    let (name, part) = match base.split_once('.') {
        Some((name, part)) => (name, Some(part)),
        None => (base, None),
    };
    if let Some(fault) = fault(name).or_else(|| part.and_then(entry_fault)) {
        return Err(fault);
    }
    Ok(Reference { text: text.to_string(), name: name.to_string(), part: part.map(str::to_string), picks, place: place.clone() })
}

fn pick(text: &str) -> Result<Pick, String> {
    let (axis, value) = match text.split_once('=') {
        Some((axis, value)) => (Some(axis.trim().to_string()), value),
        None => (None, text),
    };
    let value = value.trim().to_string();
    if value.is_empty() || axis.as_deref() == Some("") {
        return Err("after `@` stand `axis=value` or `value`, separated by commas".to_string());
    }
    Ok(Pick { axis, value })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::SourceText;

    fn read(text: &str) -> Result<Reference, String> {
        reference(text, &Place::new(&Arc::new(SourceText::new("t", text)), 0..text.len()))
    }

    #[test]
    fn references_fall_apart() {
        let reference = read("student.baseline@seed=1,Q8_0").unwrap();
        assert_eq!((reference.name.as_str(), reference.part.as_deref()), ("student", Some("baseline")));
        assert_eq!(reference.picks[0], Pick { axis: Some("seed".into()), value: "1".into() });
        assert_eq!(reference.picks[1], Pick { axis: None, value: "Q8_0".into() });
        for bad in ["", ".x", "x.", "x@", "x@a=", "x@=a", "a b", "../x", "-x", "x..y", "ü", "a/b"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
