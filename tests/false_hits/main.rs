//! Tricks that would make a cache lie: sources that change and change back, times that are set back, writes through mappings, checkpoints of other data,
//! and everything that a step can see but its key does not hold.
//!
//! Each case plays one trick on builds that share a store. Then, for each state that its files had, the shared store must give what an empty store
//! gives: a difference is a false hit. A build may fail, but only by saying that a source changed.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

mod checkpoints;
mod links;
mod metadata;
mod moments;
mod stamps;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use world::World;

/// A trick, by what it does.
type Case = (&'static str, fn(&World));

/// Most of the time, cases wait for the clock.
const AT_ONCE: usize = 16;

#[test]
fn no_trick_makes_a_false_hit() {
    let cases: Vec<&Case> =
        [moments::CASES, stamps::CASES, metadata::CASES, links::CASES, checkpoints::CASES, store::CASES].into_iter().flatten().collect();
    let next = AtomicUsize::new(0);
    let failed: Mutex<Vec<&str>> = Mutex::default();
    let work = || {
        while let Some((name, play)) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
            if catch_unwind(AssertUnwindSafe(|| play(&World::new()))).is_err() {
                failed.lock().unwrap().push(name);
            }
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap();
    println!("{} cases, {} failed", cases.len(), failed.len());
    assert!(cases.len() >= 30 && failed.is_empty(), "failed: {failed:#?}");
}
