//! What the writer saves is what the reference crate, and this one, read back.

use std::fs;
use std::path::Path;

use half::{bf16, f16};

use super::super::{Checkpoint, Dtype, MAX_SHARD_BYTES, SafetensorsWriter, TensorSpec, Values, atomic_write};

fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: shape.to_vec() }
}

/// A checkpoint of `tensors` f32 tensors of four elements, all equal to `value`.
pub(super) fn save(folder: &Path, tensors: usize, value: f32, max_shard: u64) -> Result<(), super::CheckpointError> {
    let specs = (0..tensors).map(|i| spec(&format!("t{i}"), Dtype::F32, &[4])).collect::<Vec<_>>();
    let mut writer = SafetensorsWriter::create(folder, &specs, max_shard)?;
    for spec in &specs {
        writer.write(&spec.name, Values::F32(&[value; 4]))?;
    }
    writer.finish().map(|_| ())
}

/// The one value of a checkpoint that `save` wrote; fails if it is mixed or incomplete.
pub(super) fn value_of(folder: &Path, tensors: usize) -> f32 {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let values = checkpoint.names().flat_map(|name| checkpoint.get(name).unwrap().to_f32().unwrap());
    let values = values.collect::<Vec<_>>();
    assert_eq!(values.len(), 4 * tensors);
    assert!(values.iter().all(|v| *v == values[0]), "a mixture: {values:?}");
    values[0]
}

pub(super) fn listing(folder: &Path) -> Vec<String> {
    let mut names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn one_file_with_every_conversion() {
    let folder = tempfile::tempdir().unwrap();
    let values = [1.0f32, 1.0039, -3.3, 1e-3, 70000.0, 0.0];
    let half = values.map(bf16::from_f32);
    let specs = [
        spec("i", Dtype::U8, &[3]),
        spec("n", Dtype::BF16, &[6]),
        spec("f", Dtype::F32, &[2, 3]),
        spec("h", Dtype::F16, &[6]),
        spec("w", Dtype::F32, &[6]),
        spec("s", Dtype::F32, &[]),
    ];
    let mut writer = SafetensorsWriter::create(folder.path(), &specs, MAX_SHARD_BYTES).unwrap();
    // Any order, whole or in parts.
    writer.write("w", Values::Bf16(&half)).unwrap();
    writer.write("n", Values::F32(&values)).unwrap();
    writer.write_parts("f", [Values::F32(&values[..2]), Values::F32(&values[2..])]).unwrap();
    writer.write("h", Values::F32(&values)).unwrap();
    writer.write("i", Values::Bytes(&[7, 8, 9])).unwrap();
    writer.write("s", Values::F16(&[f16::from_f32(0.5)])).unwrap();
    let files = writer.finish().unwrap();
    assert_eq!(files, [folder.path().join("model.safetensors")]);
    assert_eq!(listing(folder.path()), ["model.safetensors"]);

    let bytes = fs::read(&files[0]).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.len(), 6);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    for spec in &specs {
        let (theirs, ours) = (reference.tensor(&spec.name).unwrap(), checkpoint.get(&spec.name).unwrap());
        assert_eq!((theirs.shape(), theirs.data()), (ours.shape.as_slice(), ours.bytes()));
        assert_eq!((&ours.shape, ours.dtype), (&spec.shape, spec.dtype));
    }
    let read = |name| checkpoint.get(name).unwrap().to_f32().unwrap();
    assert_eq!((read("f"), read("s"), read("i")), (values.to_vec(), vec![0.5], vec![7.0, 8.0, 9.0]));
    assert_eq!(read("n"), half.map(f32::from));
    assert_eq!(read("w"), half.map(f32::from));
    assert_eq!(read("h"), values.map(|v| f16::from_f32(v).to_f32()));
    // Everything can be used in place, whatever the order of announcement.
    assert!(checkpoint.get("w").unwrap().as_f32().is_some() && checkpoint.get("n").unwrap().as_bf16().is_some());
    assert_eq!(checkpoint.metadata()["format"], "pt");
}

#[test]
fn shards_fill_up_to_the_limit_and_replace_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let shards = |tag: &str| {
        let name = |i| format!("model{tag}-0000{i}-of-00003.safetensors");
        vec![name(1), name(2), name(3), "model.safetensors.index.json".to_string()]
    };
    // 16 bytes each, two in a shard.
    save(path, 5, 1.0, 40).unwrap();
    assert_eq!(listing(path).len(), 4);
    assert!(shards("").iter().all(|name| path.join(name).exists()), "{:?}", listing(path));
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("model.safetensors.index.json")).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 80);
    assert_eq!(index["weight_map"]["t4"], "model-00003-of-00003.safetensors");
    // Over itself: new names, so that the old index stays true to the last; then back.
    save(path, 5, 2.0, 40).unwrap();
    assert_eq!((listing(path).len(), value_of(path, 5)), (4, 2.0));
    assert!(shards("-r2").iter().all(|name| path.join(name).exists()), "{:?}", listing(path));
    save(path, 5, 3.0, 40).unwrap();
    assert!(shards("").iter().all(|name| path.join(name).exists()), "{:?}", listing(path));
    // To a single file and back.
    save(path, 5, 4.0, MAX_SHARD_BYTES).unwrap();
    assert_eq!((listing(path), value_of(path, 5)), (vec!["model.safetensors".to_string()], 4.0));
    save(path, 5, 5.0, 40).unwrap();
    assert_eq!((listing(path).len(), value_of(path, 5)), (4, 5.0));
    // A tensor above the limit stands alone; no tensors at all make a valid file.
    save(path, 2, 6.0, 1).unwrap();
    assert_eq!((listing(path).len(), value_of(path, 2)), (3, 6.0));
    save(path, 0, 0.0, 1).unwrap();
    assert_eq!(Checkpoint::open(path).unwrap().names().len(), 0);
}

#[test]
fn a_large_tensor_passes_in_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let values = (0..600_001).map(|i| i as f32 * 0.37).collect::<Vec<_>>();
    let mut writer =
        SafetensorsWriter::create(folder.path(), &[spec("x", Dtype::BF16, &[values.len()])], 1 << 40).unwrap();
    writer.write("x", Values::F32(&values)).unwrap();
    writer.finish().unwrap();
    let tensor = Checkpoint::open(folder.path()).unwrap().get("x").unwrap();
    assert!(tensor.as_bf16().unwrap().iter().zip(&values).all(|(a, b)| *a == bf16::from_f32(*b)));
}

#[test]
fn misuse_is_named_and_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let create = |specs: &[TensorSpec]| SafetensorsWriter::create(path, specs, MAX_SHARD_BYTES);
    let a = || spec("a", Dtype::F32, &[2]);
    assert!(create(&[a(), a()]).unwrap_err().to_string().contains("announced twice"));
    let huge = spec("h", Dtype::F32, &[1 << 40, 1 << 40]);
    assert!(create(&[huge]).unwrap_err().to_string().contains("overflows"));
    assert!(create(&[spec("__metadata__", Dtype::U8, &[])]).is_err());
    let mut writer = create(&[a(), spec("i", Dtype::I64, &[1])]).unwrap();
    let mut error = |name, values| writer.write(name, values).unwrap_err().to_string();
    assert!(error("b", Values::F32(&[])).contains("not announced"));
    assert!(error("a", Values::F32(&[1.0])).contains("takes 8 bytes, and 4 are given"));
    assert!(error("a", Values::F32(&[1.0; 3])).contains("and more are given"));
    assert!(error("i", Values::F32(&[1.0])).contains("announced as I64"));
    writer.write("a", Values::F32(&[1.0, 2.0])).unwrap();
    assert!(writer.write("a", Values::F32(&[1.0, 2.0])).unwrap_err().to_string().contains("already written"));
    assert!(writer.finish().unwrap_err().to_string().contains("never written"));
    assert!(listing(path).is_empty(), "{:?}", listing(path));
}

#[test]
fn a_small_file_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    atomic_write(&path, b"one").unwrap();
    atomic_write(&path, b"two").unwrap();
    assert_eq!((fs::read(&path).unwrap(), listing(folder.path())), (b"two".to_vec(), vec!["config.json".to_string()]));
    let message = atomic_write(folder.path().join("none/config.json"), b"").unwrap_err().to_string();
    assert!(message.starts_with("cannot create `") && message.contains("none"), "{message}");
    assert!(atomic_write("..", b"").is_err());
}

#[test]
fn the_old_weights_stay_readable_while_mapped() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), 2, 1.0, MAX_SHARD_BYTES).unwrap();
    let old = Checkpoint::open(folder.path()).unwrap().get("t0").unwrap();
    save(folder.path(), 2, 2.0, MAX_SHARD_BYTES).unwrap();
    assert_eq!(old.as_f32().unwrap(), [1.0; 4]);
}

#[test]
fn a_file_alone_leaves_the_weights_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), 4, 1.0, 32).unwrap();
    let before = listing(folder.path());
    let path = folder.path().join("new/out.safetensors");
    for value in [2.0, 3.0] {
        let mut writer = SafetensorsWriter::create_file(&path, &[spec("t0", Dtype::F32, &[4])]).unwrap();
        writer.write("t0", Values::F32(&[value; 4])).unwrap();
        assert_eq!(writer.finish().unwrap(), std::slice::from_ref(&path));
        assert_eq!(Checkpoint::open(&path).unwrap().get("t0").unwrap().to_f32().unwrap(), [value; 4]);
    }
    let beside = folder.path().join("out.safetensors");
    SafetensorsWriter::create_file(&beside, &[]).unwrap().finish().unwrap();
    fs::remove_file(&beside).unwrap();
    fs::remove_dir_all(folder.path().join("new")).unwrap();
    assert_eq!(listing(folder.path()), before);
    assert!(SafetensorsWriter::create_file(folder.path(), &[]).is_err(), "a folder");
}
