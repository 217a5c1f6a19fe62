//! Reading: what is accepted equals what the reference crate reads, and what is refused says why.
#![expect(clippy::unwrap_used, reason = "tests")]

mod faults;
mod hostile;
mod writing;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView as Reference;

use super::*;

/// A file as the reference crate writes it.
fn reference_file(path: &Path, tensors: &[(&str, safetensors::Dtype, Vec<usize>, Vec<u8>)]) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, Reference::new(*dtype, shape.clone(), bytes).unwrap()));
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
}

/// A file from a header's text and its data.
fn raw_file(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn refusal(path: impl AsRef<Path>) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

#[test]
fn reads_what_the_reference_crate_writes() {
    let folder = tempfile::tempdir().unwrap();
    let values = [1.5f32, -2.25, 0.0, 3.0e-40, 65504.0, f32::MAX];
    let as_bf16 = values.map(bf16::from_f32);
    let as_f16 = values.map(f16::from_f32);
    reference_file(
        &folder.path().join("model.safetensors"),
        &[
            ("a", safetensors::Dtype::F32, vec![2, 3], f32_bytes(&values)),
            ("b", safetensors::Dtype::BF16, vec![6], as_bf16.iter().flat_map(|v| v.to_le_bytes()).collect()),
            ("c", safetensors::Dtype::F16, vec![3, 2], as_f16.iter().flat_map(|v| v.to_le_bytes()).collect()),
            ("d", safetensors::Dtype::I64, vec![], (-7i64).to_le_bytes().to_vec()),
            ("e", safetensors::Dtype::U8, vec![0, 4], vec![]),
        ],
    );
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
    assert_eq!(checkpoint.metadata()["format"], "pt");
    assert_eq!(checkpoint.total_bytes(), 24 + 12 + 12 + 8);
    let a = checkpoint.get("a").unwrap();
    assert_eq!((a.dtype, a.shape.as_slice(), a.elements()), (Dtype::F32, &[2, 3][..], 6));
    assert_eq!(a.to_f32().unwrap(), values);
    assert_eq!(a.as_f32().unwrap(), values);
    assert!(a.as_bf16().is_none());
    let b = checkpoint.get("b").unwrap();
    assert_eq!(b.as_bf16().unwrap(), as_bf16);
    assert_eq!(b.to_f32().unwrap(), as_bf16.map(f32::from));
    let c = checkpoint.get("c").unwrap();
    assert_eq!(c.as_f16().unwrap(), as_f16);
    assert_eq!(c.to_f32().unwrap(), as_f16.map(f32::from));
    let d = checkpoint.get("d").unwrap();
    assert_eq!((d.elements(), d.to_i64().unwrap(), d.to_f32().unwrap()), (1, vec![-7], vec![-7.0]));
    let e = checkpoint.get("e").unwrap();
    assert_eq!((e.elements(), e.to_f32().unwrap().len()), (0, 0));
    // The map outlives the checkpoint, as weights used in place need it.
    drop(checkpoint);
    assert_eq!(a.as_f32().unwrap(), values);
}

#[test]
fn shards_are_found_through_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let dtype = safetensors::Dtype::F32;
    reference_file(&folder.path().join("x-1.safetensors"), &[("a", dtype, vec![1], f32_bytes(&[1.0]))]);
    reference_file(&folder.path().join("x-2.safetensors"), &[("b", dtype, vec![2], f32_bytes(&[2.0, 3.0]))]);
    let index = folder.path().join("model.safetensors.index.json");
    let map = r#"{"metadata": {"total_size": 12}, "weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}"#;
    fs::write(&index, map).unwrap();
    for path in [folder.path(), &index] {
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(checkpoint.get("b").unwrap().to_f32().unwrap(), [2.0, 3.0]);
    }
    // A tensor that its shard lacks, a shard that is not there, a tensor in two shards.
    fs::write(&index, r#"{"weight_map": {"a": "x-1.safetensors", "c": "x-2.safetensors"}}"#).unwrap();
    assert!(refusal(folder.path()).contains("tensor `c` is not in its shard `x-2.safetensors`"));
    fs::write(&index, r#"{"weight_map": {"a": "x-3.safetensors"}}"#).unwrap();
    assert!(refusal(folder.path()).contains("its shard `x-3.safetensors` is missing"));
    reference_file(&folder.path().join("x-2.safetensors"), &[("a", dtype, vec![1], f32_bytes(&[1.0]))]);
    fs::write(&index, r#"{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}"#).unwrap();
    assert!(refusal(folder.path()).contains("tensor `a` is in an earlier shard too"));
}

#[test]
fn a_missing_tensor_names_its_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.safetensors");
    let one = |name| (name, safetensors::Dtype::U8, vec![1], vec![0]);
    reference_file(&path, &[one("model.layers.0.self_attn.q_proj.weight"), one("lm_head.weight")]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let message = checkpoint.get("model.layers.0.self_atn.q_proj.weight").unwrap_err().to_string();
    assert!(message.contains("did you mean `model.layers.0.self_attn.q_proj.weight`?"), "{message}");
    let message = checkpoint.get("zzz").unwrap_err().to_string();
    assert!(message.starts_with("no tensor `zzz` in `") && message.ends_with("`"), "{message}");
}

#[test]
fn every_number_type_converts() {
    let folder = tempfile::tempdir().unwrap();
    let types = [
        ("U8", vec![200]),
        ("I8", vec![0xff]),
        ("BOOL", vec![1]),
        ("U16", 60000u16.to_le_bytes().to_vec()),
        ("I16", (-5i16).to_le_bytes().to_vec()),
        ("U32", 7u32.to_le_bytes().to_vec()),
        ("I32", (-7i32).to_le_bytes().to_vec()),
        ("U64", 9u64.to_le_bytes().to_vec()),
        ("F64", 0.1f64.to_le_bytes().to_vec()),
        ("F8_E4M3", vec![0x38]),
    ];
    let expected = [200.0, -1.0, 1.0, 60000.0, -5.0, 7.0, -7.0, 9.0, 0.1];
    for (i, (dtype, bytes)) in types.into_iter().enumerate() {
        let path = folder.path().join(format!("{dtype}.safetensors"));
        let json = format!(r#"{{"x":{{"dtype":"{dtype}","shape":[],"data_offsets":[0,{}]}}}}"#, bytes.len());
        fs::write(&path, raw_file(&json, &bytes)).unwrap();
        let tensor = Checkpoint::open(path).unwrap().get("x").unwrap();
        match expected.get(i) {
            Some(expected) => assert_eq!(tensor.to_f32().unwrap(), [*expected], "{dtype}"),
            None => assert!(tensor.to_f32().unwrap_err().to_string().contains("cannot be read as f32")),
        }
    }
}

#[test]
fn values_that_are_not_aligned_are_converted_and_never_used_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.safetensors");
    // One byte in front puts the f32 and the bf16 off their alignment, wherever the header ends.
    let json = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},"c":{"dtype":"BF16","shape":[1],"data_offsets":[5,7]}}"#;
    let padded = format!("{json:<200}");
    let data = [&[9][..], &1.25f32.to_le_bytes(), &bf16::from_f32(-3.5).to_le_bytes()].concat();
    fs::write(&path, raw_file(&padded, &data)).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (b, c) = (checkpoint.get("b").unwrap(), checkpoint.get("c").unwrap());
    assert!(b.as_f32().is_none() && c.as_bf16().is_none());
    assert_eq!((b.to_f32().unwrap(), c.to_f32().unwrap()), (vec![1.25], vec![-3.5]));
}

#[test]
fn long_tensors_convert_the_same_over_many_threads() {
    let folder = tempfile::tempdir().unwrap();
    let values = (0..700_001).map(|i| bf16::from_f32(i as f32)).collect::<Vec<_>>();
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let path = folder.path().join("long.safetensors");
    reference_file(&path, &[("x", safetensors::Dtype::BF16, vec![values.len()], bytes)]);
    let read = Checkpoint::open(&path).unwrap().get("x").unwrap().to_f32().unwrap();
    assert!(read.iter().zip(&values).all(|(a, b)| *a == b.to_f32()) && read.len() == values.len());
}

#[test]
fn the_report_counts_and_orders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let one = |name, dtype, bytes| (name, dtype, vec![1], vec![0; bytes]);
    let (f32, bf16) = (safetensors::Dtype::F32, safetensors::Dtype::BF16);
    reference_file(&path, &[one("l.10.w", f32, 4), one("l.2.w", bf16, 2), one("l.2.b", bf16, 2)]);
    let report = Checkpoint::open(&path).unwrap().report();
    assert_eq!((report.parameters, report.bytes), (3, 8));
    assert_eq!(report.bytes_by_dtype, BTreeMap::from([("F32", 4), ("BF16", 4)]));
    let names = report.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["l.2.b", "l.2.w", "l.10.w"]);
}

#[test]
fn reads_a_published_checkpoint() {
    let data = std::env::var("PHYLA_SHARED_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").into());
    let folder = Path::new(&data).join("weights_tiny_random_hf/tiny_bert");
    if !folder.is_dir() {
        println!("skipped: no {}", folder.display());
        return;
    }
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert!(checkpoint.names().len() > 10);
    for name in checkpoint.names() {
        let tensor = checkpoint.get(name).unwrap();
        let values = tensor.to_f32().unwrap();
        assert!(values.len() == tensor.elements() && values.iter().all(|v| v.is_finite()), "{name}");
    }
}
