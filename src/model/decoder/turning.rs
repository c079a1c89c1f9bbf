//! How positions turn queries and keys: which table each layer takes, and which of its rows each token.

use super::super::config::rope::Turns;
use super::super::{Config, ModelError};
use super::Batch;
use crate::kernels::rope::{Rope, Turn, rope};

#[derive(Debug)]
pub struct Turning {
    /// Of each layer.
    layers: Vec<Table>,
    head_dim: usize,
    turns: Turns,
    local_turns: Option<Turns>,
    /// Positions that the tables reach.
    reach: usize,
    table: Rope,
    local: Rope,
    /// Rows of `table` for the tokens of the batch, where they are not their positions.
    rows: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Common,
    /// Of layers with a window, where they have their own.
    Local,
    /// The layer knows no positions.
    Absent,
}

impl Turning {
    pub fn of(config: &Config) -> Turning {
        let features = &config.features;
        let table = |layer: usize| match features.rope_local_theta {
            _ if features.unturned_layers.binary_search(&layer).is_ok() => Table::Absent,
            Some(_) if features.full_layers.binary_search(&layer).is_err() => Table::Local,
            _ => Table::Common,
        };
        Turning {
            layers: (0..config.num_hidden_layers).map(table).collect(),
            head_dim: config.head_dim,
            turns: config.turns(),
            local_turns: config.local_turns(),
            reach: 0,
            table: Rope::of_turns(config.head_dim, &[], 1.0),
            local: Rope::of_turns(config.head_dim, &[], 1.0),
            rows: Vec::new(),
        }
    }

    /// Tables that reach as far as a batch needs; a hostile configuration, which allows `most` positions, cannot make them huge.
    pub fn prepare(&mut self, batch: &Batch, most: usize) {
        let needed = batch.positions.iter().max().map_or(0, |position| *position as usize + 1);
        if needed > self.reach {
            self.reach = needed.next_power_of_two().min(most);
            let Turns { short, long, magnitude } = &self.turns;
            let short_rows = self.reach.min(self.switch());
            let tables = [(short.as_slice(), short_rows)].into_iter().chain(long.iter().map(|(_, long)| (long.as_slice(), self.reach)));
            self.table = Rope::of_turns(self.head_dim, &tables.collect::<Vec<_>>(), *magnitude);
            if let Some(Turns { short, magnitude, .. }) = &self.local_turns {
                self.local = Rope::of_turns(self.head_dim, &[(short, self.reach)], *magnitude);
            }
        }
        self.rows.clear();
        if self.turns.long.is_some() {
            let (switch, before) = (self.switch(), self.reach.min(self.switch()) as u32);
            for sequence in batch.starts.windows(2) {
                let positions = &batch.positions[sequence[0]..sequence[1]];
                let is_long = positions.last().is_some_and(|last| *last as usize >= switch);
                self.rows.extend(positions.iter().map(|position| if is_long { before + position } else { *position }));
            }
        }
    }

    /// Sequences of more tokens are turned at another pace from their first token on, so that what is cached of a shorter one is of no use.
    pub fn switch(&self) -> usize {
        self.turns.long.as_ref().map_or(usize::MAX, |(switch, _)| *switch)
    }

    /// A sequence that goes on must not have been cached at another pace.
    pub fn check_cached(&self, batch: &Batch) -> Result<(), ModelError> {
        let switch = self.switch();
        let crosses = |sequence: &[usize]| {
            let positions = &batch.positions[sequence[0]..sequence[1]];
            let bounds = positions.first().zip(positions.last());
            bounds.is_some_and(|(first, last)| (1..=switch).contains(&(*first as usize)) && *last as usize >= switch)
        };
        if switch < usize::MAX && batch.starts.windows(2).any(crosses) {
            return Err(ModelError::Input(format!("a sequence that grows beyond {switch} tokens has to be read again from its start")));
        }
        Ok(())
    }

    /// Turns the heads of a layer's queries or keys.
    pub fn turn(&self, layer: usize, x: &mut [f32], heads: usize, positions: &[u32], turn: Turn) {
        match self.layers[layer] {
            Table::Common if !self.rows.is_empty() => rope(x, heads, &self.rows, &self.table, turn),
            Table::Common => rope(x, heads, positions, &self.table, turn),
            Table::Local => rope(x, heads, positions, &self.local, turn),
            Table::Absent => {}
        }
    }
}
