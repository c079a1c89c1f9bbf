//! Removing what killed processes left behind. Only what has a name of slmops' own form is touched, and only if no process holds its lock.

use std::fs;
use std::path::Path;

use crate::base::{Digest, remove_all};

use super::Store;
use super::error::StoreError;
use super::place::{self, Rights};
use super::session::{self, Session};

impl Store {
    /// Removes what dead processes left. What cannot be removed is a warning. Nothing is touched that is not named as ours.
    pub fn sweep(&self) {
        let Ok(Session { rights, .. }) = self.session() else { return };
        match session::stale(&self.root.join("tmp")) {
            Ok(corners) => corners.iter().for_each(|corner| self.warn_if_failed(session::sweep_corner(corner, *rights))),
            Err(error) => self.warn_if_failed(Err(error)),
        }
        self.sweep_locks(*rights);
        self.sweep_checkpoints();
        // Of processes that were killed while they made the store.
        let names = self.names("").unwrap_or_default();
        for name in names.iter().filter(|name| place::is_temporary(name)) {
            self.remove(&self.root.join(name));
        }
    }

    /// The lock files of actions whose process was killed.
    fn sweep_locks(&self, rights: Rights) {
        let is_key = |name: &String| name.parse::<Digest>().is_ok();
        for name in self.names("locks/keys").unwrap_or_default().iter().filter(|name| is_key(name)) {
            let path = self.root.join("locks/keys").join(name);
            if let Ok(Some(_lock)) = session::try_lock_file(&path, rights) {
                self.remove(&path);
            }
        }
    }

    /// What exec steps of former versions kept beside checkpoints.
    fn sweep_checkpoints(&self) {
        for key in self.checkpoints().unwrap_or_default().iter().filter_map(|name| name.parse().ok()) {
            let mut leftovers = self.names(&format!("partial/{key}")).unwrap_or_default();
            leftovers.retain(|name| is_exec_scratch(name));
            if leftovers.is_empty() {
                continue;
            }
            let Ok(Some(_lock)) = self.try_lock_key(key) else { continue };
            for name in leftovers {
                self.remove(&self.partial(key).join(name));
            }
            let _only_if_empty = fs::remove_dir(self.partial(key));
        }
    }

    /// Whether it is gone. If not, there is a warning.
    pub(super) fn remove(&self, path: &Path) -> bool {
        let removed = remove_all(path).map_err(|error| StoreError::io("remove", path, error));
        let is_gone = removed.is_ok();
        self.warn_if_failed(removed);
        is_gone
    }
}

/// The form that exec steps of former versions gave to their folders: `exec-` and six characters.
fn is_exec_scratch(name: &str) -> bool {
    name.strip_prefix("exec-").is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}
