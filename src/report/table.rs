//! Columns of text, as wide as they need to be.

use std::fmt;

/// A table with a header; numbers go to the right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    header: Vec<String>,
    right: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Table {
        Table { header: header.map(str::to_string).to_vec(), ..Table::default() }
    }

    /// Columns whose cells end at the right edge, counted from 0.
    #[must_use]
    pub fn right(mut self, columns: &[usize]) -> Table {
        self.right = columns.to_vec();
        self
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    fn widths(&self) -> Vec<usize> {
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        (0..self.header.len()).map(|i| lines().filter_map(|line| line.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for (number, line) in std::iter::once(&self.header).chain(&self.rows).enumerate() {
            let mut text = String::new();
            for (i, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let space = " ".repeat(width - cell.chars().count());
                let gap = if i == 0 { "" } else { "  " };
                match self.right.contains(&i) {
                    true => text.extend([gap, &space, cell]),
                    false => text.extend([gap, cell, &space]),
                }
            }
            if number > 0 {
                writeln!(f)?;
            }
            f.write_str(text.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["step", "size"]).right(&[1]);
        table.row(["a".to_string(), "12 KiB".to_string()]);
        table.row(["größer".to_string(), "1 B".to_string()]);
        assert_eq!(table.to_string(), "step      size\na       12 KiB\ngrößer     1 B");
    }
}
