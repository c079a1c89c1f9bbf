//! GPTQ (Frantar et al., 2023) on GGUF's grids: column after column is rounded, and the columns behind it make up for its error as far as the inputs' correlations let them. A block's scales
//! are searched for when its turn comes, in the values as they are then.

use rayon::prelude::*;

use super::{BlockType, Importance, QuantError, SUPER_BLOCK, classic, kquant, pack, prepare};
use crate::kernels::gemm::{Mat, Write, matmul};
use crate::kernels::isa::{LANES, clones};
use crate::kernels::packed::values::unpack;
use crate::model::hessian::Factor;

/// Rows that are searched for scales together.
const ROWS: usize = 16;
/// Columns whose errors are carried beyond them together.
const BATCH: usize = 256;

/// Packs rows of `columns` values, which are used up. `factor` is that of the Hessian of the matrix's inputs, `importance` its diagonal in any unit. Types without a grid (F32, F16, BF16) have no errors to speak of
/// and are packed as always.
pub fn quantize(
    ty: BlockType,
    values: &mut [f32],
    columns: usize,
    importance: Option<&[f32]>,
    factor: &Factor,
    bytes: &mut Vec<u8>,
) -> Result<(), QuantError> {
    let Some(top) = top(ty) else { return super::quantize_into(ty, values, columns, importance, bytes) };
    prepare(ty, values, columns, importance, bytes)?;
    if factor.columns != columns {
        return Err(QuantError::Rows { values: factor.columns, columns });
    }
    let mut carry = vec![0.0f32; columns * columns];
    carry.par_chunks_mut(columns).enumerate().for_each(|(i, carry)| {
        let row = factor.row(i);
        carry.iter_mut().zip(row).for_each(|(carry, value)| *carry = (value / row[i]) as f32);
    });
    let grid = Grid { ty, top, columns, importance, carry: &carry };
    let row_bytes = bytes.len() / (values.len() / columns).max(1);
    values.par_chunks_mut(ROWS * columns).zip(bytes.par_chunks_mut(ROWS * row_bytes)).for_each(|(values, bytes)| grid.rows(values, bytes));
    Ok(())
}

/// The highest level, counted from the lowest.
fn top(ty: BlockType) -> Option<u8> {
    match ty {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => None,
        BlockType::Q2K => Some(3),
        BlockType::Q3K => Some(7),
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q4K => Some(15),
        BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => Some(31),
        BlockType::Q6K => Some(63),
        BlockType::Q8_0 => Some(254),
    }
}

fn put_levels(ty: BlockType, levels: &[u8], block: &mut [u8]) {
    match levels.as_chunks::<SUPER_BLOCK>().0.first() {
        Some(levels) if ty.block_values() == SUPER_BLOCK => kquant::put_levels(ty, levels, block),
        _ => classic::put_levels(ty, levels, block),
    }
}

/// Where a matrix's values may come to lie, and what an error in column i does to column j: `carry[i, j]`.
struct Grid<'a> {
    ty: BlockType,
    top: u8,
    columns: usize,
    importance: Option<&'a [f32]>,
    carry: &'a [f32],
}

/// What a level stands for: `step · level + lowest`.
struct Line {
    step: f32,
    lowest: f32,
}

/// What a block's values are rounded to, and by how much that is wrong (by the batch's columns).
struct Found<'a> {
    levels: &'a mut [u8],
    errors: &'a mut [f32],
}

impl Grid<'_> {
    /// Up to [`ROWS`] rows.
    fn rows(&self, values: &mut [f32], bytes: &mut [u8]) {
        let columns = self.columns;
        let rows = values.len() / columns;
        let (width, row_bytes) = (self.ty.block_values(), bytes.len() / rows.max(1));
        let mut room = Room::default();
        for batch in (0..columns).step_by(BATCH) {
            let end = columns.min(batch + BATCH);
            let mut errors = vec![0.0; rows * (end - batch)];
            for start in (batch..end).step_by(width) {
                room.search(self, values, start);
                for row in 0..rows {
                    let block = &mut room.blocks[row * self.ty.block_bytes()..][..self.ty.block_bytes()];
                    self.lines(block, &mut room.low, &mut room.high, &mut room.lines);
                    let values = &mut values[row * columns..][batch..end];
                    let errors = &mut errors[row * (end - batch)..][..end - batch];
                    let rows_of_carry = Mat::strided(&self.carry[batch * columns + batch..], end - batch, end - batch, columns);
                    let mut found = Found { levels: &mut room.levels, errors };
                    round(values, start - batch, &room.lines, f32::from(self.top), rows_of_carry, &mut found);
                    put_levels(self.ty, &room.levels, block);
                    let at = row * row_bytes + start / width * self.ty.block_bytes();
                    bytes[at..at + block.len()].copy_from_slice(block);
                }
            }
            if end < columns {
                let behind = Mat::strided(&self.carry[batch * columns + end..], end - batch, columns - end, columns);
                room.moved.resize(rows * (columns - end), 0.0);
                matmul(Mat::new(&errors, rows, end - batch), behind, &mut room.moved, Write::Set);
                for (values, moved) in values.chunks_exact_mut(columns).zip(room.moved.chunks_exact(columns - end)) {
                    values[end..].iter_mut().zip(moved).for_each(|(value, moved)| *value -= moved);
                }
            }
        }
    }

    /// What each level of a packed block stands for.
    fn lines(&self, block: &mut [u8], low: &mut Vec<f32>, high: &mut Vec<f32>, lines: &mut Vec<Line>) {
        let width = self.ty.block_values();
        for (level, values) in [(0, &mut *low), (self.top, &mut *high)] {
            values.resize(width, 0.0);
            put_levels(self.ty, &[level; SUPER_BLOCK][..width], block);
            unpack(self.ty, block, values);
        }
        let per = 1.0 / f32::from(self.top);
        lines.clear();
        lines.extend(low.iter().zip(high.iter()).map(|(low, high)| Line { step: (high - low) * per, lowest: *low }));
    }
}

/// Used again for each block.
#[derive(Default)]
struct Room {
    /// The rows' values in one block's columns.
    values: Vec<f32>,
    blocks: Vec<u8>,
    lines: Vec<Line>,
    low: Vec<f32>,
    high: Vec<f32>,
    levels: Vec<u8>,
    moved: Vec<f32>,
}

impl Room {
    /// Packs one block of each row, for its scales.
    fn search(&mut self, grid: &Grid, values: &[f32], start: usize) {
        let width = grid.ty.block_values();
        self.values.clear();
        for row in values.chunks_exact(grid.columns) {
            self.values.extend_from_slice(&row[start..start + width]);
        }
        self.levels.resize(width, 0);
        self.blocks.clear();
        self.blocks.resize(self.values.len() / width * grid.ty.block_bytes(), 0);
        let importance = grid.importance.map(|importance| Importance { importance: &importance[start..start + width], column: 0 });
        pack(grid.ty, &self.values, importance, &mut self.blocks);
    }
}

clones! {
    /// Rounds one row's values from `start` on to the lines; each error moves the values behind it within `values`, a whole number of vectors.
    fn round<S>(s, values: &mut [f32], start: usize, lines: &[Line], top: f32, carry: Mat, found: &mut Found) {
        for (i, (line, level)) in lines.iter().zip(found.levels.iter_mut()).enumerate() {
            let i = start + i;
            let value = values[i];
            // A step of 0 makes this NaN or infinite, and every level as good as the other.
            let nearest = ((value - line.lowest) / line.step).round_ties_even().clamp(0.0, top);
            *level = nearest as u8;
            let error = value - (line.step * f32::from(*level) + line.lowest);
            found.errors[i] = error;
            // The vector that holds i is moved whole: before i nothing is carried, and i itself is done.
            let from = i / LANES * LANES;
            let (values, _) = values[from..].as_chunks_mut::<LANES>();
            let (carry, _) = carry.data[i * carry.stride + from..][..carry.cols - from].as_chunks::<LANES>();
            let error = s.splat(-error);
            for (values, carry) in values.iter_mut().zip(carry) {
                s.store(s.fma(error, s.load(carry), s.load(values)), values);
            }
        }
    }
}
