//! `slmops run`: talk to a model.

use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::project::{Load, Project};
use super::shell::{Shell, Stop};
use crate::base::Exit;
use crate::bundle;
use crate::model::{Generate, Model, Stored};
use crate::steps::Failure;

/// Talk to a model: a step, a bundle, a Hugging Face folder or a GGUF file
///
/// Decoding is greedy and the arithmetic is slmops' own, so the answer is the same on every machine. Without a prompt, each
/// line of stdin is one.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// A step that is built (`student`, `small@Q8_0`), or the path of a bundle, a model folder or a GGUF file
    #[arg(value_name = "MODEL")]
    model: String,
    /// What to say to it
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,
    /// Stop after this many tokens
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    #[command(flatten)]
    load: Load,
}

impl Run {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let space = tempfile::tempdir().map_err(|error| Failure::environment(format!("cannot make a temporary folder: {error}")))?;
        let path = self.locate(shell, space.path())?;
        let model = Model::open(&path).map_err(|error| Failure::new(format!("cannot load `{}`: {error}", self.model)))?;
        if let Some(prompt) = &self.prompt {
            self.answer(shell, &model, prompt)?;
            return Ok(Exit::Done);
        }
        let terminal = std::io::stdin().is_terminal();
        let mut worst = Exit::Done;
        loop {
            if terminal {
                let mut err = std::io::stderr().lock();
                write!(err, "{} ", shell.paint("1;36", ">")).and_then(|()| err.flush())?;
            }
            let mut line = Vec::new();
            let read = std::io::stdin().lock().read_until(b'\n', &mut line);
            if read.map_err(|error| Failure::environment(format!("cannot read stdin: {error}")))? == 0 {
                return Ok(worst);
            }
            let line = String::from_utf8_lossy(&line);
            if line.trim().is_empty() {
                continue;
            }
            // One line that cannot be answered is no reason to leave the others.
            match self.answer(shell, &model, line.trim_end_matches(['\n', '\r'])) {
                Err(Stop::Failure(failure)) if failure.exit == Exit::Failed => {
                    shell.failure(&failure);
                    worst = Exit::Failed;
                }
                other => other?,
            }
        }
    }

    /// Where the model's files are; a step's output and a bundle's files are laid out below `space`.
    fn locate(&self, shell: &Shell, space: &Path) -> Result<PathBuf, Stop> {
        let path = shell.directory.join(&self.model);
        if path.join("oci-layout").is_file() {
            return self.unpack(&path, space);
        }
        if path.exists() {
            return Ok(path);
        }
        let project = Project::load(shell, &self.load)?;
        let files = space.join("model");
        project.materialise(shell, &self.model, &files)?;
        if files.join("oci-layout").is_file() {
            return self.unpack(&files, space);
        }
        Ok(files)
    }

    fn unpack(&self, bundle: &Path, space: &Path) -> Result<PathBuf, Stop> {
        let files = space.join("bundle");
        bundle::extract(bundle, &files).map_err(|error| Failure::new(format!("cannot open the bundle `{}`: {error}", self.model)))?;
        Ok(files)
    }

    fn answer(&self, shell: &Shell, model: &Model<Stored>, prompt: &str) -> Result<(), Stop> {
        let failed = |error| Failure::new(format!("cannot answer: {error}"));
        let tokens = model.encoder().prompt(prompt).map_err(failed)?;
        let options = Generate { max_new_tokens: self.max_new_tokens };
        let answers = model.generate(std::slice::from_ref(&tokens), &options, &mut |_| ControlFlow::Continue(())).map_err(failed)?;
        let answer = answers.into_iter().next().unwrap_or_default();
        let text = model.tokenizer.decode(&answer).map_err(failed)?;
        if shell.json {
            shell.print(serde_json::json!({"prompt": prompt, "output": text, "prompt_tokens": tokens, "output_tokens": answer}).to_string())
        } else {
            shell.print(text)
        }
    }
}
