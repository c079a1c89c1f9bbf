//! Nothing is read or written beyond a slice: each one ends (or begins) where the memory does, so that one step further is a crash.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::*;
use crate::packed::{BlockType, Packed, matmul_packed};
use crate::*;

const PAGE: usize = 4096;

/// Numbers between two pages that nobody may touch, close to the one behind (or before) them.
struct Guarded<T> {
    base: *mut u8,
    size: usize,
    offset: usize,
    len: usize,
    _of: std::marker::PhantomData<T>,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Begin,
    End,
}

impl<T: Copy> Guarded<T> {
    fn new(values: &[T], side: Side) -> Guarded<T> {
        let bytes = size_of_val(values);
        let inner = bytes.next_multiple_of(PAGE).max(PAGE);
        let size = inner + 2 * PAGE;
        let offset = PAGE + if matches!(side, Side::End) { inner - bytes } else { 0 };
        // SAFETY: a new mapping of our own, of which the first and last page become inaccessible; the values fit between them.
        unsafe {
            let base = mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE).unwrap();
            mprotect(base, PAGE, MprotectFlags::empty()).unwrap();
            mprotect(base.cast::<u8>().add(PAGE + inner).cast(), PAGE, MprotectFlags::empty()).unwrap();
            let base = base.cast::<u8>();
            std::ptr::copy_nonoverlapping(values.as_ptr().cast(), base.add(offset), bytes);
            Guarded { base, size, offset, len: values.len(), _of: std::marker::PhantomData }
        }
    }
}

impl<T> std::ops::Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `new` put `len` values there; pages are aligned for any number, and so is what is a whole number of them from a page's end.
        unsafe { std::slice::from_raw_parts(self.base.add(self.offset).cast(), self.len) }
    }
}

impl<T> std::ops::DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(self.offset).cast(), self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; no slice of it outlives `self`.
        unsafe { munmap(self.base.cast(), self.size).unwrap() }
    }
}

/// On every instruction set, with slices that end at a guard and with ones that begin behind one.
fn at_the_edge(f: impl Fn(Side)) {
    for isa in Isa::ALL {
        let Some(_forced) = isa::force(isa) else { continue };
        f(Side::Begin);
        f(Side::End);
    }
}

fn guarded(len: usize, stream: u64, side: Side) -> Guarded<f32> {
    Guarded::new(&random(len, stream), side)
}

#[test]
fn products() {
    at_the_edge(|side| {
        for (m, k, n) in [(1, 1, 1), (1, 300, 17), (3, 16, 48), (14, 257, 33), (15, 31, 31), (29, 64, 70), (33, 512, 32)] {
            let (a, b, mut c) = (guarded(m * k, 1, side), guarded(k * n, 2, side), guarded(m * n, 3, side));
            for layout in 0..4 {
                let a = if layout & 1 == 0 { Mat::new(&a, m, k) } else { Mat::new(&a, k, m).t() };
                let b = if layout & 2 == 0 { Mat::new(&b, k, n) } else { Mat::new(&b, n, k).t() };
                matmul(a, b, &mut c, Write::Set);
                matmul(a, b, &mut c, Write::Add);
            }
            assert!(c.iter().all(|x| x.is_finite()));
        }
    });
}

#[test]
fn packed_products() {
    at_the_edge(|side| {
        for ty in BlockType::ALL {
            for (m, rows, cols) in [(1, 1, 256), (1, 17, 512), (3, 16, 256), (5, 33, 768), (40, 19, 256)] {
                let size = ty.bytes_for(rows * cols).unwrap();
                // Any bytes are a block; scales of moderate size keep the sums finite.
                let bytes: Vec<u8> = (0..size as u64).map(|i| (rng::bits(5, 0, i) % 60) as u8).collect();
                let (x, weights, mut y) = (guarded(m * cols, 1, side), Guarded::new(&bytes, side), guarded(m * rows, 2, side));
                let weights = Packed::new(ty, rows, cols, &weights);
                matmul_packed(&x, weights, &mut y, Write::Set);
                matmul_packed(&x, weights, &mut y, Write::Add);
                let mut row = guarded(cols, 3, side);
                weights.row_into(rows - 1, &mut row);
            }
        }
    });
}

#[test]
fn attention() {
    at_the_edge(|side| {
        for (seq, heads, kv_heads, head_dim, window) in
            [(1, 1, 1, 2, None), (65, 2, 1, 10, None), (90, 4, 2, 16, Some(7)), (19, 1, 1, 33, None)]
        {
            let shape = AttentionShape { batch: 1, seq, heads, kv_heads, head_dim, window, scale: None };
            let (wide, narrow) = (seq * heads * head_dim, seq * kv_heads * head_dim);
            let (q, k, v) = (guarded(wide, 1, side), guarded(narrow, 2, side), guarded(narrow, 3, side));
            let (mut out, mut lse, dout) = (guarded(wide, 4, side), guarded(seq * heads, 5, side), guarded(wide, 6, side));
            attention_forward(&shape, &q, &k, &v, &[seq], &mut out, &mut lse);
            let (mut dq, mut dk, mut dv) = (guarded(wide, 7, side), guarded(narrow, 8, side), guarded(narrow, 9, side));
            attention_backward(&shape, &q, &k, &v, &[seq], &out, &lse, &dout, &mut dq, &mut dk, &mut dv);
            let (one, mut last) = (guarded(heads * head_dim, 1, side), guarded(heads * head_dim, 2, side));
            attention_cached(&shape, &one, &k, &v, &mut last);
            assert!(dq.iter().chain(last.iter()).all(|x| x.is_finite()));
        }
    });
}

#[test]
fn rows() {
    at_the_edge(|side| {
        for (rows, d) in [(1, 2), (3, 18), (65, 34), (2, 100)] {
            let n = rows * d;
            let (x, w, dy) = (guarded(n, 1, side), guarded(d, 2, side), guarded(n, 3, side));
            let (mut y, mut inv, mut dx, mut dw) = (guarded(n, 4, side), guarded(rows, 5, side), guarded(n, 6, side), guarded(d, 7, side));
            rms_forward(&x, &w, 1e-5, &mut y, &mut inv);
            rms_backward(&dy, &x, &w, &inv, &mut dx, Some(&mut dw));
            let positions = Guarded::new(&ids(rows, 40, 3), side);
            let table = Rope::new(d, 40, 10_000.0);
            rope(&mut y, 1, &positions, &table, Turn::Forward);
            neighbours_to_halves(&mut y, d);
            let (mut dgate, mut dup) = (guarded(n, 1, side), guarded(n, 2, side));
            swiglu_forward(&x, &dy, &mut y);
            swiglu_backward(&dy, &x, &y, &mut dgate, &mut dup);
            geglu_forward(&x, &dy, &mut y);
            geglu_backward(&dy, &x, &y, &mut dgate, &mut dup);
            let picked = Guarded::new(&ids(rows, rows, 4), side);
            gather(&x, d, &picked, &mut y);
            scatter_add(&dy, d, &picked, &mut dx);
            let (targets, mut losses) = (Guarded::new(&ids(rows, d, 5), side), guarded(rows, 6, side));
            cross_entropy(&mut y, d, &targets, 0.5, &mut losses).unwrap();
            let (mut student, teacher) = (guarded(n, 7, side), guarded(n, 8, side));
            distill(&mut student, d, &Teacher::Dense(&teacher), Divergence::ForwardKl, 2.0, 0.5, &mut losses).unwrap();
            let rule = AdamW { learning_rate: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, gradient_scale: 0.5 };
            let (mut m, mut v) = (guarded(n, 9, side), Guarded::new(&vec![0.0f32; n], side));
            adamw(&mut dx, &dy, &mut m, &mut v, 1, &rule);
            assert!(sum_squares(&dx).is_finite());
        }
    });
}
