//! What one rendering may use up, and how it treats what is undefined. A template comes with a model, from anyone; every value that it makes or reads is made or read by this
//! folder's functions, and each of them first takes the cost from one allowance. The limits count bytes and instructions, so they are the same on every machine.

use std::cell::Cell;

use minijinja::{Error, ErrorKind};

/// Bytes of all values together that one rendering may make; most are gone again soon.
const ALLOWANCE: u64 = 256 << 20;
/// Bytes read for one that is made.
const READING: u64 = 16;
/// Of a value, besides its text.
pub const VALUE: usize = 32;
/// Lists within lists. JSON is read to a depth of 128.
pub const MAX_DEPTH: u32 = 160;

/// Whether something undefined may be printed, walked and compared (`Undefined`) or not (`StrictUndefined`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undefined {
    Lenient,
    Strict,
}

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(ALLOWANCE) };
    static STRICT: Cell<bool> = const { Cell::new(false) };
    static MARKED: Cell<bool> = const { Cell::new(false) };
}

/// Fills the allowance and calls `render`.
pub fn fresh<T>(undefined: Undefined, marked: bool, render: impl FnOnce() -> T) -> T {
    LEFT.set(ALLOWANCE);
    STRICT.set(undefined == Undefined::Strict);
    MARKED.set(marked);
    render()
}

pub fn is_strict() -> bool {
    STRICT.get()
}

/// Whether `{% generation %}` blocks are to be found in the output.
pub fn is_marked() -> bool {
    MARKED.get()
}

/// Before `bytes` are made.
pub fn make(bytes: usize) -> Result<(), Error> {
    let left = LEFT.get().checked_sub(bytes as u64);
    left.map(|left| LEFT.set(left)).ok_or_else(|| {
        LEFT.set(0);
        Fault::TooMuch(format!("it makes more than {} MiB of texts and lists", ALLOWANCE >> 20)).into()
    })
}

/// Before `bytes` are read.
pub fn read(bytes: usize) -> Result<(), Error> {
    make(bytes / READING as usize)
}

/// Why a rendering ends without a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `raise_exception`: what the template says.
    Raised(String),
    /// Python raises an error here, too.
    Python(String),
    /// Jinja2 has it, this has not.
    Unsupported(String),
    /// A limit.
    TooMuch(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Fault::Raised(why) | Fault::Python(why) | Fault::Unsupported(why) | Fault::TooMuch(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::new(ErrorKind::InvalidOperation, "").with_source(fault)
    }
}

/// An error that Python raises as well.
pub fn raise<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Fault::Python(why.into()).into())
}

pub fn unsupported<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Fault::Unsupported(what.into()).into())
}
