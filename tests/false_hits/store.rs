//! A store that somebody has written to.

use std::fs::{self, File};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use slmops::steps::Io;
use slmops::store::FIXED_TIME;

use super::Case;
use super::metadata::each_object;
use super::world::{Ended, Script, Step, expect_done, set_mode};

pub const CASES: &[Case] = &[
    ("objects overwritten with as many bytes", |world| {
        world.write("a", "AAAA");
        world.build_first();
        each_object(world, |object| overwrite(object, false));
        world.check();
    }),
    ("objects overwritten with as many bytes, and their times set back", |world| {
        world.write("a", "AAAA");
        world.build_first();
        each_object(world, |object| overwrite(object, true));
        // The records are found; what they name is checked when it is read.
        let damaged = world.store().audit(&mut |_| {}).unwrap().damages.len();
        assert!(damaged >= 2, "{damaged}");
        world.check();
    }),
    ("objects cut, emptied or gone", |world| {
        world.write("a", "AAAA");
        for act in [|object: &std::path::Path| fs::write(object, "").unwrap(), |object: &std::path::Path| fs::remove_file(object).unwrap()]
        {
            for step in [Step::Built, Step::Foreign] {
                expect_done(&world.build(step));
            }
            each_object(world, |object| {
                set_mode(object, 0o600);
                act(object);
            });
            world.check();
        }
    }),
    ("a step of ours that writes to what it reads", |world| {
        world.write("a", "AAAA");
        let ended = world.build_while(Step::Built, writes_to_its_input());
        assert!(matches!(&ended, Ended::Failed { message, .. } if message.contains("was written to in the store")), "{ended:?}");
        world.check();
    }),
    ("a foreign step that writes to what it reads", |world| {
        world.write("a", "AAAA");
        expect_done(&world.build_while(Step::Foreign, writes_to_its_input()));
        assert_eq!(world.store().audit(&mut |_| {}).unwrap().damages, []);
        world.check();
    }),
    ("a record under the key of another", |world| {
        world.write("a", "AAAA");
        world.build_first();
        world.write("a", "BBBB");
        expect_done(&world.build(Step::Built));
        let records = slmops::base::files::walk(&world.beside("cache/actions")).unwrap();
        let texts: Vec<_> = records.iter().map(|path| fs::read(world.beside("cache/actions").join(path)).unwrap()).collect();
        for (path, text) in records.iter().zip(texts.iter().cycle().skip(1)) {
            fs::write(world.beside("cache/actions").join(path), text).unwrap();
        }
        world.check();
        world.write("a", "AAAA");
        world.check();
    }),
];

fn overwrite(object: &std::path::Path, restore_time: bool) {
    set_mode(object, 0o600);
    let mut bytes = fs::read(object).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(object, bytes).unwrap();
    if restore_time {
        let fixed = UNIX_EPOCH + Duration::from_secs(FIXED_TIME.tv_sec as u64);
        File::open(object).unwrap().set_modified(fixed).unwrap();
    }
    set_mode(object, 0o444);
}

fn writes_to_its_input() -> Script {
    let act = |io: &Io| {
        let file = io.one("data").unwrap().join("a");
        set_mode(&file, 0o600);
        fs::write(file, "BBBB").unwrap();
    };
    Script { after_reading: Some(Arc::new(act)), ..Script::default() }
}
