//! One walk of an action, many readers: a hash for the cache, lines of text for `explain`. The explanation cannot drift from the key, because
//! both hear the same fields.
//!
//! | field | from |
//! |---|---|
//! | `format` | the version of this walk |
//! | `kind`, `revision` | the step kind and the version of its behaviour |
//! | `numerics` | the version of the kernels, for kinds that compute with them |
//! | `action` | which of the kind's actions it is |
//! | `param.PATH` | every parameter that can change the result, with its defaults, by value: `3`, `3.0` and `30e-1` are equal, and so are `0` and `-0.0` |
//! | `input.PORT[I]` | what an input holds, with its file names and executable bits |
//!
//! Not in a key: paths, times, hosts, users, the names of steps, resources, timeouts, threads, parameters that a kind declares to change
//! no result (`Kind::unkeyed`).

mod reason;
mod record;
mod value;

use crate::base::{Digest, Hasher};
use crate::kernels::NUMERICS_VERSION;
use crate::steps::{Kind, Task};

pub use reason::{Reason, changes};
pub use record::KeyRecord;

/// Raised when the walk changes. `tests::golden_keys` then has to change with it.
pub const KEY_FORMAT: &str = "slmops.action.1";

/// What an input holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder, by the digest of its tree.
    Folder(Digest),
    /// One file. The digest is of a tree that holds only it, because a step sees its name, too, and may go by its ending.
    File(Digest),
}

impl Content {
    pub fn digest(self) -> Digest {
        match self {
            Content::Folder(digest) | Content::File(digest) => digest,
        }
    }

    fn text(self) -> String {
        match self {
            Content::Folder(digest) => format!("folder:{digest}"),
            Content::File(digest) => format!("file:{digest}"),
        }
    }
}

/// All that an action's result may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub kind: &'static dyn Kind,
    pub task: &'a Task,
    /// Port names and their inputs, in the order in which the step sees them.
    pub inputs: &'a [(String, Vec<Content>)],
}

/// Hears each field once, in a fixed order.
pub trait Sink {
    fn field(&mut self, name: &str, value: &str);
}

/// Tells a sink all fields. Two subjects that tell the same are one action.
pub fn walk(subject: &Subject, sink: &mut dyn Sink) {
    let Subject { kind, task, inputs } = subject;
    sink.field("format", KEY_FORMAT);
    sink.field("kind", kind.name());
    sink.field("revision", &kind.revision().to_string());
    if kind.is_numeric() {
        sink.field("numerics", &NUMERICS_VERSION.to_string());
    }
    sink.field("action", task.action);
    value::walk_params(&task.params, kind.unkeyed(), sink);
    for (port, contents) in *inputs {
        let port = value::port(port);
        if contents.is_empty() {
            sink.field(&format!("input.{port}"), "[]");
        }
        for (index, content) in contents.iter().enumerate() {
            sink.field(&format!("input.{port}[{index}]"), &content.text());
        }
    }
}

/// The action's key.
pub fn of(subject: &Subject) -> Digest {
    let mut sink = HashSink(Hasher::new());
    walk(subject, &mut sink);
    sink.0.finish()
}

/// Each name and value behind its length, so that no two lists of fields look alike.
struct HashSink(Hasher);

impl Sink for HashSink {
    fn field(&mut self, name: &str, value: &str) {
        self.0.part(name.as_bytes());
        self.0.part(value.as_bytes());
    }
}

#[cfg(test)]
mod tests;
