//! Order, resources, failures, cancellation, time-outs.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn inputs_come_first_and_only_what_is_needed_is_built() {
    let mut world = World::new();
    world.options.jobs = 1;
    world.step("a", &[]);
    world.step("b", &["a"]);
    world.step("unneeded", &["a"]);
    world.step("c", &["a", "b"]);
    let engine = Engine::new(world.store(), world.events.clone());
    let result = engine.build(&world.plan, &[world.id("c")], &world.options);
    assert_eq!(world.said(&result), ["a:built", "b:built", "c:built"]);
    drop(engine);
    assert_eq!(world.out(&result, "c"), "caba");
    assert!(matches!(world.events.events().first(), Some(Event::Planned { sources: 0, steps: 3 })));
    assert!(matches!(world.events.events().last(), Some(Event::Summary(_))));
}

#[test]
fn the_longest_chain_goes_first() {
    let mut world = World::new();
    world.options.jobs = 1;
    world.step("short 1", &[]);
    world.step("short 2", &[]);
    world.step("long 1", &[]);
    world.step("long 2", &["long 1"]);
    world.step("long 3", &["long 2"]);
    let (_, began) = world.build_with(Scripted::default());
    assert_eq!(began, ["long 1", "long 2", "short 1", "short 2", "long 3"]);
}

#[test]
fn steps_run_side_by_side_as_far_as_the_resources_go() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let mut worker = Scripted::default();
    let mut world = World::new();
    world.options.jobs = 3;
    world.options.memory_bytes = 100;
    for (name, cpu, memory_bytes) in [("a", 1, 0), ("b", 1, 0), ("c", 1, 0), ("d", 0, 0), ("e", 1, 60), ("f", 1, 60), ("g", 9, 900)] {
        world.step(name, &[]);
        world.action(name).resources = Resources { cpu, memory_bytes, gpu: 0 };
        let (running, most) = (running.clone(), most.clone());
        worker = worker.on(name, move |assignment, io| {
            // d and g take the whole machine, e and f do not fit side by side.
            let weight = match assignment.name.as_str() {
                "d" | "g" => 6,
                "e" | "f" => 4,
                _ => 2,
            };
            let now = running.fetch_add(weight, Ordering::SeqCst) + weight;
            most.fetch_max(now, Ordering::SeqCst);
            assert_eq!(io.threads, if weight == 6 { 3 } else { 1 });
            std::thread::yield_now();
            running.fetch_sub(weight, Ordering::SeqCst);
            Ok(())
        });
    }
    let (result, _) = world.build_with(worker);
    assert_eq!(result.exit(), Exit::Done, "{:?}", world.said(&result));
    assert!(most.load(Ordering::SeqCst) <= 6 + 2, "{most:?}");
}

#[test]
fn two_steps_really_run_at_the_same_time() {
    let mut world = World::new();
    world.step("a", &[]);
    world.step("b", &[]);
    let ((to_b, at_b), (to_a, at_a)) = (gate(), gate());
    let worker = Scripted::default()
        .on("a", move |_, _| {
            to_b.send(()).unwrap();
            at_a.pass();
            Ok(())
        })
        .on("b", move |_, _| {
            to_a.send(()).unwrap();
            at_b.pass();
            Ok(())
        });
    let (result, _) = world.build_with(worker);
    assert_eq!(world.said(&result), ["a:built", "b:built"]);
}

#[test]
fn a_step_that_needs_a_gpu_fails_where_there_is_none_and_runs_where_there_is() {
    let mut world = World::new();
    world.step("a", &[]);
    world.action("a").resources.gpu = 1;
    let (result, began) = world.build_with(Scripted::default());
    assert_eq!((result.exit(), began.len()), (Exit::Environment, 0));
    world.options.gpus = 1;
    assert_eq!(world.build_with(Scripted::default()).0.exit(), Exit::Done);
}

fn with_a_failure() -> World {
    let mut world = World::new();
    world.options.jobs = 1;
    for (name, inputs) in [("bad", &[] as &[&str]), ("after bad", &["bad"]), ("far", &["after bad"]), ("other", &[]), ("last", &["other"])]
    {
        world.step(name, inputs);
    }
    world
}

#[test]
fn a_failure_stops_the_build_and_is_never_cached() {
    let world = with_a_failure();
    let failing = || {
        Scripted::default().on("bad", |_, io| {
            std::fs::write(io.out.join("out"), "half").unwrap();
            Err(Failure::new("no luck"))
        })
    };
    let (result, began) = world.build_with(failing());
    assert_eq!(began, ["bad"]);
    assert_eq!(world.said(&result), ["bad:failed", "after bad:skipped", "far:skipped", "other:skipped", "last:skipped"]);
    assert_eq!(result.exit(), Exit::Failed);
    assert_eq!(world.failure(&result, "bad").message, "no luck");
    assert_eq!(world.store().contents().unwrap(), Default::default(), "nothing was kept");
    let (_, began) = world.build_with(failing());
    assert_eq!(began, ["bad"], "it was tried again");
    assert_eq!(world.build().exit(), Exit::Done);
}

#[test]
fn keep_going_builds_all_that_does_not_need_the_failed_step() {
    let mut world = with_a_failure();
    world.options.on_failure = OnFailure::KeepGoing;
    let (result, _) = world.build_with(Scripted::default().on("bad", |_, _| Err(Failure::new("no luck"))));
    assert_eq!(world.said(&result), ["bad:failed", "after bad:skipped", "far:skipped", "other:built", "last:built"]);
    assert!(matches!(result.outcome(world.id("far")), Some(Outcome::Skipped { because: Some(id) }) if *id == world.id("bad")));
    assert_eq!(result.exit(), Exit::Failed);
}

#[test]
fn a_panic_in_a_step_is_a_bug_and_not_the_end() {
    let mut world = with_a_failure();
    world.options.on_failure = OnFailure::KeepGoing;
    let (result, _) = world.build_with(Scripted::default().on("bad", |_, _| panic!("index out of bounds")));
    let failure = world.failure(&result, "bad");
    assert!(failure.message.contains("index out of bounds"), "{failure}");
    assert_eq!((failure.exit, result.exit()), (Exit::Bug, Exit::Bug));
    assert_eq!(result.summary.built, 2);
}

#[test]
fn cancelling_tells_the_running_steps_starts_no_others_and_keeps_checkpoints() {
    let mut world = with_a_failure();
    world.options.jobs = 1;
    let cancel = world.options.cancel.clone();
    let worker = Scripted::default().on("bad", move |_, io| {
        std::fs::write(io.checkpoint.join("step-7"), "state").unwrap();
        cancel.cancel();
        while !io.cancel.is_cancelled() {
            std::thread::yield_now();
        }
        Err(Failure::cancelled())
    });
    let (result, began) = world.build_with(worker);
    assert_eq!((result.exit(), began.len()), (Exit::Interrupted, 1));
    assert!(world.said(&result).iter().all(|said| said.ends_with(":cancelled")), "{:?}", world.said(&result));
    let contents = world.store().contents().unwrap();
    assert_eq!((contents.checkpoints, contents.actions, contents.objects), (1, 0, 0));
    // The next build finds the checkpoint, and it is gone when the step has ended well.
    world.options.cancel = Default::default();
    let resumed = Scripted::default().on("bad", |_, io| {
        assert_eq!(std::fs::read_to_string(io.checkpoint.join("step-7")).unwrap(), "state");
        Ok(())
    });
    assert_eq!(world.build_with(resumed).0.exit(), Exit::Done);
    assert_eq!(world.store().contents().unwrap().checkpoints, 0);
}

#[test]
fn a_step_that_takes_too_long_is_told_and_has_failed() {
    let mut world = with_a_failure();
    world.options.on_failure = OnFailure::KeepGoing;
    world.action("bad").timeout = Some(Duration::from_millis(5));
    let worker = Scripted::default().on("bad", |_, io| {
        while !io.cancel.is_cancelled() {
            std::thread::yield_now();
        }
        io.check_cancelled()
    });
    let (result, _) = world.build_with(worker);
    assert_eq!(world.failure(&result, "bad").message, "it did not end within its timeout of 5 ms");
    assert_eq!((result.exit(), result.summary.built), (Exit::Failed, 2));
}

#[test]
fn what_a_step_says_is_heard_and_kept() {
    let mut world = World::new();
    let id = world.step("a", &[]);
    let (result, _) = world.build_with(Scripted::default().on("a", |_, io| {
        io.say("first");
        io.progress(1, 2, "steps", "loss 1.2");
        io.say("second");
        Ok(())
    }));
    assert_eq!(result.exit(), Exit::Done);
    let engine = Engine::new(world.store(), Arc::new(Silence));
    assert_eq!(engine.log(&world.plan, id, "/test").unwrap().unwrap(), "first\nsecond\n");
    let heard = world.events.events();
    assert!(heard.iter().any(|event| matches!(event, Event::Line { text, .. } if text == "first")));
    assert!(heard.iter().any(|event| matches!(event, Event::Progress { done: 1, total: 2, unit: "steps", .. })));
}

#[test]
fn the_critical_path_is_the_chain_that_took_longest() {
    let mut world = World::new();
    for (name, inputs) in [("a", &[] as &[&str]), ("b", &["a"]), ("x", &[]), ("c", &["b", "x"])] {
        world.step(name, inputs);
    }
    let built = |ms| Some(Outcome::Built { tree: Digest::of(b""), duration: Duration::from_millis(ms) });
    let cached = Some(Outcome::Cached { tree: Digest::of(b""), duration: Duration::from_secs(9) });
    let path = |outcomes: [Option<Outcome>; 4]| {
        let summary = Summary::of(&world.plan, &outcomes, Duration::ZERO);
        summary.critical_path.iter().map(|(id, _)| world.plan.node(*id).name().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(path([built(10), built(20), built(25), built(1)]), ["a", "b", "c"]);
    assert_eq!(path([built(10), built(20), built(35), built(1)]), ["x", "c"]);
    assert_eq!(path([cached.clone(), cached.clone(), cached.clone(), cached]), [""; 0]);
}
