//! A key ignores order and nothing else.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::steps::{Declared, Failure, Field, Io, Params, Part, Problem};

struct Plain;
struct Numeric;

macro_rules! kind {
    ($kind:ty, $name:literal, $numeric:literal) => {
        impl Kind for $kind {
            fn name(&self) -> &'static str {
                $name
            }
            fn revision(&self) -> u32 {
                7
            }
            fn summary(&self) -> &'static str {
                ""
            }
            fn help(&self) -> &'static str {
                ""
            }
            fn fields(&self) -> &'static [Field] {
                &[]
            }
            fn is_numeric(&self) -> bool {
                $numeric
            }
            fn expand(&self, _: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
                Ok(Vec::new())
            }
            fn run(&self, _: &Task, _: &mut Io) -> Result<(), Failure> {
                Ok(())
            }
        }
    };
}
kind!(Plain, "plain", false);
kind!(Numeric, "numeric", true);

fn task(params: Value) -> Task {
    let Value::Object(params) = params else { panic!("not a table") };
    Task { action: "act", params }
}

fn key(params: Value) -> Digest {
    of(&Subject { kind: &Plain, task: &task(params), inputs: &[] })
}

/// If this fails, every cached result of every user is lost: raise `KEY_FORMAT` if that is meant, and never otherwise.
#[test]
fn golden_keys() {
    let inputs =
        [("data.seen".to_string(), vec![Content::File(Digest::of(b"a")), Content::Folder(Digest::of(b"b"))]), ("none".to_string(), vec![])];
    let task = task(json!({"b": 3.0, "a": {"x y": [1, 2.5, "three"], "empty": {}, "list": []}, "flag": true, "tiny": 1e-30}));
    let subject = Subject { kind: &Plain, task: &task, inputs: &inputs };
    let text = KeyRecord::of(&subject).encode();
    insta::assert_snapshot!(text, @r###"
    format	slmops.action.1
    kind	plain
    revision	7
    action	act
    param.a.empty	{}
    param.a.list	[]
    param.a."x y"[0]	1
    param.a."x y"[1]	2.5
    param.a."x y"[2]	"three"
    param.b	3
    param.flag	true
    param.tiny	1e-30
    input.data.seen[0]	file:17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f
    input.data.seen[1]	folder:10e5cf3d3c8a4f9f3468c8cc58eea84892a22fdadbc1acb22410190044c1d553
    input.none	[]
    "###);
    insta::assert_snapshot!(of(&subject), @"593951c86579f87d1990917647cb48e720f225c1b396f09efcc7cb8815fc290a");
    assert_eq!(KeyRecord::parse(&text).unwrap().key(), of(&subject));
}

#[test]
fn the_numeric_version_is_in_the_keys_of_numeric_kinds_only() {
    let task = task(json!({}));
    let names = |kind: &'static dyn Kind| {
        let record = KeyRecord::of(&Subject { kind, task: &task, inputs: &[] });
        record.fields().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&Plain), ["format", "kind", "revision", "action"]);
    assert_eq!(names(&Numeric), ["format", "kind", "revision", "numerics", "action"]);
}

#[test]
fn values_that_only_look_alike_have_different_keys() {
    let different = [
        json!({}),
        json!({"a": 1}),
        json!({"a": "1"}),
        json!({"a": true}),
        json!({"a": "true"}),
        json!({"a": null}),
        json!({"a": []}),
        json!({"a": {}}),
        json!({"a": "[]"}),
        json!({"a": [1]}),
        json!({"a": [[1]]}),
        json!({"a": [1, 2]}),
        json!({"a": [12]}),
        json!({"a": [2, 1]}),
        json!({"a": {"b": 1}}),
        json!({"a.b": 1}),
        json!({"a[0]": 1}),
        json!({"a": {"b": 1, "c": 2}}),
        json!({"a": {"b": 1}, "c": 2}),
        json!({"a": "1\nparam.b\t2"}),
        json!({"a": 1, "b": 2}),
        json!({"\"a.b\"": 1}),
        json!({"": 1}),
    ];
    for (i, a) in different.iter().enumerate() {
        for b in &different[..i] {
            assert_ne!(key(a.clone()), key(b.clone()), "{a} and {b}");
        }
    }
    assert_eq!(key(json!({"a": 3, "z": 0})), key(json!({"z": -0.0, "a": 3.0})));
}

#[test]
fn inputs_count_by_port_place_form_and_content() {
    let (x, y) = (Content::Folder(Digest::of(b"x")), Content::Folder(Digest::of(b"y")));
    let file = Content::File(Digest::of(b"x"));
    let cases: Vec<Vec<(&str, Vec<Content>)>> = vec![
        vec![],
        vec![("a", vec![])],
        vec![("a", vec![x])],
        vec![("b", vec![x])],
        vec![("a", vec![file])],
        vec![("a", vec![x, y])],
        vec![("a", vec![y, x])],
        vec![("a", vec![x]), ("b", vec![y])],
        vec![("a", vec![y]), ("b", vec![x])],
        vec![("a[0]", vec![x])],
    ];
    let task = task(json!({}));
    let key = |case: &[(&str, Vec<Content>)]| {
        let inputs: Vec<_> = case.iter().map(|(port, contents)| (port.to_string(), contents.clone())).collect();
        of(&Subject { kind: &Plain, task: &task, inputs: &inputs })
    };
    for (i, a) in cases.iter().enumerate() {
        for b in &cases[..i] {
            assert_ne!(key(a), key(b), "{a:?} and {b:?}");
        }
    }
}

#[test]
fn reasons_name_the_field_with_its_old_and_new_value() {
    let record = |params: Value, input: &str| {
        let inputs = [("data".to_string(), vec![Content::Folder(Digest::of(input.as_bytes()))])];
        KeyRecord::of(&Subject { kind: &Plain, task: &task(params), inputs: &inputs })
    };
    let old = record(json!({"learning_rate": 0.003, "arch": {"hidden_size": 96}, "gone": "x"}), "one");
    let new = record(json!({"learning_rate": 1e-3, "arch": {"hidden_size": 96}, "fresh": [1]}), "two");
    assert_eq!(changes(&old, &old), []);
    let said: Vec<String> = changes(&old, &new).iter().map(Reason::to_string).collect();
    let (one, two) = (Digest::of(b"one").short(), Digest::of(b"two").short());
    assert_eq!(
        said,
        [
            "fresh[0]: not set → 1".to_string(),
            "learning_rate: 0.003 → 0.001".to_string(),
            format!("input data[0] changed: {one} → {two}"),
            "gone: \"x\" → not set".to_string(),
        ]
    );
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-4i64..4).prop_map(Value::from),
        (-1e6f64..1e6).prop_map(Value::from),
        "[a-c.\\[\\]\"\t\n0-2]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from), tables(inner).prop_map(Value::Object),]
    })
}

fn tables(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Params> {
    proptest::collection::btree_map("[a-c.\\[\\]\"0-1\t]{0,3}", inner, 0..3).prop_map(|map| map.into_iter().collect())
}

/// Whether two values are the same to a kind: numbers by value, tables without order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64() && a.as_f64().is_some_and(|f| f.abs() < 2f64.powi(53))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
        }
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn keys_are_equal_exactly_if_the_parameters_are(a in tables(values()), b in tables(values())) {
        let equal = same(&Value::Object(a.clone()), &Value::Object(b.clone()));
        prop_assert_eq!(key(Value::Object(a.clone())) == key(Value::Object(b)), equal);
        let reversed: Params = a.clone().into_iter().rev().collect();
        prop_assert_eq!(key(Value::Object(a)), key(Value::Object(reversed)));
    }

    #[test]
    fn the_text_of_a_key_reads_back_and_makes_the_same_key(params in tables(values()), port in "[a-b.\\[\\]\t\"]{0,4}") {
        let task = Task { action: "act", params };
        let inputs = [(port, vec![Content::Folder(Digest::of(b"x"))])];
        let subject = Subject { kind: &Plain, task: &task, inputs: &inputs };
        let record = KeyRecord::of(&subject);
        prop_assert_eq!(KeyRecord::parse(&record.encode()), Some(record.clone()));
        prop_assert_eq!(record.key(), of(&subject));
        prop_assert_eq!(changes(&record, &record), vec![]);
    }
}

#[test]
fn what_changes_no_result_is_in_no_key() {
    let key = |params: Value| of(&Subject { kind: &crate::steps::train::Train, task: &task(params), inputs: &[] });
    let name = "gradient_checkpointing";
    assert_eq!(key(json!({"seed": 1, name: true})), key(json!({"seed": 1, name: false})));
    assert_eq!(key(json!({"seed": 1, name: true})), key(json!({"seed": 1})));
    assert_ne!(key(json!({"seed": 1, name: true})), key(json!({"seed": 2, name: true})));
    // Only at the top: elsewhere the same word is another parameter.
    assert_ne!(key(json!({"arch": {name: true}})), key(json!({"arch": {name: false}})));
}
