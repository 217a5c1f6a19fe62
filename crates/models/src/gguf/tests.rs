//! GGUF files, made by hand and by llama.cpp's own package.
#![expect(clippy::unwrap_used, reason = "tests")]

mod config;
mod convert;
mod hostile;
mod write;

use super::header::{self, MAGIC};
use super::*;
use crate::checkpoint::{Checkpoint, Dtype};

/// A string as the format has it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A metadata pair: key, type and the value's bytes.
fn pair(key: &str, kind: Kind, value: &[u8]) -> Vec<u8> {
    [text(key), kind.id().to_le_bytes().to_vec(), value.to_vec()].concat()
}

/// A list of `len` values.
fn list(key: &str, of: Kind, len: u64, values: &[u8]) -> Vec<u8> {
    pair(key, Kind::List, &[of.id().to_le_bytes().as_slice(), &len.to_le_bytes(), values].concat())
}

/// A tensor's line.
fn tensor(name: &str, axes: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let axes =
        [(axes.len() as u32).to_le_bytes().to_vec(), axes.iter().flat_map(|n| n.to_le_bytes()).collect()].concat();
    [text(name), axes, kind.to_le_bytes().to_vec(), offset.to_le_bytes().to_vec()].concat()
}

/// A file of these pairs and tensors, with so many bytes of data that count upwards.
fn file(pairs: &[Vec<u8>], tensors: &[Vec<u8>], align: usize, data: usize) -> Vec<u8> {
    let counts = [(tensors.len() as u64).to_le_bytes(), (pairs.len() as u64).to_le_bytes()].concat();
    let mut file = [MAGIC.as_slice(), &3u32.to_le_bytes(), &counts, &pairs.concat(), &tensors.concat()].concat();
    file.resize(file.len().next_multiple_of(align), 0);
    file.extend((0..data).map(|i| i as u8));
    file
}

/// One of each type of values, three tensors and an alignment of its own.
fn good() -> Vec<u8> {
    let pairs = [
        pair("general.architecture", Kind::Text, &text("llama")),
        pair("general.alignment", Kind::U32, &64u32.to_le_bytes()),
        pair("a.u8", Kind::U8, &[200]),
        pair("a.i8", Kind::I8, &[200]),
        pair("a.u16", Kind::U16, &60_000u16.to_le_bytes()),
        pair("a.i16", Kind::I16, &(-2i16).to_le_bytes()),
        pair("a.i32", Kind::I32, &(-3i32).to_le_bytes()),
        pair("a.f32", Kind::F32, &1e-6f32.to_le_bytes()),
        pair("a.bool", Kind::Bool, &[1]),
        pair("a.u64", Kind::U64, &u64::MAX.to_le_bytes()),
        pair("a.i64", Kind::I64, &i64::MIN.to_le_bytes()),
        pair("a.f64", Kind::F64, &0.1f64.to_le_bytes()),
        list("a.words", Kind::Text, 3, &[text("one"), text(""), text("drei")].concat()),
        list("a.numbers", Kind::I32, 2, &[1i32.to_le_bytes(), (-1i32).to_le_bytes()].concat()),
    ];
    let tensors = [tensor("b", &[3, 2], 0, 64), tensor("a.weight", &[4], 30, 0), tensor("q", &[32, 2], 8, 128)];
    file(&pairs, &tensors, 64, 128 + 68)
}

#[test]
fn reads_every_type_of_value_and_finds_the_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.gguf");
    std::fs::write(&path, good()).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!((gguf.version(), gguf.alignment()), (3, 64));
    assert_eq!(gguf.text("general.architecture").unwrap(), Some("llama"));
    assert_eq!((gguf.count("a.u8").unwrap(), gguf.number("a.i8").unwrap()), (Some(200), Some(-56.)));
    assert_eq!((gguf.count("a.u16").unwrap(), gguf.number("a.i16").unwrap()), (Some(60_000), Some(-2.)));
    assert_eq!(gguf.get("a.i64"), Some(Value::Signed(i64::MIN)));
    assert_eq!(gguf.count("a.u64").unwrap(), Some(u64::MAX));
    assert_eq!((gguf.number("a.f32").unwrap(), gguf.number("a.f64").unwrap()), (Some(1e-6), Some(0.1)));
    assert_eq!((gguf.flag("a.bool").unwrap(), gguf.flag("none").unwrap()), (Some(true), None));
    let words: Vec<Value> = gguf.list("a.words").unwrap().unwrap().iter().collect();
    assert_eq!(words, [Value::Text("one"), Value::Text(""), Value::Text("drei")]);
    let json = serde_json::Value::Object(gguf.json("a.n").unwrap());
    assert_eq!(json, serde_json::json!({"a.numbers": [1, -1]}));
    let error = gguf.count("a.i32").unwrap_err().to_string();
    assert!(error.ends_with("a.i32: expected a whole number of at least 0, found -3"), "{error}");
    let error = gguf.need("a.word", gguf.list("a.word")).unwrap_err().to_string();
    assert!(error.ends_with("has no a.word in its metadata; the nearest are a.words"), "{error}");

    assert_eq!(gguf.names().collect::<Vec<_>>(), ["b", "a.weight", "q"]);
    let b = gguf.tensor("b").unwrap();
    assert_eq!((b.dtype, b.shape.as_slice(), b.bytes()[0]), (Dtype::F32, [2, 3].as_slice(), 64));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let q = checkpoint.get("q").unwrap();
    assert_eq!(
        (q.dtype.as_str(), q.shape.as_slice(), q.bytes()[0], q.bytes().len()),
        ("Q8_0", [2, 32].as_slice(), 128, 68)
    );
    let report = checkpoint.report();
    assert_eq!((report.parameters, report.bytes), (6 + 4 + 64, 24 + 8 + 68));
}
