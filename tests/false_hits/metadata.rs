//! What a key does not hold, and a step could see: it must be the same for every step.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Case;
use super::world::{Ended, Script, Step, World, set_mode, set_old};

pub const CASES: &[Case] = &[
    ("modification times of sources", |world| unseen(world, |w| set_old(&w.path("in/a")))),
    ("permissions of sources", |world| {
        unseen(world, |w| set_mode(&w.path("in/a"), 0o600));
        unseen(world, |w| set_mode(&w.path("in/a"), 0o4640));
        unseen(world, |w| set_mode(&w.path("in"), 0o700));
    }),
    ("the executable bit counts, all else of the permissions does not", |world| {
        world.write("a", "AAAA");
        world.build_first();
        set_mode(&world.path("a"), 0o700);
        world.check();
        set_mode(&world.path("a"), 0o711);
        world.expect_hit();
        set_mode(&world.path("a"), 0o644);
        world.expect_hit();
    }),
    ("empty folders in sources", |world| unseen(world, |w| fs::create_dir_all(w.path("empty/inner")).unwrap())),
    ("extended attributes of sources", |world| {
        unseen(world, |w| {
            let flags = rustix::fs::XattrFlags::empty();
            let _where_they_can_be = rustix::fs::setxattr(w.path("in/a"), "user.note", b"seen", flags);
        });
    }),
    ("owners of sources", |world| {
        unseen(world, |w| {
            // Only root may; elsewhere nothing changes.
            let _ = std::os::unix::fs::chown(w.path("in/a"), Some(12345), Some(12345));
        });
    }),
    ("hard links within sources", |world| {
        unseen(world, |w| {
            fs::remove_file(w.path("in/same")).unwrap();
            fs::hard_link(w.path("in/a"), w.path("in/same")).unwrap();
        });
    }),
    ("holes in sources", |world| {
        world.write("in/a", &"\0".repeat(65536));
        world.write("in/same", "AAAA");
        unseen(world, |w| {
            fs::remove_file(w.path("in/a")).unwrap();
            File::create(w.path("in/a")).unwrap().set_len(65536).unwrap();
        });
    }),
    ("where a source lies", |world| {
        world.write("in/a", "AAAA");
        world.point(&world.path("in"));
        world.build_first();
        fs::create_dir(world.beside("elsewhere")).unwrap();
        fs::write(world.beside("elsewhere/a"), "AAAA").unwrap();
        world.point(&world.beside("elsewhere"));
        world.expect_hit();
        world.check();
    }),
    ("an output that is made again, later", |world| {
        world.write("a", "AAAA");
        let first = outs(world, "cache");
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        fs::rename(world.beside("cache/actions"), world.beside("gone")).unwrap();
        assert_eq!(outs(world, "cache"), first);
    }),
    ("another store, on another file system", |world| {
        world.write("a", "AAAA");
        let first = outs(world, "cache");
        assert_eq!(outs(world, "another"), first);
        if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
            assert_eq!(outs_in(world, &memory.path().join("cache")), first);
        }
    }),
    ("a store that another one was imported into", |world| {
        world.write("a", "AAAA");
        let first = outs(world, "cache");
        let (from, to) = (world.store(), slmops::store::Store::open(&world.beside("other")).unwrap());
        let keys = from.latest("/test").unwrap().values().map(|latest| latest.key).collect();
        let mut archive = Vec::new();
        from.export(&keys, &mut archive).unwrap();
        to.import(&archive[..]).unwrap();
        drop((from, to));
        // What reads the imported output runs again.
        fs::remove_dir_all(world.beside("other/latest")).unwrap();
        assert_eq!(outs(world, "other"), first);
    }),
    ("what a step leaves of times and permissions", |world| {
        world.write("a", "AAAA");
        let plain = outs(world, "cache");
        for step in [Step::Built, Step::Foreign] {
            let meddle = |io: &slmops::steps::Io| fs::create_dir(io.out.join("empty")).unwrap();
            let script = Script { after_reading: Some(std::sync::Arc::new(meddle)), ..Script::default() };
            assert!(matches!(world.run(&world.beside("meddled"), step, script), Ended::Done { out, .. } if plain.contains(&out)));
        }
    }),
    ("objects whose times and permissions somebody has changed", |world| {
        world.write("a", "AAAA");
        let first = outs(world, "cache");
        each_object(world, |object| {
            set_mode(object, 0o600);
            set_old(object);
        });
        fs::rename(world.beside("cache/actions"), world.beside("gone")).unwrap();
        assert_eq!(outs(world, "cache"), first);
    }),
    ("an object with a hole", |world| {
        world.write("a", &"\0".repeat(65536));
        let first = outs(world, "cache");
        each_object(world, |object| {
            set_mode(object, 0o600);
            let text = fs::read(object).unwrap();
            if text.iter().all(|byte| *byte == 0) {
                let file = File::create(object).unwrap();
                file.set_len(text.len() as u64).unwrap();
                file.write_all_at(b"", 0).unwrap();
            }
        });
        fs::rename(world.beside("cache/actions"), world.beside("gone")).unwrap();
        assert_eq!(outs(world, "cache"), first);
    }),
];

/// What was built is found again, and gives what an empty store gives.
fn unseen(world: &World, change: impl Fn(&World)) {
    if !world.path("in/a").exists() {
        world.write("in/a", "AAAA");
        world.write("in/same", "AAAA");
    }
    for step in [Step::Built, Step::Foreign] {
        world.build(step);
    }
    change(world);
    world.expect_hit();
    world.check();
}

fn outs(world: &World, cache: &str) -> Vec<String> {
    outs_in(world, &world.beside(cache))
}

fn outs_in(world: &World, cache: &Path) -> Vec<String> {
    let out = |step| match world.run(cache, step, Script::default()) {
        Ended::Done { out, .. } => out,
        failed => panic!("{failed:?}"),
    };
    vec![out(Step::Built), out(Step::Foreign)]
}

pub fn each_object(world: &World, change: impl Fn(&Path)) {
    let walked = slmops::base::files::walk(&world.beside("cache/objects")).unwrap();
    walked.iter().for_each(|object| change(&world.beside("cache/objects").join(object)));
}
