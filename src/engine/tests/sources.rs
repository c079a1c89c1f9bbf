//! Sources that are renamed, swapped, edited while they are used, or not there.

use super::*;

fn folder() -> World {
    let mut world = World::new();
    world.write("data/a.txt", "one");
    world.write("data/b.txt", "two");
    let path = world.path("data");
    world.source("data", &path);
    world.step("list", &["data"]);
    world
}

fn list() -> Scripted {
    Scripted::default().on("list", |_, io| {
        let mut text = String::new();
        for name in crate::base::files::names(io.one("data")?).unwrap() {
            text += &format!("{}={}\n", name.display(), std::fs::read_to_string(io.one("data")?.join(&name)).unwrap());
        }
        std::fs::write(io.out.join("out"), text).unwrap();
        Ok(())
    })
}

#[test]
fn renaming_swapping_or_marking_files_executable_runs_the_step() {
    let world = folder();
    let runs = || world.build_with(list()).1.len();
    assert_eq!((runs(), runs()), (1, 0));
    std::fs::rename(world.path("data/b.txt"), world.path("data/c.txt")).unwrap();
    assert_eq!((runs(), runs()), (1, 0), "renamed");
    std::fs::rename(world.path("data/a.txt"), world.path("data/x")).unwrap();
    std::fs::rename(world.path("data/c.txt"), world.path("data/a.txt")).unwrap();
    std::fs::rename(world.path("data/x"), world.path("data/c.txt")).unwrap();
    assert_eq!((runs(), runs()), (1, 0), "swapped");
    std::fs::set_permissions(world.path("data/a.txt"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!((runs(), runs()), (1, 0), "executable");
    // An edit of the same length within the same tick of the clock.
    world.write("data/a.txt", "owt");
    assert_eq!((runs(), runs()), (1, 0), "edited");
    assert_eq!(world.out(&world.build_with(list()).0, "list"), "a.txt=owt\nc.txt=one\n");
}

#[test]
fn a_single_file_counts_with_its_name() {
    let mut world = World::new();
    let path = world.write("a.jsonl", "same");
    world.source("data", &path);
    world.step("use", &["data"]);
    assert_eq!(world.build().summary.built, 1);
    let renamed = world.write("b.gguf", "same");
    world.plan.nodes[0] = Node::Source(Source { name: "data".into(), place: place(), path: renamed });
    assert_eq!(world.build().summary.built, 1);
    // Where it lies does not count.
    let moved = world.write("elsewhere/a.jsonl", "same");
    world.plan.nodes[0] = Node::Source(Source { name: "data".into(), place: place(), path: moved });
    assert_eq!(world.build().summary.cached, 1);
}

/// Tells an act when a step begins, before its inputs are laid out.
struct AtStart<F>(F);

impl<F: Fn() + Send + Sync> EventSink for AtStart<F> {
    fn event(&self, event: Event) {
        if matches!(event, Event::Started { .. }) {
            (self.0)();
        }
    }
}

#[test]
fn a_source_that_changes_before_its_step_reads_it_fails_the_step_and_nothing_is_kept() {
    type Act = fn(&World);
    let acts: [(&str, Act); 4] = [
        ("edited", |world| drop(world.write("data/a.txt", "eno"))),
        ("gone", |world| std::fs::remove_file(world.path("data/b.txt")).unwrap()),
        ("linked", |world| {
            std::fs::rename(world.path("data/a.txt"), world.path("a.txt")).unwrap();
            std::os::unix::fs::symlink(world.path("a.txt"), world.path("data/a.txt")).unwrap();
        }),
        ("longer", |world| drop(world.write("data/a.txt", "one and more"))),
    ];
    for (name, act) in acts {
        let world = Arc::new(folder());
        let inner = world.clone();
        let engine = Engine::with_worker(world.store(), Arc::new(AtStart(move || act(&inner))), Arc::new(list()));
        let result = engine.build(&world.plan, &world.all(), &world.options);
        let failure = world.failure(&result, "list");
        assert!(
            failure.message.contains("source `data`") && failure.message.contains("changed while the build used it"),
            "{name}: {failure}"
        );
        assert_eq!((failure.exit, world.store().contents().unwrap().actions), (Exit::Environment, 0), "{name}");
    }
}

#[test]
fn a_step_reads_its_sources_as_they_were_whatever_happens_to_them_meanwhile() {
    type Act = fn(&Path);
    let acts: [(&str, Act); 4] = [
        ("edited", |data| std::fs::write(data.join("a.txt"), "eno").unwrap()),
        ("new", |data| std::fs::write(data.join("c.txt"), "").unwrap()),
        ("gone", |data| std::fs::remove_file(data.join("b.txt")).unwrap()),
        ("swapped", |data| std::fs::rename(data.join("b.txt"), data.join("a.txt")).unwrap()),
    ];
    for (name, act) in acts {
        let world = folder();
        let data = world.path("data");
        let (result, _) = world.build_with(Scripted::default().on("list", move |assignment, io| {
            act(&data);
            list().run(assignment, io)
        }));
        assert_eq!(world.out(&result, "list"), "a.txt=one\nb.txt=two\n", "{name}");
        // The next build sees what has become of it.
        assert_eq!(world.build_with(list()).1, ["list"], "{name}");
    }
}

#[test]
fn messages_name_the_source_and_not_its_copy() {
    let world = folder();
    let (result, _) = world.build_with(Scripted::default().on("list", |_, io| {
        let file = io.one("data")?.join("a.txt");
        io.say(format!("{}:1: odd", file.display()));
        Err(Failure::new(format!("cannot use `{}`", file.display())).help(format!("mend {}", file.display())))
    }));
    let (failure, source) = (world.failure(&result, "list"), world.path("data/a.txt").display().to_string());
    assert_eq!(failure.message, format!("cannot use `{source}`"));
    assert_eq!(failure.help, Some(format!("mend {source}")));
    let said = |event: &Event| matches!(event, Event::Line { text, .. } if *text == format!("{source}:1: odd"));
    assert!(world.events.events().iter().any(said));
}

#[test]
fn a_file_that_is_only_touched_does_not_matter() {
    let world = folder();
    let file = world.path("data/a.txt");
    let (result, _) = world.build_with(Scripted::default().on("list", move |_, _| {
        std::fs::write(&file, "one").unwrap();
        Ok(())
    }));
    assert_eq!(world.said(&result), ["list:built"]);
}

#[test]
fn a_settled_file_is_read_once_and_again_after_an_edit() {
    let world = folder();
    let old = std::time::SystemTime::UNIX_EPOCH;
    for name in ["data/a.txt", "data/b.txt"] {
        std::fs::File::open(world.path(name)).unwrap().set_modified(old).unwrap();
    }
    // The change time cannot be set back: let the clock pass it.
    std::thread::sleep(Duration::from_millis(2100));
    world.build_with(list());
    let remembered = std::fs::read_to_string(world.path("cache/stamps")).unwrap();
    assert_eq!(remembered.lines().filter(|line| line.contains(".txt")).count(), 2);
    // An edit that puts size and mtime back is still seen, by the change time.
    world.write("data/a.txt", "eno");
    std::fs::File::open(world.path("data/a.txt")).unwrap().set_modified(old).unwrap();
    let (result, began) = world.build_with(list());
    assert_eq!(began.len(), 1);
    assert_eq!(world.out(&result, "list"), "a.txt=eno\nb.txt=two\n");
}

#[test]
fn a_missing_source_fails_those_who_need_it_as_the_users_fault() {
    let mut world = folder();
    let path = world.path("nowhere");
    world.source("lost", &path);
    world.step("use", &["lost"]);
    world.options.on_failure = OnFailure::KeepGoing;
    let (result, _) = world.build_with(list());
    assert_eq!(world.said(&result), ["list:built", "lost:failed", "use:skipped"]);
    assert_eq!(result.exit(), Exit::Usage);
    assert!(world.failure(&result, "lost").message.contains("nowhere"));
}

#[test]
fn a_link_within_a_source_is_refused_and_a_link_to_one_is_followed() {
    let mut world = folder();
    let link = world.path("link");
    std::os::unix::fs::symlink(world.path("data"), &link).unwrap();
    world.plan.nodes[0] = Node::Source(Source { name: "data".into(), place: place(), path: link });
    assert_eq!(world.build_with(list()).0.exit(), Exit::Done);
    std::os::unix::fs::symlink("/etc/passwd", world.path("data/out")).unwrap();
    assert_eq!(world.build_with(list()).0.exit(), Exit::Usage);
}
