//! Reading: what is accepted equals what the reference crate reads, and what is refused says why.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView as Reference;

use super::*;

/// A file as the reference crate writes it.
fn reference_file(path: &Path, tensors: &[(&str, safetensors::Dtype, Vec<usize>, Vec<u8>)]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, Reference::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
}

/// A file from a header's text and its data.
fn raw_file(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
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
            (
                "b",
                safetensors::Dtype::BF16,
                vec![6],
                as_bf16.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
            (
                "c",
                safetensors::Dtype::F16,
                vec![3, 2],
                as_f16.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
            (
                "d",
                safetensors::Dtype::I64,
                vec![],
                (-7i64).to_le_bytes().to_vec(),
            ),
            ("e", safetensors::Dtype::U8, vec![0, 4], vec![]),
        ],
    );
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(
        checkpoint.names().collect::<Vec<_>>(),
        ["a", "b", "c", "d", "e"]
    );
    assert_eq!(checkpoint.metadata()["format"], "pt");
    assert_eq!(checkpoint.total_bytes(), 24 + 12 + 12 + 8);
    let a = checkpoint.get("a").unwrap();
    assert_eq!(
        (a.dtype, a.shape.as_slice(), a.elements()),
        (Dtype::F32, &[2, 3][..], 6)
    );
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
    assert_eq!(
        (d.elements(), d.to_i64().unwrap(), d.to_f32().unwrap()),
        (1, vec![-7], vec![-7.0])
    );
    let e = checkpoint.get("e").unwrap();
    assert_eq!((e.elements(), e.to_f32().unwrap().len()), (0, 0));
    // The map outlives the checkpoint, as weights used in place need it.
    drop(checkpoint);
    assert_eq!(a.as_f32().unwrap(), values);
}
