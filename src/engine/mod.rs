//! The scheduler and its events; the only async room.
