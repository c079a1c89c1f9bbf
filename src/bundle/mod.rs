//! The bundle format: write, read, verify.
