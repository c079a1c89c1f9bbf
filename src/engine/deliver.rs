//! Results in the user's hands: a copy of an output, a step's log.

use std::path::Path;
use std::sync::Arc;

use crate::base::{Digest, files};
use crate::plan::node::{InputRef, NodeId, Plan};
use crate::steps::Failure;
use crate::store::{StoreError, Tree};

use super::sources::Sources;
use super::{BuildResult, Engine, Event, Exit, Options, Outcome, store_failure};

/// More than a step may write.
const MAX_LOG_BYTES: u64 = 64 << 20;

impl Engine {
    /// Copies an output of a finished build to `folder`, which is made. Every byte is checked on the way; what turns out damaged is built once more. The
    /// answer is the digest of what was copied. A copy that failed is left as it is.
    pub fn copy_output(
        &self,
        plan: &Plan,
        result: &BuildResult,
        output: &InputRef,
        folder: &Path,
        options: &Options,
    ) -> Result<Digest, Failure> {
        let tree = output_tree(result, output, plan)?;
        match self.store().copy_tree(&tree, folder) {
            Ok(()) => return Ok(tree.digest()),
            Err(StoreError::Damaged(damage)) => {
                self.store().quarantine(&damage);
                self.shop.events.event(Event::StoreDamage { node: output.node, damage });
            }
            Err(error) => return Err(store_failure(error)),
        }
        let again = self.build(plan, &[output.node], options);
        if again.exit() != Exit::Done {
            let name = plan.node(output.node).name();
            return Err(Failure { exit: again.exit(), ..Failure::new(format!("`{name}` was damaged and could not be built again")) });
        }
        // What was copied before the damage was found.
        std::fs::remove_dir_all(folder).map_err(|error| Failure::file("remove", folder, &error))?;
        let tree = output_tree(&again, output, plan)?;
        self.store().copy_tree(&tree, folder).map_err(store_failure)?;
        Ok(tree.digest())
    }

    /// Whether a folder already holds just this output. Files that the stat cache knows are not read again.
    pub fn is_delivered(&self, result: &BuildResult, output: &InputRef, folder: &Path) -> bool {
        let Some(tree) = result.tree(output) else { return false };
        if !files::is_folder(folder).unwrap_or(false) {
            return false;
        }
        let mut sources = Sources::new(self.store());
        let is_same = sources.snapshot(folder).is_ok_and(|snapshot| snapshot.content.digest() == tree.digest());
        // What could not be remembered is read again.
        let _ = sources.save();
        is_same
    }

    /// What a step said when its last result was made.
    pub fn log(&self, plan: &Plan, id: NodeId, project: &str) -> Result<Option<String>, Failure> {
        let Some(latest) = self.store().latest(project).map_err(store_failure)?.get(plan.node(id).name()).copied() else { return Ok(None) };
        let Some(record) = self.store().record(latest.key)? else { return Ok(None) };
        let Some((log, size_bytes)) = record.log else { return Ok(Some(String::new())) };
        let bytes = self.store().read(log, size_bytes, MAX_LOG_BYTES).map_err(store_failure)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// What a node gave, or why it gave nothing: its result may have become unreadable since it was found in the cache.
fn output_tree(result: &BuildResult, output: &InputRef, plan: &Plan) -> Result<Arc<Tree>, Failure> {
    result.tree(output).ok_or_else(|| why_without(result, output.node, plan))
}

fn why_without(result: &BuildResult, id: NodeId, plan: &Plan) -> Failure {
    match result.outcome(id) {
        Some(Outcome::Failed { failure, .. }) => failure.clone(),
        Some(Outcome::Cancelled) => Failure::cancelled(),
        Some(Outcome::Skipped { because: Some(other) }) if *other != id => why_without(result, *other, plan),
        _ => Failure::bug(format!("`{}` has no result to copy", plan.node(id).name())),
    }
}
