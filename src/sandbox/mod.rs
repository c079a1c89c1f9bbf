//! Runs a foreign command on declared files, without network.
