//! Deliveries: bundles on their way from the store to `dist/`, where people and devices find them. The room knows what was delivered and deletes
//! nothing else; it does not know how a bundle is made.
//!
//! | in `dist/` | is |
//! |---|---|
//! | `PROJECT-VERSION-DEVICE/` | a bundle |
//! | `.slmops-delivered.json` | what slmops delivered here: [`record`] |
//! | `.slmops.lock` | held while a process delivers |
//! | `.slmops-new-…/` | a delivery under way, or what a killed one left |
//!
//! The record lies in `dist/` itself: it speaks of this folder only, and it must outlive the store, which may be deleted or be another one
//! (`SLMOPS_CACHE`) the next time.
//!
//! A folder is ours if its name is in the record and its contents are what was delivered under that name, to the last byte. Only then is it replaced
//! or removed. Whatever else is in its place is an error that says what to do.

mod dist;
mod error;
mod places;
mod publish;
mod record;

pub use dist::{Dist, Parcel, Wait};
pub use error::DeployError;
pub use places::{Place, dist_folder, places};
pub use publish::{Order, Publication, Published, publish};
