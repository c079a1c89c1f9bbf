//! `slmops run`: talk to a model.

use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::project::{Load, Project, there};
use super::shell::{Shell, Stop};
use crate::base::{Exit, text};
use crate::bundle;
use crate::model::{Generate, Model, ModelError, Stored, keys};
use crate::steps::{Failure, io};

/// Longest prompt that is read, in bytes.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

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
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        io::pool(threads)?.install(|| self.talk(shell))
    }

    fn talk(&self, shell: &Shell) -> Result<Exit, Stop> {
        let model = self.open(shell)?;
        if let Some(prompt) = &self.prompt {
            self.answer(shell, &model, prompt)?;
            return Ok(Exit::Done);
        }
        let terminal = std::io::stdin().is_terminal();
        let mut worst = Exit::Done;
        for number in 1u64.. {
            if !shell.is_heard() {
                break;
            }
            if terminal {
                let mut err = std::io::stderr().lock();
                let _gone = write!(err, "{} ", shell.paint("1;36", ">")).and_then(|()| err.flush());
            }
            let Some(line) = next_line()? else { break };
            let answered = match text::decode_line(&line, number) {
                Ok(prompt) if prompt.trim().is_empty() => continue,
                Ok(prompt) => self.answer(shell, &model, prompt),
                Err(why) => Err(Failure::new(format!("stdin, line {number}: {why}")).into()),
            };
            // One line that cannot be answered is no reason to leave the others.
            match answered {
                Err(Stop::Failure(failure)) if failure.exit == Exit::Failed => {
                    shell.failure(&failure);
                    worst = Exit::Failed;
                }
                other => other?,
            }
        }
        Ok(worst)
    }

    /// A step's output and a bundle's files are laid out in a temporary folder, which goes as soon as they are mapped: a Ctrl-C leaves nothing.
    fn open(&self, shell: &Shell) -> Result<Model<Stored>, Stop> {
        let space = tempfile::tempdir().map_err(|error| Failure::io("cannot make a temporary folder", &error))?;
        let path = self.locate(shell, space.path())?;
        for remark in keys::remarks(&path).unwrap_or_default() {
            shell.say(format!("warning: {remark}"));
        }
        Ok(Model::open(&path).map_err(|error| Failure::model(&format!("load `{}`", self.model), &error).of_user())?)
    }

    /// Where the model's files are; a step's output and a bundle's files are laid out below `space`.
    fn locate(&self, shell: &Shell, space: &Path) -> Result<PathBuf, Stop> {
        let path = shell.directory.join(&self.model);
        if there(&path.join("oci-layout"))?.is_some_and(|kind| kind.is_file()) {
            return self.unpack(&path, space);
        }
        if there(&path)?.is_some() {
            return Ok(path);
        }
        let project = Project::load(shell, &self.load)?;
        let files = space.join("model");
        project.copy_output(shell, &self.model, &files)?;
        if there(&files.join("oci-layout"))?.is_some() {
            return self.unpack(&files, space);
        }
        Ok(files)
    }

    fn unpack(&self, bundle: &Path, space: &Path) -> Result<PathBuf, Stop> {
        let files = space.join("bundle");
        let doing = format!("cannot open the bundle `{}`", self.model);
        bundle::extract(bundle, &files).map_err(|error| match error.cause() {
            Some(cause) => Failure { message: format!("{doing}: {error}"), ..Failure::io(&doing, &cause) },
            None => Failure::usage(format!("{doing}: {error}")),
        })?;
        Ok(files)
    }

    fn answer(&self, shell: &Shell, model: &Model<Stored>, prompt: &str) -> Result<(), Stop> {
        let failed = |error: ModelError| Failure::model("answer", &error);
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

/// The next line of stdin, if there is one. Of one without an end no more is held than a prompt may have.
fn next_line() -> Result<Option<Vec<u8>>, Failure> {
    use std::io::Read;
    let mut line = Vec::new();
    let read = std::io::stdin().lock().take(MAX_PROMPT_BYTES + 1).read_until(b'\n', &mut line);
    let count = read.map_err(|error| Failure::io("cannot read stdin", &error))?;
    if count as u64 > MAX_PROMPT_BYTES {
        return Err(Failure::usage(format!("a line of stdin is longer than {} MiB", MAX_PROMPT_BYTES >> 20)));
    }
    Ok((count > 0).then_some(line))
}
