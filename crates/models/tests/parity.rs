//! Every family against the fixtures that `tests/golden/decoder.py` made with transformers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Input, LoadOptions, Model, load, registry};
use phyla_nn::{Cache, Reads};
use phyla_ops::{Data, Tensor};

/// Relative to the largest reference value. Both sides sum in f32 in different orders: 24-bit sums of a few
/// dozen terms over a few layers agree to some 1e-6; a wrong formula misses by 1e-3 and more.
const TOLERANCE: f32 = 2e-5;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// All cases of a family, as folders.
fn cases(family: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(golden().join(family))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() >= 3, "{family}: too few fixtures");
    cases
}

/// A row for each family.
const FAMILIES: &[&str] = &[
    "bart",
    "bert",
    "deberta",
    "deberta-v2",
    "deepseek_v2",
    "distilbert",
    "gpt2",
    "llama",
    "marian",
    "mbart",
    "mistral",
    "mixtral",
    "mt5",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "roberta",
    "t5",
    "transformer",
    "umt5",
    "xlm-roberta",
];

fn families() -> impl Iterator<Item = &'static str> {
    assert_eq!(FAMILIES.len(), registry::FAMILIES.len(), "a family of the registry has no row here");
    FAMILIES.iter().copied()
}

fn read_input(case: &Path) -> Input {
    let text = std::fs::read_to_string(case.join("inputs.json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = |key: &str| -> Option<Vec<Vec<u32>>> {
        value.get(key).map(|rows| serde_json::from_value(rows.clone()).unwrap())
    };
    let ids = rows("input_ids").unwrap();
    let flat = |rows: Option<Vec<Vec<u32>>>| rows.map(|rows| rows.concat());
    let mask = |key: &str| flat(rows(key)).map(|mask| mask.iter().map(|&m| m as u8).collect());
    let decoder = rows("decoder_input_ids").map(|ids| {
        let mask = mask("decoder_attention_mask");
        Box::new(Input {
            batch: ids.len(),
            time: ids[0].len(),
            ids: ids.concat(),
            attention_mask: mask,
            ..Input::default()
        })
    });
    Input {
        batch: ids.len(),
        time: ids[0].len(),
        ids: ids.concat(),
        attention_mask: mask("attention_mask"),
        positions: flat(rows("position_ids")),
        segments: flat(rows("document_ids")),
        token_types: flat(rows("token_type_ids")),
        choices: value.get("num_choices").map_or(0, |n| n.as_u64().unwrap() as usize),
        decoder,
    }
}

/// With products in f32, whatever the file holds.
fn open(case: &Path) -> Model {
    load(case, &LoadOptions { dtype: Some(candle_core::DType::F32), ..LoadOptions::default() })
        .unwrap_or_else(|e| panic!("{}: {e}", case.display()))
        .0
}

/// The input, with what the decoder reads where transformers makes that itself.
fn complete(model: &Model, input: Input) -> Input {
    let decoder = match (input.decoder.is_none(), model.arch.shift) {
        (true, Some(shift)) => Some(Box::new(input.shifted(shift).unwrap())),
        _ => input.decoder.clone(),
    };
    Input { decoder, ..input }
}

fn values(data: &Data) -> Vec<f32> {
    data.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference, relative to the largest reference value; of results for each token, over the unmasked ones.
fn error(ours: &[f32], theirs: &[f32], input: &Input) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let tokens = input.batch * input.time;
    let mask = input.attention_mask.as_ref().filter(|_| ours.len().is_multiple_of(tokens));
    let width = ours.len() / tokens.min(ours.len());
    let (mut worst, mut largest) = (0f32, 0f32);
    for (token, (a, b)) in ours.chunks(width).zip(theirs.chunks(width)).enumerate() {
        if mask.is_some_and(|mask| mask[token] == 0) {
            continue;
        }
        for (a, b) in a.iter().zip(b) {
            assert!(a.is_finite(), "token {token}: {a}");
            (worst, largest) = (worst.max((a - b).abs()), largest.max(b.abs()));
        }
    }
    worst / largest
}

/// What a result is about: the encoder's tokens, or those that the main tower reads.
fn about<'a>(name: &str, input: &'a Input) -> &'a Input {
    match &input.decoder {
        Some(decoder) if !name.starts_with("encoder_") => decoder,
        _ => input,
    }
}

#[test]
fn matches_reference() {
    let mut failed = vec![];
    for case in families().flat_map(cases) {
        let (model, input) = (open(&case), read_input(&case));
        let expected = Checkpoint::open(case.join("expected.safetensors")).unwrap();
        let ours = model.run(&input, true).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
        let short = case.strip_prefix(golden()).unwrap().display();
        for name in expected.names() {
            let Some((_, found)) = ours.iter().find(|(ours, _)| ours == name) else {
                failed.push(format!("{short}: no {name}"));
                continue;
            };
            let theirs = expected.get(name).unwrap();
            if found.dims() != theirs.shape {
                failed.push(format!("{short}: {name}: {:?} for {:?}", found.dims(), theirs.shape));
                continue;
            }
            let error = error(&values(found.data()), &theirs.to_f32().unwrap(), about(name, &input));
            if error > TOLERANCE || error.is_nan() {
                failed.push(format!("{short}: {name}: {error:.1e}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Row 0 of an input, alone; of padded rows what is not padding.
fn first_row(input: &Input) -> Input {
    let row = |values: &[u32]| values[..input.time].to_vec();
    Input {
        ids: row(&input.ids),
        batch: 1,
        time: input.time,
        attention_mask: input.attention_mask.as_ref().map(|mask| mask[..input.time].to_vec()),
        token_types: input.token_types.as_deref().map(row),
        decoder: input.decoder.as_ref().map(|decoder| Box::new(first_row(decoder))),
        ..Input::default()
    }
}

#[test]
fn cached_decoding_equals_full() {
    for case in families().flat_map(cases) {
        let name = case.file_name().unwrap().to_string_lossy().to_string();
        let model = open(&case);
        let input = complete(&model, first_row(&read_input(&case)));
        // Their rotation depends on the length of the input: keys in a cache keep the one they came with.
        if name.contains("dynamic") || name.contains("longrope") || !model.arch.main().causal {
            continue;
        }
        let main = input.decoder.as_deref().unwrap_or(&input);
        // Padding has no place in a cache: where positions count real tokens, its own would be missing there.
        let valid = |t: &usize| main.attention_mask.as_ref().is_none_or(|mask| mask[*t] != 0);
        let ids: Vec<u32> = (0..main.time).filter(valid).map(|t| main.ids[t]).collect();
        let memory = || model.encode(&input, &mut input.source_pass(&model.arch).unwrap()).unwrap();
        let (mut cache, mut pass) = match &input.decoder {
            Some(_) => {
                let pass = Input::row(&ids).pass(&model.arch).unwrap().attending(memory());
                (Cache::new(1).attending(memory()), pass)
            }
            None => (Cache::new(1), Input::row(&ids).pass(&model.arch).unwrap()),
        };
        let full = values(model.forward(&ids, None, &mut pass).unwrap().data());
        let (mut cached, mut start) = (vec![], 0);
        // Chunks of 1, 2, 3, … tokens.
        for size in 1.. {
            let chunk = &ids[start..ids.len().min(start + size)];
            if chunk.is_empty() {
                break;
            }
            let mut pass = phyla_nn::Pass::cached(cache.all(), chunk.len());
            cached.extend(values(model.forward(chunk, None, &mut pass).unwrap().data()));
            start += chunk.len();
        }
        assert_eq!(cache.lengths(), [ids.len()]);
        let error = error(&cached, &full, &Input::row(&ids));
        assert!(error <= TOLERANCE, "{}: {error:.1e}", case.display());
    }
}

#[test]
fn a_latent_cache_holds_one_vector_a_token() {
    let model = open(&golden().join("deepseek_v2/model"));
    let config = |key: &str| model.config[key].as_u64().unwrap() as usize;
    let mut cache = Cache::new(1);
    // Its first capacity, filled token by token.
    for token in 0..64 {
        model.forward(&[token % 7], None, &mut phyla_nn::Pass::cached(cache.all(), 1)).unwrap();
    }
    // Sections 2.1.2 and 2.1.3 of the paper: the compressed keys and values, and one rotated key for all heads.
    let numbers = config("num_hidden_layers") * (config("kv_lora_rank") + config("qk_rope_head_dim"));
    assert_eq!(cache.bytes(), 64 * numbers * size_of::<f32>());
    assert_eq!(model.arch.cache_numbers(), numbers, "what `inspect` says of it");
}

#[test]
fn padding_changes_nothing() {
    for case in families().flat_map(cases) {
        let model = open(&case);
        let input = complete(&model, read_input(&case));
        // The state at the end of the source's text is another one if the source alone grows.
        if model.arch.heads.iter().any(|head| matches!(head.reads, Reads::End { .. })) {
            continue;
        }
        let ids = &input.ids[..input.time.min(5)];
        let decoder = || input.decoder.as_ref().map(|decoder| Box::new(Input::row(&decoder.ids[..decoder.time])));
        let alone = Input { decoder: decoder(), ..Input::row(ids) };
        let positions = alone.pass(&model.arch).unwrap().positions().to_vec();
        let run = |input: &Input| {
            let results = model.run(input, false).unwrap();
            let name = if input.decoder.is_some() { "encoder_last_hidden_state" } else { "last_hidden_state" };
            let of = |wanted: &str| values(results.iter().find(|(name, _)| name == wanted).unwrap().1.data());
            (of(name), of("last_hidden_state"))
        };
        let (expected, decoded) = run(&alone);
        for (left, right) in [(2, 0), (0, 2), (1, 1)] {
            let time = left + ids.len() + right;
            if time > model.arch.context {
                continue;
            }
            let pad = |value: u32, n: usize| std::iter::repeat_n(value, n);
            let padded = Input {
                ids: pad(3, left).chain(ids.iter().copied()).chain(pad(3, right)).collect(),
                batch: 1,
                time,
                attention_mask: Some((0..time).map(|t| (left..left + ids.len()).contains(&t) as u8).collect()),
                positions: Some((0..time).map(|t| positions[t.saturating_sub(left).min(ids.len() - 1)]).collect()),
                decoder: decoder(),
                ..Input::default()
            };
            let (all, main) = run(&padded);
            let width = all.len() / time;
            let error_read = error(&all[left * width..][..ids.len() * width], &expected, &alone);
            assert!(error_read <= TOLERANCE, "{} {left} {right}: {error_read:.1e}", case.display());
            if let Some(decoder) = &padded.decoder {
                let error = error(&main, &decoded, decoder);
                assert!(error <= TOLERANCE, "{} {left} {right}: decoder {error:.1e}", case.display());
            }
        }
    }
}

#[test]
fn names_round_trip() {
    for case in families().flat_map(cases) {
        let (model, input) = (open(&case), read_input(&case));
        let folder = tempfile::tempdir().unwrap();
        phyla_models::save(&model, folder.path(), candle_core::DType::F32).unwrap();
        let (again, report) = load(folder.path(), &LoadOptions::default()).unwrap();
        assert!(report.unused.is_empty(), "{}: {:?}", case.display(), report.warnings);
        let run = |model: &Model| -> Vec<Vec<f32>> {
            model.run(&input, false).unwrap().iter().map(|(_, result)| values(result.data())).collect()
        };
        assert_eq!(run(&model), run(&again), "{}", case.display());
        // What we call it is what the original called it, but for the names of older checkpoints.
        let (ours, theirs) = (Checkpoint::open(folder.path()).unwrap(), Checkpoint::open(&case).unwrap());
        let older = case.file_name().is_some_and(|name| name.to_string_lossy().contains("old_names"));
        let bare = !theirs.names().any(|name| name.starts_with(model.family.prefix));
        for name in ours.names().filter(|_| !older) {
            let name = if bare { name.strip_prefix(model.family.prefix).unwrap_or(name) } else { name };
            assert!(
                theirs.contains(name) || name == "lm_head.weight" || theirs.contains("lm_head.weight"),
                "{}: {name}",
                case.display()
            );
        }
    }
}

#[test]
fn every_trainable_weight_gets_a_gradient() {
    for case in families().flat_map(cases) {
        let (model, input) = (open(&case), read_input(&case));
        for param in model.params() {
            param.set_trainable(true).unwrap();
        }
        let name = case.file_name().unwrap().to_string_lossy().to_string();
        let results = model.run(&input, false).unwrap();
        let results: Vec<&Tensor> = results.iter().map(|(_, result)| result).filter(|r| r.tracked()).collect();
        let shapes: Vec<Vec<usize>> = results.iter().map(|result| result.dims().to_vec()).collect();
        // A sum in which every number counts differently.
        let zero = Data::zeros((), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let sum = Tensor::record(zero, &results, false, move |_| {
            let grad = |shape: &Vec<usize>| {
                let count: usize = shape.iter().product();
                let numbers: Vec<f32> = (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 101. - 0.3).collect();
                Data::from_vec(numbers, shape.clone(), &candle_core::Device::Cpu).map(Some)
            };
            shapes.iter().map(grad).collect()
        });
        sum.backward().unwrap();
        for param in model.params() {
            // An expert that no token went to has nothing to learn.
            let expert = param.path().contains(".experts.");
            let Some(grad) = param.grad() else {
                assert!(expert, "{}: {} has no gradient", case.display(), param.path());
                continue;
            };
            let grad = values(&grad);
            assert!(grad.iter().all(|g| g.is_finite()), "{}: {}", case.display(), param.path());
            // Over one key, which one token has or a window of one, a softmax is constant: what makes the score cannot matter.
            let scoring = ["attn.q", "attn.k", "attn.pos", "cross_norm", "cross.q", "cross.k", "relative"];
            let one_key = input.time == 1 || name.contains("window_one");
            let idle = one_key && scoring.iter().any(|part| param.path().contains(part));
            // A bias on every key shifts all scores of a query alike, if no rotation tells them apart.
            let shift = param.path().ends_with(".k.bias");
            // The one chosen expert weighs 1, whatever the router says.
            let shift = shift || (name.contains("one_expert") && param.path().ends_with(".router.weight"));
            let all_zero = grad.iter().all(|&g| g == 0.);
            assert!(idle || shift || expert || !all_zero, "{}: {} is all zero", case.display(), param.path());
        }
    }
}

/// The gradients of a sum over the main tower's last states, by parameter.
fn gradients(model: &Model, input: &Input, checkpointing: bool) -> Vec<Vec<f32>> {
    let main = input.decoder.as_deref().unwrap_or(input);
    let through = |mut pass: phyla_nn::Pass<'static>| {
        pass.checkpointing = checkpointing;
        pass.training(phyla_kernels::rng::Rng::new(5))
    };
    let mut pass = through(main.pass(&model.arch).unwrap());
    if input.decoder.is_some() {
        pass = pass.attending(model.encode(input, &mut through(input.source_pass(&model.arch).unwrap())).unwrap());
    }
    let last = model.forward(&main.ids, main.token_types.as_deref(), &mut pass).unwrap();
    let numbers = (0..last.data().elem_count()).map(|i| ((i * 37 + 11) % 101) as f32 / 101. - 0.3).collect::<Vec<_>>();
    last.backward_with(Data::from_vec(numbers, last.dims(), &candle_core::Device::Cpu).unwrap()).unwrap();
    let grads = model.params().iter().map(|param| param.grad().map(|grad| values(&grad)).unwrap_or_default()).collect();
    model.params().iter().for_each(|param| param.zero_grad());
    grads
}

#[test]
fn computing_layers_again_changes_no_gradient() {
    for case in families().flat_map(cases) {
        let model = open(&case);
        let input = complete(&model, read_input(&case));
        for param in model.params() {
            param.set_trainable(true).unwrap();
        }
        let [kept, again] = [false, true].map(|checkpointing| gradients(&model, &input, checkpointing));
        assert!(kept.iter().any(|grad| grad.iter().any(|&g| g != 0.)), "{}", case.display());
        // A gradient that should be 0, as of a bias on all keys, is the rounding of larger ones.
        let floor = kept.iter().flatten().fold(0f32, |m, x| m.max(x.abs())) / 100.;
        for ((a, b), param) in kept.iter().zip(&again).zip(model.params()) {
            let largest = a.iter().fold(floor, |m, x| m.max(x.abs()));
            assert_eq!(a.len(), b.len(), "{}: {}", case.display(), param.path());
            // Gradients that several layers add up come in another order.
            let worst = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
            assert!(worst <= TOLERANCE, "{}: {} {worst:.1e}", case.display(), param.path());
        }
    }
}
