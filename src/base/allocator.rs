//! The system's allocator, and a word where it gives nothing: what the estimates of [`super::memory`] did not foresee ends the process with exit code 3 and
//! not as a crash. `main` makes it the program's.

use std::alloc::{GlobalAlloc, Layout, System};

use super::process;

pub struct Allocator;

// SAFETY: every call goes to the system's allocator as it came; what it does not return is never seen.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the system's.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[inline]
fn given(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() {
        end(size);
    }
    pointer
}

#[cold]
fn end(size: usize) -> ! {
    let mut digits = [0u8; 20];
    process::say_and_end(&[
        b"error: out of memory: ",
        decimal(size, &mut digits),
        b" bytes were asked for and the system did not give them\n",
        b"  help: free memory, raise the limit of this shell (`ulimit -v`), or give the step less to do\n",
    ])
}

fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_without_memory() {
        for number in [0, 7, 10, 1234, usize::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
