//! A model's file, mapped into memory: pages are read when they are used, and several processes share them.
//!
//! A page that cannot be had (the file was cut meanwhile, the disk has a bad sector) is not an error that a read returns: the kernel sends SIGBUS. The
//! first file that is mapped sets a handler for it, which says what happened to which file and ends the process with exit code 3.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Once;

use memmap2::Mmap;

use crate::base::files;

pub struct Mapped(Mmap);

impl Mapped {
    /// Only a regular file can be mapped.
    pub fn open(path: &Path) -> io::Result<Mapped> {
        Mapped::of(&files::open(path)?)
    }

    fn of(file: &File) -> io::Result<Mapped> {
        fault::say_when_a_page_is_lost();
        // SAFETY: the file is one of a build's inputs, which nothing may write to while a step runs, or one that the user named; were it cut all the same, the
        // process would end with a bus error and leave no wrong result.
        let map = unsafe { Mmap::map(file)? };
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

/// What happens when a page of a mapped file is lost. Within the handler, only what POSIX calls async-signal-safe is called, and nothing is allocated.
mod fault {
    use std::mem::MaybeUninit;
    use std::ptr;

    use super::Once;
    use crate::base::process;

    static SET: Once = Once::new();

    pub fn say_when_a_page_is_lost() {
        SET.call_once(|| {
            // SAFETY: all zeros is a valid action; the handler has the signature that SA_SIGINFO asks for. Where it cannot be set, the process
            // ends as it would have without it.
            unsafe {
                let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
                action.sa_sigaction = lost as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
            }
        });
    }

    extern "C" fn lost(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel hands over a valid description of the signal.
        let address = unsafe { (*info).si_addr() } as usize;
        let mut name = Name { bytes: [0; 512], length: 0 };
        if is_of_file(address, &mut name) {
            process::say_and_end(&[
                b"error: cannot read `",
                name.bytes.get(..name.length).unwrap_or_default(),
                b"`: a part of it that was there is gone: the file was cut or replaced while it was read, or its disk is failing\n",
            ])
        }
        // Not an access of ours: it is tried again and ends the process as it would have without us.
        // SAFETY: the default action is valid for every signal.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }

    /// A file's name, as far as there is room for it.
    struct Name {
        bytes: [u8; 512],
        length: usize,
    }

    /// Whether an address lies in a mapped file, by the kernel's own list, and in which.
    fn is_of_file(address: usize, name: &mut Name) -> bool {
        // SAFETY: the path ends with a zero.
        let list = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        let mut line = Line::default();
        let mut buffer = [0u8; 1024];
        loop {
            // SAFETY: the pointer and the length are those of the buffer.
            let count = unsafe { libc::read(list, buffer.as_mut_ptr().cast(), buffer.len()) };
            let Some(read) = usize::try_from(count).ok().filter(|count| *count > 0).and_then(|count| buffer.get(..count)) else {
                return false;
            };
            for byte in read {
                if *byte != b'\n' {
                    line.take(*byte, name);
                } else if line.holds(address) && name.length > 0 && name.bytes[0] == b'/' {
                    return true;
                } else {
                    line = Line::default();
                    name.length = 0;
                }
            }
        }
    }

    /// A line of the list, read byte by byte: `START-END PERMISSIONS OFFSET DEVICE INODE   NAME`.
    #[derive(Default)]
    struct Line {
        start: usize,
        end: usize,
        /// Which of these a byte belongs to: 0 and 1 are the addresses, 6 is the name.
        field: usize,
        in_gap: bool,
    }

    impl Line {
        fn take(&mut self, byte: u8, name: &mut Name) {
            if self.field >= 6 {
                if let Some(place) = name.bytes.get_mut(name.length) {
                    *place = byte;
                    name.length += 1;
                }
                return;
            }
            match (byte, self.field) {
                (b'-', 0) => self.field = 1,
                (b' ', _) => self.in_gap = true,
                _ if self.in_gap => {
                    self.in_gap = false;
                    self.field += 1;
                    self.take(byte, name);
                }
                (_, 0) => self.start = self.start << 4 | digit(byte),
                (_, 1) => self.end = self.end << 4 | digit(byte),
                _ => {}
            }
        }

        fn holds(&self, address: usize) -> bool {
            (self.start..self.end).contains(&address)
        }
    }

    fn digit(byte: u8) -> usize {
        match byte {
            b'0'..=b'9' => usize::from(byte - b'0'),
            b'a'..=b'f' => usize::from(byte - b'a') + 10,
            _ => 0,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_kernel_s_list_tells_which_file_an_address_belongs_to() {
            let space = tempfile::tempdir().unwrap();
            let path = space.path().join("a model with spaces.gguf");
            std::fs::write(&path, vec![1u8; 10_000]).unwrap();
            let map = super::super::Mapped::open(&path).unwrap();
            let mut name = Name { bytes: [0; 512], length: 0 };
            assert!(is_of_file(map.as_ptr() as usize + 9_999, &mut name));
            assert_eq!(std::str::from_utf8(&name.bytes[..name.length]).unwrap(), path.to_str().unwrap());
            let anonymous = vec![1u8; 1 << 22];
            assert!(!is_of_file(anonymous.as_ptr() as usize + 100, &mut name));
        }
    }
}
