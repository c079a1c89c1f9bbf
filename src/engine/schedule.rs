//! Which node's turn it is: Kahn's algorithm over the plan's order, with loops instead of recursion, so that a chain of any depth fits the stack. It
//! knows nothing of keys, results or time.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::plan::node::{Node, NodeId, Plan};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No selected node needs it.
    Unneeded,
    /// Some of its inputs are not made yet.
    Waiting,
    /// All its inputs are made; nobody has looked at it yet.
    Ready,
    /// It has to run, and waits for its turn.
    Queued,
    Running,
    Made,
    /// It failed, or will never get its turn.
    Lost,
}

#[derive(Debug)]
pub struct Schedule {
    states: Vec<State>,
    inputs: Vec<Vec<NodeId>>,
    dependents: Vec<Vec<NodeId>>,
    /// For waiting nodes: how many inputs are not made.
    missing: Vec<usize>,
    /// How many steps stand one behind the other from here to the end: the longest chain goes first.
    heights: Vec<u32>,
    ready: Vec<NodeId>,
    queue: BTreeSet<(Reverse<u32>, NodeId)>,
}

impl Schedule {
    pub fn new(plan: &Plan, selected: &[NodeId]) -> Schedule {
        let count = plan.nodes.len();
        let inputs: Vec<Vec<NodeId>> = plan.nodes.iter().map(distinct_inputs).collect();
        let mut schedule = Schedule {
            states: vec![State::Unneeded; count],
            dependents: vec![Vec::new(); count],
            missing: inputs.iter().map(Vec::len).collect(),
            heights: vec![0; count],
            ready: Vec::new(),
            queue: BTreeSet::new(),
            inputs,
        };
        schedule.select(selected);
        schedule
    }

    /// Marks what is needed, from the last node to the first: inputs stand before their users.
    fn select(&mut self, selected: &[NodeId]) {
        for id in selected {
            self.states[id.index()] = State::Waiting;
        }
        for index in (0..self.states.len()).rev() {
            if self.states[index] == State::Unneeded {
                continue;
            }
            let id = NodeId(index as u32);
            for input in self.inputs[index].clone() {
                self.states[input.index()] = State::Waiting;
                self.dependents[input.index()].push(id);
                self.heights[input.index()] = self.heights[input.index()].max(self.heights[index] + 1);
            }
            if self.missing[index] == 0 {
                self.set(id, State::Ready);
            }
        }
    }

    pub fn state(&self, id: NodeId) -> State {
        self.states[id.index()]
    }

    /// Nodes in a state, in the plan's order.
    pub fn all(&self, state: State) -> impl Iterator<Item = NodeId> {
        self.states.iter().enumerate().filter(move |(_, other)| **other == state).map(|(index, _)| NodeId(index as u32))
    }

    /// The only place where a state changes: it keeps the ready list and the queue in step with it.
    fn set(&mut self, id: NodeId, state: State) {
        let place = (Reverse(self.heights[id.index()]), id);
        if self.states[id.index()] == State::Queued {
            self.queue.remove(&place);
        }
        self.states[id.index()] = state;
        match state {
            State::Queued => {
                self.queue.insert(place);
            }
            State::Ready => self.ready.push(id),
            _ => {}
        }
    }

    /// A node that nobody has looked at, now that its inputs are made.
    pub fn next_ready(&mut self) -> Option<NodeId> {
        // One that was sent back to waiting is still in the list; its state tells.
        while let Some(id) = self.ready.pop() {
            if self.state(id) == State::Ready {
                return Some(id);
            }
        }
        None
    }

    /// Whether a node is ready. May say so of one that was sent back to waiting, which the next look finds out.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether there is anything to look at or to start.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty() || !self.queue.is_empty()
    }

    pub fn queue(&mut self, id: NodeId) {
        self.set(id, State::Queued);
    }

    /// The queued node with the longest chain behind it. Nobody overtakes it, so a step that needs the whole machine gets it some time.
    pub fn first_queued(&self) -> Option<NodeId> {
        self.queue.first().map(|(_, id)| *id)
    }

    pub fn run(&mut self, id: NodeId) {
        self.set(id, State::Running);
    }

    pub fn made(&mut self, id: NodeId) {
        self.set(id, State::Made);
        for index in 0..self.dependents[id.index()].len() {
            let dependent = self.dependents[id.index()][index];
            if self.state(dependent) != State::Waiting {
                continue;
            }
            self.missing[dependent.index()] -= 1;
            if self.missing[dependent.index()] == 0 {
                self.set(dependent, State::Ready);
            }
        }
    }

    /// Gives up a node and all that needs it; returns the others.
    pub fn lose(&mut self, id: NodeId) -> Vec<NodeId> {
        self.set(id, State::Lost);
        let mut lost = Vec::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for dependent in self.dependents[id.index()].clone() {
                if matches!(self.state(dependent), State::Waiting | State::Ready | State::Queued) {
                    self.set(dependent, State::Lost);
                    lost.push(dependent);
                    open.push(dependent);
                }
            }
        }
        lost.sort();
        lost
    }

    /// Sends a node that was made back to the start, because its result is damaged. Those that have not begun wait for it again.
    pub fn reopen(&mut self, id: NodeId) {
        if self.state(id) != State::Made {
            return;
        }
        self.set(id, State::Waiting);
        for dependent in self.dependents[id.index()].clone() {
            if matches!(self.state(dependent), State::Waiting | State::Ready | State::Queued) {
                self.wait(dependent);
            }
        }
        self.wait(id);
    }

    /// Lets a node wait for those of its inputs that are not made; it is ready at once if there are none.
    pub fn wait(&mut self, id: NodeId) {
        let missing = self.inputs[id.index()].iter().filter(|input| self.state(**input) != State::Made).count();
        self.missing[id.index()] = missing;
        self.set(id, if missing == 0 { State::Ready } else { State::Waiting });
    }
}

fn distinct_inputs(node: &Node) -> Vec<NodeId> {
    let Node::Action(action) = node else { return Vec::new() };
    let mut inputs: Vec<NodeId> = action.input_refs().map(|input| input.node).collect();
    inputs.sort();
    inputs.dedup();
    inputs
}
