//! What is run again and what is not, and why.

use super::*;

fn chain() -> World {
    let mut world = World::new();
    let path = world.write("data.txt", "data");
    world.source("data", &path);
    world.step("teacher", &["data"]);
    world.step("student", &["teacher", "data"]);
    world.step("report", &["student"]);
    world
}

#[test]
fn a_second_build_runs_nothing_and_starts_nothing() {
    let world = chain();
    assert_eq!(world.said(&world.build()), ["teacher:built", "student:built", "report:built"]);
    let (result, began) = world.build_with(Scripted::default());
    assert_eq!(world.said(&result), ["teacher:cached", "student:cached", "report:cached"]);
    assert!(began.is_empty());
    assert_eq!(world.out(&result, "report"), "reportstudentteacherdatadata");
    assert!(result.summary.critical_path.is_empty());
}

#[test]
fn a_changed_parameter_runs_what_depends_on_it_and_the_reason_names_it() {
    let mut world = chain();
    assert_eq!(world.reasons("teacher"), [Reason::FirstBuild]);
    world.build();
    world.set("student", "Student");
    let changed = Reason::ParameterChanged { name: "content".into(), old: Some("\"student\"".into()), new: Some("\"Student\"".into()) };
    assert_eq!(world.reasons("student"), std::slice::from_ref(&changed));
    let result = world.build();
    assert_eq!(world.said(&result), ["teacher:cached", "student:built", "report:built"]);
    let mut started = world.events.events().into_iter().filter_map(|event| match event {
        Event::Started { node, reasons, .. } if node == world.id("report") => Some(reasons),
        _ => None,
    });
    assert!(matches!(&started.next_back().unwrap()[..], [Reason::InputChanged { port, .. }] if port == "data[0]"));
    // Afterwards, too, it is known what had changed.
    let engine = Engine::new(world.store(), Arc::new(Silence));
    let explanation = engine.explain(&world.plan, world.id("student"), "/test").unwrap();
    assert!(matches!(explanation.prediction, Prediction::Cached { .. }));
    assert_eq!(explanation.last_changes, [changed]);
    assert!(explanation.record.unwrap().fields().iter().any(|(name, value)| name == "param.content" && value == "\"Student\""));
    drop(engine);
    // Going back finds the old results.
    world.set("student", "student");
    assert_eq!(world.build().summary.cached, 3);
}

#[test]
fn a_step_whose_output_comes_out_equal_stops_the_rebuild() {
    let mut world = chain();
    world.build();
    world.set("teacher", "Teacher");
    let same = |world: &World| {
        world.build_with(Scripted::default().on("teacher", |_, io| {
            std::fs::write(io.out.join("out"), "teacherdata").unwrap();
            Ok(())
        }))
    };
    let engine = Engine::new(world.store(), Arc::new(Silence));
    let predicted = engine.predict(&world.plan, &world.plan.ids().collect(), "/test").unwrap();
    assert!(matches!(&predicted[&world.id("student")], Prediction::Unknown { waits_for } if waits_for == &[world.id("teacher")]));
    assert!(matches!(&predicted[&world.id("report")], Prediction::Unknown { waits_for } if waits_for == &[world.id("student")]));
    drop(engine);
    let (result, began) = same(&world);
    assert_eq!(began, ["teacher"]);
    assert_eq!(world.said(&result), ["teacher:built", "student:cached", "report:cached"]);
}

#[test]
fn names_of_steps_are_not_in_keys_and_equal_actions_run_once() {
    let mut world = World::new();
    world.options.jobs = 2;
    for name in ["one", "two", "three"] {
        world.step(name, &[]);
        world.set(name, "same");
    }
    let (result, began) = world.build_with(Scripted::default().on("one", write_same).on("two", write_same).on("three", write_same));
    assert_eq!(began.len(), 1, "{began:?}");
    assert_eq!((result.summary.built, result.summary.cached), (1, 2));
}

fn write_same(_: &Assignment, io: &mut Io) -> Result<(), Failure> {
    std::fs::write(io.out.join("out"), "same").unwrap();
    Ok(())
}

#[test]
fn a_part_of_an_output_is_an_input_of_its_own() {
    let mut world = World::new();
    world.step("split", &[]);
    world.step("train", &["split.train"]);
    world.step("empty", &["split.empty"]);
    let split = |test: &'static str| {
        Scripted::default()
            .on("split", move |_, io| {
                for (folder, content) in [("train", "train"), ("test", test)] {
                    std::fs::create_dir(io.out.join(folder)).unwrap();
                    std::fs::write(io.out.join(folder).join("out"), content).unwrap();
                }
                Ok(())
            })
            .on("train", |_, io| {
                let path = io.one("data")?;
                assert_eq!(crate::base::files::names(path).unwrap(), ["out"]);
                Ok(())
            })
            .on("empty", |_, io| {
                assert!(crate::base::files::names(io.one("data")?).unwrap().is_empty());
                Ok(())
            })
    };
    let (result, _) = world.build_with(split("test"));
    assert_eq!(result.exit(), Exit::Done, "{:?}", world.said(&result));
    // Only the other part changes.
    world.set("split", "again");
    let (_, began) = world.build_with(split("another test"));
    assert_eq!(began, ["split"]);
}

#[test]
fn two_builds_on_one_store_run_an_action_once() {
    let world = chain();
    let ((started, at_start), (open, at_gate)) = (gate(), gate());
    let slow = Scripted::default().on("teacher", move |_, io| {
        started.send(()).unwrap();
        at_gate.pass();
        std::fs::write(io.out.join("out"), "slow").unwrap();
        Ok(())
    });
    let hurried = Arc::new(Scripted::default().on("teacher", |_, _| panic!("it ran twice")));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.build_with(slow).0);
        at_start.pass();
        // The second finds the key locked; it has the whole build before it and waits for the first.
        let second = scope.spawn(|| {
            let engine = Engine::with_worker(world.store(), Arc::new(Silence), hurried.clone());
            engine.build(&world.plan, &[world.id("teacher")], &world.options)
        });
        open.send(()).unwrap();
        assert_eq!(first.join().unwrap().exit(), Exit::Done);
        let second = second.join().unwrap();
        assert_eq!(world.said(&second), ["teacher:cached"]);
    });
}

#[test]
fn a_rebuild_runs_everything_and_compares() {
    let mut world = chain();
    let first = world.build();
    world.options.cache = CacheUse::Rebuild;
    let again = world.build();
    assert_eq!(again.summary.built, 3);
    assert!(again.differences.is_empty());
    assert_eq!(again.key(world.id("report")), first.key(world.id("report")));
    // A step that is not reproducible is found, and the recorded result stays.
    let (result, began) = world.build_with(Scripted::default().on("teacher", |_, io| {
        assert!(crate::base::files::names(&io.checkpoint).unwrap().is_empty(), "a proof starts from nothing");
        std::fs::write(io.out.join("out"), "by chance").unwrap();
        std::fs::write(io.out.join("extra"), "").unwrap();
        Ok(())
    }));
    assert_eq!(began.len(), 3);
    let Difference { node, paths, recorded, .. } = &result.differences[0];
    assert_eq!((*node, &paths[..]), (world.id("teacher"), &["extra".to_string(), "out".to_string()][..]));
    world.options.cache = CacheUse::Reuse;
    let after = world.build();
    assert_eq!(after.summary.cached, 3);
    assert_eq!(after.tree(&InputRef { node: world.id("teacher"), output: None }).unwrap().digest(), *recorded);
}

#[test]
fn a_rebuild_needs_no_earlier_result() {
    let mut world = chain();
    world.options.cache = CacheUse::Rebuild;
    let result = world.build();
    assert_eq!((result.summary.built, result.differences.len(), result.exit()), (3, 0, Exit::Done));
}

#[test]
fn links_in_an_output_are_refused() {
    let mut world = World::new();
    world.step("a", &[]);
    let (result, _) = world.build_with(Scripted::default().on("a", |_, io| {
        std::os::unix::fs::symlink("/etc/passwd", io.out.join("out")).unwrap();
        Ok(())
    }));
    let failure = world.failure(&result, "a");
    assert!(failure.message.contains("neither a file nor a folder"), "{failure}");
    assert_eq!((failure.exit, world.store().contents().unwrap().objects), (Exit::Failed, 0));
}

#[test]
fn an_output_is_copied_and_a_copy_is_recognised() {
    let world = chain();
    let result = world.build();
    let engine = Engine::new(world.store(), Arc::new(Silence));
    let output = InputRef { node: world.id("teacher"), output: None };
    let to = world.path("copy");
    let copy = || engine.copy_output(&world.plan, &result, &output, &to, &world.options);
    assert_eq!(copy().unwrap(), result.tree(&output).unwrap().digest());
    assert_eq!(std::fs::read_to_string(to.join("out")).unwrap(), "teacherdata");
    assert!(engine.is_delivered(&result, &output, &to));
    std::fs::write(to.join("out"), "teacherDATA").unwrap();
    assert!(!engine.is_delivered(&result, &output, &to));
    assert!(copy().is_err(), "nothing is written over");
    assert_eq!(std::fs::read_to_string(to.join("out")).unwrap(), "teacherDATA");
}
