//! Rows of a table by id, and the gradient of that.

use rayon::prelude::*;

/// Table rows of one task of the gradient.
const BLOCK_ROWS: usize = 256;

/// `out[i] = table[ids[i]]` for rows of `d`.
pub fn gather(table: &[f32], d: usize, ids: &[u32], out: &mut [f32]) {
    assert!(d > 0 && table.len().is_multiple_of(d) && out.len() == ids.len() * d, "gather: shapes disagree");
    let rows = table.len() / d;
    for (out, id) in out.chunks_exact_mut(d).zip(ids) {
        let id = *id as usize;
        assert!(id < rows, "gather: id {id} is not in a table of {rows}");
        out.copy_from_slice(&table[id * d..(id + 1) * d]);
    }
}

/// `dtable[ids[i]] += dout[i]`, for each table row in the order of i.
pub fn scatter_add(dout: &[f32], d: usize, ids: &[u32], dtable: &mut [f32]) {
    assert!(d > 0 && dtable.len().is_multiple_of(d) && dout.len() == ids.len() * d, "scatter_add: shapes disagree");
    let rows = dtable.len() / d;
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        panic!("scatter_add: id {id} is not in a table of {rows}");
    }
    dtable.par_chunks_mut(BLOCK_ROWS * d).enumerate().for_each(|(block, table)| {
        let first = block * BLOCK_ROWS;
        for (id, dout) in ids.iter().zip(dout.chunks_exact(d)) {
            let Some(row) = (*id as usize).checked_sub(first).and_then(|row| table.chunks_exact_mut(d).nth(row)) else { continue };
            for (sum, x) in row.iter_mut().zip(dout) {
                *sum += *x;
            }
        }
    });
}
