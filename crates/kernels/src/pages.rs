//! Large buffers in large pages: a matrix's rows lie on as many small pages as it has rows, and the processor knows the addresses of few.

/// Of the pages that one entry of the processor's tables may hold, on x86 and on aarch64 with pages of 4 KiB.
const LARGE: usize = 2 << 20;

/// Zeros, in large pages if they are many and the system has such pages for those who ask.
pub fn zeros(len: usize) -> Vec<f32> {
    let data = vec![0.0; len];
    ask(&data);
    data
}

/// Makes `buffer` that long; what it held is of no use. Allocates only when it has never been so long.
pub fn room(buffer: &mut Vec<f32>, len: usize) {
    if len > buffer.capacity() {
        *buffer = Vec::new();
        *buffer = zeros(len);
    }
    buffer.resize(len, 0.0);
}

/// Room that begins with a large page.
#[derive(Debug, Default)]
pub struct Room {
    data: Vec<f32>,
    first: usize,
}

impl Room {
    /// Some floats; what they were is of no use.
    pub fn of(&mut self, len: usize) -> &mut [f32] {
        if self.data.len() < self.first + len {
            const PAGE: usize = LARGE / size_of::<f32>();
            self.data = Vec::new();
            self.data = zeros(len.next_multiple_of(PAGE) + PAGE);
            self.first = self.data.as_ptr().align_offset(LARGE).min(PAGE);
        }
        &mut self.data[self.first..self.first + len]
    }
}

/// Where that fails the pages stay small.
#[cfg(target_os = "linux")]
fn ask(data: &[f32]) {
    const SMALL: usize = 4096;
    if size_of_val(data) < LARGE {
        return;
    }
    let first = data.as_ptr().align_offset(SMALL).min(data.len());
    let whole = &data[first..];
    let size = size_of_val(whole) / SMALL * SMALL;
    // SAFETY: the range lies within the slice, and the advice changes no value in it.
    let _ = unsafe { rustix::mm::madvise(whole.as_ptr().cast_mut().cast(), size, rustix::mm::Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn ask(_: &[f32]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_as_long_as_asked_for_and_stays_where_it_is() {
        let mut buffer = Vec::new();
        for len in [0, 3, 1 << 20, 5, (1 << 20) - 1] {
            room(&mut buffer, len);
            assert_eq!(buffer.len(), len);
        }
        let place = buffer.as_ptr();
        room(&mut buffer, 1 << 20);
        assert_eq!(buffer.as_ptr(), place);
        assert!(zeros(1 << 20).iter().all(|x| *x == 0.0));
        let mut room = Room::default();
        for len in [1, 1 << 20, 7] {
            let part = room.of(len);
            assert!(part.len() == len && part.as_ptr().addr().is_multiple_of(LARGE));
            part.fill(1.0);
        }
    }
}
