//! A flag that asks long work to stop. It knows nothing of who sets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Cloned handles share one flag; once set it stays set.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// The flag itself, for a signal's handler.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
