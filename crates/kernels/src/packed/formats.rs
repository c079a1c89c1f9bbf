//! The quantized types of GGUF, taken apart for sixteen rows at a time. The layouts are told by [`super::values`]; the codes come out in order of k.

use super::BlockType;
use super::dot::{Dot, Size};
use super::panel::Place;
use super::words::Words;
use crate::isa::{LANES, Simd};

/// What a tile has to know of a type.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Two sub-blocks of sixteen in a block of 32, each with a scale.
    pub halves: bool,
    /// w = a·code − b.
    pub mins: bool,
    pub size: Size,
    /// What is taken from a code to give n.
    pub zero: i32,
}

impl Kind {
    pub fn of(ty: BlockType) -> Option<Kind> {
        match ty {
            BlockType::F32 | BlockType::F16 | BlockType::Bf16 => None,
            BlockType::Q4_0 => Some(Q4_0::KIND),
            BlockType::Q4_1 => Some(Q4_1::KIND),
            BlockType::Q5_0 => Some(Q5_0::KIND),
            BlockType::Q5_1 => Some(Q5_1::KIND),
            BlockType::Q8_0 => Some(Q8_0::KIND),
            BlockType::Q2K => Some(Q2K::KIND),
            BlockType::Q3K => Some(Q3K::KIND),
            BlockType::Q4K => Some(Q4K::KIND),
            BlockType::Q5K => Some(Q5K::KIND),
            BlockType::Q6K => Some(Q6K::KIND),
        }
    }

    const fn plain(size: Size, zero: i32) -> Kind {
        Kind { halves: false, mins: false, size, zero }
    }

    const fn with_mins(size: Size) -> Kind {
        Kind { halves: false, mins: true, size, zero: 0 }
    }
}

pub trait Format {
    const VALUES: usize;
    const BYTES: usize;
    const KIND: Kind;
    /// One block of sixteen rows that begin `stride` bytes apart. Meanwhile as many bytes from `ahead` on, which need not be readable, are asked for.
    fn unpack<D: Dot>(d: D, bytes: &[u8], stride: usize, ahead: *const u8, to: Place);
}

macro_rules! formats {
    ($($name:ident $kind:expr, $unpack:ident;)*) => {$(
        #[derive(Debug)]
        pub struct $name;
        impl Format for $name {
            const VALUES: usize = BlockType::$name.block_values();
            const BYTES: usize = BlockType::$name.block_bytes();
            const KIND: Kind = $kind;
            #[inline(always)]
            fn unpack<D: Dot>(d: D, bytes: &[u8], stride: usize, ahead: *const u8, to: Place) {
                assert!(to.codes.len() == Self::VALUES / 4);
                $unpack(d, Rows { s: d.simd(), bytes, stride, ahead }, Out { s: d.simd(), to });
            }
        }
    )*};
}

formats! {
    Q4_0 Kind::plain(Size::Five, 8), q4_0;
    Q4_1 Kind::with_mins(Size::Five), q4_1;
    Q5_0 Kind::plain(Size::Five, 16), q5_0;
    Q5_1 Kind::with_mins(Size::Five), q5_1;
    Q8_0 Kind::plain(Size::Eight, 0), q8_0;
    Q2K Kind { halves: true, ..Kind::with_mins(Size::Five) }, q2k;
    Q3K Kind { halves: true, ..Kind::plain(Size::Six, 4) }, q3k;
    Q4K Kind::with_mins(Size::Five), q4k;
    Q5K Kind::with_mins(Size::Five), q5k;
    Q6K Kind { halves: true, ..Kind::plain(Size::Six, 32) }, q6k;
}

/// One block of sixteen rows.
#[derive(Clone, Copy)]
struct Rows<'a, S> {
    s: S,
    bytes: &'a [u8],
    stride: usize,
    ahead: *const u8,
}

impl<S: Words> Rows<'_, S> {
    /// Sixteen bytes from `at` on, as four vectors. Requests for what is ahead are spread over these reads: many at once would hold them up.
    #[inline(always)]
    fn columns(&self, at: usize) -> [S::V; 4] {
        for line in 0..LANES * 16 / 64 {
            self.s.prefetch_bytes(self.ahead.wrapping_add(LANES * at + 64 * line));
        }
        self.head(at)
    }

    /// The same for what other reads cover too.
    #[inline(always)]
    fn head(&self, at: usize) -> [S::V; 4] {
        self.s.columns(&self.bytes[at..], self.stride)
    }
}

/// Where the block goes.
struct Out<'a, S> {
    s: S,
    to: Place<'a>,
}

impl<S: Words> Out<'_, S> {
    #[inline(always)]
    fn code(&mut self, step: usize, v: S::V) {
        self.s.store(v, &mut self.to.codes[step][self.to.vector].0);
    }
    #[inline(always)]
    fn scale(&mut self, group: usize, v: S::V) {
        self.s.store(v, &mut self.to.scales[group][self.to.vector].0);
    }
    /// −b.
    #[inline(always)]
    fn min(&mut self, group: usize, v: S::V) {
        self.s.store(v, &mut self.to.mins[group][self.to.vector].0);
    }
}

/// The upper half of each lane.
#[inline(always)]
fn upper<S: Words>(s: S, v: S::V) -> S::V {
    s.shift_right(v, 16)
}

/// The lower half of each byte.
#[inline(always)]
fn low_nibbles<S: Words>(s: S, v: S::V) -> S::V {
    s.and(v, s.bits(0x0f0f_0f0f))
}

#[inline(always)]
fn high_nibbles<S: Words>(s: S, v: S::V) -> S::V {
    low_nibbles(s, s.shift_right(v, 4))
}

/// Byte `i` of each lane, as a number.
#[inline(always)]
fn byte<S: Words>(s: S, v: S::V, i: usize) -> S::V {
    s.integer_to_float(s.and(s.shift_right(v, 8 * i as u32), s.bits(255)))
}

#[inline(always)]
fn signed_byte<S: Words>(s: S, v: S::V, i: usize) -> S::V {
    // Moved up by 128 it has no sign.
    let moved = s.integer_add(s.shift_right(v, 8 * i as u32), s.bits(128));
    s.integer_to_float(s.integer_sub(s.and(moved, s.bits(255)), s.bits(128)))
}

#[inline(always)]
fn negated<S: Words>(s: S, v: S::V) -> S::V {
    s.sub(s.splat(0.0), v)
}

#[inline(always)]
fn q4_0<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    out.scale(0, s.half(rows.head(0)[0]));
    for (i, v) in rows.columns(2).into_iter().enumerate() {
        out.code(i, low_nibbles(s, v));
        out.code(4 + i, high_nibbles(s, v));
    }
}

#[inline(always)]
fn q4_1<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    let head = rows.head(0)[0];
    out.scale(0, s.half(head));
    out.min(0, s.half(upper(s, head)));
    for (i, v) in rows.columns(4).into_iter().enumerate() {
        out.code(i, low_nibbles(s, v));
        out.code(4 + i, high_nibbles(s, v));
    }
}

#[inline(always)]
fn q5_0<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    let head = rows.head(0);
    out.scale(0, s.half(head[0]));
    let fifth = s.or(upper(s, head[0]), s.shift_left(head[1], 16));
    five_bits(s, fifth, rows.columns(6), &mut out);
}

#[inline(always)]
fn q5_1<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    let head = rows.head(0);
    out.scale(0, s.half(head[0]));
    out.min(0, s.half(upper(s, head[0])));
    five_bits(s, head[1], rows.columns(8), &mut out);
}

#[inline(always)]
fn five_bits<S: Words>(s: S, fifth: S::V, four: [S::V; 4], out: &mut Out<S>) {
    for (i, v) in four.into_iter().enumerate() {
        out.code(i, s.or(low_nibbles(s, v), s.spread(fifth, i as u32)));
        out.code(4 + i, s.or(high_nibbles(s, v), s.spread(fifth, 4 + i as u32)));
    }
}

#[inline(always)]
fn q8_0<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    out.scale(0, s.half(rows.head(0)[0]));
    for half in 0..2 {
        for (i, v) in rows.columns(2 + 16 * half).into_iter().enumerate() {
            out.code(4 * half + i, if D::UNSIGNED { s.flip(v) } else { v });
        }
    }
}

#[inline(always)]
fn q2k<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    let ends = rows.head(68)[3];
    let (d, min) = (s.half(ends), negated(s, s.half(upper(s, ends))));
    for (i, v) in rows.columns(0).into_iter().enumerate() {
        let (scales, mins) = (low_nibbles(s, v), high_nibbles(s, v));
        for j in 0..4 {
            out.scale(4 * i + j, s.mul(d, byte(s, scales, j)));
            out.min(4 * i + j, s.mul(min, byte(s, mins, j)));
        }
    }
    for half in 0..2 {
        for part in 0..2 {
            for (i, v) in rows.columns(16 + 32 * half + 16 * part).into_iter().enumerate() {
                for quarter in 0..4 {
                    let codes = s.and(s.shift_right(v, 2 * quarter as u32), s.bits(0x0303_0303));
                    out.code(32 * half + 8 * quarter + 4 * part + i, codes);
                }
            }
        }
    }
}

#[inline(always)]
fn q3k<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    // Twelve bytes of scales and d end the block: four vectors that begin two bytes before.
    let v = rows.columns(94);
    let d = s.half(upper(s, v[3]));
    let join = |a, b| s.or(upper(s, a), s.shift_left(b, 16));
    let (low, high) = ([join(v[0], v[1]), join(v[1], v[2])], join(v[2], v[3]));
    for quarter in 0..4 {
        let four = if quarter < 2 { low_nibbles(s, low[quarter % 2]) } else { high_nibbles(s, low[quarter % 2]) };
        let two = s.shift_left(s.and(s.shift_right(high, 2 * quarter as u32), s.bits(0x0303_0303)), 4);
        let scales = s.or(four, two);
        for j in 0..4 {
            out.scale(4 * quarter + j, s.mul(d, s.sub(byte(s, scales, j), s.splat(32.0))));
        }
    }
    for part in 0..2 {
        let third = rows.columns(16 * part);
        for half in 0..2 {
            let two = rows.columns(32 + 32 * half + 16 * part);
            for i in 0..4 {
                for quarter in 0..4 {
                    let low = s.and(s.shift_right(two[i], 2 * quarter as u32), s.bits(0x0303_0303));
                    let high = s.and(s.shift_right(third[i], (4 * half + quarter) as u32), s.bits(0x0101_0101));
                    out.code(32 * half + 8 * quarter + 4 * part + i, s.or(low, s.shift_left(high, 2)));
                }
            }
        }
    }
}

/// d, dmin and the eight 6-bit scales and minima that begin a Q4_K and a Q5_K block.
#[inline(always)]
fn sixes<S: Words>(s: S, head: [S::V; 4], out: &mut Out<S>) {
    let (d, min) = (s.half(head[0]), negated(s, s.half(upper(s, head[0]))));
    let six = |v| s.and(v, s.bits(0x3f3f_3f3f));
    let top = |v| s.and(s.shift_right(v, 2), s.bits(0x3030_3030));
    let scales = [six(head[1]), s.or(low_nibbles(s, head[3]), top(head[1]))];
    let mins = [six(head[2]), s.or(high_nibbles(s, head[3]), top(head[2]))];
    for i in 0..2 {
        for j in 0..4 {
            out.scale(4 * i + j, s.mul(d, byte(s, scales[i], j)));
            out.min(4 * i + j, s.mul(min, byte(s, mins[i], j)));
        }
    }
}

#[inline(always)]
fn q4k<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    sixes(s, rows.columns(0), &mut out);
    for quarter in 0..4 {
        for part in 0..2 {
            for (i, v) in rows.columns(16 + 32 * quarter + 16 * part).into_iter().enumerate() {
                out.code(16 * quarter + 4 * part + i, low_nibbles(s, v));
                out.code(16 * quarter + 8 + 4 * part + i, high_nibbles(s, v));
            }
        }
    }
}

#[inline(always)]
fn q5k<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    sixes(s, rows.columns(0), &mut out);
    for part in 0..2 {
        let fifth = rows.columns(16 + 16 * part);
        for quarter in 0..4 {
            let four = rows.columns(48 + 32 * quarter + 16 * part);
            for i in 0..4 {
                let bit = |group: usize| s.shift_left(s.and(s.shift_right(fifth[i], group as u32), s.bits(0x0101_0101)), 4);
                out.code(16 * quarter + 4 * part + i, s.or(low_nibbles(s, four[i]), bit(2 * quarter)));
                out.code(16 * quarter + 8 + 4 * part + i, s.or(high_nibbles(s, four[i]), bit(2 * quarter + 1)));
            }
        }
    }
}

#[inline(always)]
fn q6k<D: Dot>(_d: D, rows: Rows<D::S>, mut out: Out<D::S>) {
    let s = rows.s;
    let d = s.half(upper(s, rows.head(194)[3]));
    for (i, v) in rows.columns(192).into_iter().enumerate() {
        for j in 0..4 {
            out.scale(4 * i + j, s.mul(d, signed_byte(s, v, j)));
        }
    }
    for half in 0..2 {
        for part in 0..2 {
            let high = rows.columns(128 + 32 * half + 16 * part);
            for pair in 0..2 {
                // Values 32·pair on in the low nibbles, 64 + 32·pair on in the high ones.
                let low = rows.columns(64 * half + 32 * pair + 16 * part);
                for i in 0..4 {
                    let two = |quarter: usize| s.shift_left(s.and(s.shift_right(high[i], 2 * quarter as u32), s.bits(0x0303_0303)), 4);
                    let step = 32 * half + 8 * pair + 4 * part + i;
                    out.code(step, s.or(low_nibbles(s, low[i]), two(pair)));
                    out.code(step + 16, s.or(high_nibbles(s, low[i]), two(pair + 2)));
                }
            }
        }
    }
}
