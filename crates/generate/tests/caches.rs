//! Caches of every kind: which change no id of a text, which follow the paper's arithmetic, and how much they hold.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;
use phyla_generate::{GenerationConfig, Generator, Moment, PrefixCache, Session};
use phyla_models::{LoadOptions, Model, fresh, load};
use serde_json::{Value, json};

fn model(more: Value) -> Model {
    let mut config = json!({
        "model_type": "mistral", "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "sliding_window": 70,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "initializer_range": 0.15
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fresh(config.as_object().unwrap(), 5, &Device::Cpu).unwrap()
}

/// All layers with windows; the upper ones alone.
fn windowed() -> [Model; 2] {
    let mixed = json!({ "model_type": "qwen2", "use_sliding_window": true, "max_window_layers": 1 });
    [model(json!({})), model(mixed)]
}

fn settings(value: Value) -> GenerationConfig {
    let (config, warnings) = GenerationConfig::of_user(value.as_object().unwrap()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    config
}

/// `a`, and what `b` says besides.
fn with(a: &Value, b: Value) -> GenerationConfig {
    let mut all = a.clone();
    all.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
    settings(all)
}

fn text(length: usize, seed: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * i * 7 + i / 9 + seed * 31) % 97) as u32).collect()
}

#[test]
fn where_a_cache_lies_and_what_it_drops_changes_no_id() {
    let prompts = [text(3, 1), text(150, 2), text(69, 3), text(330, 4)];
    for model in &windowed() {
        let generator = Generator::new(model, None);
        for way in [
            json!({ "max_new_tokens": 160 }),
            json!({ "max_new_tokens": 90, "do_sample": true, "temperature": 0.8, "num_return_sequences": 2 }),
            json!({ "max_new_tokens": 90, "num_beams": 3 }),
            json!({ "max_new_tokens": 90, "num_beams": 2, "do_sample": true, "num_return_sequences": 2 }),
            json!({ "max_new_tokens": 90, "prompt_lookup_num_tokens": 7 }),
            json!({ "max_new_tokens": 40, "penalty_alpha": 0.6, "top_k": 4 }),
        ] {
            let run = |more| generator.generate(&prompts, &with(&way, more), 3, &mut |_| {}).unwrap().sequences;
            let whole = run(json!({ "cache_implementation": "dynamic_full" }));
            for kind in ["dynamic", "sliding_window", "static", "offloaded", "offloaded_static"] {
                let other = run(json!({ "cache_implementation": kind }));
                assert!(other == whole, "{kind}: {way}");
            }
            let fixed = run(json!({ "cache_implementation": "static", "max_cache_len": 700, "cache_dtype": "f16" }));
            assert!(fixed == run(json!({ "cache_implementation": "dynamic_full", "cache_dtype": "f16" })), "{way}");
        }
    }
}

#[test]
fn an_assistant_with_windows_guesses_as_one_without() {
    let [large, _] = windowed();
    let way = json!({ "max_new_tokens": 150, "assistant_confidence_threshold": 0.0 });
    let run =
        |generator: Generator| generator.generate(&[text(100, 7)], &settings(way.clone()), 3, &mut |_| {}).unwrap();
    let alone = run(Generator::new(&large, None));
    let guessed = run(Generator::new(&large, None).assisted_by(&large));
    assert_eq!(guessed.sequences, alone.sequences);
    assert!(guessed.timings.accepted > 100, "{:?}", guessed.timings);
}

#[test]
fn a_session_that_goes_back_before_its_windows_reads_anew() {
    let [model, _] = windowed();
    let generator = Generator::new(&model, None);
    let mut session = Session::new();
    let turn = |session: &mut Session, prompt: &[u32], more: Value, known: usize| {
        let config = with(&json!({ "max_new_tokens": 40 }), more);
        let fresh = generator.generate(&[prompt.to_vec()], &config, 0, &mut |_| {}).unwrap();
        let ours = generator.generate_in(session, prompt, &config, 0, &mut |_| {}).unwrap();
        assert_eq!(ours.sequences, fresh.sequences);
        assert_eq!(ours.timings.read, prompt.len() - known);
        [prompt, &ours.sequences[0].ids].concat()
    };
    let nothing = json!({});
    let first = turn(&mut session, &text(300, 1), nothing.clone(), 0);
    // Onwards, and back by less than what can be taken back.
    let second = turn(&mut session, &[&first[..], &[4, 5]].concat(), nothing.clone(), 339);
    let third = turn(&mut session, &[&second[..350], &[7, 8, 9]].concat(), nothing.clone(), 350);
    // Further: nothing of it is there any more.
    turn(&mut session, &[&third[..200], &[1, 2]].concat(), nothing, 0);
    // With guesses, which are taken back.
    let lookup = json!({ "prompt_lookup_num_tokens": 7 });
    let again = turn(&mut session, &[5, 9, 11, 40, 2, 77].repeat(30), lookup.clone(), 0);
    turn(&mut session, &[&again[..], &[5, 9]].concat(), lookup, again.len() - 1);
    // A cache that keeps all can go back anywhere.
    let full = json!({ "cache_implementation": "dynamic_full" });
    let first = turn(&mut session, &text(300, 1), full.clone(), 0);
    turn(&mut session, &[&first[..50], &[1, 2]].concat(), full, 50);
}

/// The most bytes that a cache held while 10,000 ids were written, and those after the first 1,000.
fn largest(model: &Model, cache: Value) -> [usize; 2] {
    let (most, early) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let watch = |moment: &Moment| {
        if let Moment::Read { bytes, .. } = moment {
            most.fetch_max(*bytes, Ordering::Relaxed);
        }
    };
    let count = AtomicUsize::new(0);
    let config = with(&json!({ "max_new_tokens": 10_000 }), cache);
    let answer = Generator::new(model, None).watched_by(&watch).generate(&[text(20, 1)], &config, 0, &mut |_| {
        if count.fetch_add(1, Ordering::Relaxed) == 1000 {
            early.store(most.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    });
    assert_eq!(answer.unwrap().sequences[0].ids.len(), 10_000);
    [most.into_inner(), early.into_inner()]
}

#[test]
fn ten_thousand_tokens_leave_caches_at_their_size() {
    let tiny = json!({ "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
        "num_hidden_layers": 1 });
    let small = model(tiny.clone());
    // Keys and values of 64 positions, of one head of eight f32.
    let page = 2 * 64 * 8 * 4;
    let [most, early] = largest(&small, json!({ "cache_implementation": "sliding_window" }));
    assert!(most == early && most <= page * (70 + 64 + 126) / 64, "{most}, {early}");
    let sink = json!({ "window_length": 128, "num_sink_tokens": 4 });
    let mut plain = tiny;
    plain["sliding_window"] = Value::Null;
    let plain = model(plain);
    let [most, early] = largest(&plain, json!({ "cache_implementation": "sink", "cache_config": sink }));
    assert!(most == early && most <= page * (64 + 124 + 64 + 126) / 64, "{most}, {early}");
    let [most, early] = largest(&plain, json!({ "cache_implementation": "static" }));
    assert_eq!([most, early], [page * (10_020usize).div_ceil(64); 2]);
    let [most, _] = largest(&plain, json!({}));
    assert_eq!(most, page * (10_019usize).div_ceil(64), "one that keeps all grows");
}

#[test]
fn a_sink_cache_goes_on_as_the_reference() {
    #[derive(serde::Deserialize)]
    struct Case {
        case: String,
        window: usize,
        sinks: usize,
        prompts: Vec<Vec<u32>>,
        continuations: Vec<Vec<u32>>,
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(golden.join("sink.json")).unwrap()).unwrap();
    for case in &cases {
        let model = load(&golden.join(&case.case), &LoadOptions::default()).unwrap().0;
        let config = json!({ "max_new_tokens": 48, "cache_implementation": "sink",
            "cache_config": { "window_length": case.window, "num_sink_tokens": case.sinks } });
        let run = |prompts: &[Vec<u32>], more: Value| -> Vec<Vec<u32>> {
            let answer = Generator::new(&model, None).generate(prompts, &with(&config, more), 0, &mut |_| {});
            answer.unwrap().sequences.into_iter().map(|sequence| sequence.ids).collect()
        };
        assert_eq!(run(&case.prompts, json!({})), case.continuations, "{}", case.case);
        for (prompt, expected) in case.prompts.iter().zip(&case.continuations) {
            assert_eq!(&run(std::slice::from_ref(prompt), json!({}))[0], expected, "{} alone", case.case);
        }
        assert_eq!(run(&case.prompts, json!({ "cache_dtype": "f32" })), case.continuations, "{}", case.case);
    }
    assert_eq!(cases.len(), 5);
}

#[test]
fn a_sink_cache_that_is_not_full_is_one_like_any_other() {
    let deepseek = json!({ "model_type": "deepseek_v2", "sliding_window": null, "kv_lora_rank": 16, "q_lora_rank": null,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "moe_intermediate_size": 32,
        "n_routed_experts": null, "first_k_dense_replace": 2, "num_key_value_heads": 4 });
    for model in [model(json!({ "sliding_window": null })), model(deepseek)] {
        let prompts = [text(3, 1), text(150, 2), text(69, 3)];
        let run = |more| {
            let config = with(&json!({ "max_new_tokens": 60, "num_beams": 2 }), more);
            let answer = Generator::new(&model, None).generate(&prompts, &config, 0, &mut |_| {}).unwrap();
            answer.sequences.into_iter().map(|sequence| sequence.ids).collect::<Vec<_>>()
        };
        let sink = json!({ "cache_implementation": "sink", "cache_config": { "window_length": 300 } });
        assert_eq!(run(sink), run(json!({})), "{}", model.family.model_type);
    }
}

#[test]
fn what_cannot_be_honoured_says_so() {
    let [window, _] = windowed();
    let plain = model(json!({ "sliding_window": null }));
    let learned =
        json!({ "model_type": "gpt2", "vocab_size": 97, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64 });
    let learned = fresh(learned.as_object().unwrap(), 1, &Device::Cpu).unwrap();
    let sink = |window: usize, first: usize| json!({ "cache_implementation": "sink", "cache_config": { "window_length": window, "num_sink_tokens": first } });
    let mut guessed = sink(100, 4);
    guessed["prompt_lookup_num_tokens"] = 3.into();
    for (model, config, expected) in [
        (&plain, json!({ "cache_implementation": "sliding_window" }), "this one's look back all the way"),
        (&plain, json!({ "cache_implementation": "sink" }), "a sink cache needs a window_length"),
        (&plain, sink(4, 4), "window_length must be above num_sink_tokens 4, found 4"),
        (&plain, sink(513, 4), "trained on 512 positions"),
        (&window, sink(100, 4), "layers of this model look back over 70 tokens"),
        (&learned, sink(20, 4), "which decoders with rotary positions allow"),
        (&plain, guessed, "drops a token for each that it reads"),
        (&plain, json!({ "cache_config": { "window_length": 9 } }), "are of cache_implementation sink"),
        (&plain, json!({ "cache_config": { "residual_length": 9 } }), "residual_length is of a cache that rounds"),
        (
            &plain,
            json!({ "cache_dtype": "q8_0", "cache_config": { "residual_length": 9 }, "prompt_lookup_num_tokens": 3 }),
            "would depend on how many ids are guessed",
        ),
    ] {
        let error = Generator::new(model, None).generate(&[vec![1]], &settings(config), 0, &mut |_| {}).unwrap_err();
        assert!(error.is_users() && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn the_newest_positions_of_a_quantised_cache_are_exact() {
    let model = model(json!({ "sliding_window": null, "hidden_size": 128 }));
    let prompts = [text(3, 1), text(150, 2), text(400, 3)];
    let run = |more| {
        let config = with(&json!({ "max_new_tokens": 50 }), more);
        let answer = Generator::new(&model, None).generate(&prompts, &config, 0, &mut |_| {}).unwrap();
        answer.sequences.into_iter().map(|sequence| sequence.ids).collect::<Vec<_>>()
    };
    let exact = run(json!({}));
    let rounded = run(json!({ "cache_dtype": "q4_0" }));
    assert_ne!(rounded, exact);
    // As long as all are among the newest, nothing is rounded; transformers' 128 beside `quantized`.
    assert_eq!(run(json!({ "cache_dtype": "q4_0", "cache_config": { "residual_length": 500 } })), exact);
    let default = run(json!({ "cache_implementation": "quantized" }));
    assert_eq!(default, run(json!({ "cache_dtype": "q4_0", "cache_config": { "residual_length": 128 } })));
    assert_eq!(default[0], exact[0]);
    assert_ne!(default[2], exact[2]);
    assert_eq!(run(json!({ "cache_implementation": "quantized", "cache_config": { "residual_length": 0 } })), rounded);
    // Guesses are right or not; what is rounded when may not depend on them.
    let lookup = |more: Value| with(&json!({ "max_new_tokens": 50, "prompt_lookup_num_tokens": 4 }), more);
    let guessed = Generator::new(&model, None).generate(
        &prompts[1..2],
        &lookup(json!({ "cache_implementation": "quantized" })),
        0,
        &mut |_| {},
    );
    assert_eq!(guessed.unwrap().sequences[0].ids, rounded[1]);
}

#[test]
fn prompts_that_begin_alike_are_read_once() {
    for model in [model(json!({ "sliding_window": null })), model(json!({}))] {
        let windowed = model.config["sliding_window"] != Value::Null;
        let prefixes = PrefixCache::new(usize::MAX);
        let (plain, ours) = (Generator::new(&model, None), Generator::new(&model, None).remembering(&prefixes));
        let system = text(200, 1);
        let prompt = |question: &[u32]| [&system[..], question].concat();
        for way in [json!({ "max_new_tokens": 30 }), json!({ "max_new_tokens": 30, "num_beams": 3 })] {
            for (number, question) in [&[1u32, 2, 3][..], &[5, 6], &[1, 2, 3], &[1, 2, 3, 4], &[9]].iter().enumerate() {
                let prompt = prompt(question);
                let run = |generator: &Generator| {
                    generator.generate(std::slice::from_ref(&prompt), &settings(way.clone()), 0, &mut |_| {}).unwrap()
                };
                let (fresh, known) = (run(&plain), run(&ours));
                let ids = |answer: &phyla_generate::Generation| answer.sequences[0].ids.clone();
                assert_eq!(ids(&known), ids(&fresh), "{way} {number}");
                let first = number == 0 && way.get("num_beams").is_none();
                let most = if first { prompt.len() } else { question.len() + 1 };
                assert!(known.timings.read <= most, "{way} {number}: {}", known.timings.read);
            }
        }
        // Questions have a page of their own, the rest is there once.
        let page = 2 * 2 * 64 * 2 * 16 * 4;
        let texts = if windowed { 5 } else { 4 };
        assert!(prefixes.bytes() <= page * (3 + texts) && prefixes.len() <= texts, "{}", prefixes.bytes());
        // Two prompts of one call share what the first has read.
        let both = [text(90, 8), [&text(90, 8)[..], &[1, 1]].concat()];
        let answer = ours.generate(&both, &settings(json!({ "max_new_tokens": 2 })), 0, &mut |_| {}).unwrap();
        assert_eq!(answer.timings.read, 92);
    }
}

#[test]
fn a_prefix_of_whole_chunks_has_the_bits_of_reading_it() {
    let model = model(json!({ "sliding_window": null, "max_position_embeddings": 4096 }));
    let prefixes = PrefixCache::new(usize::MAX);
    let first = std::sync::Mutex::new(vec![]);
    let watch = |moment: &Moment| {
        if let Moment::Scores { scores, .. } = moment {
            first.lock().unwrap().extend(scores.iter().map(|score| score.to_bits()));
        }
    };
    let bits = |generator: Generator, prompt: Vec<u32>| {
        generator
            .watched_by(&watch)
            .generate(&[prompt], &settings(json!({ "max_new_tokens": 3 })), 0, &mut |_| {})
            .unwrap();
        std::mem::take(&mut *first.lock().unwrap())
    };
    let (plain, ours) = (Generator::new(&model, None), Generator::new(&model, None).remembering(&prefixes));
    bits(ours, text(1024, 1));
    let prompt = [text(1024, 1), text(37, 2)].concat();
    assert!(bits(ours, prompt.clone()) == bits(plain, prompt));
}

#[test]
fn what_has_not_been_of_use_for_longest_goes_first() {
    let model = model(json!({ "sliding_window": null }));
    let page = 2 * 2 * 64 * 2 * 16 * 4;
    let prefixes = PrefixCache::new(5 * page);
    let generator = Generator::new(&model, None).remembering(&prefixes);
    let read = |prompt: Vec<u32>| {
        let answer = generator.generate(&[prompt], &settings(json!({ "max_new_tokens": 1 })), 0, &mut |_| {}).unwrap();
        assert!(prefixes.bytes() <= 5 * page);
        answer.timings.read
    };
    // Two pages each.
    assert_eq!((read(text(100, 1)), read(text(100, 2)), read(text(100, 1))), (100, 100, 1));
    assert_eq!((read(text(100, 3)), prefixes.len()), (100, 2));
    assert_eq!((read(text(100, 1)), read(text(100, 2))), (1, 100));
    // One that has no room at all.
    assert_eq!((read(text(400, 5)), prefixes.len(), prefixes.bytes()), (400, 0, 0));
}

#[test]
fn answers_are_remembered_where_that_is_asked_for() {
    let model = model(json!({}));
    let prefixes = PrefixCache::new(usize::MAX).with_answers();
    let generator = Generator::new(&model, None).remembering(&prefixes);
    let config = settings(json!({ "max_new_tokens": 20 }));
    let first = generator.generate(&[text(50, 1)], &config, 0, &mut |_| {}).unwrap();
    let more = [&text(50, 1)[..], &first.sequences[0].ids, &[3, 4]].concat();
    let second = generator.generate(std::slice::from_ref(&more), &config, 0, &mut |_| {}).unwrap();
    assert_eq!(second.timings.read, 3);
    let fresh = Generator::new(&model, None).generate(&[more], &config, 0, &mut |_| {}).unwrap();
    assert_eq!(second.sequences, fresh.sequences);
}

#[test]
fn a_file_holds_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt");
    for (model, cache) in [
        (model(json!({})), json!({})),
        (model(json!({ "sliding_window": null })), json!({ "cache_implementation": "offloaded" })),
        (model(json!({ "hidden_size": 128 })), json!({ "cache_implementation": "quantized" })),
        (
            model(json!({ "sliding_window": null })),
            json!({ "cache_implementation": "sink", "cache_config": { "window_length": 100 } }),
        ),
    ] {
        let config = with(&json!({ "max_new_tokens": 40 }), cache.clone());
        let run = |prefixes: &PrefixCache, prompt: &[u32]| {
            Generator::new(&model, None)
                .remembering(prefixes)
                .generate(&[prompt.to_vec()], &config, 0, &mut |_| {})
                .unwrap()
        };
        let (memory, disk) = (PrefixCache::new(usize::MAX), PrefixCache::new(usize::MAX));
        std::fs::remove_file(&file).ok();
        assert!(!disk.load(&file, &model).unwrap(), "there is none yet");
        memory.save(&file, &model).unwrap();
        assert!(!file.exists(), "nothing has been read yet");
        run(&memory, &text(300, 1));
        memory.save(&file, &model).unwrap();
        assert!(disk.load(&file, &model).unwrap());
        assert_eq!((disk.latest(), disk.bytes()), (text(300, 1), memory.bytes()));
        // The same bits in memory and in the file: the same texts, from the beginning on, and from the middle.
        for prompt in [[&text(300, 1)[..], &[5, 6]].concat(), text(300, 1), [&text(290, 1)[..], &[5, 6]].concat()] {
            let (ours, theirs) = (run(&memory, &prompt), run(&disk, &prompt));
            assert_eq!((ours.timings.read, &ours.sequences), (theirs.timings.read, &theirs.sequences), "{cache}");
            assert!(ours.timings.read < 15, "{cache}");
        }
        // What was loaded lies in the file, and can be written again over it.
        disk.save(&file, &model).unwrap();
        let again = PrefixCache::new(usize::MAX);
        assert!(again.load(&file, &model).unwrap());
        assert_eq!(again.latest(), disk.latest());
    }
}

#[test]
fn a_file_that_is_not_whole_or_anothers_is_an_error_and_never_half_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt");
    let ours = model(json!({}));
    let prefixes = PrefixCache::new(usize::MAX);
    let config = settings(json!({ "max_new_tokens": 2 }));
    Generator::new(&ours, None).remembering(&prefixes).generate(&[text(100, 1)], &config, 0, &mut |_| {}).unwrap();
    prefixes.save(&file, &ours).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let refused = |bytes: &[u8], model: &Model, expected: &str| {
        std::fs::write(&file, bytes).unwrap();
        let empty = PrefixCache::new(usize::MAX);
        let error = empty.load(&file, model).unwrap_err();
        assert!(error.is_users() && error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("prompt") && error.to_string().len() < 500, "{error}");
        assert!(empty.is_empty());
    };
    let edited = |from: &str, to: &str| {
        let length = u64::from_le_bytes(whole[16..24].try_into().unwrap()) as usize;
        let header = std::str::from_utf8(&whole[24..24 + length]).unwrap();
        assert!(header.contains(from), "{header}");
        let header = header.replacen(from, to, 1);
        let mut bytes = whole[..16].to_vec();
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        bytes.extend(&whole[(24 + length).next_multiple_of(64)..]);
        bytes
    };
    refused(b"", &ours, "it is none");
    refused(b"something else altogether, and longer", &ours, "it is none");
    refused(&[&b"phyla prompt  99"[..], &whole[16..]].concat(), &ours, "another version");
    refused(&whole[..20], &ours, "before its header does");
    refused(&whole[..200], &ours, "before its header does");
    refused(&whole[..whole.len() - 1], &ours, "in the middle of its pages");
    refused(&[&whole[..], &[0; 64]].concat(), &ours, "bytes where its header speaks of");
    refused(&[&whole[..16], &[255; 8], &whole[24..]].concat(), &ours, "before its header does");
    refused(&edited("\"length\":100", "\"length\":99"), &ours, "it says that it holds 99 tokens, and names 100");
    refused(&edited("\"heads\":2", "\"heads\":4000000000000"), &ours, "other sizes than the model's");
    refused(&edited("\"kept\":\"f32\"", "\"kept\":\"f64\""), &ours, "other sizes than the model's");
    refused(&edited("\"gone\":0", "\"gone\":9"), &ours, "pages");
    refused(&edited("\"rounded\":0", "\"rounded\":9"), &ours, "pages");
    refused(&edited("\"sink\":null", "\"sink\":[1152921504606846976,1]"), &ours, "it keeps 1152921504606846976 tokens");
    refused(&edited("\"residual\":0", "\"extra\":0"), &ours, "does not parse");
    refused(&whole, &model(json!({ "sliding_window": 71 })), "another model has written it");
    let other = json!({ "model_type": "mistral", "initializer_range": 0.2 });
    refused(&whole, &model(other), "another model has written it");
    // Any bytes at all: an error or a text, never a panic.
    let mut rng = phyla_kernels::rng::Rng::new(3);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(1500.min(bytes.len() as u64)) as usize;
            bytes[at] = b"0123456789e-[]{}\",:\xff"[rng.below(20) as usize];
        }
        std::fs::write(&file, bytes).unwrap();
        let some = PrefixCache::new(usize::MAX);
        if some.load(&file, &ours).is_ok() {
            // Numbers may be any; they may come to no logits at all.
            Generator::new(&ours, None).remembering(&some).generate(&[text(100, 1)], &config, 0, &mut |_| {}).ok();
        }
    }
}
