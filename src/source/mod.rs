//! Where data comes from: pins and fetches it.
