//! Events and results → terminal, JSON lines.
