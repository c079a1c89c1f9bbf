//! A checkpoint must have learnt from what its key says, whatever happened to the sources before the build was stopped.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slmops::engine::{Assignment, Engine, Event, EventSink, Options, Outcome, Scripted, Silence};
use slmops::plan::{InputRef, NodeId};
use slmops::steps::{Failure, Io};

use super::Case;
use super::world::{Step, World};

pub const CASES: &[Case] = &[
    ("stopped after it has read, with the sources untouched", |world| stopped(world, |_| (), |_| ())),
    ("edited while it runs", |world| stopped(world, |_| (), |w| w.write("a", "BBBB"))),
    ("edited before it reads", |world| stopped(world, |w| w.write("a", "BBBB"), |_| ())),
    ("edited before it reads and put back while it runs", |world| stopped(world, |w| w.write("a", "BBBB"), |w| w.write("a", "AAAA"))),
    ("edited while it runs and put back before it is resumed", |world| {
        stopped(world, |_| (), |w| w.write("a", "BBBB"));
        world.write("a", "AAAA");
        assert_eq!(resumed(world), "AAAA");
    }),
    ("its object overwritten while it runs", |world| {
        stopped(
            world,
            |_| (),
            |w| {
                super::metadata::each_object(w, |object| {
                    super::world::set_mode(object, 0o600);
                    fs::write(object, "BBBB").unwrap();
                });
            },
        );
    }),
];

struct AtStart(World, fn(&World));

impl EventSink for AtStart {
    fn event(&self, event: Event) {
        if matches!(event, Event::Started { .. }) {
            (self.1)(&self.0);
        }
    }
}

/// A training that is stopped once it has a checkpoint, and resumed when the source is what it was.
fn stopped(world: &World, at_start: fn(&World), while_it_runs: fn(&World)) {
    world.write("a", "AAAA");
    let inner = world.clone();
    let first = train(world, Arc::new(AtStart(world.clone(), at_start)), move |io| {
        while_it_runs(&inner);
        // What it has after its first look is kept, and it looks again.
        let read = fs::read_to_string(io.one("data")?.join("a")).unwrap();
        fs::write(io.checkpoint.join("state"), read).unwrap();
        Err(Failure::cancelled())
    });
    assert!(first.is_none());
    for content in ["AAAA", "BBBB"] {
        world.write("a", content);
        assert_eq!(resumed(world), content);
    }
}

fn resumed(world: &World) -> String {
    train(world, Arc::new(Silence), |_| Ok(())).expect("a result")
}

/// One step that learns from its checkpoint, if there is one, or from its input.
fn train(
    world: &World,
    events: Arc<dyn EventSink>,
    before: impl Fn(&mut Io) -> Result<(), Failure> + Send + Sync + 'static,
) -> Option<String> {
    let ran = Arc::new(AtomicBool::new(false));
    let act = move |_: &Assignment, io: &mut Io| {
        ran.store(true, Ordering::SeqCst);
        before(io)?;
        let state = fs::read_to_string(io.checkpoint.join("state"));
        let learnt = state.unwrap_or_else(|_| fs::read_to_string(io.one("data").unwrap().join("a")).unwrap());
        fs::write(io.out.join("model"), learnt).unwrap();
        Ok(())
    };
    let engine = Engine::with_worker(world.store(), events, Arc::new(Scripted::default().on("look", act)));
    let options = Options { jobs: 1, project: "/test".to_string(), ..Options::default() };
    let result = engine.build(&world.plan(Step::Built), &[NodeId(1)], &options);
    if !matches!(result.outcome(NodeId(1)), Some(Outcome::Built { .. } | Outcome::Cached { .. })) {
        return None;
    }
    let tree = result.tree(&InputRef { node: NodeId(1), output: None })?;
    let entry = &tree.entries()[0];
    Some(String::from_utf8(engine.store().read(entry.digest, entry.size_bytes, 100).unwrap()).unwrap())
}
