//! Plans that are deep or wide.

use super::*;

#[test]
fn a_chain_of_a_hundred_thousand_steps_is_scheduled_without_recursion() {
    let mut world = World::new();
    let count = 100_000;
    world.step("0", &[]);
    for index in 1..count {
        let id = NodeId(index - 1);
        world.step(&index.to_string(), &[]);
        let Some(Node::Action(action)) = world.plan.nodes.last_mut() else { panic!() };
        action.inputs[0].1.push(InputRef { node: id, output: None });
    }
    let mut schedule = super::super::schedule::Schedule::new(&world.plan, &[NodeId(count - 1)]);
    for index in 0..count {
        assert_eq!(schedule.next_ready(), Some(NodeId(index)));
        schedule.queue(NodeId(index));
        assert_eq!(schedule.first_queued(), Some(NodeId(index)));
        schedule.run(NodeId(index));
        schedule.made(NodeId(index));
    }
    let mut schedule = super::super::schedule::Schedule::new(&world.plan, &[NodeId(count - 1)]);
    assert_eq!(schedule.lose(NodeId(0)).len(), count as usize - 1);
}

/// A chain (or a row) of steps.
fn many(count: u32, link: impl Fn(u32) -> Option<u32>) -> World {
    let mut world = World::new();
    for index in 0..count {
        world.step(&index.to_string(), &[]);
        let Some(Node::Action(action)) = world.plan.nodes.last_mut() else { panic!() };
        action.inputs[0].1.extend(link(index).map(|input| InputRef { node: NodeId(input), output: None }));
    }
    world
}

fn build(world: &World) -> BuildResult {
    let worker: Arc<dyn Worker> = Arc::new(Trivial);
    Engine::with_worker(world.store(), Arc::new(Silence), worker).build(&world.plan, &world.all(), &world.options)
}

#[test]
fn a_chain_is_built_and_found_again() {
    let world = many(300, |index| index.checked_sub(1));
    assert_eq!(build(&world).summary.built, 300);
    assert_eq!(build(&world).summary.cached, 300);
}

/// `cargo test --lib engine::tests::large::figures -- --ignored --nocapture`
#[test]
#[ignore = "takes a while; prints figures"]
fn figures_of_ten_thousand_steps() {
    print_figures(&many(10_000, |_| None));
}

#[test]
#[ignore = "takes minutes and gigabytes; prints figures"]
fn figures_of_a_chain_of_a_hundred_thousand() {
    print_figures(&many(100_000, |index| index.checked_sub(1)));
}

fn print_figures(world: &World) {
    for mode in ["clean", "no-op", "no-op"] {
        let (began, cpu) = (std::time::Instant::now(), cpu_ms());
        let result = build(world);
        assert_eq!(result.exit(), Exit::Done);
        let (wall, cpu) = (began.elapsed().as_millis(), cpu_ms() - cpu);
        let each = cpu as f64 / world.plan.nodes.len() as f64;
        println!("{mode}: {wall} ms wall, {cpu} ms CPU ({each:.3} each), peak {} KiB", peak_kib());
    }
}

fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime in ticks of 10 ms.
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

fn peak_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").to_string()
}

struct Trivial;

impl Worker for Trivial {
    fn run(&self, assignment: &Assignment, io: &mut Io) -> Result<(), Failure> {
        std::fs::write(io.out.join("out"), &assignment.name).unwrap();
        Ok(())
    }
}
