//! What must hold of every plan, whatever the manifest: no panic, no circle, no recursion, no waste.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

mod kinds;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use slmops::base::Diagnostic;
use slmops::manifest::{Lock, Overrides};
use slmops::plan::{self, Node, Options, Plan};
use slmops::source::Fetch;

fn options() -> Options<'static> {
    Options { kinds: kinds::KINDS, ..Options::default() }
}

/// Plans a manifest in a folder that holds one file of data.
fn plan(text: &str) -> Result<Plan, Vec<Diagnostic>> {
    let space = tempfile::tempdir().unwrap();
    fs::write(space.path().join("slmops.toml"), text).unwrap();
    fs::write(space.path().join("data.jsonl"), "{\"text\":\"a\"}\n").unwrap();
    plan::load(space.path(), &options())
}

const HEAD: &str = "slmops = 1\n[project]\nname = \"t\"\n[source]\na = { path = \"data.jsonl\" }\n";

fn is_acyclic(plan: &Plan) -> bool {
    plan.nodes.iter().enumerate().all(|(i, node)| match node {
        Node::Source(_) => true,
        Node::Action(action) => action.input_refs().all(|input| input.node.index() < i),
    })
}

#[test]
fn a_chain_of_100_000_steps_is_planned() {
    let mut text = String::from(HEAD);
    for i in (1..100_000).rev() {
        writeln!(text, "[dataset.s{i}]\ndata = \"s{}\"", i - 1).unwrap();
    }
    text += "[dataset.s0]\ndata = \"a\"\n";
    let plan = plan(&text).unwrap();
    assert_eq!(plan.nodes.len(), 100_001);
    assert!(is_acyclic(&plan));
    let selection = plan.select(&["s99999"]).unwrap();
    assert_eq!((selection.targets.len(), selection.needed.len()), (1, 100_001));
    assert_eq!(plan.default_targets(), selection.targets);
}

#[test]
fn a_circle_of_100_000_steps_is_told_briefly() {
    let mut text = String::from(HEAD);
    for i in 0..100_000 {
        writeln!(text, "[dataset.s{i}]\ndata = \"s{}\"", (i + 1) % 100_000).unwrap();
    }
    let errors = plan(&text).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].message.contains("99988 more"), "{}", errors[0].message);
}

#[test]
fn many_wrong_names_do_not_take_forever() {
    let mut text = String::from(HEAD);
    for i in 0..3_000 {
        writeln!(text, "[dataset.step_number_{i}]\ndata = \"stop_number_{i}\"").unwrap();
    }
    assert_eq!(plan(&text).unwrap_err().len(), 3_000);
}

#[test]
fn ten_thousand_steps_are_planned_as_declared() {
    let mut text = String::from(HEAD);
    for i in 0..10_000 {
        writeln!(text, "[dataset.s{i}]\ndata = \"a\"\nlimit = {}", i + 1).unwrap();
    }
    let plan = plan(&text).unwrap();
    assert_eq!((plan.nodes.len(), plan.combinations), (10_001, 10_000));
    assert_eq!(plan.nodes[10_000].name(), "s9999");
}

#[test]
fn one_step_may_take_many() {
    let mut text = String::from(HEAD);
    for i in 0..5_000 {
        writeln!(text, "[dataset.s{i}]\ndata = \"a\"\nlimit = {}", i + 1).unwrap();
    }
    let all: Vec<String> = (0..5_000).map(|i| format!("\"s{i}\"")).collect();
    writeln!(text, "[pool.all]\nall = [{}]", all.join(", ")).unwrap();
    let plan = plan(&text).unwrap();
    let Some(Node::Action(last)) = plan.nodes.last() else { panic!() };
    assert_eq!(last.input_refs().count(), 5_000);
}

/// What is equal by value is one step, whatever it is called and however it is written.
#[test]
fn equal_steps_are_one() {
    let plan = plan(&format!(
        "{HEAD}[dataset.x]\ndata = \"a\"\nlimit = 10\n[dataset.y]\nlimit = 1e1\ndata = [\"a\"]\n[pool.p]\nall = [\"x\", \"y\"]\n"
    ))
    .unwrap();
    let Node::Action(action) = &plan.nodes[1] else { panic!() };
    assert_eq!(action.names, ["x", "y"]);
    assert_eq!((plan.nodes.len(), plan.combinations), (3, 3));
    for name in ["x", "y"] {
        assert_eq!(plan.find(name).unwrap().node.index(), 1);
    }
}

#[test]
fn find_wants_exactly_one() {
    let text = format!("{HEAD}[dataset.x]\ndata = \"a\"\nmatrix.limit = [1, 2]\nsplit = {{ train = 0.5, test = 0.5 }}\n");
    let plan = plan(&text).unwrap();
    assert!(plan.find("x").unwrap_err().helps[0].contains("`x@limit=1`, `x@limit=2`"));
    assert_eq!(plan.find("x@2").unwrap().node.index(), 2);
    assert_eq!(plan.find("x.train@1").unwrap().output.as_deref(), Some("train"));
    assert!(plan.find("x.trian@1").unwrap_err().helps[0].contains("`train`"));
    assert!(plan.find("z").is_err());
    assert_eq!(plan.select(&["x"]).unwrap().targets.len(), 2);
}

/// Two trainings that differ only in how they are computed are one action.
#[test]
fn what_changes_no_result_makes_no_second_step() {
    let space = tempfile::tempdir().unwrap();
    std::fs::write(space.path().join("a.jsonl"), "").unwrap();
    let train = |name: &str, more: &str| {
        format!(
            "[train.{name}]\ntokenizer = \"t\"\ndata = \"a\"\nmax_steps = 9\narch = {{ hidden_size = 8, num_hidden_layers = 1, \
             num_attention_heads = 2, intermediate_size = 8 }}\n{more}\n"
        )
    };
    let head = "slmops = 1\n[project]\nname = \"p\"\n[source]\na = { path = \"a.jsonl\" }\n[tokenizer.t]\ndata = \"a\"\nvocab_size = 300\n";
    let text = [head, &train("x", ""), &train("y", "gradient_checkpointing = true"), &train("z", "seed = 1")].concat();
    std::fs::write(space.path().join("slmops.toml"), text).unwrap();
    let plan = plan::load(space.path(), &Options::default()).unwrap_or_else(|errors| panic!("{errors:?}"));
    let node = |name| plan.find(name).unwrap().node;
    assert_eq!(node("x"), node("y"));
    assert_ne!(node("x"), node("z"));
}

/// A comment, another order of fields, another folder: the same plan.
#[test]
fn a_plan_depends_on_what_is_said() {
    let one = kinds::show(&plan(&format!("{HEAD}[dataset.x]\ndata = \"a\" # why\nlimit = 3\n")).unwrap());
    let other = kinds::show(&plan(&format!("# hello\n{HEAD}[dataset.x]\nlimit = 0x3\n\ndata = [ 'a', ]\n")).unwrap());
    assert_eq!(one, other);
}

/// The example, with the kinds as they are.
#[test]
fn the_example_is_planned() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cold-chain");
    for profile in [None, Some("quick".to_string())] {
        let overrides = Overrides { profile, ..Overrides::default() };
        let plan = plan::load(&folder, &Options { overrides, ..Options::default() }).unwrap_or_else(|errors| panic!("{errors:?}"));
        let bundles: Vec<&str> = plan.default_targets().into_iter().map(|id| plan.node(id).name()).collect();
        assert_eq!(bundles, ["release@device=fridge", "release@device=gateway"]);
        let actions = plan.nodes.iter().filter(|node| matches!(node, Node::Action(_))).count();
        assert!(plan.combinations > actions, "the reference's evaluation is shared");
    }
}

/// A value for each that TOML can express, put where any other stands.
const VALUES: [&str; 12] = [
    "3",
    "-1",
    "0.5",
    "\"student\"",
    "\"\"",
    "[]",
    "{}",
    "true",
    "[[1], {a = 1}]",
    "{ a = { b = 3 } }",
    "2026-01-01",
    "\"small@type=Q8_0,,=\"",
];

fn mangled() -> impl Strategy<Value = String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/cold_chain/slmops.toml")).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    let edit = (0..lines.len(), 0..lines.len(), 0..7u8, 0..VALUES.len(), any::<prop::sample::Index>());
    prop::collection::vec(edit, 1..6).prop_map(move |edits| {
        let mut lines = lines.clone();
        for (at, other, how, value, index) in edits {
            let (at, other) = (at % lines.len(), other % lines.len());
            let line = lines[at].clone();
            match how {
                0 => drop(lines.remove(at)),
                1 => lines.swap(at, other),
                2 => lines.insert(at, lines[other].clone()),
                3 => lines[at] = line.chars().take(index.index(line.chars().count() + 1)).collect(),
                4 => {
                    let mut chars: Vec<char> = line.chars().collect();
                    chars.insert(index.index(chars.len() + 1), ['"', '[', '=', '.', '@', '\u{0}', 'é', '{'][value % 8]);
                    lines[at] = chars.into_iter().collect();
                }
                5 => lines[at] = format!("matrix.{line}"),
                _ => {
                    if let Some((key, _)) = line.split_once('=') {
                        lines[at] = format!("{key}= {}", VALUES[value]);
                    }
                }
            }
            if lines.is_empty() {
                lines.push(String::new());
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A mangled manifest becomes a plan or diagnostics that can be drawn, never a panic.
    #[test]
    fn mangled_manifests_are_understood_or_refused(text in mangled()) {
        match plan(&text) {
            Ok(plan) => prop_assert!(is_acyclic(&plan)),
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                errors.iter().for_each(|error| drop(error.render(false)));
            }
        }
    }

    /// Steps that name each other at random: a plan in order, or the circle.
    #[test]
    fn a_plan_is_acyclic(edges in prop::collection::vec((0..12usize, 0..12usize), 0..20)) {
        let mut text = String::from(HEAD);
        for i in 0..12 {
            let needs: Vec<String> = edges.iter().filter(|(from, _)| *from == i).map(|(_, to)| format!("\"s{to}\"")).collect();
            writeln!(text, "[pool.s{i}]\nshares = {{ x{i} = 1 }}\nall = [\"a\"{}{}]", if needs.is_empty() { "" } else { ", " }, needs.join(", ")).unwrap();
        }
        let reaches = |start: usize| {
            let mut open = vec![start];
            let mut seen = [false; 12];
            while let Some(at) = open.pop() {
                for (_, to) in edges.iter().filter(|(from, _)| *from == at) {
                    if !std::mem::replace(&mut seen[*to], true) {
                        open.push(*to);
                    }
                }
            }
            seen[start]
        };
        let is_circular = (0..12).any(reaches);
        match plan(&text) {
            Ok(plan) => prop_assert!(!is_circular && is_acyclic(&plan) && plan.nodes.len() == 13),
            Err(errors) => prop_assert!(is_circular && errors.iter().all(|error| error.message.starts_with("steps need each other")), "{errors:?}"),
        }
    }
}

mod git {
    use super::*;
    use git2::{Repository, Signature};

    fn commit(repository: &Repository, files: &[(&str, &str)]) -> String {
        let folder = repository.workdir().unwrap().to_path_buf();
        let mut index = repository.index().unwrap();
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            index.add_path(Path::new(name)).unwrap();
        }
        index.write().unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let who = Signature::new("a", "a@b", &git2::Time::new(0, 0)).unwrap();
        let parents: Vec<_> = repository.head().ok().map(|head| head.peel_to_commit().unwrap()).into_iter().collect();
        let parents: Vec<&git2::Commit> = parents.iter().collect();
        repository.commit(Some("HEAD"), &who, &who, "m", &tree, &parents).unwrap().to_string()
    }

    fn manifest(folder: &Path, source: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(
            folder.join("slmops.toml"),
            format!("slmops = 1\n[project]\nname = \"t\"\n[source]\na = {source}\n[pool.p]\nall = \"a\"\n"),
        )
        .unwrap();
    }

    fn fetching() -> Options<'static> {
        Options { fetch: Fetch::Pinned, ..options() }
    }

    fn path_of(plan: &Plan) -> std::path::PathBuf {
        let Node::Source(source) = &plan.nodes[0] else { panic!() };
        source.path.clone()
    }

    #[test]
    fn a_pinned_source_stays_what_it_was() {
        let space = tempfile::tempdir().unwrap();
        let repository = Repository::init(space.path().join("data")).unwrap();
        let first = commit(&repository, &[("d/x.jsonl", "one"), ("y", "two")]);
        let project = space.path().join("project");
        manifest(&project, "{ git = \"../data\", path = \"d/x.jsonl\" }");

        let errors = plan::load(&project, &fetching()).unwrap_err();
        assert!(errors[0].message.contains("not pinned") && errors[0].helps[0].contains("slmops lock"), "{errors:?}");
        assert_eq!(plan::check_locked(&project, &options()).unwrap_err().len(), 1);
        let lock = plan::lock(&project, &options()).unwrap();
        assert_eq!(lock.sources["a"].rev, first);
        plan::check_locked(&project, &options()).unwrap();
        let path = path_of(&plan::load(&project, &options()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");

        // The branch moves on; the pin does not, not even on a machine that has nothing fetched yet.
        let second = commit(&repository, &[("d/x.jsonl", "three")]);
        fs::remove_dir_all(project.join("cache")).unwrap();
        assert!(plan::load(&project, &options()).unwrap_err()[0].message.contains("not on this machine"));
        let path = path_of(&plan::load(&project, &fetching()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");

        // A touched copy is fetched anew.
        fs::write(&path, "forged").unwrap();
        assert!(plan::load(&project, &options()).is_err());
        assert_eq!(fs::read_to_string(path_of(&plan::load(&project, &fetching()).unwrap())).unwrap(), "one");

        // A lock that pins other content is noticed.
        let mut forged = Lock::load(&project).unwrap();
        forged.sources.get_mut("a").unwrap().rev = second.clone();
        forged.store(&project).unwrap();
        let errors = plan::load(&project, &fetching()).unwrap_err();
        assert!(errors[0].message.contains("does not hold what slmops.lock pins"), "{errors:?}");

        assert_eq!(plan::lock(&project, &options()).unwrap().sources["a"].rev, second);
        assert_eq!(fs::read_to_string(path_of(&plan::load(&project, &options()).unwrap())).unwrap(), "three");

        // Another wish needs another pin; a source that is gone leaves one behind.
        manifest(&project, "{ git = \"../data\", branch = \"other\" }");
        assert!(plan::check_locked(&project, &options()).unwrap_err()[0].message.contains("has changed since"));
        assert!(plan::lock(&project, &options()).unwrap_err()[0].message.contains("no branch other"));
        manifest(&project, "{ path = \"slmops.toml\" }");
        assert!(plan::check_locked(&project, &options()).unwrap_err()[0].message.contains("does not declare"));
        plan::lock(&project, &options()).unwrap();
        plan::check_locked(&project, &options()).unwrap();
    }

    #[test]
    fn branches_tags_and_commits_are_found() {
        let space = tempfile::tempdir().unwrap();
        let repository = Repository::init(space.path().join("data")).unwrap();
        let first = commit(&repository, &[("x", "one")]);
        repository.tag_lightweight("v1", &repository.find_object(git2::Oid::from_str(&first).unwrap(), None).unwrap(), false).unwrap();
        let second = commit(&repository, &[("x", "two")]);
        repository.branch("side", &repository.find_commit(git2::Oid::from_str(&second).unwrap()).unwrap(), false).unwrap();
        let project = space.path().join("project");
        let url = format!("file://{}", space.path().join("data").display());
        for (want, rev) in [
            ("tag = \"v1\"", &first),
            ("branch = \"side\"", &second),
            (&format!("rev = \"{}\"", &first[..9]), &first),
            ("description = \"d\"", &second),
        ] {
            manifest(&project, &format!("{{ git = \"{url}\", {want} }}"));
            assert_eq!(plan::lock(&project, &options()).unwrap().sources["a"].rev, *rev, "{want}");
            assert!(path_of(&plan::load(&project, &options()).unwrap()).join("x").is_file());
        }
        for (source, why) in [
            ("{ git = \"git://example.org/x.git\" }", "no git transport"),
            ("{ git = \"git@example.org:x.git\" }", "no ssh transport"),
            ("{ git = \"../nowhere\" }", "no repository"),
            ("{ git = \"../data\", path = \"z\" }", "has no `z`"),
            ("{ git = \"../data\", rev = \"0123456789\" }", "no rev 0123456789"),
        ] {
            manifest(&project, source);
            let errors = plan::lock(&project, &options()).unwrap_err();
            assert!(errors[0].message.contains(why), "{errors:?}");
        }
    }

    #[test]
    fn what_no_source_can_hold_is_refused() {
        let space = tempfile::tempdir().unwrap();
        let repository = Repository::init(space.path().join("data")).unwrap();
        commit(&repository, &[("x", "version https://git-lfs.github.com/spec/v1\n"), ("y", "z")]);
        let project = space.path().join("project");
        manifest(&project, "{ git = \"../data\" }");
        assert!(plan::lock(&project, &options()).unwrap_err()[0].message.contains("Git LFS"));
        let mut index = repository.index().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", space.path().join("data/link")).unwrap();
        index.remove_path(Path::new("x")).unwrap();
        index.add_path(Path::new("link")).unwrap();
        index.write().unwrap();
        commit(&repository, &[]);
        assert!(plan::lock(&project, &options()).unwrap_err()[0].message.contains("symbolic link"));
    }
}

#[test]
fn a_profile_applies_to_the_members_that_have_it() {
    let space = tempfile::tempdir().unwrap();
    fs::write(space.path().join("slmops.toml"), "slmops = 1\n[workspace]\nmembers = [\"*\"]\n").unwrap();
    for name in ["one", "two"] {
        let folder = space.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("data.jsonl"), "").unwrap();
        let profile = if name == "one" { "[profile.quick.dataset.x]\nlimit = 1\n" } else { "" };
        fs::write(folder.join("slmops.toml"), format!("{HEAD}[dataset.x]\ndata = \"a\"\nlimit = 9\n{profile}")).unwrap();
    }
    let with = |profile: &str, set: &str| {
        let overrides = Overrides { profile: Some(profile.to_string()), set: vec![set.to_string()] };
        plan::load(space.path(), &Options { overrides, ..options() })
    };
    assert!(with("quick", "dataset.x.unknown=1").unwrap_err()[0].message.starts_with("unknown field"));
    let plan = with("quick", "project.version=\"2\"").unwrap();
    let limits = plan.nodes.iter().filter_map(|node| match node {
        Node::Action(action) => action.task.params.get("limit").cloned(),
        Node::Source(_) => None,
    });
    assert_eq!(limits.collect::<Vec<_>>(), [1, 9]);
    assert!(with("quik", "project.version=\"2\"").unwrap_err()[0].message.contains("no profile `quik`"));
}
