//! The last lines that each step said: shown when it fails, where they are not shown as they come.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::plan::NodeId;

/// Enough to see what went wrong.
const KEPT_LINES: usize = 20;

#[derive(Debug, Default)]
pub struct Said(Mutex<BTreeMap<NodeId, VecDeque<String>>>);

impl Said {
    pub fn hear(&self, node: NodeId, line: String) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = said.entry(node).or_default();
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub fn take(&self, node: NodeId) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        lines.unwrap_or_default().into()
    }
}
