//! `slmops init`: a small project that builds, as a place to start from.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::project::shell_word;
use super::shell::{Shell, Stop};
use crate::base::output::{Existing, OutputError};
use crate::base::{Exit, files, output, staged};
use crate::steps::Failure;

const MANIFEST: &str = "slmops.toml";

/// Start a project: a small manifest that builds, and the data it needs
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The folder of the project; made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// The project's name [default: the folder's]
    #[arg(long)]
    name: Option<String>,
}

impl Init {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let folder = shell.directory.join(&self.folder);
        let name = self.name.clone().unwrap_or_else(|| project_name(&folder));
        if !is_name(&name) {
            return Err(super::shell::usage(format!("`{name}` cannot name a project: use letters, digits, `-` and `_`")));
        }
        // The manifest comes last: until it is there, `init` can be tried again.
        let files = [
            ("data/train.jsonl", sentences(|i| i % 5 != 0)),
            ("data/test.jsonl", sentences(|i| i % 5 == 0)),
            (MANIFEST, include_str!("slmops.toml").replace("@NAME@", &name)),
        ];
        let taken = |path: &str, error: OutputError| {
            let failure = match error {
                OutputError::Exists(_) => {
                    Failure { exit: Exit::Usage, ..Failure::new(format!("`{}` is already there", self.folder.join(path).display())) }
                }
                other => other.into(),
            };
            failure.help("`slmops init` writes over nothing: choose another folder")
        };
        let mut missing = Vec::new();
        for (path, text) in &files {
            // What a first try left is no obstacle.
            let output = output::file(&shell.directory, &self.folder.join(path), Existing::Replace).map_err(|error| taken(path, error))?;
            if output.is_new() {
                missing.push((path, text));
            } else if *path == MANIFEST || !output.holds(text.as_bytes()) {
                return Err(taken(path, OutputError::Exists(PathBuf::new())).into());
            }
        }
        // Whoever has one decides what is in it.
        let ignored = self.folder.join(".gitignore");
        if output::file(&shell.directory, &ignored, Existing::Refuse).is_ok_and(|output| output.is_new()) {
            write(shell, &ignored, "/cache/\n/dist/\n").map_err(Failure::from)?;
        }
        for (path, text) in &missing {
            write(shell, &self.folder.join(path), text).map_err(|error| taken(path, error))?;
        }
        let change =
            if self.folder == Path::new(".") { String::new() } else { format!("cd {} && ", shell_word(&self.folder.to_string_lossy())) };
        shell.say(format!("wrote {} files; now: {change}slmops build", files.len()));
        Ok(Exit::Done)
    }
}

/// Writes a new file, and the folder that it is in.
fn write(shell: &Shell, path: &Path, text: &str) -> Result<(), OutputError> {
    let folder = files::parent(path);
    let made = staged::make_folders(&shell.directory.join(folder));
    made.map_err(|error| OutputError::Io { doing: "make", path: folder.to_path_buf(), error })?;
    output::file(&shell.directory, path, Existing::Refuse)?.write_all(text.as_bytes())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// The folder's own name, as far as it can name a project.
fn project_name(folder: &Path) -> String {
    let name = std::path::absolute(folder).ok().and_then(|path| path.file_name().map(|n| n.to_string_lossy().into_owned()));
    let kept: String = name.unwrap_or_default().chars().map(|c| if is_name(&c.to_string()) { c } else { '-' }).collect();
    let kept = kept.trim_matches('-').to_string();
    if kept.is_empty() { "lights".to_string() } else { kept }
}

/// Spoken light commands and the calls they mean, those whose number is wanted.
fn sentences(wanted: impl Fn(usize) -> bool) -> String {
    const ROOMS: [&str; 16] = [
        "kitchen", "bedroom", "bathroom", "hall", "office", "garage", "cellar", "attic", "porch", "library", "nursery", "pantry", "studio",
        "balcony", "laundry", "workshop",
    ];
    const PHRASES: [&str; 12] = [
        "turn STATE the ROOM light",
        "turn the ROOM light STATE",
        "ROOM light STATE please",
        "switch the light in the ROOM STATE",
        "switch STATE the light in the ROOM",
        "STATE with the ROOM light",
        "could you turn the ROOM light STATE",
        "i want the ROOM light STATE",
        "the ROOM light should be STATE",
        "lights STATE in the ROOM",
        "please put the ROOM light STATE",
        "ROOM STATE",
    ];
    let mut text = String::new();
    let mut number = 0;
    for (p, phrase) in PHRASES.iter().enumerate() {
        for (r, room) in ROOMS.iter().enumerate() {
            for state in ["on", "off"] {
                number += 1;
                // Each phrase is tested with other rooms than the next one, so every word is learned.
                if wanted(number + 7 * p + 3 * r) {
                    let prompt = phrase.replace("ROOM", room).replace("STATE", state);
                    let completion = format!(r#"{{\"light\":\"{room}\",\"on\":{}}}"#, state == "on");
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, r#"{{"prompt": "{prompt}", "completion": "{completion}"}}"#);
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_split_and_is_json() {
        let (train, test) = (sentences(|i| i % 5 != 0), sentences(|i| i % 5 == 0));
        assert_eq!((train.lines().count(), test.lines().count()), (304, 80));
        for line in test.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let call: serde_json::Value = serde_json::from_str(value["completion"].as_str().unwrap()).unwrap();
            assert!(call["on"].is_boolean());
            assert!(!train.contains(line));
        }
    }

    #[test]
    fn a_folder_names_the_project() {
        assert_eq!(project_name(Path::new("/tmp/my lights!")), "my-lights");
        assert_eq!(project_name(Path::new("/")), "lights");
    }
}
