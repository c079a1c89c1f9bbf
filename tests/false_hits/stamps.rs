//! Files whose size and times look as if nothing had happened.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slmops::base::Digest;

use super::Case;
use super::moments::exchange;
use super::world::{Step, World, expect_done, old, set_old};

pub const CASES: &[Case] = &[
    ("an untouched file is read once", |world| {
        settled(world);
        world.expect_hit();
        world.check();
    }),
    ("edited, and the modification time set back", |world| {
        settled(world);
        world.write("a", "BBBB");
        set_old(&world.path("a"));
        both_states(world);
    }),
    ("edited twice within a tick of the clock", |world| {
        world.write("a", "AAAA");
        world.build_first();
        world.write("a", "BBBB");
        world.check();
        world.write("a", "AAAA");
        both_states(world);
    }),
    ("a copy with equal size and time renamed over it", |world| {
        settled(world);
        fs::write(world.beside("copy"), "BBBB").unwrap();
        set_old(&world.beside("copy"));
        fs::rename(world.beside("copy"), world.path("a")).unwrap();
        both_states(world);
    }),
    ("two files of equal size and time swapped", |world| {
        world.write("b", "BBBB");
        settled_with(world, &["a", "b"]);
        exchange(&world.path("a"), &world.path("b"));
        world.check();
        exchange(&world.path("a"), &world.path("b"));
        world.check();
    }),
    ("swapped with a file outside and back", |world| {
        fs::write(world.beside("other"), "BBBB").unwrap();
        set_old(&world.beside("other"));
        settled(world);
        exchange(&world.path("a"), &world.beside("other"));
        world.check();
        exchange(&world.path("a"), &world.beside("other"));
        world.check();
    }),
    ("deleted and made anew with the same inode", |world| {
        settled(world);
        let inode = fs::metadata(world.path("a")).unwrap().ino();
        for _ in 0..100 {
            fs::remove_file(world.path("a")).unwrap();
            world.write("a", "BBBB");
            if fs::metadata(world.path("a")).unwrap().ino() == inode {
                break;
            }
        }
        set_old(&world.path("a"));
        both_states(world);
    }),
    ("edited through a second name", |world| {
        world.write("a", "AAAA");
        fs::hard_link(world.path("a"), world.beside("second")).unwrap();
        settled(world);
        fs::write(world.beside("second"), "BBBB").unwrap();
        set_old(&world.beside("second"));
        both_states(world);
    }),
    ("a time in the future, before and after the edit", |world| {
        let future = UNIX_EPOCH + Duration::from_secs(4_102_444_800);
        world.write("a", "AAAA");
        set_time(&world.path("a"), future);
        world.build_first();
        world.write("a", "BBBB");
        set_time(&world.path("a"), future);
        both_states(world);
    }),
    ("a time before 1970, before and after the edit", |world| {
        let past = UNIX_EPOCH - Duration::from_secs(1_000);
        world.write("a", "AAAA");
        set_time(&world.path("a"), past);
        std::thread::sleep(Duration::from_millis(2_100));
        world.build_first();
        world.write("a", "BBBB");
        set_time(&world.path("a"), past);
        both_states(world);
    }),
    ("written through a mapping that was dirty before the first build", |world| mapped(world, Mapped::DirtyBefore)),
    ("written through a mapping that was clean before the first build", |world| mapped(world, Mapped::CleanBefore)),
    ("written through a mapping made after the first build", |world| mapped(world, Mapped::MadeAfter)),
    ("written through a dirty mapping after its file was synced", |world| mapped(world, Mapped::Synced)),
    ("written through a dirty mapping in memory (tmpfs)", |_| {
        let Ok(data) = tempfile::tempdir_in("/dev/shm") else { return };
        let world = World::with_data(data.path());
        mapped(&world, Mapped::DirtyBefore);
    }),
    ("written through a clean mapping in memory (tmpfs)", |_| {
        let Ok(data) = tempfile::tempdir_in("/dev/shm") else { return };
        mapped(&World::with_data(data.path()), Mapped::CleanBefore);
    }),
    ("written through a descriptor that was open before, and the time set back", |world| {
        world.write("a", "AAAA");
        let open = File::options().write(true).open(world.path("a")).unwrap();
        settled(world);
        open.write_all_at(b"BBBB", 0).unwrap();
        open.set_modified(old()).unwrap();
        drop(open);
        both_states(world);
    }),
    ("written by many small writes while builds run", |world| {
        settled(world);
        let open = File::options().write(true).open(world.path("a")).unwrap();
        for (at, byte) in b"BBBB".iter().enumerate() {
            open.write_all_at(&[*byte], at as u64).unwrap();
            expect_done(&world.build(Step::Foreign));
            world.check();
        }
        drop(open);
        both_states(world);
    }),
    ("a file emptied and filled with as many bytes", |world| {
        settled(world);
        let file = File::options().write(true).open(world.path("a")).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(b"BBBB", 0).unwrap();
        file.set_modified(old()).unwrap();
        drop(file);
        both_states(world);
    }),
    ("a hole punched into it, and the time set back", |world| {
        world.write("a", &"A".repeat(8192));
        world.settle(&["a"]);
        world.build_first();
        let file = File::options().write(true).open(world.path("a")).unwrap();
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        let _where_it_can = rustix::fs::fallocate(&file, flags, 0, 4096);
        file.set_modified(old()).unwrap();
        drop(file);
        world.check();
    }),
    ("the list of known files is from the future", |world| forged_list(world, |since| format!("{} {}", boot(since), i128::MAX))),
    ("the list of known files is of another start of the machine", |world| {
        forged_list(world, |since| since.replacen(boot(since), "00000000-0000-0000-0000-000000000000", 1));
    }),
    ("the list of known files is cut", |world| {
        settled(world);
        let list = world.beside("cache/stamps");
        let text = fs::read_to_string(&list).unwrap();
        fs::write(&list, &text[..text.len() / 2]).unwrap();
        world.check();
        world.write("a", "BBBB");
        set_old(&world.path("a"));
        both_states(world);
    }),
];

/// A file `a` that the store knows.
fn settled(world: &World) {
    settled_with(world, &["a"]);
}

fn settled_with(world: &World, names: &[&str]) {
    if !world.path("a").exists() {
        world.write("a", "AAAA");
    }
    world.settle(names);
    world.build_first();
}

/// The file as it is now, and as it was first.
fn both_states(world: &World) {
    world.check();
    for content in ["AAAA", "BBBB"] {
        world.write("a", content);
        set_old(&world.path("a"));
        world.check();
    }
}

fn set_time(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_modified(time).unwrap();
}

#[derive(Clone, Copy, PartialEq)]
enum Mapped {
    DirtyBefore,
    CleanBefore,
    Synced,
    MadeAfter,
}

/// Writes to the file through shared memory, with the file itself closed: no call tells the file system.
fn mapped(world: &World, when: Mapped) {
    world.write("a", "AAAA");
    let map = || {
        let file = File::options().read(true).write(true).open(world.path("a")).unwrap();
        // SAFETY: the bytes that others may change meanwhile are never borrowed.
        unsafe { memmap2::MmapMut::map_mut(&file).unwrap() }
    };
    let mut before = (when != Mapped::MadeAfter).then(map);
    if let (Some(map), Mapped::DirtyBefore | Mapped::Synced) = (&mut before, when) {
        map[0] = b'a';
        if when == Mapped::Synced {
            File::open(world.path("a")).unwrap().sync_all().unwrap();
        }
    }
    world.settle(&["a"]);
    world.build_first();
    // Once more, after whatever the first build has done to the file.
    world.check();
    let mut map = before.unwrap_or_else(map);
    for byte in *b"BCD" {
        map[1] = byte;
        world.check();
    }
    set_old(&world.path("a"));
    map[2] = b'E';
    world.check();
    drop(map);
    world.check();
}

fn boot(since: &str) -> &str {
    since.split_once(' ').unwrap().0
}

/// Changes what the list of known files says of itself, and what it says of `a`: if it were believed, the next build would hit.
fn forged_list(world: &World, forge: fn(&str) -> String) {
    settled(world);
    world.write("a", "BBBB");
    let Ok(text) = fs::read_to_string(world.beside("cache/stamps")) else { return };
    let since = text.lines().find_map(|line| line.strip_prefix("since ")).unwrap();
    let body = text[..text.rfind("checksum ").unwrap()].replacen(since, &forge(since), 1);
    let checksum = Digest::of(body.as_bytes());
    fs::write(world.beside("cache/stamps"), format!("{body}checksum {checksum}\n")).unwrap();
    both_states(world);
}
