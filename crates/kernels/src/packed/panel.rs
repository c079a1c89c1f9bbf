//! A stripe of outputs, unpacked for some of k in the order in which tiles read it: lanes are outputs.

use super::activations::BLOCK;
use super::dot::{Dot, clones};
use super::formats::{self, Format};
use super::{BlockType, SUPER_BLOCK};
use crate::isa::{Isa, LANES};

/// Vectors of outputs side by side.
pub const VECTORS: usize = 2;

/// Outputs of a panel.
pub const STRIPE: usize = VECTORS * LANES;

/// Values of k that a panel holds: with its scales it has to leave room in a first-level cache of 32 KiB.
pub const DEPTH: usize = 3 * SUPER_BLOCK;

/// A value, or four codes, of sixteen outputs.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line(pub [f32; LANES]);

/// One line for each vector of outputs.
pub type Lines = [Line; VECTORS];

#[derive(Debug, Default)]
pub struct Panel {
    /// For each four values of k.
    pub codes: Vec<Lines>,
    /// For each sub-block.
    pub scales: Vec<Lines>,
    /// For each sub-block, with the sign turned; only of types that have them.
    pub mins: Vec<Lines>,
}

/// Where the codes of one block of sixteen rows go.
#[derive(Debug)]
pub struct Place<'a> {
    pub codes: &'a mut [Lines],
    pub scales: &'a mut [Lines],
    pub mins: &'a mut [Lines],
    pub vector: usize,
}

impl Panel {
    /// Room for [`DEPTH`] values of k of any type.
    pub fn reserve(&mut self) {
        self.codes.resize(DEPTH / 4, Lines::default());
        self.scales.resize(DEPTH / 16, Lines::default());
        self.mins.resize(DEPTH / 16, Lines::default());
    }
}

/// Fills the panel from `bytes`, which hold [`STRIPE`] rows of `stride` bytes: `blocks` blocks of the type from block `first` on.
pub fn fill(isa: Isa, ty: BlockType, bytes: &[u8], stride: usize, first: usize, blocks: usize, panel: &mut Panel) {
    match ty {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => {}
        BlockType::Q4_0 => q4_0(isa, bytes, stride, first, blocks, panel),
        BlockType::Q4_1 => q4_1(isa, bytes, stride, first, blocks, panel),
        BlockType::Q5_0 => q5_0(isa, bytes, stride, first, blocks, panel),
        BlockType::Q5_1 => q5_1(isa, bytes, stride, first, blocks, panel),
        BlockType::Q8_0 => q8_0(isa, bytes, stride, first, blocks, panel),
        BlockType::Q2K => q2k(isa, bytes, stride, first, blocks, panel),
        BlockType::Q3K => q3k(isa, bytes, stride, first, blocks, panel),
        BlockType::Q4K => q4k(isa, bytes, stride, first, blocks, panel),
        BlockType::Q5K => q5k(isa, bytes, stride, first, blocks, panel),
        BlockType::Q6K => q6k(isa, bytes, stride, first, blocks, panel),
    }
}

macro_rules! fill_with {
    ($($name:ident $format:ident;)*) => {
        clones! {$(
            fn $name<D>(d, bytes: &[u8], stride: usize, first: usize, blocks: usize, panel: &mut Panel) {
                fill_as::<D, formats::$format>(d, bytes, stride, first, blocks, panel);
            }
        )*}
    };
}

fill_with! {
    q4_0 Q4_0;
    q4_1 Q4_1;
    q5_0 Q5_0;
    q5_1 Q5_1;
    q8_0 Q8_0;
    q2k Q2K;
    q3k Q3K;
    q4k Q4K;
    q5k Q5K;
    q6k Q6K;
}

#[inline(always)]
fn fill_as<D: Dot, F: Format>(d: D, bytes: &[u8], stride: usize, first: usize, blocks: usize, panel: &mut Panel) {
    let (code_lines, groups) = (F::VALUES / 4, F::VALUES / BLOCK * if F::KIND.halves { 2 } else { 1 });
    assert!(bytes.len() >= STRIPE * stride && stride >= (first + blocks) * F::BYTES);
    for vector in 0..VECTORS {
        let rows = &bytes[vector * LANES * stride..][..LANES * stride];
        for block in 0..blocks {
            let place = Place {
                codes: &mut panel.codes[block * code_lines..][..code_lines],
                scales: &mut panel.scales[block * groups..][..groups],
                mins: &mut panel.mins[block * groups..][..groups],
                vector,
            };
            // What the next stripe will read lies one stripe further on.
            let done = (first * VECTORS + vector * blocks + block) * LANES * F::BYTES;
            let ahead = bytes.as_ptr().wrapping_add(STRIPE * stride + done);
            F::unpack(d, &rows[(first + block) * F::BYTES..], stride, ahead, place);
        }
    }
}
