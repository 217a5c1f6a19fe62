//! Tests on well-known files, which are not part of the project: skipped where they are not there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use phyla_data::batch::{BatchSettings, Batcher, Packing};
use phyla_data::dataset::{Corpus, Portion, Split, TextSettings};
use phyla_data::tokenizer::{BpeSettings, PreTokenizer, Tokenizer, train_bpe};
use phyla_data::tokens::{TokenFile, TokenSettings};
use serde_json::Value;

use crate::streams::check;

pub fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PHYLA_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// llama.cpp's cases: texts divided by a line, and the ids of each on a line of its own.
pub fn cases(inputs: &Path, outputs: &Path) -> Vec<(String, Vec<u32>)> {
    let inputs = std::fs::read_to_string(inputs).unwrap();
    let outputs = std::fs::read_to_string(outputs).unwrap();
    let texts = inputs.split("\n__ggml_vocab_test__\n").map(str::to_owned);
    let ids = outputs.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect());
    texts.zip(ids).collect()
}

#[test]
fn vocabularies_give_the_reference_ids() {
    let Some(vocabularies) = shared("gguf_vocab") else { return };
    for (folder, case, add_special) in [
        ("gpt2", "gpt-2", false),
        ("roberta-base", "roberta-bpe", true),
        ("phi-3", "llama-spm", false),
        ("phi-3", "phi-3", false),
    ] {
        let Some(folder) = shared(&format!("tokenizers/{folder}")) else { continue };
        let tokenizer = Tokenizer::load(&folder).unwrap();
        let file = |ending: &str| vocabularies.join(format!("ggml-vocab-{case}.gguf.{ending}"));
        let (mut same, mut all) = (0, 0);
        for (text, expected) in cases(&file("inp"), &file("out")) {
            let ids = tokenizer.encode(&text, add_special).unwrap();
            all += 1;
            same += usize::from(ids == expected || ids.get(1..ids.len().saturating_sub(1)) == Some(&expected[..]));
            if !ids.is_empty() {
                check(&tokenizer, &ids);
            }
        }
        println!("{case}: {same} of {all}");
        // For the two SentencePiece vocabularies the cases are made with options of their own.
        assert!(same == all || !matches!(case, "gpt-2" | "roberta-bpe"), "{case}: {same} of {all}");
        assert!(all > 40);
    }
}

#[test]
fn roberta_built_from_older_files_equals_its_own() {
    let Some(folder) = shared("tokenizers/roberta-base") else { return };
    let own = Tokenizer::load(folder.join("tokenizer.json")).unwrap();
    let older = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(folder.join(name), older.path().join(name)).unwrap();
    }
    let older = Tokenizer::load(older.path()).unwrap();
    assert_eq!(own.vocabulary(), older.vocabulary());
    for text in [crate::TEXT, "a <mask> b</s>", ""] {
        assert_eq!(own.encode_detailed(text, true).unwrap(), older.encode_detailed(text, true).unwrap());
        assert_eq!(own.encode_pair(text, "b", true).unwrap(), older.encode_pair(text, "b", true).unwrap());
    }
}

#[test]
fn bert_splits_ten_thousand_questions_as_the_reference_does() {
    let (Some(folder), Some(oracles)) = (shared("tokenizers/bert-base-uncased"), shared("tokenizer_oracles")) else {
        return;
    };
    let tokenizer = Tokenizer::load(folder).unwrap();
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(oracles.join(name)).unwrap()).unwrap() };
    let (questions, ids) = (read("question_tokens.json"), read("tokenized_questions.json"));
    let mut compared = 0;
    for (question, ids) in questions.as_array().unwrap().iter().zip(ids.as_array().unwrap()) {
        let text = question["original"].as_str().unwrap();
        let tokens: Vec<String> = serde_json::from_value(question["wordpiece"].clone()).unwrap();
        let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
        let ours = tokenizer.encode_detailed(text, false).unwrap();
        assert_eq!((&ours.pieces, &ours.ids), (&tokens, &ids), "{text}");
        compared += 1;
    }
    assert!(compared > 10_000, "{compared}");
}

#[test]
fn every_vocabulary_loads_or_says_why_not() {
    let Some(folder) = shared("tokenizers") else { return };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let start = Instant::now();
        match Tokenizer::load(&path) {
            Ok(tokenizer) => {
                println!("{}: {tokenizer:?} in {:?}", path.display(), start.elapsed());
                let ids = tokenizer.encode(crate::TEXT, true).unwrap();
                if !path.to_string_lossy().contains("bert") {
                    check(&tokenizer, &ids);
                }
            }
            // Qwen's and Llama 3's are tiktoken's; the copy of Llama 2's has lost a character transformers misses too.
            Err(error) => {
                let name = path.file_name().unwrap().to_string_lossy();
                assert!(["qwen", "llama3", "llama2"].contains(&&*name), "{error}");
                println!("{error}");
            }
        }
    }
}

#[test]
fn shakespeare_by_characters_is_nano_gpts_data_set() {
    let Some(folder) = shared("tinyshakespeare") else { return };
    let path = folder.join("input.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let tokenizer = Tokenizer::characters(&text).unwrap();
    assert_eq!(tokenizer.vocab_size(), 65);
    let cache = tempfile::tempdir().unwrap();
    let settings = TokenSettings { append_eos: false, ..TokenSettings::default() };
    let part = |portion| {
        let split = Some(Split::Characters { validation: 0.1, portion });
        let corpus = Corpus::new(TextSettings { split, ..TextSettings::new(&path) }).unwrap();
        TokenFile::cached(cache.path(), &corpus, &tokenizer, &settings, &mut |_| {}).unwrap().0
    };
    let start = Instant::now();
    let (train, validation) = (part(Portion::Train), part(Portion::Validation));
    println!("{} + {} tokens in {:?}", train.tokens(), validation.tokens(), start.elapsed());
    // The counts that nanoGPT's prepare.py prints.
    assert_eq!((train.tokens(), validation.tokens()), (1_003_854, 111_540));
    let ids = [train.all().to_vec(), validation.all().to_vec()].concat();
    assert!(tokenizer.decode(&ids, false).unwrap() == text);

    let mut batcher = Batcher::new(Arc::new(train), BatchSettings::new(Packing::Stream, 64, 256)).unwrap();
    let start = Instant::now();
    let tokens: usize = (0..50).map(|_| batcher.next_batch().tokens).sum();
    println!("{tokens} tokens of stream batches in {:?}", start.elapsed());
    assert_eq!(tokens, 50 * 64 * 256);
}

#[test]
fn shakespeare_in_gpt2_tokens_is_nano_gpts_data_set() {
    let (Some(folder), Some(gpt2)) = (shared("tinyshakespeare"), shared("tokenizers/gpt2")) else { return };
    let tokenizer = Tokenizer::load(gpt2).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let settings = TokenSettings { append_eos: false, ..TokenSettings::default() };
    let counts = [Portion::Train, Portion::Validation].map(|portion| {
        let split = Some(Split::Characters { validation: 0.1, portion });
        let corpus = Corpus::new(TextSettings { split, ..TextSettings::new(folder.join("input.txt")) }).unwrap();
        let start = Instant::now();
        let file = TokenFile::cached(cache.path(), &corpus, &tokenizer, &settings, &mut |_| {}).unwrap().0;
        println!("{} tokens in {:?}", file.tokens(), start.elapsed());
        file.tokens()
    });
    assert_eq!(counts, [301_966, 36_059]);
}

#[test]
fn bpe_trains_on_megabytes_in_seconds() {
    let Some(folder) = shared("wikitext2") else { return };
    let corpus = Corpus::new(TextSettings {
        paths: vec![folder.join("valid.txt"), folder.join("test.txt")],
        ..TextSettings::new("")
    })
    .unwrap();
    for pre_tokenizer in [PreTokenizer::Gpt2, PreTokenizer::Llama3] {
        let settings = BpeSettings { vocab_size: 8192, pre_tokenizer, ..BpeSettings::default() };
        let start = Instant::now();
        let texts = corpus.documents().unwrap().map(|document| document.map(|document| document.text));
        let tokenizer = train_bpe(texts, &settings, &mut |_| {}).unwrap();
        println!(
            "{pre_tokenizer:?}: {} tokens from {} bytes in {:?}",
            tokenizer.vocab_size(),
            corpus.bytes().unwrap(),
            start.elapsed()
        );
        assert_eq!(tokenizer.vocab_size(), 8192);
        let cache = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let file =
            TokenFile::cached(cache.path(), &corpus, &tokenizer, &TokenSettings::default(), &mut |_| {}).unwrap().0;
        println!("encoded to {} tokens in {:?}", file.tokens(), start.elapsed());
        let start = Instant::now();
        let again =
            TokenFile::cached(cache.path(), &corpus, &tokenizer, &TokenSettings::default(), &mut |_| {}).unwrap();
        println!("{:?} in {:?}", again.1, start.elapsed());
    }
}
