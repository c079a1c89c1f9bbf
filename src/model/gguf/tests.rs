//! The container: what is written is read back, and nothing that a file may hold makes the reader panic or allocate without bounds.

use super::*;
use crate::model::quant::{BlockType, quantize};
use proptest::prelude::*;

fn every_value() -> Vec<(String, Value)> {
    let texts = vec!["".to_string(), "Ġhello".to_string()];
    [
        Value::U8(1),
        Value::I8(-1),
        Value::U16(2),
        Value::I16(-2),
        Value::U32(3),
        Value::I32(-3),
        Value::F32(0.5),
        Value::Bool(true),
        Value::from("llama"),
        Value::U64(4),
        Value::I64(-4),
        Value::F64(0.25),
        Value::Array(Array::U8(vec![1, 2])),
        Value::Array(Array::I8(vec![-1])),
        Value::Array(Array::U16(vec![])),
        Value::Array(Array::I16(vec![7])),
        Value::Array(Array::U32(vec![8])),
        Value::Array(Array::I32(vec![-9])),
        Value::Array(Array::F32(vec![0.5, 1.5])),
        Value::Array(Array::Bool(vec![true, false])),
        Value::Array(Array::String(texts)),
        Value::Array(Array::U64(vec![1 << 40])),
        Value::Array(Array::I64(vec![-1])),
        Value::Array(Array::F64(vec![1e300])),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, value)| (format!("key.{i}"), value))
    .collect()
}

fn plans() -> Vec<TensorPlan> {
    let plan = |name: &str, shape: &[usize], ty| TensorPlan { name: name.into(), shape: shape.into(), ty };
    vec![plan("a.weight", &[32, 3], BlockType::Q4_0), plan("b.weight", &[5], BlockType::F32), plan("c", &[256, 2], BlockType::Q6K)]
}

/// A small whole file, as bytes.
fn sample() -> Vec<u8> {
    let mut file = head(&every_value(), &plans());
    for plan in plans() {
        let values: usize = plan.shape.iter().product();
        let x: Vec<f32> = (0..values).map(|i| (i as f32 - 40.0) / 50.0).collect();
        file.extend(quantize(plan.ty, &x, plan.shape[0]).unwrap());
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    }
    file
}

fn head(metadata: &[(String, Value)], tensors: &[TensorPlan]) -> Vec<u8> {
    write::head(metadata, tensors).unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let space = tempfile::tempdir().unwrap();
    let path = space.path().join("model.gguf");
    let mut writer = Writer::create(&path, &every_value(), &plans()).unwrap();
    let bytes: Vec<Vec<u8>> = plans().iter().map(|plan| vec![plan.ty.id() as u8; plan.size_bytes().unwrap()]).collect();
    bytes.iter().for_each(|bytes| writer.tensor(bytes).unwrap());
    writer.finish().unwrap();
    let file = Gguf::open(&path).unwrap();
    assert_eq!(file.header.version, 3);
    assert_eq!(file.header.metadata, every_value());
    for (tensor, (plan, bytes)) in file.header.tensors.iter().zip(plans().iter().zip(&bytes)) {
        assert_eq!((&tensor.name, &tensor.shape, tensor.ty), (&plan.name, &plan.shape, plan.ty));
        assert_eq!(tensor.bytes.start % ALIGNMENT, 0);
        assert_eq!(file.bytes(tensor), bytes);
    }
    assert!(file.tensor("b.weight").is_some() && file.tensor("d").is_none());
}

#[test]
fn a_writer_holds_to_its_plan() {
    let space = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&space.path().join("a"), &[], &plans()).unwrap();
    assert!(matches!(writer.tensor(&[0; 53]), Err(GgufError::Shape { .. })));
    let writer = Writer::create(&space.path().join("b"), &[], &plans()).unwrap();
    assert!(matches!(writer.finish(), Err(GgufError::CutTensor { .. })));
    let mut writer = Writer::create(&space.path().join("c"), &[], &[]).unwrap();
    assert!(matches!(writer.tensor(&[]), Err(GgufError::Unplanned)));
    let crooked = TensorPlan { name: "x".into(), shape: vec![33], ty: BlockType::Q8_0 };
    assert!(Writer::create(&space.path().join("d"), &[], &[crooked]).is_err());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = sample();
    assert!(Header::parse(&file).is_ok());
    let last = Header::parse(&file).unwrap().tensors.last().unwrap().bytes.end;
    for length in 0..last {
        assert!(Header::parse(&file[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn huge_counts_are_refused_before_they_are_believed() {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(u64::MAX.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    assert!(matches!(Header::parse(&file), Err(GgufError::Limit { what: "tensors", .. })));
    for id in 0..13u32 {
        let mut file = head(&[("a".into(), Value::Array(Array::U8(vec![])))], &[]);
        let at = 4 + 4 + 8 + 8 + 8 + 1 + 4;
        file[at..at + 4].copy_from_slice(&id.to_le_bytes());
        for count in [1u64 << 24, u64::MAX, 1 << 23] {
            file[at + 4..at + 12].copy_from_slice(&count.to_le_bytes());
            assert!(Header::parse(&file).is_err(), "type {id}, count {count}");
        }
    }
}

#[test]
fn what_a_tensor_must_not_claim() {
    let refuse = |change: &dyn Fn(&mut Vec<u8>), plan: TensorPlan| {
        let mut file = head(&[], &[plan]);
        change(&mut file);
        file.resize(file.len() + 4096, 0);
        Header::parse(&file).unwrap_err().to_string()
    };
    let plan = || TensorPlan { name: "t".into(), shape: vec![32, 2], ty: BlockType::Q8_0 };
    // magic 4, version 4, counts 16, name 8 + 1: the number of dimensions is at 33, the shape at 37 and 45, the type at 53, the offset at 57.
    assert!(refuse(&|file| file[33] = 5, plan()).contains("dimensions"));
    assert!(refuse(&|file| file[37..45].fill(0xff), plan()).contains("impossible shape"));
    assert!(refuse(&|file| file[45..53].fill(0), plan()).contains("impossible shape"));
    assert!(refuse(&|file| file[37] = 33, plan()).contains("impossible shape"));
    assert!(refuse(&|file| file[53] = 23, plan()).contains("type 23"));
    assert!(refuse(&|file| file[57] = 32, plan()).contains("begins at 32, not at 0"));
    assert!(refuse(&|file| file[45] = 0xff, plan()).contains("ends within tensor `t`"));
}

#[test]
fn strangers_are_told_apart() {
    let said = |bytes: &[u8]| Header::parse(bytes).unwrap_err().to_string();
    assert_eq!(said(b""), "this is no GGUF file");
    assert_eq!(said(b"PK\x03\x04"), "this is no GGUF file");
    assert!(said(b"GGUF\x00\x00\x00\x03").contains("big-endian"));
    assert!(said(b"GGUF\x01\x00\x00\x00").contains("version 1"));
    let twice = [("a".to_string(), Value::U8(1)), ("a".to_string(), Value::U8(1))];
    assert!(said(&head(&twice, &[])).contains("twice"));
    let crooked = [("general.alignment".to_string(), Value::U32(24))];
    assert!(said(&head(&crooked, &[])).contains("alignment of 24"));
    let wide = [("general.alignment".to_string(), Value::U32(64))];
    assert!(Header::parse(&head(&wide, &[])).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Header::parse(&bytes);
        let mut behind = b"GGUF\x03\x00\x00\x00".to_vec();
        behind.extend(&bytes);
        let _ = Header::parse(&behind);
    }

    #[test]
    fn a_mangled_file_is_parsed_without_panic(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6)) {
        let mut file = sample();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(header) = Header::parse(&file) {
            prop_assert!(header.tensors.iter().all(|tensor| tensor.bytes.end <= file.len()));
        }
    }
}
