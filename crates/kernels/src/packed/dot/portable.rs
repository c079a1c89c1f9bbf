//! Byte by byte: the definition that the other instruction sets must agree with.

use super::{Codes, Dot, Line, Size};
use crate::isa::LANES;
use crate::isa::portable::Portable;

impl Dot for Portable {
    type S = Portable;
    const ROWS: usize = 2;
    const ROWS_OF_HALVES: usize = 2;
    const UNSIGNED: bool = false;

    #[inline(always)]
    fn simd(self) -> Portable {
        self
    }

    #[inline(always)]
    fn sums<C: Codes, const ROWS: usize, const VECTORS: usize>(
        self,
        codes: &[[Line; VECTORS]],
        q: &[[u32; ROWS]],
        start: &[f32; ROWS],
    ) -> [[[f32; LANES]; VECTORS]; ROWS] {
        let mut sums = [[[0; LANES]; VECTORS]; ROWS];
        for (sums, start) in sums.iter_mut().zip(start) {
            sums.iter_mut().for_each(|sums| *sums = [start.to_bits().cast_signed(); LANES]);
        }
        for (codes, q) in codes.iter().zip(q) {
            for (sums, q) in sums.iter_mut().zip(q) {
                let q = q.to_le_bytes().map(|q| i32::from(q.cast_signed()));
                for (sums, codes) in sums.iter_mut().zip(codes) {
                    for (sum, codes) in sums.iter_mut().zip(&codes.0) {
                        let c = codes.to_bits().to_le_bytes();
                        let c = match C::SIZE {
                            Size::Eight => c.map(|c| i32::from(c.cast_signed())),
                            Size::Five | Size::Six => c.map(i32::from),
                        };
                        *sum += c[0] * q[0] + c[1] * q[1] + c[2] * q[2] + c[3] * q[3];
                    }
                }
            }
        }
        sums.map(|sums| sums.map(|sums| sums.map(|sum| f32::from_bits(sum.cast_unsigned()))))
    }
}
