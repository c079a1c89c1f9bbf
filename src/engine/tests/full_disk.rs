//! A disk that is full at any moment of a build. Needs a small file system of its own, so it runs on demand:
//! `unshare -m sh -c 'mount -t tmpfs -o size=512k tmpfs /mnt && TMPDIR=/mnt cargo test --lib full_disk -- --ignored'`

use super::*;

const PAGE: usize = 4096;

#[test]
#[ignore = "needs TMPDIR on a file system of 512 KiB"]
fn a_full_disk_is_told_and_the_next_build_recovers() {
    let mut told = 0;
    for free_pages in 0..40 {
        let mut world = World::new();
        let path = world.write("data.txt", "data");
        world.source("data", &path);
        for index in 0..6 {
            world.step(&format!("s{index}"), &["data"]);
        }
        drop(world.store());
        let filler = world.path("filler");
        fill(&filler, free_pages);
        let opened = Store::open(&world.path("cache"));
        if let Ok(store) = opened {
            let result = Engine::new(store, world.events.clone()).build(&world.plan, &world.all(), &world.options);
            for outcome in result.outcomes.iter().flatten() {
                let Outcome::Failed { failure, .. } = outcome else { continue };
                assert!(failure.message.contains("No space left"), "{failure}");
                assert_eq!(failure.exit, Exit::Environment);
                told += 1;
            }
        }
        std::fs::remove_file(&filler).unwrap();
        assert_eq!(world.store().audit(&mut |_| {}).unwrap().damages, [], "with {free_pages} free pages");
        let result = world.build();
        assert_eq!(result.exit(), Exit::Done, "with {free_pages} free pages");
        assert_eq!(world.out(&result, "s5"), "s5data");
    }
    assert!(told > 3, "the disk was too large to fill up: {told}");
}

/// Leaves so many pages free.
fn fill(path: &Path, free_pages: usize) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let mut pages = 0;
    while file.write_all(&[1; PAGE]).is_ok() {
        pages += 1;
        assert!(pages < 4096, "TMPDIR is not on a small file system");
    }
    file.set_len((pages - free_pages.min(pages)) as u64 * PAGE as u64).unwrap();
}
