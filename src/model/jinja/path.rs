//! `attribute='a.b.0'`: by what filters look at items.

use minijinja::Error;
use minijinja::value::Value;

use super::access;
use super::run::{self, VALUE, unsupported};
use super::value::{Py, py, text};

#[derive(Clone, Debug, Default)]
pub struct Path {
    parts: Vec<Value>,
    /// Of a part that is not there.
    default: Option<Value>,
    folds: bool,
}

impl Path {
    pub fn new(attribute: Option<&Value>) -> Result<Path, Error> {
        let parts = match attribute.map(|attribute| (attribute, py(attribute))) {
            None | Some((_, Py::None)) => Vec::new(),
            Some((_, Py::Str(path))) => {
                run::make(path.len() + VALUE * (path.matches('.').count() + 1))?;
                let part = |part: &str| match part.parse::<u64>() {
                    Ok(number) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::from(number),
                    _ => Value::from(part),
                };
                path.split('.').map(part).collect()
            }
            Some((number, Py::Int(_))) => vec![number.clone()],
            Some((_, other)) => return unsupported(format!("an attribute that is a {}", other.noun())),
        };
        Ok(Path { parts, default: None, folds: false })
    }

    /// With commas: several paths.
    pub fn several(attribute: Option<&Value>) -> Result<Vec<Path>, Error> {
        match attribute.and_then(Value::as_str) {
            Some(paths) => {
                run::make(VALUE * (paths.matches(',').count() + 1))?;
                paths.split(',').map(|path| Path::new(Some(&Value::from(path)))).collect()
            }
            None => Ok(vec![Path::new(attribute)?]),
        }
    }

    pub fn or(self, default: Option<Value>) -> Path {
        Path { default, ..self }
    }

    /// Texts of another case are the same.
    pub fn folding(self, folds: bool) -> Path {
        Path { folds, ..self }
    }

    pub fn get(&self, item: &Value) -> Result<Value, Error> {
        let mut value = item.clone();
        for part in &self.parts {
            value = access::item(&value, part)?;
            if let (true, Some(default)) = (value.is_undefined(), &self.default) {
                value = default.clone();
            }
        }
        match py(&value) {
            Py::Str(letters) | Py::Markup(letters) if self.folds => text(letters.to_lowercase()),
            _ => Ok(value),
        }
    }
}
