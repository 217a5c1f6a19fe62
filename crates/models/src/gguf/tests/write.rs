//! What is written is read again, and appears whole or not at all.

use phyla_kernels::quant::Quant;

use super::*;
use crate::checkpoint::TensorSpec;

fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: shape.to_vec() }
}

#[test]
fn reads_back_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let metadata = [
        ("general.architecture", Datum::Text("llama".into())),
        ("a.count", Datum::U32(7)),
        ("a.number", Datum::F32(0.25)),
        ("a.flag", Datum::Bool(true)),
        ("a.words", Datum::Texts(vec!["x".into(), "".into(), "zz".into()])),
        ("a.types", Datum::I32s(vec![1, -3])),
        ("a.scores", Datum::F32s(vec![0.5, -2.])),
    ]
    .map(|(key, datum)| (key.to_string(), datum));
    let values: Vec<f32> = (0..96).map(|i| (i as f32 - 40.) / 16.).collect();
    let specs: Vec<TensorSpec> = [Dtype::F32, Dtype::F16, Dtype::BF16]
        .into_iter()
        .chain(Quant::ALL.into_iter().filter(|kind| kind.block() == 32).map(Dtype::Quant))
        .map(|dtype| spec(dtype.as_str(), dtype, &[3, 32]))
        .chain([spec("vector", Dtype::F32, &[5])])
        .collect();
    let mut writer = GgufWriter::create(&path, &metadata, &specs).unwrap();
    // In another order than they lie in.
    for spec in specs.iter().rev() {
        writer.write(&spec.name, &values[..spec.shape.iter().product()]).unwrap();
    }
    assert!(!path.exists());
    assert_eq!(writer.finish().unwrap(), path);

    let gguf = Gguf::open(&path).unwrap();
    assert_eq!((gguf.count("a.count").unwrap(), gguf.number("a.number").unwrap()), (Some(7), Some(0.25)));
    let json = serde_json::Value::Object(gguf.json("a.").unwrap());
    assert_eq!(json["a.words"], serde_json::json!(["x", "", "zz"]));
    assert_eq!((&json["a.types"], &json["a.scores"]), (&serde_json::json!([1, -3]), &serde_json::json!([0.5, -2.])));
    for spec in &specs {
        let tensor = gguf.tensor(&spec.name).unwrap();
        assert_eq!((tensor.dtype, &tensor.shape), (spec.dtype, &spec.shape));
        let read = tensor.to_f32().unwrap();
        match spec.dtype {
            Dtype::Quant(kind) => {
                let (mut blocks, mut expected) = (vec![0; 3 * kind.bytes()], vec![0f32; 96]);
                kind.quantize(&values, &mut blocks);
                kind.dequantize(&blocks, &mut expected);
                assert_eq!((tensor.bytes(), read), (blocks.as_slice(), expected), "{}", spec.name);
            }
            _ => assert_eq!(read, values[..read.len()], "exact in every float"),
        }
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len() % 32, 0);
}

#[test]
fn what_cannot_be_written_is_named_and_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let create = |specs: &[TensorSpec]| GgufWriter::create(&path, &[], specs).map_err(|error| error.to_string());
    let q8 = Dtype::Quant(Quant::Q8_0);
    for (specs, expected) in [
        (vec![spec("a", q8, &[2, 33])], "rows of 33 are not whole blocks of 32 (Q8_0)"),
        (vec![spec("a", Dtype::F32, &[1; 5])], "at most 4 axes, not 5"),
        (vec![spec("a", Dtype::U8, &[1])], "no type U8"),
        (vec![spec("a", Dtype::F32, &[usize::MAX, 2])], "its shape overflows"),
        (vec![spec("a", Dtype::F32, &[1]), spec("a", Dtype::F32, &[1])], "announced twice"),
    ] {
        let error = create(&specs).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let mut writer = create(&[spec("a", Dtype::F32, &[2]), spec("b", q8, &[1, 32])]).unwrap();
    assert!(writer.write("c", &[]).unwrap_err().to_string().contains("not announced"));
    assert!(writer.write("a", &[1.]).unwrap_err().to_string().contains("takes 2 numbers, and 1 are given"));
    assert!(writer.write_bytes("b", &[0; 33]).unwrap_err().to_string().contains("takes 34 bytes, and 33 are given"));
    drop(writer);
    let writer = create(&[spec("a", Dtype::F32, &[2])]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("never written"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
