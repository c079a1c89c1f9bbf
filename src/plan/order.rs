//! The order in which steps are expanded, and the circles that make an order impossible.
//!
//! Everything here runs on petgraph's iterative walks (`DfsPostOrder`, `kosaraju_scc`): its `tarjan_scc` recurses, and a chain of 100,000 steps
//! would overflow the stack.

use std::collections::{BTreeMap, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::DfsPostOrder;

use crate::base::{Diagnostic, Place};

/// How many names of a circle are shown.
const SHOWN: usize = 12;

/// A step's dependencies, in the order in which they are written.
pub type Edges<'a> = Vec<(usize, &'a Place)>;

/// Every step behind what it needs, and otherwise in the order of the manifest. Where steps form a circle, the circle is told and the order
/// within it is arbitrary but fixed.
pub fn order(edges: &[Edges], name: &dyn Fn(usize) -> String, diagnostics: &mut Vec<Diagnostic>) -> Vec<usize> {
    let mut graph: DiGraph<(), (), u32> = DiGraph::with_capacity(edges.len(), edges.iter().map(Vec::len).sum());
    for _ in edges {
        graph.add_node(());
    }
    for (step, needs) in edges.iter().enumerate() {
        // petgraph visits the newest edge first.
        for (need, _) in needs.iter().rev() {
            graph.add_edge(NodeIndex::new(step), NodeIndex::new(*need), ());
        }
    }
    let mut order = Vec::with_capacity(edges.len());
    let mut walk = DfsPostOrder::empty(&graph);
    for step in 0..edges.len() {
        walk.move_to(NodeIndex::new(step));
        while let Some(done) = walk.next(&graph) {
            order.push(done.index());
        }
    }
    let mut rank = vec![0; edges.len()];
    order.iter().enumerate().for_each(|(i, step)| rank[*step] = i);
    let is_circular = edges.iter().enumerate().any(|(step, needs)| needs.iter().any(|(need, _)| rank[*need] >= rank[step]));
    if is_circular {
        circles(&graph, edges, name, diagnostics);
    }
    order
}

fn circles(graph: &DiGraph<(), (), u32>, edges: &[Edges], name: &dyn Fn(usize) -> String, diagnostics: &mut Vec<Diagnostic>) {
    for component in kosaraju_scc(graph) {
        let mut members: Vec<usize> = component.iter().map(|node| node.index()).collect();
        members.sort_unstable();
        let Some(first) = members.first().copied() else { continue };
        let circle = match members.len() {
            1 => edges[first].iter().find(|(need, _)| *need == first).map(|(_, place)| vec![(first, (*place).clone())]),
            _ => circle(first, &members, edges),
        };
        if let Some(circle) = circle {
            diagnostics.push(told(&circle, name));
        }
    }
}

/// A shortest way from a step back to itself: each step with the place at which it names the next.
fn circle(first: usize, members: &[usize], edges: &[Edges]) -> Option<Vec<(usize, Place)>> {
    let mut came: BTreeMap<usize, (usize, &Place)> = BTreeMap::new();
    let mut open = VecDeque::from([first]);
    while let Some(step) = open.pop_front() {
        for (need, place) in &edges[step] {
            if members.binary_search(need).is_ok() && !came.contains_key(need) {
                came.insert(*need, (step, place));
                open.push_back(*need);
            }
        }
        if came.contains_key(&first) {
            break;
        }
    }
    let mut circle = Vec::new();
    let mut at = first;
    loop {
        let (from, place) = came.get(&at)?;
        circle.push((*from, (*place).clone()));
        at = *from;
        if at == first {
            circle.reverse();
            return Some(circle);
        }
    }
}

fn told(circle: &[(usize, Place)], name: &dyn Fn(usize) -> String) -> Diagnostic {
    let mut names: Vec<String> = circle.iter().take(SHOWN).map(|(step, _)| name(*step)).collect();
    if circle.len() > SHOWN {
        names.push(format!("… {} more …", circle.len() - SHOWN));
    }
    names.extend(circle.first().map(|(step, _)| name(*step)));
    let mut diagnostic = Diagnostic::error(format!("steps need each other: {}", names.join(" → ")));
    for (i, (step, place)) in circle.iter().take(SHOWN).enumerate() {
        let next = circle.get((i + 1) % circle.len()).map_or(String::new(), |(step, _)| name(*step));
        diagnostic = diagnostic.at(place, format!("`{}` needs `{next}`", name(*step)));
    }
    diagnostic
}
