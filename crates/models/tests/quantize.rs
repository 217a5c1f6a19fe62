//! Models whose matrices are quantised on loading: which they are, what they hold, and how far the results move.
#![expect(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device};
use phyla_kernels::quant::Quant;
use phyla_models::{Input, LoadOptions, Mix, Model, Quantize, fresh, fresh_with, load, quantised_bytes, save};
use phyla_ops::{Param, Weight};
use serde_json::{Map, Value, json};

fn config(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn options(mix: Mix) -> LoadOptions {
    LoadOptions { quantize: Some(Quantize::Gguf(mix)), dtype: Some(DType::F32), ..LoadOptions::default() }
}

/// A small decoder with rows of whole blocks of 256, and more layers than the mixtures tell apart.
fn decoder(layers: usize) -> Map<String, Value> {
    config(json!({"model_type": "llama", "vocab_size": 96, "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}))
}

fn kind(param: &Param) -> Option<Quant> {
    match param.weight() {
        Weight::Blocks(blocks) => blocks.kind(),
        _ => None,
    }
}

fn bytes(param: &Param) -> Vec<u8> {
    param
        .weight()
        .with(|mat| {
            Ok(match mat {
                phyla_kernels::product::MatRef::Blocks(blocks) => blocks.bytes().to_vec(),
                _ => vec![],
            })
        })
        .unwrap()
}

fn param<'a>(model: &'a Model, path: &str) -> &'a Param {
    model.params().iter().find(|param| param.path() == path).unwrap()
}

fn values(param: &Param) -> Vec<f32> {
    param.weight().to_f32().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The blocks are those of the numbers in the file, whichever type the file has them in.
#[test]
fn matrices_become_the_blocks_of_their_numbers() {
    let plain = fresh(&decoder(1), 7, &Device::Cpu).unwrap();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let folder = tempfile::tempdir().unwrap();
        save(&plain, folder.path(), dtype).unwrap();
        let (stored, _) = load(folder.path(), &LoadOptions::default()).unwrap();
        for mix in Mix::ALL {
            let (model, report) = load(folder.path(), &options(mix)).unwrap();
            assert_eq!(report.warnings, Vec::<String>::new());
            for (ours, plain) in model.params().iter().zip(stored.params()) {
                let path = ours.path();
                assert_eq!(kind(ours).is_some(), ours.dims().len() == 2, "{path}");
                if let Some(kind) = kind(ours) {
                    let plain = values(plain);
                    let mut expected = vec![0; plain.len() / kind.block() * kind.bytes()];
                    kind.quantize(&plain, &mut expected);
                    assert_eq!(bytes(ours), expected, "{path} in {mix:?} from {dtype:?}");
                }
            }
        }
    }
}

#[test]
fn mixtures_are_laid_out_as_llama_cpp_lays_them_out() {
    let kinds = |mix: Mix, path: &str| -> Vec<Quant> {
        let (model, _) = fresh_with(&decoder(8), 1, &options(mix)).unwrap();
        (0..8).map(|layer| kind(param(&model, &path.replace("{}", &layer.to_string()))).unwrap()).collect()
    };
    let (v, down) = ("decoder.layers.{}.attn.v.weight", "decoder.layers.{}.mlp.down.weight");
    use Quant::*;
    assert_eq!(kinds(Mix::Q4_K_M, v), [Q6_K, Q4_K, Q4_K, Q6_K, Q4_K, Q4_K, Q6_K, Q6_K]);
    assert_eq!(kinds(Mix::Q5_K_M, down), [Q6_K, Q5_K, Q5_K, Q6_K, Q5_K, Q5_K, Q6_K, Q6_K]);
    assert_eq!(kinds(Mix::Q4_K_S, v), [Q5_K, Q5_K, Q5_K, Q5_K, Q4_K, Q4_K, Q4_K, Q4_K]);
    assert_eq!(kinds(Mix::Q3_K_M, v), [Q5_K, Q5_K, Q4_K, Q4_K, Q4_K, Q4_K, Q4_K, Q4_K]);
    assert_eq!(kinds(Mix::Q3_K_M, down), [Q4_K; 8]);
    assert_eq!(kinds(Mix::Q3_K_L, "decoder.layers.{}.attn.o.weight"), [Q5_K; 8]);
    assert_eq!(kinds(Mix::Q2_K, "decoder.layers.{}.attn.q.weight"), [Q2_K; 8]);
    let head = |tied: bool, mix: Mix| {
        let mut config = decoder(1);
        config.insert("tie_word_embeddings".into(), json!(tied));
        let (model, _) = fresh_with(&config, 1, &options(mix)).unwrap();
        let kind = |path: &str| model.params().iter().find(|param| param.path() == path).and_then(|param| kind(param));
        (kind("tokens.weight"), kind("head.weight"))
    };
    assert_eq!(head(false, Mix::Q4_K_M), (Some(Q4_K), Some(Q6_K)), "the table as the rest, the head better");
    assert_eq!(head(true, Mix::Q4_0), (Some(Q6_K), None), "a table that is the head, too");
    assert_eq!(head(true, Mix::Q8_0), (Some(Q8_0), None));
}

/// Every shape of block that holds linear maps: what comes out moves by no more than eight bits cost.
///
/// A weight in q8_0 is off by at most 1/254 of the largest of its 32, and so are the activations of few rows; over a
/// few layers of sums whose errors have random signs that stays well below one part in twenty of the largest result.
/// Blocks in another order than the rows they stand for miss by as much as the result is large.
#[test]
fn quantised_is_close() {
    let sizes = json!({"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.06});
    for more in [
        json!({"model_type": "llama", "num_key_value_heads": 2}),
        json!({"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 64}),
        json!({"model_type": "bert"}),
        json!({"model_type": "deberta-v2", "relative_attention": true, "pos_att_type": ["c2p", "p2c"],
            "position_buckets": 8, "share_att_key": false, "norm_rel_ebd": "layer_norm"}),
        json!({"model_type": "deepseek_v2", "kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 4,
            "n_shared_experts": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1}),
        json!({"model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4,
            "decoder_start_token_id": 0}),
    ] {
        let mut all = config(sizes.clone());
        all.extend(config(more));
        let name = all["model_type"].clone();
        if name == "t5" || name == "gpt2" {
            ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"]
                .iter()
                .for_each(|key| _ = all.remove(*key));
        }
        let plain = fresh(&all, 3, &Device::Cpu).unwrap();
        let (model, report) = fresh_with(&all, 3, &options(Mix::Q8_0)).unwrap();
        assert_eq!(report.warnings, Vec::<String>::new(), "{name}");
        let quantised = model.params().iter().filter(|param| kind(param).is_some()).count();
        assert!(quantised >= 12, "{name}: {quantised} matrices");
        let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 96).collect();
        for time in [40, 4] {
            let input = Input { ids: ids[..time].to_vec(), batch: 1, time, ..Input::default() };
            let decoder = plain.arch.source().map(|_| Box::new(input.clone()));
            let input = Input { decoder, ..input };
            let run = |model: &Model| -> Vec<f32> {
                let outputs = phyla_ops::no_grad(|| model.run(&input, false)).unwrap();
                let (_, first) = outputs.into_iter().next().unwrap();
                first.data().flatten_all().unwrap().to_vec1().unwrap()
            };
            let (expected, found) = (run(&plain), run(&model));
            let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
            let worst = expected.iter().zip(&found).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(worst > 0. && worst < 0.05 * largest, "{name}: {worst} of {largest} with {time} tokens");
        }
    }
}

#[test]
fn what_does_not_fit_stays_and_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut odd = decoder(2);
    odd.extend(config(
        json!({"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 3, "num_key_value_heads": 3}),
    ));
    save(&fresh(&odd, 0, &Device::Cpu).unwrap(), folder.path(), DType::BF16).unwrap();
    let (model, report) =
        load(folder.path(), &LoadOptions { quantize: Some(Quantize::Gguf(Mix::Q4_K_M)), ..LoadOptions::default() })
            .unwrap();
    assert_eq!(
        report.warnings,
        ["q4_k_m: of 16 matrices 2 have rows that are no multiple of 256 and are in blocks of 32: 1 in q5_0, 1 in \
          q8_0; 14 have rows that are no multiple of 32 and stay as they are"]
    );
    assert_eq!(kind(param(&model, "decoder.layers.0.mlp.down.weight")), Some(Quant::Q5_0));
    assert_eq!(param(&model, "decoder.layers.0.mlp.up.weight").weight().dtype(), DType::BF16);
    assert_eq!(param(&model, "decoder.norm.weight").weight().dtype(), DType::F32);
}

#[test]
fn a_broken_number_is_named_and_a_quantised_weight_does_not_learn() {
    let folder = tempfile::tempdir().unwrap();
    let model = fresh(&decoder(1), 0, &Device::Cpu).unwrap();
    let broken = param(&model, "decoder.layers.0.mlp.up.weight");
    let mut numbers = values(broken);
    numbers[256 * 3 + 17] = f32::INFINITY;
    broken.set_weight(Weight::Dense(phyla_ops::cpu::tensor(numbers, &[512usize, 256][..]).unwrap())).unwrap();
    save(&model, folder.path(), DType::F32).unwrap();
    let message = load(folder.path(), &options(Mix::Q4_0)).unwrap_err().to_string();
    assert!(message.starts_with("decoder.layers.0.mlp.up.weight: row 3, column 17 is inf"), "{message}");

    let (model, _) = fresh_with(&decoder(1), 0, &options(Mix::Q4_0)).unwrap();
    let message = param(&model, "tokens.weight").set_trainable(true).unwrap_err().to_string();
    assert!(message.contains("tokens.weight: a quantised weight (q4_0) cannot be trained"), "{message}");
}

/// The linear maps of layers are in NF4, all of them but those whose rows are no whole blocks.
#[test]
fn nf4_is_for_the_maps_of_layers_alone() {
    for (more, maps, kept) in [
        (json!({"model_type": "llama", "num_key_value_heads": 2}), 2 * 6, 2),
        (
            json!({"model_type": "deepseek_v2", "kv_lora_rank": 64, "q_lora_rank": null, "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 4,
            "n_shared_experts": 1, "moe_intermediate_size": 64, "first_k_dense_replace": 1}),
            // q, kv_down, kv_up and o; gate and up; three maps of four experts and of what they share.
            2 * 4 + 2 + 5 * 3,
            1,
        ),
    ] {
        let mut config = config(json!({"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.2}));
        config.extend(more.as_object().unwrap().clone());
        let plain = fresh(&config, 3, &Device::Cpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        save(&plain, folder.path(), DType::F32).unwrap();
        let options = LoadOptions { quantize: Some(Quantize::Nf4), ..LoadOptions::default() };
        let (model, report) = load(folder.path(), &options).unwrap();
        let said = format!(
            "nf4: of {} matrices {kept} have rows that are no multiple of 64 and stay as they are",
            maps + kept
        );
        assert_eq!(report.warnings, [said]);
        let mut found = 0;
        for (ours, plain) in model.params().iter().zip(plain.params()) {
            let path = ours.path();
            if ours.weight().stored() == "nf4" {
                found += 1;
                // The widest gap between two values of the table is 0.304, and a scale is that of its 64 numbers nearly.
                let (ours, plain) = (values(ours), values(plain));
                for (ours, plain) in ours.chunks(64).zip(plain.chunks(64)) {
                    let largest = plain.iter().fold(0f32, |most, x| most.max(x.abs()));
                    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= (0.152 + 0.03) * largest;
                    assert!(ours.iter().zip(plain).all(near), "{path}");
                }
            } else {
                assert_eq!(values(ours), values(plain), "{path}");
            }
            let bytes = quantised_bytes(Quantize::Nf4, &model.arch, model.family, path, ours.dims());
            assert_eq!(bytes.is_some(), ours.weight().stored() == "nf4", "{path}");
            assert!(bytes.is_none_or(|bytes| bytes == ours.weight().bytes()), "{path}: {bytes:?}");
        }
        assert_eq!(found, maps, "{more}");
        let message = param(&model, "decoder.layers.0.attn.o.weight").set_trainable(true).unwrap_err().to_string();
        assert!(message.contains("a quantised weight (nf4) cannot be trained"), "{message}");
        // What is saved are the numbers that it stands for.
        let again = tempfile::tempdir().unwrap();
        save(&model, again.path(), DType::F32).unwrap();
        let (read, _) = load(again.path(), &LoadOptions::default()).unwrap();
        assert!(read.params().iter().zip(model.params()).all(|(read, ours)| values(read) == values(ours)), "{more}");
        let ids: Vec<u32> = (0..24).map(|at| at * 7 % 96).collect();
        let input = Input { ids, batch: 2, time: 12, ..Input::default() };
        let numbers = |model: &Model| -> Vec<f32> {
            let results = phyla_ops::no_grad(|| model.run(&input, false)).unwrap();
            results[0].1.data().flatten_all().unwrap().to_vec1().unwrap()
        };
        let (ours, exact) = (numbers(&model), numbers(&read));
        let size = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let apart = size(&mut exact.iter().zip(&ours).map(|(a, b)| a - b)) / size(&mut exact.iter().copied());
        // 24 rows are multiplied in f32, or in bf16 where tiles are: 2^-9 of either factor at each of some ten maps.
        assert!(apart < 2e-2, "{more}: {apart}");
    }
    let message = "nf4".parse::<phyla_models::gguf::FileType>().unwrap_err();
    assert!(message.contains("nf4 is no type of GGUF files"), "{message}");
}

/// The linear maps of layers are in int8, but for the one that is folded into attention; all else is as it was.
#[test]
fn int8_is_for_the_maps_of_layers_alone() {
    let sizes = json!({"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.2});
    for (more, maps) in [
        (json!({"model_type": "bert"}), 2 * 6),
        (json!({"model_type": "llama", "num_key_value_heads": 2}), 2 * 7),
        (
            json!({"model_type": "deepseek_v2", "kv_lora_rank": 32, "q_lora_rank": null, "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 4,
            "n_shared_experts": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1}),
            // q, kv_down, o; a perceptron, or four experts and what they share.
            2 * 3 + 3 + 5 * 3,
        ),
    ] {
        let mut config = config(sizes.clone());
        config.extend(more.as_object().unwrap().clone());
        let plain = fresh(&config, 3, &Device::Cpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        save(&plain, folder.path(), DType::F32).unwrap();
        let options = LoadOptions { quantize: Some(Quantize::Int8), ..LoadOptions::default() };
        let (model, report) = load(folder.path(), &options).unwrap();
        assert_eq!(report.warnings, Vec::<String>::new());
        let mut found = 0;
        for (ours, plain) in model.params().iter().zip(plain.params()) {
            let path = ours.path();
            if ours.weight().stored() == "int8" {
                found += 1;
                let largest = values(plain).iter().fold(0f32, |most, x| most.max(x.abs()));
                // Half a step of 127 in the row's largest.
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.505 / 127. * largest;
                let message = ours.set_trainable(true).unwrap_err().to_string();
                assert!(message.contains("a quantised weight (int8) cannot be trained"), "{message}");
                assert!(path.contains(".layers.") && values(ours).iter().zip(&values(plain)).all(near), "{path}");
            } else {
                assert_eq!(values(ours), values(plain), "{path}");
            }
        }
        assert_eq!(found, maps, "{more}");
        let ids: Vec<u32> = (0..24).map(|at| at * 7 % 96).collect();
        let input = Input { ids, batch: 2, time: 12, ..Input::default() };
        let numbers = |model: &Model| -> Vec<f32> {
            let results = phyla_ops::no_grad(|| model.run(&input, false)).unwrap();
            results[0].1.data().flatten_all().unwrap().to_vec1().unwrap()
        };
        let (exact, rounded) = (numbers(&plain), numbers(&model));
        let size = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let apart = size(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b)) / size(&mut exact.iter().copied());
        assert!(apart > 0. && apart < 0.1, "{more}: {apart}");
        let again = save(&model, tempfile::tempdir().unwrap().path(), DType::F32).unwrap_err().to_string();
        assert!(again.contains("int8 is not saved"), "{again}");
    }
}
