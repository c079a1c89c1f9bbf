//! Sources that change at the wrong moment: between the look at them and the step, or while the step runs, and back again (ABA).

use std::fs;

use super::Case;
use super::world::{Ended, Script, Step, World, expect_changed, expect_done, set_mode};

pub const CASES: &[Case] = &[
    ("edited and put back while the step runs", |world| while_it_runs(world, |w| w.write("a", "BBBB"), |w| w.write("a", "AAAA"))),
    ("renamed away and back while the step runs", |world| {
        while_it_runs(
            world,
            |w| {
                fs::rename(w.path("a"), w.beside("keep")).unwrap();
                w.write("a", "BBBB");
            },
            |w| fs::rename(w.beside("keep"), w.path("a")).unwrap(),
        );
    }),
    ("the folder swapped for another and back while the step runs", |world| {
        while_it_runs(world, swap_folder, swap_folder);
    }),
    ("edited while the step runs and left so", |world| while_it_runs(world, |w| w.write("a", "BBBB"), |_| ())),
    ("a file more while the step runs", |world| {
        while_it_runs(world, |w| w.write("c", "CCCC"), |w| fs::remove_file(w.path("c")).unwrap());
    }),
    ("a file less while the step runs", |world| {
        while_it_runs(world, |w| fs::remove_file(w.path("b")).unwrap(), |w| w.write("b", "bbbb"));
    }),
    ("two files swapped while the step runs", |world| while_it_runs(world, swap_files, swap_files)),
    ("executable for a moment while the step runs", |world| {
        while_it_runs(world, |w| set_mode(&w.path("a"), 0o755), |w| set_mode(&w.path("a"), 0o644));
    }),
    ("edited before the step reads", |world| before_it_reads(world, |w| w.write("a", "BBBB"), |w| w.write("a", "AAAA"))),
    ("another length before the step reads", |world| before_it_reads(world, |w| w.write("a", "AAAAA"), |w| w.write("a", "AAAA"))),
    ("gone before the step reads", |world| {
        before_it_reads(world, |w| fs::remove_file(w.path("a")).unwrap(), |w| w.write("a", "AAAA"));
    }),
    ("two files swapped before the step reads", |world| before_it_reads(world, swap_files, swap_files)),
    ("a folder in place of the file before the step reads", |world| {
        let restore = |w: &World| {
            fs::remove_dir(w.path("a")).unwrap();
            w.write("a", "AAAA");
        };
        before_it_reads(
            world,
            |w| {
                fs::remove_file(w.path("a")).unwrap();
                fs::create_dir(w.path("a")).unwrap();
            },
            restore,
        );
    }),
    ("a FIFO in place of the file before the step reads", |world| {
        let fifo = |w: &World| {
            fs::remove_file(w.path("a")).unwrap();
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
            rustix::fs::mknodat(rustix::fs::CWD, w.path("a"), kind, mode, 0).unwrap();
        };
        let restore = |w: &World| {
            fs::remove_file(w.path("a")).unwrap();
            w.write("a", "AAAA");
        };
        before_it_reads(world, fifo, restore);
    }),
    ("edited before the step reads and put back while it runs", |world| {
        two_files(world);
        let script = world.at_start(|w| w.write("a", "BBBB"));
        let script = Script { after_reading: world.around_reading(|_| (), |w| w.write("a", "AAAA")).after_reading, ..script };
        expect_changed(&world.build_while(Step::Foreign, script));
        world.write("a", "AAAA");
        world.check();
        world.write("a", "BBBB");
        world.check();
    }),
    ("executable before the step reads and left so", |world| {
        two_files(world);
        // Its content is what the key says, and so are the permissions that the step sees.
        expect_done(&world.build_while(Step::Built, world.at_start(|w| set_mode(&w.path("a"), 0o755))));
        world.check();
        set_mode(&world.path("a"), 0o644);
        world.check();
    }),
    ("a file more before the step reads and left so", |world| {
        two_files(world);
        expect_done(&world.build_while(Step::Foreign, world.at_start(|w| w.write("c", "CCCC"))));
        world.check();
        fs::remove_file(world.path("c")).unwrap();
        world.check();
    }),
    ("edited all the time", |world| {
        two_files(world);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0.. {
                    if stop.load(std::sync::atomic::Ordering::SeqCst) {
                        return;
                    }
                    world.write("a", if turn % 2 == 0 { "AAAA" } else { "BBBB" });
                }
            });
            for _ in 0..20 {
                match world.build(Step::Built) {
                    Ended::Done { .. } => {}
                    // Between the cut and the write of an edit the file is empty: a state like any other.
                    failed => expect_changed(&failed),
                }
            }
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        for content in ["AAAA", "BBBB", ""] {
            world.write("a", content);
            world.check();
        }
    }),
];

fn two_files(world: &World) {
    world.write("a", "AAAA");
    world.write("b", "bbbb");
}

/// The step reads the files as they were when the build looked at them.
fn while_it_runs(world: &World, before: fn(&World), after: fn(&World)) {
    for step in [Step::Built, Step::Foreign] {
        two_files(world);
        expect_done(&world.build_while(step, world.around_reading(before, after)));
        world.check();
        two_files(world);
        world.check();
    }
    before(world);
    world.check();
}

/// There is no telling what the step should read: it does not run.
fn before_it_reads(world: &World, change: fn(&World), restore: fn(&World)) {
    for step in [Step::Built, Step::Foreign] {
        two_files(world);
        expect_changed(&world.build_while(step, world.at_start(change)));
        restore(world);
    }
    world.check();
}

fn swap_files(world: &World) {
    exchange(&world.path("a"), &world.path("b"));
}

fn swap_folder(world: &World) {
    let other = world.beside("other");
    if !other.exists() {
        fs::create_dir(&other).unwrap();
        fs::write(other.join("a"), "BBBB").unwrap();
        fs::write(other.join("b"), "bbbb").unwrap();
    }
    exchange(&other, &world.path(""));
}

pub fn exchange(one: &std::path::Path, other: &std::path::Path) {
    use rustix::fs::{CWD, RenameFlags};
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}
