//! The content-addressed store and the action cache.
