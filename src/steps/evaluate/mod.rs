//! Measures models on test sets and judges them by gates.

pub mod report;
