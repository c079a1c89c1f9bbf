//! A few rows of x times the outputs of a panel, held in registers.

use super::activations::{BLOCK, Left, Tile};
use super::dot::{Codes, Dot, Eight, Five, Six, Size, clones};
use super::formats::Kind;
use super::panel::{Lines, Panel, VECTORS};
use crate::gemm::{CHUNK, Write};
use crate::isa::{Isa, LANES, Simd};

/// One panel and the rows of the result that it adds to.
#[derive(Debug)]
pub struct Work<'a, 'b> {
    pub panel: &'a Panel,
    /// The panel's part of k.
    pub first: usize,
    pub depth: usize,
    pub left: &'a Left,
    /// The tiles of `left` that are meant.
    pub tiles: std::ops::Range<usize>,
    /// The rows of the result, and the column where the panel's outputs begin.
    pub rows: &'a mut [&'b mut [f32]],
    pub column: usize,
    pub write: Write,
}

/// The products of all tiles with the panel.
pub fn multiply(isa: Isa, kind: Kind, work: &mut Work) {
    match (kind.halves, kind.mins, kind.size) {
        (false, false, Size::Five | Size::Six) => five(isa, work),
        (false, true, _) => five_with_mins(isa, work),
        (false, false, Size::Eight) => eight(isa, work),
        (true, false, _) => halves(isa, work),
        (true, true, _) => halves_with_mins(isa, work),
    }
}

/// What of a [`Kind`] the loops are compiled for.
trait Class {
    const HALVES: bool;
    const MINS: bool;
    type Codes: Codes;
}

macro_rules! classes {
    ($($name:ident $class:ident $halves:literal $mins:literal $codes:ty;)*) => {
        $(
            struct $class;
            impl Class for $class {
                const HALVES: bool = $halves;
                const MINS: bool = $mins;
                type Codes = $codes;
            }
        )*
        clones! {$(
            fn $name<D>(d, work: &mut Work<'_, '_>) {
                all_tiles::<D, $class>(d, work);
            }
        )*}
    };
}

classes! {
    five PlainFive false false Five;
    five_with_mins FiveWithMins false true Five;
    eight PlainEight false false Eight;
    halves HalvesOfSix true false Six;
    halves_with_mins HalvesWithMins true true Five;
}

macro_rules! by_height {
    ($d:ident, $class:ident, $height:expr, $work:ident, $tile:ident, $rows:expr, $($rows_of:literal)*) => {
        match $height {
            $($rows_of if const { $rows_of <= D::ROWS } => tile::<D, $class, $rows_of>($d, $work, $tile, $rows),)*
            _ => {}
        }
    };
}

#[inline(always)]
fn all_tiles<D: Dot, C: Class>(d: D, work: &mut Work) {
    let top = work.left.first_row(work.tiles.start);
    for i in work.tiles.clone() {
        let tile = work.left.tile(i, work.first, work.depth);
        let first = work.left.first_row(i);
        let height = work.left.first_row(i + 1) - first;
        by_height!(d, C, height, work, tile, first - top, 1 2 3 4 5 6);
    }
}

/// The rows from `top` on.
#[inline(always)]
fn tile<D: Dot, C: Class, const ROWS: usize>(d: D, work: &mut Work, tile: Tile, top: usize) {
    let s = d.simd();
    let ((q, _), (scales, _), (starts, _)) = (tile.q.as_chunks::<ROWS>(), tile.d.as_chunks::<ROWS>(), tile.starts.as_chunks::<ROWS>());
    let groups = if C::HALVES { 2 } else { 1 };
    let blocks = work.depth / BLOCK;
    for chunk in (0..blocks).step_by(CHUNK / BLOCK) {
        let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
        for i in chunk..blocks.min(chunk + CHUNK / BLOCK) {
            let codes = &work.panel.codes[8 * i..][..8];
            let weights = Weights {
                scales: &work.panel.scales[groups * i..][..groups],
                mins: if C::MINS { &work.panel.mins[groups * i..][..groups] } else { &[] },
            };
            let values = block::<D, C, ROWS>(d, codes, &q[8 * i..][..8], &starts[2 * i..][..2], &weights);
            for ((sums, values), scale) in sums.iter_mut().zip(&values).zip(&scales[i]) {
                let scale = s.splat(*scale);
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = s.fma(scale, *value, *sum);
                }
            }
        }
        let write = if chunk == 0 { work.write } else { Write::Add };
        for (row, sums) in work.rows[top..].iter_mut().zip(&sums) {
            add(s, &mut row[work.column..], sums, write);
        }
    }
}

struct Weights<'a> {
    scales: &'a [Lines],
    mins: &'a [Lines],
}

/// What a block of 32 values of k adds, still without the scale of x.
#[inline(always)]
fn block<D: Dot, C: Class, const ROWS: usize>(
    d: D,
    codes: &[Lines],
    q: &[[u32; ROWS]],
    starts: &[[f32; ROWS]],
    weights: &Weights,
) -> [[<D::S as Simd>::V; VECTORS]; ROWS] {
    let s = d.simd();
    let start = |group: usize| if C::MINS { [0.0; ROWS] } else { starts[group] };
    let steps = if C::HALVES { 4 } else { 8 };
    let mut values = d.sums::<C::Codes, ROWS, VECTORS>(&codes[..steps], &q[..steps], &start(0));
    for values in &mut values {
        for (value, scale) in values.iter_mut().zip(&weights.scales[0]) {
            *value = s.mul(s.load(&scale.0), s.integer_to_float(*value));
        }
    }
    if C::HALVES {
        let sums = d.sums::<C::Codes, ROWS, VECTORS>(&codes[4..8], &q[4..8], &start(1));
        for (values, sums) in values.iter_mut().zip(&sums) {
            for ((value, scale), sum) in values.iter_mut().zip(&weights.scales[1]).zip(sums) {
                *value = s.fma(s.load(&scale.0), s.integer_to_float(*sum), *value);
            }
        }
    }
    for (mins, sums) in weights.mins.iter().zip(starts) {
        for (values, sum) in values.iter_mut().zip(sums) {
            let sum = s.splat(*sum);
            for (value, min) in values.iter_mut().zip(mins) {
                *value = s.fma(s.load(&min.0), sum, *value);
            }
        }
    }
    values
}

/// Adds to a row of the result what of it there is.
#[inline(always)]
pub fn add<S: Simd>(s: S, row: &mut [f32], sums: &[S::V; VECTORS], write: Write) {
    let (whole, rest) = row.as_chunks_mut::<LANES>();
    let vectors = whole.len();
    for (v, sum) in sums.iter().enumerate() {
        match whole.get_mut(v) {
            Some(to) => {
                let before = if write == Write::Set { s.splat(0.0) } else { s.load(to) };
                s.store(s.add(before, *sum), to);
            }
            None if v == vectors => {
                let before = if write == Write::Set { s.splat(0.0) } else { s.load_part(rest, 0.0) };
                s.store_part(s.add(before, *sum), rest);
            }
            None => {}
        }
    }
}
