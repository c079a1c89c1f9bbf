//! A store that was tampered with, cut or left half-written: found, told, made again.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::store::Damage;

fn built() -> World {
    let mut world = World::new();
    world.step("a", &[]);
    world.step("b", &["a"]);
    world.step("c", &["b"]);
    assert_eq!(world.build().exit(), Exit::Done);
    world
}

/// Where the bytes of a step's output are.
fn object(world: &World, result: &BuildResult, name: &str) -> PathBuf {
    let tree = result.tree(&InputRef { node: world.id(name), output: None }).unwrap();
    world.store().object_path(tree.entries()[0].digest)
}

fn overwrite(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn damages(world: &World) -> Vec<(String, Damage)> {
    let told = |event| match event {
        Event::StoreDamage { node, damage } => Some((world.plan.node(node).name().to_string(), damage)),
        _ => None,
    };
    world.events.events().into_iter().filter_map(told).collect()
}

#[test]
fn a_flipped_bit_is_found_when_it_is_read_and_the_producer_runs_again() {
    let mut world = built();
    let a = object(&world, &world.build(), "a");
    overwrite(&a, |bytes| bytes[0] ^= 1);
    // b has to read it now.
    world.set("b", "B");
    let result = world.build();
    assert_eq!(world.said(&result), ["a:built", "b:built", "c:built"]);
    assert_eq!(world.out(&result, "c"), "cBa");
    assert!(matches!(&damages(&world)[..], [(name, Damage::Changed { .. })] if name == "a"), "{:?}", damages(&world));
    assert_eq!(std::fs::read_to_string(a).unwrap(), "a");
    assert_eq!(world.store().contents().unwrap().quarantined, 1);
    assert_eq!(world.build().summary.cached, 3);
}

#[test]
fn a_chain_of_damaged_inputs_is_made_again_from_the_first() {
    let mut world = built();
    let before = world.build();
    for name in ["a", "b"] {
        overwrite(&object(&world, &before, name), |bytes| bytes[0] ^= 1);
    }
    world.set("c", "C");
    let result = world.build();
    assert_eq!(world.said(&result), ["a:built", "b:built", "c:built"]);
    assert_eq!(world.out(&result, "c"), "Cba");
}

#[test]
fn a_truncated_object_and_a_missing_one_are_misses_with_a_reason() {
    let world = built();
    let result = world.build();
    overwrite(&object(&world, &result, "a"), |bytes| bytes.clear());
    std::fs::remove_file(object(&world, &result, "c")).unwrap();
    let result = world.build();
    assert_eq!(world.said(&result), ["a:built", "b:cached", "c:built"]);
    let reasons = world.events.events().into_iter().filter_map(|event| match event {
        Event::Started { reasons, .. } => Some(reasons[0].to_string()),
        _ => None,
    });
    let reasons: Vec<String> = reasons.skip(3).collect();
    assert!(reasons[0].contains("has 0 bytes instead of 1") && reasons[1].contains("is missing"), "{reasons:?}");
}

#[test]
fn a_corrupt_record_is_a_miss_with_a_reason() {
    let world = built();
    let hex = world.build().key(world.id("b")).unwrap().hex();
    overwrite(&world.path("cache/actions").join(&hex[..2]).join(&hex), |bytes| bytes[20] ^= 1);
    let engine = Engine::new(world.store(), Arc::new(Silence));
    let predicted = engine.predict(&world.plan, &world.plan.ids().collect(), "/test").unwrap();
    assert!(matches!(&predicted[&world.id("b")], Prediction::WillRun { reasons, .. } if matches!(reasons[..], [Reason::Damaged { .. }])));
    drop(engine);
    let result = world.build();
    assert_eq!(world.said(&result), ["a:cached", "b:built", "c:cached"]);
}

#[test]
fn what_a_killed_build_left_is_swept_and_nothing_of_it_counts() {
    let world = built();
    // Killed between writing and renaming: a temporary file, a half-made output, a key's lock file, an object without a record.
    let corner = world.path("cache/tmp/999999-0");
    std::fs::create_dir_all(corner.join("3/out")).unwrap();
    std::fs::write(corner.join("3/out/out"), "half").unwrap();
    std::fs::write(world.path("cache/tmp/999999-0.lock"), "").unwrap();
    std::fs::write(world.path("cache/.slmops-a1B2c3"), "slmops st").unwrap();
    let other = world.path("cache/partial").join(crate::base::Digest::of(b"another").hex());
    std::fs::create_dir_all(other.join("exec-a1B2c3/root/proc")).unwrap();
    std::fs::set_permissions(other.join("exec-a1B2c3/root"), std::fs::Permissions::from_mode(0o500)).unwrap();
    let key = world.build().key(world.id("a")).unwrap();
    std::fs::write(world.path("cache/locks/keys").join(key.hex()), "").unwrap();
    world.store().put(b"nobody's", crate::store::Durability::Batched).unwrap();
    assert_eq!(world.build().summary.cached, 3);
    for folder in ["tmp", "partial", "locks/keys"] {
        assert!(crate::base::files::names(&world.path("cache").join(folder)).unwrap().is_empty(), "{folder}");
    }
    assert!(!world.path("cache/.slmops-a1B2c3").exists());
    // A stale lock file does not keep the step from running.
    std::fs::write(world.path("cache/locks/keys").join(key.hex()), "").unwrap();
    let hex = key.hex();
    std::fs::remove_file(world.path("cache/actions").join(&hex[..2]).join(&hex)).unwrap();
    assert_eq!(world.said(&world.build()), ["a:built", "b:cached", "c:cached"]);
}

#[test]
fn a_step_that_writes_to_its_input_is_caught_and_the_input_made_again() {
    let mut world = built();
    world.set("b", "B");
    let (result, _) = world.build_with(Scripted::default().on("b", |_, io| {
        let path = io.one("data")?.join("out");
        overwrite(&path, |bytes| bytes[0] = b'!');
        std::fs::write(io.checkpoint.join("state"), "learnt from it").unwrap();
        std::fs::write(io.out.join("out"), "fine").unwrap();
        Ok(())
    }));
    let failure = world.failure(&result, "b");
    assert!(failure.message.starts_with("its input `out` was written to in the store"), "{failure}");
    assert_eq!((failure.exit, world.store().contents().unwrap().checkpoints), (Exit::Environment, 0));
    assert_eq!(world.said(&world.build()), ["a:built", "b:built", "c:built"]);
}

#[test]
fn foreign_code_that_writes_to_its_input_writes_to_a_copy() {
    let mut world = built();
    world.set("b", "B");
    world.action("b").kind = &Foreign;
    let (result, _) = world.build_with(Scripted::default().on("b", |_, io| {
        let path = io.one("data")?.join("out");
        overwrite(&path, |bytes| bytes[0] = b'!');
        std::fs::write(io.out.join("out"), "fine").unwrap();
        Ok(())
    }));
    assert_eq!(world.said(&result), ["a:cached", "b:built", "c:built"]);
    assert_eq!(world.store().audit(&mut |_| {}).unwrap().damages, []);
}

#[test]
fn a_damaged_result_is_not_delivered_but_made_again() {
    let world = built();
    let result = world.build();
    overwrite(&object(&world, &result, "c"), |bytes| bytes[1] ^= 4);
    let engine = Engine::new(world.store(), world.events.clone());
    let output = InputRef { node: world.id("c"), output: None };
    let to = world.path("dist");
    engine.copy_output(&world.plan, &result, &output, &to, &world.options).unwrap();
    assert_eq!(std::fs::read_to_string(to.join("out")).unwrap(), "cba");
    assert_eq!(damages(&world).len(), 1);
}

/// Damages a step's object each time the step has ended: a failing disk.
struct Saboteur {
    node: NodeId,
    object: PathBuf,
    inner: Arc<Recorder>,
}

impl EventSink for Saboteur {
    fn event(&self, event: Event) {
        if matches!(&event, Event::Finished { node, .. } if *node == self.node) {
            overwrite(&self.object, |bytes| bytes[0] ^= 1);
        }
        self.inner.event(event);
    }
}

#[test]
fn an_object_that_will_not_stay_whole_is_the_environments_fault() {
    let mut world = built();
    let object = object(&world, &world.build(), "a");
    world.set("b", "B");
    let events = Arc::new(Saboteur { node: world.id("a"), object, inner: world.events.clone() });
    let result = Engine::new(world.store(), events).build(&world.plan, &world.all(), &world.options);
    let failure = world.failure(&result, "b");
    assert!(failure.message.starts_with("its input is damaged again and again"), "{failure}");
    assert_eq!(result.exit(), Exit::Environment);
    // With a better disk, all is well again.
    assert_eq!(world.build().exit(), Exit::Done);
}
