//! `[dataset.NAME]`: JSON lines in, cleaned and split JSON lines out.

pub mod record;
