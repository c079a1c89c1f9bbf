//! Sources that are links, or hold some.

use std::fs;
use std::os::unix::fs::symlink;

use slmops::base::Exit;

use super::Case;
use super::world::{Ended, Step, World, expect_changed, expect_done, set_old};

pub const CASES: &[Case] = &[
    ("a link to a file: its name is the link's, its content the file's", |world| {
        world.write("one", "AAAA");
        world.point(&world.path("one"));
        world.build_first();
        world.check();
        world.expect_hit();
    }),
    ("a link to a file that then leads to another of equal size and time", |world| {
        for (name, content) in [("one", "AAAA"), ("two", "BBBB")] {
            world.write(name, content);
        }
        world.point(&world.path("one"));
        world.settle(&["one", "two"]);
        world.build_first();
        world.point(&world.path("two"));
        world.check();
        world.point(&world.path("one"));
        world.check();
    }),
    ("a link to a folder that then leads to another", |world| {
        for (name, content) in [("one/a", "AAAA"), ("two/a", "BBBB")] {
            world.write(name, content);
        }
        world.point(&world.path("one"));
        world.settle(&["one/a", "two/a"]);
        world.build_first();
        world.point(&world.path("two"));
        world.check();
    }),
    ("a link that leads elsewhere while the step runs", |world| {
        for (name, content) in [("one", "AAAA"), ("two", "BBBB")] {
            world.write(name, content);
        }
        for step in [Step::Built, Step::Foreign] {
            world.point(&world.path("one"));
            let script = world.around_reading(|w| w.point(&w.path("two")), |w| w.point(&w.path("one")));
            expect_done(&world.build_while(step, script));
        }
        world.check();
        world.point(&world.path("two"));
        world.check();
    }),
    ("a link in place of the file before the step reads", |world| {
        world.write("a", "AAAA");
        fs::write(world.beside("same"), "AAAA").unwrap();
        let script = world.at_start(|w| {
            fs::remove_file(w.path("a")).unwrap();
            symlink(w.beside("same"), w.path("a")).unwrap();
        });
        expect_changed(&world.build_while(Step::Foreign, script));
        fs::remove_file(world.path("a")).unwrap();
        world.write("a", "AAAA");
        world.check();
    }),
    ("a link in place of an inner folder while the step runs", |world| {
        world.write("in/a", "AAAA");
        fs::create_dir(world.beside("other")).unwrap();
        fs::write(world.beside("other/a"), "BBBB").unwrap();
        let swap = |w: &World| {
            fs::rename(w.path("in"), w.beside("kept")).unwrap();
            symlink(w.beside("other"), w.path("in")).unwrap();
        };
        let back = |w: &World| {
            fs::remove_file(w.path("in")).unwrap();
            fs::rename(w.beside("kept"), w.path("in")).unwrap();
        };
        expect_done(&world.build_while(Step::Foreign, world.around_reading(swap, back)));
        world.check();
        world.write("in/a", "BBBB");
        world.check();
    }),
    ("links within a folder are refused, wherever they lead", |world| {
        world.write("a", "AAAA");
        for target in ["a", "/etc/hostname", "/nowhere", "."] {
            symlink(target, world.path("link")).unwrap();
            let Ended::Failed { message, exit } = world.build(Step::Foreign) else { panic!("{target} is followed") };
            assert!(message.contains("link") && exit == Exit::Usage, "{message}");
            fs::remove_file(world.path("link")).unwrap();
        }
        world.check();
    }),
    ("a link that leads nowhere is the user's mistake", |world| {
        world.point(&world.path("nowhere"));
        assert!(matches!(world.build(Step::Built), Ended::Failed { exit: Exit::Usage, .. }));
        world.write("nowhere", "AAAA");
        world.check();
    }),
    ("a hard link to a file outside is a file", |world| {
        fs::write(world.beside("outside"), "AAAA").unwrap();
        fs::hard_link(world.beside("outside"), world.path("a")).unwrap();
        world.settle(&["a"]);
        world.build_first();
        world.check();
        fs::write(world.beside("outside"), "BBBB").unwrap();
        set_old(&world.beside("outside"));
        world.check();
    }),
];
