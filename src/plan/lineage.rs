//! What a model was made of: the data that decided about its weights, and whether a test set is among it. It follows the ports of the graph and looks
//! into no file, so it finds what is certain; what two different steps make of one source is compared when an evaluation runs.

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Action, InputRef, Node, NodeId, Plan};
use crate::steps::Flow;

/// Data that a step learned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    pub data: InputRef,
    /// The step that learned, and by which port.
    pub by: NodeId,
    pub port: String,
}

/// Why a test set is not new to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The model learned from the very same data.
    Same,
    /// What the model learned from was made from the test set.
    TestPassedOn,
    /// The test set was made from what the model learned from.
    LessonPassedOn,
}

/// Everything that a model, and what it was made from, learned from: in the graph's order, each once.
pub fn lessons(plan: &Plan, model: NodeId) -> Vec<Lesson> {
    let (mut seen, mut open, mut found) = (BTreeSet::from([model]), vec![model], Vec::new());
    while let Some(id) = open.pop() {
        let Some(Node::Action(action)) = plan.nodes.get(id.index()) else { continue };
        for (port, refs) in &action.inputs {
            let flow = action.kind.flow(port);
            if matches!(flow, Flow::Vocabulary | Flow::KeptOut) {
                continue;
            }
            for input in refs {
                if flow == Flow::Learned {
                    found.push(Lesson { data: input.clone(), by: id, port: port.clone() });
                }
                if seen.insert(input.node) {
                    open.push(input.node);
                }
            }
        }
    }
    found.sort_by(|a, b| (&a.data, a.by, &a.port).cmp(&(&b.data, b.by, &b.port)));
    found.dedup_by(|a, b| a.data == b.data);
    found
}

/// Whether a test set and a lesson hold the same records for certain.
pub fn overlap(plan: &Plan, test: &InputRef, lesson: &InputRef) -> Option<Overlap> {
    if covers(plan, test, lesson) {
        Some(Overlap::Same)
    } else if passes_on(plan, test, lesson) {
        Some(Overlap::TestPassedOn)
    } else if passes_on(plan, lesson, test) {
        Some(Overlap::LessonPassedOn)
    } else {
        None
    }
}

/// Whether records of `from` are in `to`, by the steps that pass records on. One that keeps `from` out passes nothing of it on.
fn passes_on(plan: &Plan, from: &InputRef, to: &InputRef) -> bool {
    let (mut seen, mut open) = (BTreeSet::from([to.node]), vec![to.node]);
    while let Some(id) = open.pop() {
        let Some(Node::Action(action)) = plan.nodes.get(id.index()) else { continue };
        if by_flow(action, Flow::KeptOut).any(|kept_out| covers(plan, from, kept_out)) {
            continue;
        }
        for input in by_flow(action, Flow::Passed) {
            if covers(plan, from, input) {
                return true;
            }
            if seen.insert(input.node) {
                open.push(input.node);
            }
        }
    }
    false
}

fn by_flow(action: &Action, flow: Flow) -> impl Iterator<Item = &InputRef> {
    action.inputs.iter().filter(move |(port, _)| action.kind.flow(port) == flow).flat_map(|(_, refs)| refs)
}

/// Whether two references are to the same data: one node's whole output covers each of its parts, and two sources may be one file.
fn covers(plan: &Plan, a: &InputRef, b: &InputRef) -> bool {
    let is_same_node = a.node == b.node
        || match (plan.nodes.get(a.node.index()), plan.nodes.get(b.node.index())) {
            // A folder covers the files in it.
            (Some(Node::Source(a)), Some(Node::Source(b))) => a.path.starts_with(&b.path) || b.path.starts_with(&a.path),
            _ => false,
        };
    is_same_node && (a.output == b.output || a.output.is_none() || b.output.is_none())
}

/// Lessons by model, each looked for once.
#[derive(Debug, Default)]
pub struct Lineage(BTreeMap<NodeId, Vec<Lesson>>);

impl Lineage {
    pub fn of(&mut self, plan: &Plan, model: NodeId) -> &[Lesson] {
        self.0.entry(model).or_insert_with(|| lessons(plan, model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Options, load};

    const HEAD: &str = "slmops = 1\n[project]\nname = \"p\"\nversion = \"1\"\n\
        [source]\nall = { path = \"all.jsonl\" }\nagain = { path = \"./all.jsonl\" }\nother = { path = \"other.jsonl\" }\n\
        [tokenizer.words]\ndata = \"all\"\nvocab_size = 300\n";

    fn planned(steps: &str) -> Plan {
        let space = tempfile::tempdir().unwrap();
        for name in ["all.jsonl", "other.jsonl"] {
            std::fs::write(space.path().join(name), "{\"prompt\":\"a\",\"completion\":\"b\"}\n").unwrap();
        }
        std::fs::write(space.path().join("slmops.toml"), format!("{HEAD}{steps}")).unwrap();
        load(space.path(), &Options::default()).unwrap_or_else(|diagnostics| panic!("{diagnostics:?}"))
    }

    #[test]
    fn a_folder_covers_the_files_in_it() {
        let space = tempfile::tempdir().unwrap();
        std::fs::create_dir(space.path().join("data")).unwrap();
        for name in ["data/test.jsonl", "data/train.jsonl", "data.jsonl"] {
            std::fs::write(space.path().join(name), "{\"prompt\":\"a\",\"completion\":\"b\"}\n").unwrap();
        }
        let head = HEAD.replace("all.jsonl", "data").replace("other.jsonl", "data.jsonl").replace("./data", "data/test.jsonl");
        let steps = |test: &str| format!("{head}{}{}", train("data = \"all\""), evaluate(test));
        for (test, warnings) in [("again", 1), ("other", 0)] {
            std::fs::write(space.path().join("slmops.toml"), steps(test)).unwrap();
            assert_eq!(load(space.path(), &Options::default()).unwrap().warnings.len(), warnings, "{test}");
        }
    }

    /// What is said at the test set, one line a warning.
    fn warned(steps: &str) -> Vec<String> {
        let said = |warning: &crate::base::Diagnostic| {
            let place = &warning.labels[0].place;
            format!("{}: {}", &place.source.text[place.span.clone()], warning.labels[0].text)
        };
        planned(steps).warnings.iter().map(said).collect()
    }

    fn train(data: &str) -> String {
        format!(
            "[train.model]\ntokenizer = \"words\"\n{data}\narch = {{ hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 1, intermediate_size = 16 }}\nmax_steps = 1\n"
        )
    }

    fn evaluate(test: &str) -> String {
        format!("[evaluate.e]\nmodel = \"model\"\ndata = {{ t = \"{test}\" }}\nmetrics = [\"exact_match\"]\n")
    }

    fn tested(data: &str, test: &str, more: &str) -> Vec<String> {
        warned(&format!("{}{}{more}", train(data), evaluate(test)))
    }

    #[test]
    fn a_test_that_a_model_learned_from_is_seen() {
        assert_eq!(tested("data = \"all\"", "all", ""), ["\"all\": `data` of `model` is the same data"]);
        assert_eq!(tested("data = [\"other\", \"all\"]", "again", ""), ["\"again\": `data` of `model` is the same data"]);
        assert_eq!(tested("data = \"other\"\nvalidation = \"all\"", "all", ""), ["\"all\": `validation` of `model` is the same data"]);
        let clean = "[dataset.clean]\ndata = \"all\"\ndedup = \"exact\"\n";
        assert_eq!(tested("data = \"clean\"", "all", clean), ["\"all\": `data` of `model` is `clean`, which is made from it"]);
        assert_eq!(tested("data = \"all\"", "clean", clean), ["\"clean\": it is made from `all`, the `data` of `model`"]);
        let split = "[dataset.parts]\ndata = \"all\"\nsplit = { a = 0.5, b = 0.5 }\n";
        assert_eq!(tested("data = \"parts\"", "parts.b", split), ["\"parts.b\": `data` of `model` is the same data"]);
        assert_eq!(tested("data = \"parts.a\"", "all", split), ["\"all\": `data` of `model` is `parts`, which is made from it"]);
        let labels = "[teacher_labels.taught]\nteacher = \"first\"\nprompts = \"all\"\n";
        let first = train("data = \"other\"").replace("train.model", "train.first");
        assert_eq!(
            tested("data = \"taught\"", "all", &format!("{first}{labels}")),
            ["\"all\": `data` of `model` is `taught`, which is made from it"]
        );
        // What taught the teacher of the labels, and what chose the types of a packed model.
        let first = train("data = \"other\"").replace("train.model", "train.first");
        assert_eq!(tested("data = \"taught\"", "other", &format!("{first}{labels}")), ["\"other\": `data` of `first` is the same data"]);
        let packed = "[calibrate.text]\nmodel = \"whole\"\ndata = \"other\"\n[quantize.model]\nmodel = \"whole\"\nimatrix = \"text\"\ntype = \"Q4_0\"\n";
        let whole = train("data = \"all\"").replace("train.model", "train.whole");
        assert_eq!(warned(&format!("{whole}{packed}{}", evaluate("other"))), ["\"other\": `data` of `text` is the same data"]);
    }

    #[test]
    fn a_test_that_is_held_apart_is_not() {
        let none: [&str; 0] = [];
        assert_eq!(tested("data = \"other\"", "all", ""), none, "the tokenizer's text decides about no weight");
        let split = "[dataset.parts]\ndata = \"all\"\nsplit = { a = 0.5, b = 0.5 }\n";
        assert_eq!(tested("data = \"parts.a\"\nvalidation = \"other\"", "parts.b", split), none);
        let apart = "[dataset.clean]\ndata = [\"other\", \"all\"]\ndisjoint_from = \"all\"\non_leak = \"drop\"\n";
        assert_eq!(tested("data = \"clean\"", "all", apart), none);
        // Two steps may make different things of one source: the records are compared when the evaluation runs.
        let two =
            "[dataset.a]\ndata = \"all\"\nfilter = { contains = [\"x\"] }\n[dataset.b]\ndata = \"all\"\nfilter = { excludes = [\"x\"] }\n";
        assert_eq!(tested("data = \"a\"", "b", two), none);
        let baseline = format!(
            "{}[distill.model]\nteacher = \"teacher\"\ndata = \"other\"\nbaseline = true\narch = {{ hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 1, intermediate_size = 16 }}\nmax_steps = 1\n",
            train("data = \"all\"").replace("train.model", "train.teacher")
        );
        assert_eq!(warned(&format!("{baseline}{}", evaluate("all").replace("\"model\"", "\"model.baseline\""))), none);
        assert_eq!(warned(&format!("{baseline}{}", evaluate("all"))).len(), 1, "the teacher learned from it");
    }

    #[test]
    fn an_evaluation_compares_records_with_all_that_was_learned_from() {
        let plan = planned(&format!("{}{}", train("data = [\"all\", \"again\"]\nvalidation = \"other\""), evaluate("other")));
        let overlap = plan.nodes.iter().find_map(|node| match node {
            Node::Action(action) if action.task.action == "overlap" => Some(action),
            _ => None,
        });
        let names = |refs: &[InputRef]| refs.iter().map(|input| plan.node(input.node).name().to_string()).collect::<Vec<_>>();
        let ports: Vec<(&str, Vec<String>)> = overlap.unwrap().inputs.iter().map(|(port, refs)| (port.as_str(), names(refs))).collect();
        assert_eq!(ports, [("lessons", vec!["all".into(), "again".into(), "other".into()]), ("data.t", vec!["other".into()])]);
    }
}
