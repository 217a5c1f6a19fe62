//! Models written as GGUF files: what is read again is what was written, and the files are as llama.cpp's own package
//! makes them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use phyla_kernels::quant::Quant;
use phyla_models::checkpoint::Dtype;
use phyla_models::gguf::{Converted, FileType, Gguf, GgufOptions, convert, save_gguf};
use phyla_models::{Input, LoadError, LoadOptions, Mix, Model, Quantize, fresh, load, save};
use phyla_ops::{Weight, cpu};
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn write(from: &Path, to: &Path, kind: FileType) -> Result<Converted, LoadError> {
    convert(from, to, &GgufOptions::new(kind), &mut |_, _| {})
}

fn open(path: &Path, quantize: Option<Mix>) -> Model {
    let dtype = if quantize.is_some() { None } else { Some(DType::F32) };
    let options = LoadOptions { dtype, quantize: quantize.map(Quantize::Gguf), ..LoadOptions::default() };
    load(path, &options).unwrap_or_else(|error| panic!("{}: {error}", path.display())).0
}

fn values(model: &Model) -> BTreeMap<String, Vec<f32>> {
    let of = |weight: Weight| weight.to_f32().unwrap().flatten_all().unwrap().to_vec1().unwrap();
    model.params().iter().map(|param| (param.path().to_string(), of(param.weight()))).collect()
}

/// What a model makes of some ids: of its results this one.
fn output(model: &Model, time: usize, name: &str) -> Vec<f32> {
    let vocab = model.arch.vocab() as u32;
    let ids = (0..time as u32).map(|i| (i * 7 + 3) % vocab).collect();
    let input = Input { ids, batch: 1, time, ..Input::default() };
    let outputs = phyla_ops::no_grad(|| model.run(&input, false)).unwrap();
    let (_, output) = outputs.into_iter().find(|(found, _)| found == name).unwrap();
    output.data().flatten_all().unwrap().to_vec1().unwrap()
}

fn cases(family: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(golden().join(family)).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

const FAMILIES: [&str; 7] = ["bert", "deepseek_v2", "gpt2", "llama", "mistral", "qwen2", "qwen3"];

/// What the format cannot say, by the field that is named.
const REFUSED: &[(&str, &str)] = &[
    ("bert/answer", "span.weight"),
    ("bert/causal", "head.transform.dense.weight"),
    ("bert/causal_left", "head.transform.dense.weight"),
    ("bert/choose", "pooler.dense.weight"),
    ("bert/choose_no_mask", "pooler.dense.weight"),
    ("bert/classify", "pooler.dense.weight"),
    ("bert/classify_multi_label", "pooler.dense.weight"),
    ("bert/classify_two", "pooler.dense.weight"),
    ("bert/masked_lm", "head.transform.dense.weight"),
    ("bert/masked_lm_own_head", "head.transform.dense.weight"),
    ("bert/masked_lm_relu", "head.transform.dense.weight"),
    ("bert/masked_lm_tied_twice", "head.transform.dense.weight"),
    ("bert/model_holes_one_type", "hidden_act"),
    ("bert/model_left", "hidden_act"),
    ("bert/model_one_token", "hidden_act"),
    ("bert/next_sentence", "pooler.dense.weight"),
    ("bert/pretraining", "pooler.dense.weight"),
    ("bert/pretraining_old_names", "pooler.dense.weight"),
    ("bert/pretraining_own_head", "pooler.dense.weight"),
    ("bert/regress", "pooler.dense.weight"),
    ("bert/tag", "tags.weight"),
    ("deepseek_v2/biases", "attention_bias"),
    ("deepseek_v2/three_shared", "hidden_act"),
    ("deepseek_v2/yarn_mscales", "rope_parameters"),
    ("deepseek_v2/yarn_one_mscale", "rope_parameters"),
    ("deepseek_v2/yarn_plain", "rope_parameters"),
    ("gpt2/inverse_layer_scale", "scale_attn_by_inverse_layer_idx"),
    ("gpt2/inverse_layer_scale_only", "scale_attn_weights"),
    ("gpt2/n_inner_relu", "activation_function"),
    ("gpt2/one_token", "activation_function"),
    ("gpt2/own_head", "activation_function"),
    ("gpt2/packed", "activation_function"),
    ("gpt2/reorder_and_upcast", "scale_attn_by_inverse_layer_idx"),
    ("gpt2/unscaled_attention", "activation_function"),
    ("llama/dynamic_new_short", "rope_parameters"),
    ("llama/dynamic_old_long", "rope_theta"),
    ("llama/llama3_new", "hidden_act"),
    ("llama/longrope_attention_factor", "rope_parameters"),
    ("llama/longrope_long", "rope_parameters"),
    ("llama/longrope_short", "rope_parameters"),
    ("llama/longrope_top_level_original", "rope_theta"),
    ("llama/multi_query_head_dim", "hidden_act"),
    ("llama/one_token", "hidden_act"),
    ("llama/packed", "hidden_act"),
    ("llama/tied", "hidden_act"),
    ("llama/yarn_attention_factor", "rope_parameters"),
    ("llama/yarn_mscale", "rope_theta"),
    ("mistral/dynamic", "rope_parameters"),
    ("mistral/longrope", "rope_parameters"),
    ("mistral/one_token", "hidden_act"),
    ("mistral/uneven_head_dim", "hidden_size"),
    ("mistral/window_long", "hidden_act"),
    ("qwen2/dynamic_old", "rope_theta"),
    ("qwen2/head_dim", "hidden_act"),
    ("qwen2/kv_heads_null", "hidden_act"),
    ("qwen2/layer_types", "sliding_window"),
    ("qwen2/longrope", "rope_parameters"),
    ("qwen2/window_upper_layers", "use_sliding_window"),
    ("qwen3/dynamic", "rope_parameters"),
    ("qwen3/layer_types", "sliding_window"),
    ("qwen3/longrope", "rope_parameters"),
    ("qwen3/tied_eps", "hidden_act"),
    ("qwen3/window_upper_layers", "use_sliding_window"),
];

/// Every fixture: its file holds the same numbers and means the same, or is refused for a reason that is known here.
#[test]
fn what_is_written_is_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    let mut refused = vec![];
    for case in FAMILIES.iter().flat_map(|family| cases(family)) {
        let name = case.strip_prefix(golden()).unwrap().display().to_string();
        let written = match write(&case, &file, FileType::F32) {
            Ok(written) => written,
            Err(error) => {
                refused.push((name, error.to_string()));
                assert!(!file.exists());
                continue;
            }
        };
        let (ours, theirs) = (open(&file, None), open(&case, None));
        let mut expected = values(&theirs);
        expected.retain(|path, _| !path.starts_with("pooler."));
        assert_eq!(values(&ours), expected, "{name}");
        assert!(
            written
                .warnings
                .iter()
                .all(|warning| ["pooler", "window", "no head"].iter().any(|part| warning.contains(part))),
            "{name}"
        );
        let time = ours.arch.context.min(theirs.arch.context).min(12);
        let name_of = if theirs.arch.lm_head().is_some() { "logits" } else { "last_hidden_state" };
        let (a, b) = (output(&ours, time, name_of), output(&theirs, time, name_of));
        let largest = b.iter().fold(0f32, |most, x| most.max(x.abs()));
        // Factors of positions are rounded to f32 in the file.
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-5 * largest), "{name}");
        std::fs::remove_file(&file).unwrap();
    }
    for (name, message) in &refused {
        println!("{name}: {message}");
    }
    let refused: Vec<(&str, bool)> = refused
        .iter()
        .map(|(name, message)| {
            (name.as_str(), REFUSED.iter().any(|(known, part)| known == name && message.contains(part)))
        })
        .collect();
    assert_eq!(refused, REFUSED.iter().map(|(name, _)| (*name, true)).collect::<Vec<_>>());
}

/// Names, shapes, order of rows, numbers and keys are those that llama.cpp's own package wrote; see
/// `tests/golden/gguf_files.py`.
#[test]
fn files_are_as_the_reference_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, mut compared) = (folder.path().join("ours.gguf"), 0);
    for entry in std::fs::read_dir(golden().join("gguf")).unwrap() {
        let theirs = entry.unwrap().path();
        let name = theirs.file_stem().unwrap().to_string_lossy().to_string();
        let (family, case) = name.split_once('-').unwrap();
        let from = golden().join(family).join(case);
        // One of them has keys and values unfolded, as newer files do; ours never are.
        if !from.exists() || case == "query_rank" || write(&from, &ours, FileType::F32).is_err() {
            continue;
        }
        let (ours, theirs) = (Gguf::open(&ours).unwrap(), Gguf::open(&theirs).unwrap());
        let names = |gguf: &Gguf| gguf.names().map(String::from).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names(&ours), names(&theirs), "{name}");
        for tensor in names(&ours) {
            let (a, b) = (ours.tensor(&tensor).unwrap(), theirs.tensor(&tensor).unwrap());
            assert_eq!((&a.shape, a.to_f32().unwrap()), (&b.shape, b.to_f32().unwrap()), "{name}: {tensor}");
        }
        for key in theirs.keys().filter(|key| !key.starts_with("general.") && !key.starts_with("tokenizer.")) {
            if let Some(found) = ours.get(key) {
                assert_eq!(found.to_string(), theirs.get(key).unwrap().to_string(), "{name}: {key}");
            } else {
                // What is the usual value may be left out.
                assert!(["vocab_size", "token_type_count"].iter().any(|end| key.ends_with(end)), "{name}: no {key}");
            }
        }
        compared += 1;
    }
    assert!(compared >= 10, "{compared} files");
}

/// A model in a folder, whose rows are whole blocks of 256 but for one matrix with rows of 96 and one with rows of 16.
fn scene(family: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = match family {
        "gpt2" => {
            json!({"model_type": "gpt2", "vocab_size": 64, "n_embd": 256, "n_head": 4, "n_layer": 8, "n_inner": 96,
            "n_positions": 32})
        }
        _ => json!({"model_type": family, "vocab_size": 64, "hidden_size": 256, "intermediate_size": 96,
            "num_hidden_layers": 8, "num_attention_heads": 1, "head_dim": 16, "num_key_value_heads": 1,
            "max_position_embeddings": 32}),
    };
    let model = fresh(config.as_object().unwrap(), 9, &Device::Cpu).unwrap();
    save(&model, &folder.path().join("model"), DType::F32).unwrap();
    folder
}

#[test]
fn a_quantised_file_holds_what_loading_quantises() {
    for family in ["llama", "qwen2", "gpt2"] {
        let scene = scene(family);
        let (from, to) = (scene.path().join("model"), scene.path().join("model.gguf"));
        for mix in Mix::ALL {
            write(&from, &to, FileType::Mix(mix)).unwrap();
            let (file, loaded) = (open(&to, Some(mix)), open(&from, Some(mix)));
            for (a, b) in file.params().iter().zip(loaded.params()) {
                let (a, b, path) = (a.weight(), b.weight(), a.path());
                // Rows that no block divides stay f32 on loading, and are f16 in the file.
                if a.stored() == "f16" {
                    assert_eq!((b.stored(), a.dims()[1]), ("f32", 16), "{path}");
                    continue;
                }
                assert_eq!(a.stored(), b.stored(), "{path} in {mix:?}");
                let values =
                    |weight: &Weight| weight.to_f32().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(values(&a), values(&b), "{path} in {mix:?}");
            }
        }
    }
}

fn same_tensors(a: &Path, b: &Path) -> bool {
    let (a, b) = (Gguf::open(a).unwrap(), Gguf::open(b).unwrap());
    a.names().eq(b.names()) && a.names().all(|name| a.tensor(name).unwrap().bytes() == b.tensor(name).unwrap().bytes())
}

#[test]
fn a_model_in_memory_and_little_memory_give_the_same_file() {
    for family in ["llama", "gpt2"] {
        let scene = scene(family);
        let (from, to) = (scene.path().join("model"), scene.path().join("model.gguf"));
        let kind = FileType::Mix(Mix::Q4_K_M);
        write(&from, &to, kind).unwrap();
        let expected = std::fs::read(&to).unwrap();
        let mut last = (0, 0);
        let little = GgufOptions { memory: 1, ..GgufOptions::new(kind) };
        convert(&from, &to, &little, &mut |done, all| {
            assert!(last.0 < done && done <= all);
            last = (done, all);
        })
        .unwrap();
        assert_eq!(last.0, last.1);
        assert!(std::fs::read(&to).unwrap() == expected, "row by row");
        save_gguf(&open(&from, None), &to, &GgufOptions::new(kind), &mut |_, _| {}).unwrap();
        assert!(std::fs::read(&to).unwrap() == expected, "from memory");
        // A float is on the way to blocks only where it is exact.
        let between = scene.path().join("between.gguf");
        write(&from, &between, FileType::F32).unwrap();
        write(&between, &to, kind).unwrap();
        // Its keys are in another order.
        std::fs::write(&between, &expected).unwrap();
        assert!(same_tensors(&between, &to), "from a GGUF file");
    }
}

#[test]
fn what_was_quantised_before_is_told() {
    let scene = scene("qwen2");
    let (from, first, second) =
        (scene.path().join("model"), scene.path().join("first.gguf"), scene.path().join("second.gguf"));
    write(&from, &first, FileType::Mix(Mix::Q8_0)).unwrap();
    let done = write(&first, &second, FileType::Mix(Mix::Q4_0)).unwrap();
    assert!(done.warnings[0].contains("were in other blocks before"), "{:?}", done.warnings);
    let gguf = Gguf::open(&second).unwrap();
    assert_eq!(gguf.tensor("blk.0.attn_q.weight").unwrap().dtype, Dtype::Quant(Quant::Q4_0));
    assert_eq!((gguf.count("general.file_type").unwrap(), done.tensors["Q4_0"]), (Some(2), 49));
    // The same kind again changes nothing.
    let done = write(&first, &second, FileType::Mix(Mix::Q8_0)).unwrap();
    assert!(!done.warnings.iter().any(|warning| warning.contains("before")), "{:?}", done.warnings);
    assert!(same_tensors(&first, &second));
}

#[test]
fn numbers_that_do_not_fit_and_families_that_are_not_held_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model.gguf");
    let config = json!({"model_type": "llama", "vocab_size": 8, "hidden_size": 32, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8});
    for (number, kind, expected) in [
        (f32::NAN, FileType::F32, "row 3, column 7 is NaN"),
        (f32::NEG_INFINITY, FileType::Mix(Mix::Q8_0), "row 3, column 7 is -inf"),
        (-70_000., FileType::F16, "row 3, column 7 is -70000, beyond what f16 holds"),
    ] {
        let model = fresh(config.as_object().unwrap(), 9, &Device::Cpu).unwrap();
        let param = model.params().iter().find(|param| param.path().ends_with("mlp.up.weight")).unwrap();
        let mut values: Vec<f32> = param.weight().to_f32().unwrap().flatten_all().unwrap().to_vec1().unwrap();
        values[3 * 32 + 7] = number;
        param.set_weight(Weight::Dense(cpu::tensor(values, &[32usize, 32][..]).unwrap())).unwrap();
        let options = GgufOptions::new(kind);
        let message = save_gguf(&model, &to, &options, &mut |_, _| {}).unwrap_err().to_string();
        assert!(message.contains("decoder.layers.0.mlp.up.weight") && message.contains(expected), "{message}");
        save(&model, folder.path(), DType::F32).unwrap();
        let message = write(folder.path(), &to, kind).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let model = fresh(config.as_object().unwrap(), 9, &Device::Cpu).unwrap();
    save(&model, folder.path(), DType::F32).unwrap();
    let options = LoadOptions { quantize: Some(Quantize::Int8), ..LoadOptions::default() };
    let (model, _) = load(folder.path(), &options).unwrap();
    let message = save_gguf(&model, &to, &GgufOptions::new(FileType::F32), &mut |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("attn.q.weight: weights in int8 are rounded when a model is loaded"), "{message}");
    let message = write(&golden().join("mixtral/tied"), &to, FileType::F32).unwrap_err().to_string();
    assert!(message.starts_with("mixtral: GGUF files do not hold this family"), "{message}");
    assert!(!to.exists());
}

/// Which kind each tensor gets in each mixture is what llama.cpp's own tool answers; see `tests/golden/gguf_kinds.py`.
#[test]
fn mixtures_are_those_of_llama_cpp() {
    let text = std::fs::read_to_string(golden().join("gguf_kinds.json")).unwrap();
    let cases: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 5);
    for (case, answers) in &cases {
        let folder = tempfile::tempdir().unwrap();
        let model = fresh(answers["config"].as_object().unwrap(), 0, &Device::Cpu).unwrap();
        let file = folder.path().join("model.gguf");
        for mix in Mix::ALL {
            save_gguf(&model, &file, &GgufOptions::new(FileType::Mix(mix)), &mut |_, _| {}).unwrap();
            let kinds = answers["kinds"][mix.name()].as_object().unwrap();
            let usual = kinds.iter().find(|(_, names)| names.is_string()).unwrap().0;
            let gguf = Gguf::open(&file).unwrap();
            for name in gguf.names() {
                let named =
                    kinds.iter().find(|(_, names)| names.as_array().is_some_and(|names| names.contains(&json!(name))));
                let found = gguf.tensor(name).unwrap().dtype.as_str();
                assert!(
                    named.map_or(found == "F32" || found == usual, |(kind, _)| found == kind),
                    "{case}, {}: {name} is {found}, and llama.cpp's is {}",
                    mix.name(),
                    named.map_or(usual, |(kind, _)| kind)
                );
            }
        }
    }
}
