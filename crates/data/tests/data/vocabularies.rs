//! Tokenizers made, loaded from files old and new, saved, and damaged.

use phyla_data::tokenizer::{BpeSettings, PreTokenizer, Tokenizer, train_bpe};
use phyla_kernels::rng::Rng;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

use crate::streams::sentence_piece;
use crate::templates::TOKENIZER;
use crate::{TEXT, memory, small};

#[test]
fn bpe_learns_what_the_reference_trainer_learns() {
    let settings = BpeSettings { vocab_size: 420, pre_tokenizer: PreTokenizer::Gpt2, ..BpeSettings::default() };
    let ours = small(settings);
    let mut reference = TokenizerBuilder::<BPE, tokenizers::NormalizerWrapper, _, ByteLevel, ByteLevel>::new()
        .with_model(BPE::default())
        .with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)))
        .with_normalizer(None)
        .with_post_processor(None)
        .with_decoder(None)
        .build()
        .unwrap();
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(420)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from("<|endoftext|>", true)])
        .build();
    reference.train(&mut trainer, (0..20).map(|_| TEXT)).unwrap();
    let mut expected: Vec<_> = reference.get_vocab(true).into_iter().collect();
    expected.sort_by_key(|(_, id)| *id);
    assert_eq!(ours.vocabulary(), expected);
    assert_eq!(ours.encode(TEXT, false).unwrap(), reference.encode(TEXT, false).unwrap().get_ids());
}

#[test]
fn a_trained_tokenizer_round_trips_any_text() {
    for pre_tokenizer in [PreTokenizer::Gpt2, PreTokenizer::Llama3] {
        let tokenizer = small(BpeSettings { vocab_size: 400, pre_tokenizer, ..BpeSettings::default() });
        assert_eq!(tokenizer.vocab_size(), 400);
        for text in [TEXT, "", " ", "\0\u{7F}\u{FFFD}\u{10FFFF}", "\n\n\n", "<|endoftext|> x<|endoftext|>"] {
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }
        assert_eq!(tokenizer.encode("<|endoftext|>", true).unwrap(), [0]);
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (None, Some(0), Some(0)));
        assert_eq!(tokenizer.decode(&tokenizer.encode("a<|endoftext|>b", false).unwrap(), true).unwrap(), "ab");
    }
}

#[test]
fn training_depends_on_text_and_settings_alone() {
    let train = |texts: &[&str]| {
        let settings =
            BpeSettings { vocab_size: 500, chat_template: Some("{{ 1 }}".to_owned()), ..BpeSettings::default() };
        train_bpe(texts.iter().map(|text| Ok(*text)), &settings, &mut |_| {}).unwrap()
    };
    let first = train(&[TEXT, TEXT, "more text"]);
    assert_eq!(first.fingerprint(), train(&[TEXT, TEXT, "more text"]).fingerprint());
    // The order of the texts does not matter, their content does.
    assert_eq!(first.fingerprint(), train(&["more text", TEXT, TEXT]).fingerprint());
    assert_ne!(first.fingerprint(), train(&[TEXT, TEXT, "other text, other text"]).fingerprint());
    assert_eq!(first.templates().source("default"), Some("{{ 1 }}"));
}

#[test]
fn special_tokens_in_the_text_are_not_learnt_from() {
    let text = "<|endoftext|>".repeat(50) + "ab ab ab ab";
    let settings = BpeSettings { vocab_size: 300, ..BpeSettings::default() };
    let tokenizer = train_bpe([Ok(text)], &settings, &mut |_| {}).unwrap();
    assert!(tokenizer.token_to_id("end").is_none() && tokenizer.token_to_id("<|").is_none());
    assert!(tokenizer.token_to_id("ab").is_some());
}

#[test]
fn impossible_training_settings_are_refused() {
    let error = |settings: BpeSettings| train_bpe([Ok("a")], &settings, &mut |_| {}).unwrap_err().to_string();
    assert!(error(BpeSettings { vocab_size: 256, ..BpeSettings::default() }).contains("needs 257 or more"));
    let role = BpeSettings { bos_token: Some("<s>".to_owned()), ..BpeSettings::default() };
    assert!(error(role).contains("`<s>` has a role"));
    let twice = BpeSettings { special_tokens: vec!["x".to_owned(); 2], ..BpeSettings::default() };
    assert!(error(twice).contains("different"));
}

#[test]
fn characters_are_their_own_tokens_in_order() {
    let tokenizer = Tokenizer::characters("b\na é👍 a\u{301}").unwrap();
    assert_eq!(tokenizer.vocab_size(), 7);
    assert_eq!(tokenizer.encode("\n ab", false).unwrap(), [0, 1, 2, 3]);
    let text = " a\n\n  b👍é a\u{301} ";
    let ids = tokenizer.encode(text, true).unwrap();
    assert_eq!(ids.len(), text.chars().count());
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    let error = tokenizer.encode("abc", false).unwrap_err().to_string();
    assert!(error.contains("is not among the"), "{error}");
    assert!(Tokenizer::characters("").is_err());
}

#[test]
fn details_lead_back_to_the_text() {
    let tokenizer = small(BpeSettings { vocab_size: 400, ..BpeSettings::default() });
    let detailed = tokenizer.encode_detailed(TEXT, false).unwrap();
    assert_eq!(detailed.ids, tokenizer.encode(TEXT, false).unwrap());
    for (index, id) in detailed.ids.iter().enumerate() {
        assert_eq!(tokenizer.id_to_token(*id).as_ref(), Some(&detailed.pieces[index]));
    }
    let plain = tokenizer.encode_detailed("The dog", false).unwrap();
    let words: Vec<&str> = plain.offsets.iter().map(|range| &"The dog"[range.clone()]).collect();
    assert_eq!(words.concat().replace(' ', ""), "Thedog");
}

#[test]
fn saving_gives_back_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("tokenizer.json", TOKENIZER.to_owned() + "\n\n"),
        ("tokenizer_config.json", "{ \"unknown_key\" : [1.50] }".to_owned()),
        ("special_tokens_map.json", "{}".to_owned()),
        ("chat_template.jinja", "{{ 1 }}\r\n".to_owned()),
        ("additional_chat_templates/rag.jinja", "x".to_owned()),
    ];
    let borrowed: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    memory(&borrowed).unwrap().save_into(folder.path().join("one")).unwrap();
    Tokenizer::load(folder.path().join("one")).unwrap().save_into(folder.path().join("two")).unwrap();
    for (name, text) in &files {
        assert_eq!(&std::fs::read_to_string(folder.path().join("two").join(name)).unwrap(), text);
    }
}

#[test]
fn roles_come_from_the_configuration_then_the_map() {
    let tokenizer = memory(&[
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", r#"{"bos_token": "a", "eos_token": {"content": "<new>", "lstrip": true}, "pad_token": null,
            "additional_special_tokens": ["<x>"], "added_tokens_decoder": {"2": {"content": "<new>", "special": true}}}"#),
        ("special_tokens_map.json", r#"{"bos_token": "b", "pad_token": "b", "unk_token": {"content": "b"}}"#),
        ("added_tokens.json", r#"{"<new>": 2, "word": 3}"#),
    ])
    .unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.unk()), (Some(0), Some(2), None, Some(1)));
    assert_eq!(tokenizer.special().more[0].id, 4);
    assert_eq!(tokenizer.vocab_size(), 5);
    assert_eq!(tokenizer.encode("aword<x>", false).unwrap(), [0, 3, 4]);
    assert!(tokenizer.is_special(4) && !tokenizer.is_special(3));
    // `a` has a role now, so it is skipped too.
    assert_eq!(tokenizer.decode(&[0, 3, 4], true).unwrap(), "word");
}

#[test]
fn early_checkpoints_have_their_customary_roles() {
    let gpt2 = small(BpeSettings { vocab_size: 300, eos_token: None, pad_token: None, ..BpeSettings::default() });
    let folder = tempfile::tempdir().unwrap();
    gpt2.save_into(folder.path()).unwrap();
    // Ours says which class it is, and that class has no customs.
    assert_eq!(gpt2.eos(), None);
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"model_max_length": 1024}"#).unwrap();
    let gpt2 = Tokenizer::load(folder.path()).unwrap();
    assert_eq!((gpt2.bos(), gpt2.eos(), gpt2.unk(), gpt2.pad()), (Some(0), Some(0), Some(0), None));
    assert_eq!(gpt2.model_max_length(), Some(1024));
    let bert = memory(&[("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n")]).unwrap();
    assert_eq!((bert.pad(), bert.unk(), bert.eos()), (Some(0), Some(1), None));
    assert_eq!(bert.special().mask.as_ref().unwrap().id, 4);
}

#[test]
fn other_files_of_a_tokenizer_may_be_binary() {
    let files = [("tokenizer.json", TOKENIZER.as_bytes()), ("spiece.model", b"\x0a\xff\xfe")];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
    assert_eq!(Tokenizer::from_memory(files.into()).unwrap().vocab_size(), 2);
}

#[test]
fn truncation_and_padding_in_the_file_are_ignored() {
    let text = TOKENIZER.replacen(
        '{',
        r#"{"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "a"},"#,
        1,
    );
    assert_eq!(memory(&[("tokenizer.json", &text)]).unwrap().encode("abab", false).unwrap(), [0, 1, 0, 1]);
}

#[test]
fn older_files_build_the_same_tokenizer() {
    let tokenizer = small(BpeSettings { vocab_size: 400, pre_tokenizer: PreTokenizer::Gpt2, ..BpeSettings::default() });
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save_into(folder.path()).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap();
    let vocab = json["model"]["vocab"].to_string();
    let pairs = json["model"]["merges"].as_array().unwrap().iter();
    let merges: Vec<String> =
        pairs.map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    let merges = format!("#version: 0.2\n{}\n", merges.join("\n"));
    for names in [["vocab.json", "merges.txt"], ["encoder.json", "vocab.bpe"]] {
        let older = memory(&[(names[0], &vocab), (names[1], &merges)]).unwrap();
        assert_eq!(older.vocabulary(), tokenizer.vocabulary());
        let text = TEXT.to_owned() + "<|endoftext|>";
        assert_eq!(older.encode(&text, true).unwrap(), tokenizer.encode(&text, true).unwrap());
        assert_eq!(older.decode(&older.encode(TEXT, true).unwrap(), true).unwrap(), TEXT);
    }
    let error = memory(&[("vocab.json", &vocab)]).unwrap_err().to_string();
    assert!(error.contains("merges.txt: missing"), "{error}");
    let error = memory(&[("vocab.json", &vocab), ("merges.txt", "#version: 0.2\na b c\n")]).unwrap_err().to_string();
    assert!(error.contains("line 2: expected two pieces"), "{error}");
}

#[test]
fn a_word_list_builds_bert() {
    let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ndog\n##s\n!\nthé\n";
    let uncased = memory(&[("vocab.txt", words)]).unwrap();
    assert_eq!(uncased.encode("The DOGS! [MASK] ça", true).unwrap(), [2, 5, 6, 7, 8, 4, 1, 3]);
    assert_eq!(uncased.encode("Thé", false).unwrap(), [5]);
    assert_eq!(uncased.decode(&[2, 5, 6, 7, 8, 3], true).unwrap(), "the dogs!");
    assert_eq!(uncased.encode_pair("dog", "the", true).unwrap(), (vec![2, 6, 3, 5, 3], vec![0, 0, 0, 1, 1]));
    let cased = memory(&[("vocab.txt", words), ("tokenizer_config.json", r#"{"do_lower_case": false}"#)]).unwrap();
    assert_eq!(cased.encode("The thé", false).unwrap(), [1, 9]);
    let error = memory(&[("vocab.txt", "a\nb\na\n")]).unwrap_err().to_string();
    assert!(error.contains("line 3: token `a` stands already in line 1"), "{error}");
    let error = memory(&[("vocab.txt", "a\n")]).unwrap_err().to_string();
    assert!(error.contains("[PAD]"), "{error}");
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let error = |files: &[(&str, &str)]| memory(files).unwrap_err().to_string();
    assert!(error(&[]).contains("no tokenizer here"));
    let message = error(&[("tokenizer.model", "\n\u{e}\n")]);
    assert!(message.contains("SentencePiece") && message.contains("save_pretrained"), "{message}");
    assert!(error(&[("tokenizer.model", "IQ== 0\n")]).contains("tiktoken"));
    assert!(error(&[("tokenizer.json", "{")]).contains("tokenizer.json: "));
    assert!(error(&[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", "[]")]).contains("found a list"));
    let number = error(&[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", r#"{"bos_token": 3}"#)]);
    assert!(number.contains("`bos_token`") && number.contains("found a number"), "{number}");
    let clash = r#"{"added_tokens_decoder": {"7": {"content": "<new>", "special": true}}}"#;
    let clash = error(&[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", clash)]);
    assert!(clash.contains("declared with id 7") && clash.contains("gives it 2"), "{clash}");
    assert!(error(&[("tokenizer.json", &TOKENIZER.replace(": 1}", ": 4000000000}"))]).contains("4000000000"));
    assert!(Tokenizer::load("/no/such/folder").unwrap_err().to_string().contains("/no/such/folder"));
}

/// Replaces, removes or repeats one value somewhere.
fn damage(value: &mut Value, values: &[Value], rng: &mut Rng) {
    let children = match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if children == 0 || rng.below(8) == 0 {
        *value = values[rng.below(values.len() as u64) as usize].clone();
        return;
    }
    let at = rng.below(children as u64) as usize;
    match (value, rng.below(12)) {
        (Value::Array(list), 0) => drop(list.remove(at)),
        (Value::Array(list), 1) => list.push(list[at].clone()),
        (Value::Array(list), _) => damage(&mut list[at], values, rng),
        (Value::Object(map), choice) => {
            let key = map.keys().nth(at).unwrap().clone();
            match choice {
                0 => drop(map.shift_remove(&key)),
                _ => damage(&mut map[&key], values, rng),
            }
        }
        _ => {}
    }
}

/// Neither loading nor using a damaged tokenizer may panic. A damaged file that still loads may well tokenise
/// otherwise; it must do so, or refuse, without ending the process.
#[test]
fn damaged_tokenizers_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let byte_level = small(BpeSettings { vocab_size: 270, ..BpeSettings::default() });
    byte_level.save_into(folder.path()).unwrap();
    let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ndog\n##s\n!\n";
    let bert = memory(&[("vocab.txt", words)]).unwrap();
    bert.save_into(folder.path().join("bert")).unwrap();
    sentence_piece().save_into(folder.path().join("spm")).unwrap();
    let unigram = r#"{"version": "1.0", "added_tokens": [], "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}, "post_processor": null,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.0], ["b", -2.0]], "byte_fallback": false}}"#;
    let seeds: Vec<String> = ["tokenizer.json", "bert/tokenizer.json", "spm/tokenizer.json"]
        .iter()
        .map(|path| std::fs::read_to_string(folder.path().join(path)).unwrap())
        .chain([unigram.to_owned()])
        .collect();
    let values =
        serde_json::json!([null, -1, 4294967295u64, 4294967296u64, 1e308, "", [], {}, true, "\u{FFFD}", "(?=("]);
    let values = values.as_array().unwrap().clone();
    let mut rng = Rng::new(11);
    let (mut loaded, mut refused) = (0, 0);
    for round in 0..4000 {
        let seed = &seeds[round % seeds.len()];
        let text = if rng.below(4) == 0 {
            let mut bytes = seed.clone().into_bytes();
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(2) {
                0 => bytes[at] = rng.below(256) as u8,
                _ => drop(bytes.splice(at..(at + 20).min(seed.len()), [])),
            }
            bytes
        } else {
            // Well-formed JSON that says something else: the parser's assumptions are about values.
            let mut value: Value = serde_json::from_str(seed).unwrap();
            for _ in 0..1 + rng.below(2) {
                damage(&mut value, &values, &mut rng);
            }
            value.to_string().into_bytes()
        };
        match Tokenizer::from_memory([("tokenizer.json".to_owned(), text)].into()) {
            Err(_) => refused += 1,
            Ok(tokenizer) => {
                loaded += 1;
                for text in ["the dogs! a b ab 你", "", "\n\0"] {
                    if let Ok(ids) = tokenizer.encode(text, true) {
                        let _ = tokenizer.decode(&ids, true);
                    }
                    let _ = tokenizer.encode_detailed(text, true);
                }
            }
        }
    }
    // Both sides are reached, else the mutations are too weak or too strong to show anything.
    assert!(loaded > 300 && refused > 300, "{loaded} loaded, {refused} refused");
}
