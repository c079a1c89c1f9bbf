//! The exit codes that scripts and CI may rely on.

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// A step or a gate failed.
    Failed = 1,
    /// The user's file or flags are wrong.
    Usage = 2,
    /// The environment is at fault: disk, network, device, kernel.
    Environment = 3,
    /// Stopped by the user (Ctrl-C), as a shell reports it.
    Interrupted = 130,
    /// A bug in slmops.
    Bug = 70,
}

impl Exit {
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The one that a command should end with when both happened.
    #[must_use]
    pub fn worse(self, other: Exit) -> Exit {
        self.max(other)
    }
}
