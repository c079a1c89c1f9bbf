//! Pickled checkpoints: not read, as reading one runs whatever program its author put into it.

use std::path::Path;

use super::ModelError;
use crate::base::files;

/// What PyTorch's checkpoints are called.
const EXTENSIONS: [&str; 5] = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];

/// Whether a file of this name holds pickled weights, or lists files that do.
pub fn is_one(name: &str) -> bool {
    EXTENSIONS.iter().any(|extension| name.ends_with(extension)) || name.ends_with(".bin.index.json")
}

/// The first pickled weights of a folder.
pub fn in_folder(folder: &Path) -> Result<Option<String>, ModelError> {
    let names = files::names(folder).map_err(|error| ModelError::io("read", folder, error))?;
    Ok(names.iter().filter_map(|name| name.to_str()).find(|name| is_one(name) && *name != "training_args.bin").map(str::to_string))
}

/// Says what to do instead.
pub fn refusal(path: &Path) -> ModelError {
    let why = "reading a pickle runs the program in it, whatever that does; take the model as safetensors, or convert it where \
        nothing can be harmed (transformers: `AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)`)";
    ModelError::unsupported(format!("the pickled checkpoint `{}`", path.display()), why)
}
