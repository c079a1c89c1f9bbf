//! Results in the user's hands: a copy of an output, a step's log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::plan::node::{InputRef, NodeId, Plan};
use crate::steps::Failure;
use crate::store::StoreError;

use super::sources::Sources;
use super::{BuildResult, Engine, Event, Exit, Options, store_failure};

/// What to do with something that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    /// It is swapped for the new one in one step, and removed.
    Replace,
}

/// More than a step may write.
const MAX_LOG_BYTES: u64 = 64 << 20;

impl Engine {
    /// Copies an output of a finished build to a folder that appears whole or not at all. Every byte is checked on the way; what turns out damaged is
    /// built once more.
    pub fn deliver(
        &self,
        plan: &Plan,
        result: &BuildResult,
        output: &InputRef,
        folder: &Path,
        existing: Existing,
        options: &Options,
    ) -> Result<(), Failure> {
        match self.copy_out(result, output, folder, existing) {
            Err(StoreError::Damaged(damage)) => {
                self.store().quarantine(&damage);
                self.shop.events.event(Event::StoreDamage { node: output.node, damage });
            }
            other => return other.map_err(store_failure),
        }
        let again = self.build(plan, &[output.node], options);
        if again.exit() != Exit::Done {
            let name = plan.node(output.node).name();
            return Err(Failure { exit: again.exit(), ..Failure::new(format!("`{name}` was damaged and could not be made again")) });
        }
        self.copy_out(&again, output, folder, existing).map_err(store_failure)
    }

    /// Whether a folder already holds just this output. Files that the stat cache knows are not read again.
    pub fn is_delivered(&self, result: &BuildResult, output: &InputRef, folder: &Path) -> bool {
        let Some(tree) = result.tree(output) else { return false };
        if !folder.is_dir() {
            return false;
        }
        let mut sources = Sources::new(self.store());
        let same = sources.snapshot(folder).is_ok_and(|snapshot| snapshot.content.digest() == tree.digest());
        same && sources.save().is_ok()
    }

    fn copy_out(&self, result: &BuildResult, output: &InputRef, folder: &Path, existing: Existing) -> Result<(), StoreError> {
        let tree = result.tree(output).ok_or_else(|| StoreError::refused(folder, "cannot be written: the step has no result"))?;
        let is_there = fs::symlink_metadata(folder).is_ok();
        if is_there && existing == Existing::Refuse {
            return Err(StoreError::refused(folder, "is already there"));
        }
        let temp = beside(folder);
        let parent = temp.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|error| StoreError::io("create", parent, error))?;
        // What a killed process left.
        remove(&temp)?;
        let written = self.store().copy_tree(&tree, &temp).and_then(|()| put_in_place(&temp, folder));
        // The half-written new one, or the old one after the swap.
        let removed = remove(&temp);
        written.and(removed)
    }

    /// What a step said when its last result was made.
    pub fn log(&self, plan: &Plan, id: NodeId, project: &str) -> Result<Option<String>, Failure> {
        let Some(latest) = self.store().latest(project).get(plan.node(id).name()).copied() else { return Ok(None) };
        let Some(record) = self.store().record(latest.key) else { return Ok(None) };
        let Some((log, size_bytes)) = record.log else { return Ok(Some(String::new())) };
        let bytes = self.store().read(log, size_bytes, MAX_LOG_BYTES).map_err(store_failure)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// A hidden name in the same folder, so that a rename suffices.
fn beside(folder: &Path) -> PathBuf {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    folder.with_file_name(format!(".{name}.slmops-new"))
}

fn put_in_place(temp: &Path, folder: &Path) -> Result<(), StoreError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let placed = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(temp, folder),
        _ => match renameat_with(CWD, temp, CWD, folder, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // A file system that cannot swap: there is a moment without either.
            Err(_) => remove(folder)
                .and_then(|()| fs::rename(temp, folder).map_err(|error| StoreError::io("write", folder, error)))
                .map_err(io::Error::other),
        },
    };
    placed.map_err(|error| StoreError::io("write", folder, error))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(|error| StoreError::io("remove", path, error))
}
