//! A model's file, mapped into memory: pages are read when somebody looks at them, and several processes share them.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

pub struct Mapped(Mmap);

impl Mapped {
    /// Only a regular file can be mapped.
    pub fn open(path: &Path) -> io::Result<Mapped> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
        }
        // SAFETY: the file is one of a build's inputs, which nobody may write to while a step runs; were it cut all the same, the process would end with a
        // bus error and leave no wrong result.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Mapped(map))
    }
}

impl std::ops::Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapped({} bytes)", self.len())
    }
}
