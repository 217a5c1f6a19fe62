//! Reading, merging and resolving settings.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Map, Value, json};

use super::*;
use crate::Error;

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn read(value: Value) -> (GenerationConfig, Vec<String>) {
    GenerationConfig::from_map(&map(value)).unwrap()
}

#[test]
fn a_real_file_reads_without_warnings() {
    let (config, warnings) = read(json!({
        "bos_token_id": 151643, "pad_token_id": 151643, "do_sample": true, "eos_token_id": [151645, 151643],
        "repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20.0, "transformers_version": "4.37.0",
        "num_beams": 1, "typical_p": 1, "max_new_tokens": null, "use_cache": false
    }));
    assert!(warnings.is_empty(), "{warnings:?}");
    let settings = Settings::try_from(&config).unwrap();
    assert_eq!(settings.eos, [151645, 151643]);
    let sampling = settings.sampling.unwrap();
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p), (0.7, 20, 0.8, 0.));
    assert_eq!((sampling.top_h, sampling.typical_p, sampling.epsilon, sampling.eta), (None, 1., 0., 0.));
    assert_eq!((settings.repetition_penalty, settings.returns, settings.bos), (1.1, 1, Some(151643)));
}

#[test]
fn the_count_of_new_tokens_takes_precedence() {
    let lengths = |value: Value| {
        let settings = Settings::try_from(&read(value).0).unwrap();
        (settings.min_length, settings.min_new_tokens)
    };
    assert_eq!(lengths(json!({ "min_length": 14 })), (14, 0));
    assert_eq!(lengths(json!({ "min_length": 14, "min_new_tokens": 6 })), (0, 6));
}

#[test]
fn what_has_no_effect_is_named() {
    let (_, warnings) = read(json!({ "use_mtp": true, "temperatur": 0.3, "zzz": 1, "top_p": 0.9, "top_h": 0.5 }));
    assert_eq!(
        warnings,
        [
            "use_mtp is true, which is not supported yet and has no effect",
            "\"temperatur\" is no setting of decoding and has no effect; did you mean temperature?",
            "\"zzz\" is no setting of decoding and has no effect",
            "top_p, top_h without do_sample: decoding is greedy",
        ]
    );
}

#[test]
fn wrong_values_name_their_key() {
    for (value, expected) in [
        (json!({ "top_k": -1 }), "top_k: expected a whole number from 0, found -1"),
        (json!({ "top_k": 2.5 }), "top_k: expected a whole number from 0, found 2.5"),
        (json!({ "temperature": "hot" }), "temperature: expected a number, found \"hot\""),
        (json!({ "eos_token_id": [1, -2] }), "eos_token_id: expected token ids from 0, found -2"),
        (json!({ "eos_token_id": 5_000_000_000u64 }), "eos_token_id: expected token ids from 0, found 5000000000"),
        (json!({ "stop_strings": [[]] }), "stop_strings: expected strings, found []"),
        (json!({ "do_sample": 1 }), "do_sample: expected true or false, found 1"),
        (json!({ "early_stopping": "always" }), "early_stopping: expected true, false or \"never\", found \"always\""),
        (json!({ "bad_words_ids": [[1], 2] }), "bad_words_ids: expected lists of token ids, found 2"),
        (json!({ "bad_words_ids": [[1, "a"]] }), "bad_words_ids: expected token ids from 0, found \"a\""),
        (
            json!({ "cache_implementation": "fast" }),
            "cache_implementation: expected dynamic, sliding_window, hybrid, dynamic_full, static, quantized, offloaded, \
             offloaded_static or sink, found \"fast\"",
        ),
        (json!({ "sequence_bias": [[[1, 2], 3.0], [4, 1.0]] }), "sequence_bias: expected lists of token ids, found 4"),
        (
            json!({ "exponential_decay_length_penalty": [1] }),
            "exponential_decay_length_penalty: expected a number of tokens and a factor, found [1]",
        ),
        (
            json!({ "num_assistant_tokens_schedule": "often" }),
            "num_assistant_tokens_schedule: expected constant, heuristic or heuristic_transient, found \"often\"",
        ),
        (json!({ "cache_config": { "nbits": 2 } }), "cache_config: nbits: expected 4 or 8, found 2"),
        (
            json!({ "cache_config": { "q_group_size": 16 } }),
            "cache_config: q_group_size: expected at least 32, the numbers of a block, found 16",
        ),
        (
            json!({ "cache_config": { "residual_length": -1 } }),
            "cache_config: residual_length: expected a whole number from 0, found -1",
        ),
        (
            json!({ "cache_dtype": "q2_k" }),
            "cache_dtype: expected one of f32, bf16, f16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, found \"q2_k\"",
        ),
        (
            json!({ "force_words_ids": 3 }),
            "force_words_ids: expected lists of token ids, or lists of such lists, found 3",
        ),
        (json!({ "force_words_ids": [[1, [2]]] }), "force_words_ids: expected token ids from 0, found [2]"),
        (json!({ "force_words_ids": [[[1], 2]] }), "force_words_ids: expected lists of token ids, found 2"),
        (
            json!({ "constraints": [{ "ids": [1] }] }),
            "constraints: expected objects with token_ids (a list) or nested_token_ids (lists), found {\"ids\":[1]}",
        ),
        (json!({ "forced_eos_token_id": -1 }), "forced_eos_token_id: expected token ids from 0, found -1"),
    ] {
        assert_eq!(GenerationConfig::from_map(&map(value)).unwrap_err().to_string(), expected);
    }
    let long = json!({ "top_k": "x".repeat(100_000) });
    assert!(GenerationConfig::from_map(&map(long)).unwrap_err().to_string().len() < 200);
    for (value, expected) in [
        (json!({ "temperature": -0.5 }), "temperature: expected a number of at least 0, found -0.5"),
        (json!({ "top_p": 1.5 }), "top_p: expected a number from 0 to 1, found 1.5"),
        (json!({ "repetition_penalty": 0 }), "repetition_penalty: expected a number above 0, found 0"),
        (json!({ "temperature": 1e300 }), "temperature: expected a number of at least 0, found inf"),
        (json!({ "top_h": 0 }), "top_h: expected a number above 0 and up to 1, found 0"),
        (json!({ "typical_p": 1.5 }), "typical_p: expected a number above 0 and up to 1, found 1.5"),
        (json!({ "sequence_bias": [[[], 1.0]] }), "sequence_bias: an empty run of ids has no last one"),
        (json!({ "frequency_penalty": 1e300 }), "frequency_penalty: expected a finite number, found inf"),
        (json!({ "max_new_tokens": 0 }), "max_new_tokens must be at least 1, found 0"),
        (json!({ "num_return_sequences": 0 }), "num_return_sequences must be at least 1, found 0"),
        (json!({ "num_beams": 0 }), "num_beams must be at least 1, found 0"),
        (json!({ "num_beams": 1e9 }), "num_beams must be at most 1024, found 1000000000"),
        (json!({ "length_penalty": 1e300 }), "length_penalty: expected a finite number, found inf"),
        (json!({ "bad_words_ids": [[]] }), "bad_words_ids: an empty run of ids would forbid everything"),
        (
            json!({ "num_beams": 2, "num_return_sequences": 3 }),
            "num_return_sequences: a search of 2 beams ends with as many sequences, and 3 are asked for; raise num_beams",
        ),
        (
            json!({ "num_beams": 6, "num_beam_groups": 4, "diversity_penalty": 1 }),
            "num_beam_groups: expected a divisor of the 6 of num_beams, found 4",
        ),
        (
            json!({ "num_beams": 2, "num_beam_groups": 4, "diversity_penalty": 1 }),
            "num_beam_groups: expected a divisor of the 2 of num_beams, found 4",
        ),
        (json!({ "num_beams": 2, "num_beam_groups": 0 }), "num_beam_groups must be at least 1, found 0"),
        (
            json!({ "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1, "do_sample": true }),
            "num_beam_groups: groups of beams are not drawn, expected do_sample false, found true",
        ),
        (
            json!({ "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1, "force_words_ids": [[1]] }),
            "force_words_ids: words are forced on beams of one group, expected num_beam_groups 1, found 2",
        ),
        (
            json!({ "num_beams": 4, "num_beam_groups": 2 }),
            "diversity_penalty: expected a number above 0, without which groups are alike, found 0",
        ),
        (
            json!({ "num_beams": 4, "diversity_penalty": 0.5 }),
            "diversity_penalty: expected num_beam_groups above 1, which are to differ, found 1 (and a penalty of 0.5)",
        ),
        (json!({ "diversity_penalty": -1 }), "diversity_penalty: expected a number of at least 0, found -1"),
        (
            json!({ "num_beams": 2, "force_words_ids": [] }),
            "force_words_ids: expected at least one run of ids, found none",
        ),
        (
            json!({ "num_beams": 2, "force_words_ids": [[]] }),
            "force_words_ids: expected runs of at least one id, found [[]]",
        ),
        (
            json!({ "num_beams": 2, "constraints": [{ "nested_token_ids": [] }] }),
            "constraints: expected runs of at least one id, found []",
        ),
        (
            json!({ "num_beams": 2, "force_words_ids": [[[1, 2], [3], [1]]] }),
            "force_words_ids: expected runs of which none begins another, found [1] and [1, 2]",
        ),
        (
            json!({ "num_beams": 2, "force_words_ids": [[4], [5, 2]], "eos_token_id": 2 }),
            "force_words_ids: expected ids that do not end a sequence, found 2 of eos_token_id",
        ),
        (
            json!({ "num_beams": 2, "force_words_ids": [[[4, 7], [7]]], "suppress_tokens": [7] }),
            "force_words_ids: expected ids that may be written, found 7 of suppress_tokens",
        ),
        (
            json!({ "num_beams": 2, "force_words_ids": [[4]], "do_sample": true }),
            "force_words_ids: beams with words to write are not drawn, expected do_sample false, found true",
        ),
        (
            json!({ "force_words_ids": [[4]] }),
            "force_words_ids: words are forced by a search, expected num_beams above 1, found 1",
        ),
        (json!({ "stop_strings": "" }), "stop_strings: an empty string would stop everywhere"),
    ] {
        let error = Settings::try_from(&read(value).0).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.is_users());
    }
}

#[test]
fn files_are_read_or_stood_in_for_by_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = map(json!({ "eos_token_id": 2, "bos_token_id": 1, "top_k": "not ours to read" }));
    let (config, warnings) = GenerationConfig::load(folder.path(), &model).unwrap();
    assert_eq!((config.eos_token_id, config.bos_token_id, warnings), (Some(vec![2]), Some(1), vec![]));
    let file = folder.path().join("generation_config.json");
    std::fs::write(&file, r#"{ "eos_token_id": 7 }"#).unwrap();
    assert_eq!(GenerationConfig::load(folder.path(), &model).unwrap().0.eos_token_id, Some(vec![7]));
    for text in ["{", "[]", "\"x\"", "{\"top_k\": {}}", "\u{0}"] {
        std::fs::write(&file, text).unwrap();
        let error = GenerationConfig::load(folder.path(), &model).unwrap_err();
        assert!(matches!(error, Error::Settings(ref text) if text.contains("generation_config.json: ")), "{error}");
    }
}

#[test]
fn a_users_word_goes_before_the_models() {
    let model = || read(json!({ "temperature": 0.7, "do_sample": true, "max_new_tokens": 2048, "eos_token_id": 2 })).0;
    let user = |value| read(value).0;
    let settings = |value| Settings::try_from(&model().merge(user(value))).unwrap();
    assert_eq!(settings(json!({})).sampling.unwrap().temperature, 0.7);
    assert_eq!(settings(json!({ "temperature": 0 })).sampling, None);
    assert_eq!(settings(json!({ "temperature": 0.2 })).sampling.unwrap().temperature, 0.2);
    assert_eq!(settings(json!({ "top_k": 3 })).sampling.unwrap().top_k, 3);
    assert_eq!(settings(json!({ "do_sample": false, "top_k": 3 })).sampling, None);
    // Either limit of the user's replaces the model's.
    let limited = settings(json!({ "max_length": 10 }));
    assert_eq!((limited.max_new_tokens, limited.max_length), (None, Some(10)));
    // Asking for a distribution is asking to sample.
    let greedy = GenerationConfig { do_sample: Some(false), ..model() };
    let merged = Settings::try_from(&greedy.merge(user(json!({ "top_p": 0.5 })))).unwrap();
    assert_eq!(merged.sampling.unwrap().top_p, 0.5);
    assert_eq!(Settings::try_from(&GenerationConfig::default()).unwrap().sampling, None);
}

#[test]
fn limits_are_the_nearest_of_all() {
    let mut arch = phyla_models::Arch::decoder(10, 4, 100, 0.02);
    let settings = |value| Settings::try_from(&read(value).0).unwrap();
    assert_eq!(settings(json!({})).limit(40, &arch).unwrap(), 60);
    assert_eq!(settings(json!({})).limit(400, &arch).unwrap(), 1);
    assert_eq!(settings(json!({ "max_length": 50 })).limit(40, &arch).unwrap(), 10);
    assert_eq!(settings(json!({ "max_length": 50, "max_new_tokens": 5 })).limit(60, &arch).unwrap(), 5);
    assert!(settings(json!({ "max_length": 50 })).limit(50, &arch).is_err());
    assert_eq!(settings(json!({ "max_new_tokens": 500 })).limit(40, &arch).unwrap(), 500);
    arch.context_is_hard = true;
    assert_eq!(settings(json!({ "max_new_tokens": 500 })).limit(40, &arch).unwrap(), 61);
    assert_eq!(settings(json!({ "max_new_tokens": 500 })).limit(100, &arch).unwrap(), 1);
    assert!(settings(json!({})).limit(101, &arch).unwrap_err().to_string().contains("100 positions"));
    let long = phyla_models::Arch::decoder(10, 4, 100_000, 0.02);
    assert_eq!(settings(json!({})).limit(40, &long).unwrap(), DEFAULT_MAX_NEW_TOKENS);
}

#[test]
fn a_translators_file_is_read_whole() {
    let (config, warnings) = read(json!({
        "bad_words_ids": [[58100]], "bos_token_id": 0, "decoder_start_token_id": 58100, "eos_token_id": 0,
        "forced_eos_token_id": 0, "max_length": 512, "num_beams": 4, "pad_token_id": 58100,
        "renormalize_logits": true, "early_stopping": "never", "length_penalty": 2, "no_repeat_ngram_size": 3,
        "forced_bos_token_id": 7, "begin_suppress_tokens": [3]
    }));
    assert!(warnings.is_empty(), "{warnings:?}");
    let settings = Settings::try_from(&config).unwrap();
    assert_eq!((settings.beams, settings.early_stopping, settings.renormalize), (4, EarlyStopping::Never, true));
    assert_eq!((settings.length_penalty, settings.no_repeat_ngram, settings.bad_words), (2., 3, vec![vec![58100]]));
    assert_eq!((settings.decoder_start, settings.forced_bos), (Some(58100), Some(7)));
    assert_eq!((settings.forced_eos, settings.begin_suppress), (vec![0], vec![3]));
    // Old checkpoints keep these in config.json; its limits and temperatures are not read.
    let model = map(json!({ "num_beams": 5, "decoder_start_token_id": 2, "max_length": 20, "top_k": 50 }));
    let folder = tempfile::tempdir().unwrap();
    let config = GenerationConfig::load(folder.path(), &model).unwrap().0;
    assert_eq!((config.num_beams, config.decoder_start_token_id, config.max_length), (Some(5), Some(2), None));
    // With a file of its own, only the decoder's start comes from there.
    std::fs::write(folder.path().join("generation_config.json"), "{}").unwrap();
    let config = GenerationConfig::load(folder.path(), &model).unwrap().0;
    assert_eq!((config.num_beams, config.decoder_start_token_id), (None, Some(2)));
}

/// Damaged files give one message or are read; never a panic.
#[test]
fn ten_thousand_damaged_files() {
    let whole = br#"{ "bos_token_id": 1, "do_sample": true, "eos_token_id": [2, 3], "temperature": 0.7, "top_p": 0.8,
        "top_k": 20, "stop_strings": ["a", "b"], "max_new_tokens": 100, "num_beams": 1, "suppress_tokens": [5] }"#;
    let mut rng = phyla_kernels::rng::Rng::new(11);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let mut bytes = whole.to_vec();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.next_u32() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"0123456789e-[]{}\",:"[rng.below(19) as usize]),
            }
        }
        let Ok(Value::Object(map)) = serde_json::from_slice(&bytes) else { continue };
        match GenerationConfig::from_map(&map).and_then(|(config, _)| Settings::try_from(&config)) {
            Ok(_) => read += 1,
            Err(error) => {
                assert!(error.is_users() && error.to_string().len() < 300, "{error}");
                refused += 1;
            }
        }
    }
    assert!(read > 1000 && refused > 20, "{read} read, {refused} refused");
}

#[test]
fn every_key_in_the_list_is_read_and_each_is_listed_once() {
    let value = |kind: &str| match kind {
        "BOOL" | "BOOL|N" => json!(true),
        "N" | "K" => json!(3),
        "T" | "P" | "H" | "F" | "X" | "A" | "SECONDS" => json!(0.5),
        "ID" | "ID|[ID,...]" => json!(1),
        "[ID,...]" => json!([1]),
        "[[ID,...],...]" => json!([[1, 2]]),
        "[[[ID,...],X],...]" => json!([[[1], 0.5]]),
        "[{\"token_ids\":[ID,...]},...]" => json!([{ "token_ids": [1] }, { "nested_token_ids": [[1], [2, 3]] }]),
        "[N,F]" => json!([2, 1.5]),
        "TEXT|[TEXT,...]" => json!("x"),
        "KIND" => json!("q8_0"),
        "JSON" => json!({ "nbits": 4, "residual_length": 64 }),
        "low|high|[N,...]" => json!([0, 2]),
        "{\"bias\":X,...}" => json!({ "bias": 1.5, "seeding_scheme": "selfhash" }),
        "[[N,ID],...]" => json!([[1, 4], [2, null]]),
        "SCHEMA" => json!({ "type": "integer" }),
        "EXPRESSION" => json!("a+"),
        "GRAMMAR" => json!("start: \"a\""),
        "[TEXT,...]" => json!(["x"]),
        "true|false|never" => json!("never"),
        _ => json!("a kind of value that this test does not know"),
    };
    let names: std::collections::BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), KEYS.len());
    for key in KEYS {
        let value = match key.name {
            "cache_implementation" => json!("static"),
            "dry_sequence_breakers" => json!(["\n"]),
            "num_assistant_tokens_schedule" => json!("constant"),
            _ => value(key.value),
        };
        let (config, warnings) = read(json!({ key.name: value, "do_sample": true }));
        assert!(warnings.is_empty(), "{}: {warnings:?}", key.name);
        let (only, _) = read(json!({ "do_sample": true }));
        assert!(config != only || key.name == "do_sample", "{} sets nothing", key.name);
        // What a user says goes before the model, for each key.
        assert_eq!(GenerationConfig::default().merge(config.clone()), config, "{}", key.name);
    }
}

/// The fields of transformers 4.28.1 and of 5.
const FIELDS: &str = "max_length max_new_tokens min_length min_new_tokens early_stopping max_time do_sample num_beams \
    num_beam_groups penalty_alpha use_cache temperature top_k top_p typical_p epsilon_cutoff eta_cutoff diversity_penalty \
    repetition_penalty encoder_repetition_penalty length_penalty no_repeat_ngram_size bad_words_ids force_words_ids \
    renormalize_logits constraints forced_bos_token_id forced_eos_token_id remove_invalid_values \
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens forced_decoder_ids num_return_sequences \
    output_attentions output_hidden_states output_scores return_dict_in_generate pad_token_id bos_token_id eos_token_id \
    encoder_no_repeat_ngram_size decoder_start_token_id generation_kwargs _from_model_config _commit_hash \
    transformers_version stop_strings use_mtp cache_implementation cache_config max_cache_len min_p top_h sequence_bias \
    token_healing guidance_scale watermarking_config output_logits is_assistant num_assistant_tokens \
    num_assistant_tokens_schedule assistant_confidence_threshold prompt_lookup_num_tokens max_matching_ngram_size \
    assistant_early_exit assistant_lookbehind target_lookbehind assistant_ensemble_weight speculation_type compile_config \
    disable_compile continuous_batching_config low_memory dola_layers prefill_chunk_size";

#[test]
fn the_handbook_says_of_every_field_what_becomes_of_it() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/handbook/decoding.md");
    let page = std::fs::read_to_string(page).unwrap();
    let row = |name: &str| page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
    for name in FIELDS.split_whitespace().chain(KEYS.iter().map(|key| key.name)) {
        let row = row(name).unwrap_or("");
        let honoured = KEYS.iter().any(|key| key.name == name);
        let says = [("honoured", honoured), ("nothing to do", false), ("not yet", false)];
        let said: Vec<_> = says.into_iter().filter(|(word, _)| row.contains(&format!("| {word}"))).collect();
        assert!(said.len() == 1 && said[0].1 == honoured, "{name}: {row}");
        if !honoured {
            // What a file says in vain is named, unless nothing is to be done.
            let (_, warnings) = read(json!({ name: "something" }));
            assert_eq!(warnings.is_empty(), said[0].0 == "nothing to do", "{name}: {warnings:?}");
        }
    }
}
