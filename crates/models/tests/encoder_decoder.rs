//! What is particular to encoder-decoders and has no fixture: names of gated layers, buffers that a file lacks, heads that
//! the configuration misjudges, fresh weights, refusals.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use candle_core::{DType, Device};
use phyla_models::checkpoint::{Checkpoint, Dtype, SafetensorsWriter, TensorSpec, Values};
use phyla_models::{Input, LoadOptions, Model, fresh, load, registry, save};
use phyla_ops::Param;
use serde_json::{Map, Value, json};

fn config(fields: Value) -> Map<String, Value> {
    fields.as_object().unwrap().clone()
}

fn small_t5(more: Value) -> Map<String, Value> {
    let mut fields = config(json!({"model_type": "t5", "vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 64,
        "num_layers": 1, "num_heads": 4, "decoder_start_token_id": 0}));
    fields.extend(config(more));
    fields
}

fn saved(model: &Model) -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    save(model, folder.path(), DType::F32).unwrap();
    let names = Checkpoint::open(folder.path()).unwrap().names().map(str::to_string).collect();
    (folder, names)
}

fn results(model: &Model) -> Vec<(String, Vec<f32>)> {
    let mut input = Input::row(&[7, 3, 9, 1]);
    if model.arch.source().is_some() && model.arch.shift.is_none() {
        input.decoder = Some(Box::new(Input::row(&[0, 5, 6])));
    }
    let all = model.run(&input, false).unwrap();
    all.into_iter().map(|(name, y)| (name, y.data().flatten_all().unwrap().to_vec1().unwrap())).collect()
}

/// A copy of a fixture without one of its tensors.
fn without(case: &str, tensor: &str) -> tempfile::TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case);
    let (folder, checkpoint) = (tempfile::tempdir().unwrap(), Checkpoint::open(&from).unwrap());
    assert!(checkpoint.contains(tensor), "{case} has no {tensor}");
    let kept: Vec<&str> = checkpoint.names().filter(|name| *name != tensor).collect();
    let spec = |name: &&str| TensorSpec {
        name: name.to_string(),
        dtype: Dtype::F32,
        shape: checkpoint.get(name).unwrap().shape,
    };
    let specs: Vec<TensorSpec> = kept.iter().map(spec).collect();
    let mut writer = SafetensorsWriter::create(folder.path(), &specs, u64::MAX).unwrap();
    for name in kept {
        writer.write(name, Values::F32(&checkpoint.get(name).unwrap().to_f32().unwrap())).unwrap();
    }
    writer.finish().unwrap();
    std::fs::copy(from.join("config.json"), folder.path().join("config.json")).unwrap();
    folder
}

#[test]
fn gated_layers_are_saved_under_their_own_names() {
    for (stated, there, not_there) in [("gated-gelu", "wi_1", "wi"), ("relu", "wi", "wi_1")] {
        let model = fresh(&small_t5(json!({"feed_forward_proj": stated})), 1, &Device::Cpu).unwrap();
        let (folder, names) = saved(&model);
        let name = |map: &str| format!("decoder.block.0.layer.2.DenseReluDense.{map}.weight");
        assert!(names.contains(&name(there)) && !names.contains(&name(not_there)), "{stated}: {names:?}");
        let (again, report) = load(folder.path(), &LoadOptions::default()).unwrap();
        assert!(report.unused.is_empty(), "{:?}", report.unused);
        assert_eq!(results(&model), results(&again), "{stated}");
        // The names without a checkpoint are the same.
        let survey = phyla_models::survey(&model.config, None).unwrap();
        assert!(survey.slots.iter().any(|slot| slot.place.tensor.ends_with(&format!("{there}.weight"))), "{stated}");
        assert!(
            !survey.slots.iter().any(|slot| slot.place.tensor.ends_with(&format!(".{not_there}.weight"))),
            "{stated}"
        );
    }
}

#[test]
fn only_classifiers_keep_the_body_under_a_prefix() {
    for (head, prefixed) in [
        ("T5ForConditionalGeneration", false),
        ("T5EncoderModel", false),
        ("T5ForQuestionAnswering", false),
        ("T5ForSequenceClassification", true),
        ("T5ForTokenClassification", true),
    ] {
        let fields = small_t5(json!({"architectures": [head], "num_labels": 3}));
        let model = fresh(&fields, 1, &Device::Cpu).unwrap();
        let (folder, names) = saved(&model);
        assert_eq!(names.iter().any(|name| name == "transformer.shared.weight"), prefixed, "{head}: {names:?}");
        assert_eq!(names.iter().any(|name| name == "shared.weight"), !prefixed, "{head}");
        let (again, _) = load(folder.path(), &LoadOptions::default()).unwrap();
        assert_eq!(results(&model), results(&again), "{head}");
    }
}

#[test]
fn a_head_of_its_own_stays_scaled_as_it_was() {
    // A file whose head differs from the table, although nothing in its configuration says so: scaled, and untied.
    let tied = fresh(&small_t5(json!({})), 1, &Device::Cpu).unwrap();
    let own = fresh(&small_t5(json!({"tie_word_embeddings": false, "scale_decoder_outputs": true})), 1, &Device::Cpu);
    let (folder, _) = saved(&own.unwrap());
    let plain = Value::Object(tied.config.clone()).to_string();
    std::fs::write(folder.path().join("config.json"), plain).unwrap();
    let (model, report) = load(folder.path(), &LoadOptions::default()).unwrap();
    assert!(!model.arch.tied() && report.warnings.iter().any(|w| w.contains("untied")), "{:?}", report.warnings);
    let (folder, _) = saved(&model);
    let (again, _) = load(folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(results(&model), results(&again));
}

#[test]
fn a_bias_that_nobody_stored_is_zero() {
    let folder = without("bart/generate", "final_logits_bias");
    let (model, _) = load(folder.path(), &LoadOptions::default()).unwrap();
    let bias = model.params().iter().find(|param| param.path() == "head.tied_bias").unwrap();
    assert!(model.is_fixed(bias), "a buffer is not trained");
    assert!(numbers(bias).iter().all(|&x| x == 0.));
    let fields = phyla_models::read_config(folder.path()).unwrap().0;
    let survey = phyla_models::survey(&fields, Some(&Checkpoint::open(folder.path()).unwrap())).unwrap();
    let slot = survey.slots.iter().find(|slot| slot.path == "head.tied_bias").unwrap();
    assert_eq!(slot.found, phyla_models::Found::Nothing, "nothing is missing");
    // Anything else is.
    let folder = without("bart/generate", "model.encoder.layernorm_embedding.bias");
    let error = load(folder.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("model.encoder.layernorm_embedding.bias"), "{error}");
}

fn numbers(param: &Param) -> Vec<f32> {
    param.weight().to_f32().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn deviation(numbers: &[f32]) -> f64 {
    (numbers.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / numbers.len() as f64).sqrt()
}

/// Within 10 %: so much a sample deviation of some thousand numbers may be off, and no two rules here are so near.
fn close(found: f64, expected: f64) -> bool {
    (found / expected - 1.).abs() < 0.1
}

#[test]
fn fresh_weights_begin_as_each_family_has_them() {
    let fields = json!({"model_type": "transformer", "vocab_size": 300, "d_model": 64, "heads": 4, "d_ff": 256,
        "encoder_layers": 1, "decoder_layers": 1});
    let model = fresh(&config(fields), 1, &Device::Cpu).unwrap();
    let find = |model: &Model, path: &str| numbers(model.params().iter().find(|param| param.path() == path).unwrap());
    for (path, sizes) in [("decoder.layers.0.cross.q.weight", 128.), ("encoder.layers.0.mlp.up.weight", 320.)] {
        let (weights, bound) = (find(&model, path), (6f64 / sizes).sqrt());
        let largest = weights.iter().fold(0f64, |most, x| most.max(f64::from(x.abs())));
        // Uniform: no number beyond the bound, one near it, and its deviation is the bound over √3.
        assert!(largest <= bound && largest > 0.98 * bound, "{path}: {largest} for {bound}");
        assert!(close(deviation(&weights), bound / 3f64.sqrt()), "{path}");
    }
    assert!(close(deviation(&find(&model, "tokens.weight")), 64f64.powf(-0.5)));
    let model = fresh(&small_t5(json!({"vocab_size": 300, "initializer_factor": 2.})), 1, &Device::Cpu).unwrap();
    for (path, expected) in [
        ("tokens.weight", 1.),
        ("encoder.layers.0.attn.q.weight", (32f64 * 8.).powf(-0.5)),
        ("decoder.layers.0.cross.k.weight", 32f64.powf(-0.5)),
        ("encoder.layers.0.attn.o.weight", 32f64.powf(-0.5)),
        ("decoder.layers.0.mlp.up.weight", 32f64.powf(-0.5)),
        ("decoder.layers.0.mlp.down.weight", 64f64.powf(-0.5)),
    ] {
        let found = deviation(&find(&model, path));
        assert!(close(found, 2. * expected), "{path}: {found} for {}", 2. * expected);
    }
}

#[test]
fn what_cannot_be_built_is_refused_by_name() {
    let bart = |more: Value| {
        let mut fields = config(json!({"model_type": "bart", "d_model": 16}));
        fields.extend(config(more));
        fields
    };
    let of = |model: &str, more: Value| {
        let mut fields = bart(more);
        fields.insert("model_type".into(), json!(model));
        fields
    };
    for (fields, expected) in [
        (small_t5(json!({"feed_forward_proj": "gelu-gated"})), "feed_forward_proj"),
        (small_t5(json!({"feed_forward_proj": "gated-nothing"})), "feed_forward_proj"),
        (small_t5(json!({"dense_act_fn": "nothing"})), "dense_act_fn"),
        (small_t5(json!({"relative_attention_num_buckets": 3})), "relative_attention_num_buckets"),
        (small_t5(json!({"relative_attention_max_distance": 16})), "relative_attention_max_distance"),
        (small_t5(json!({"num_decoder_layers": 0})), "num_decoder_layers"),
        (small_t5(json!({"num_layers": 9_000_000_000u64})), "num_layers"),
        (small_t5(json!({"initializer_factor": -1.})), "initializer_factor"),
        (small_t5(json!({"is_decoder": true})), "is_decoder"),
        (small_t5(json!({"d_kv": "8"})), "d_kv"),
        (small_t5(json!({"architectures": ["T5ForSequenceClassification"], "eos_token_id": [1, 2]})), "eos_token_id"),
        (small_t5(json!({"architectures": ["T5ForSpeech"]})), "architectures"),
        (small_t5(json!({"model_type": "mt5", "d_ff": 0})), "d_ff"),
        (bart(json!({"encoder_attention_heads": 5})), "d_model"),
        (bart(json!({"decoder_layerdrop": 0.1})), "decoder_layerdrop"),
        (bart(json!({"normalize_before": true})), "normalize_before"),
        (bart(json!({"pad_token_id": 60_000})), "pad_token_id"),
        (bart(json!({"max_position_embeddings": 0})), "max_position_embeddings"),
        (of("mbart", json!({"normalize_before": false})), "normalize_before"),
        (of("marian", json!({"normalize_embedding": true})), "normalize_embedding"),
        (of("marian", json!({"decoder_vocab_size": 5})), "decoder_vocab_size"),
        (of("marian", json!({"decoder_vocab_size": 5, "share_encoder_decoder_embeddings": false})), "pad_token_id"),
        (of("transformer", json!({"norm": "sandwich"})), "norm"),
        (of("transformer", json!({"share_embeddings": "some"})), "share_embeddings"),
        (of("transformer", json!({"target_vocab_size": 5})), "share_embeddings"),
        (of("transformer", json!({"heads": 3})), "d_model"),
    ] {
        let error = registry::parse(&fields).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("config.json: {expected}")), "{expected}: {error}");
    }
}

#[test]
fn a_decoder_reads_the_text_moved_by_one() {
    use phyla_models::arch::Shift;
    let text = Input { ids: vec![5, 6, 2, 7, 2, 1], batch: 2, time: 3, ..Input::default() };
    assert_eq!(text.shifted(Shift::Start(9)).unwrap().ids, [9, 5, 6, 9, 7, 2]);
    assert_eq!(text.shifted(Shift::Last { pad: 1 }).unwrap().ids, [2, 5, 6, 2, 7, 2]);
    let padding = Input::row(&[1, 1]);
    assert!(padding.shifted(Shift::Last { pad: 1 }).unwrap_err().to_string().contains("padding alone"));
}
