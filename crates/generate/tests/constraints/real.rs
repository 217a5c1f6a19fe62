//! Constraints over tokenizers of real models, where they are there: their size, their odd tokens, and what a mask costs.

use std::path::{Path, PathBuf};

use phyla_data::tokenizer::Tokenizer;
use phyla_generate::Constraint;
use phyla_models::gguf::Gguf;
use serde_json::{Value, json};

use super::drawn;
use super::tokens::{Tokens, model};
use super::validate::valid;

/// Tokenizers with their names: of the shared data, and of the folders that `PHYLA_TOKENIZERS` names.
fn tokenizers() -> Vec<(String, Tokenizer)> {
    let data = std::env::var("PHYLA_SHARED_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").into());
    let vocab = |name: &str| PathBuf::from(&data).join(format!("gguf_vocab/ggml-vocab-{name}.gguf"));
    let files = ["gpt-2", "llama-spm", "phi-3", "deepseek-llm", "falcon"].map(vocab);
    let named = std::env::var_os("PHYLA_TOKENIZERS").unwrap_or_default();
    let folders = ["roberta-base", "minimind"].map(|name| PathBuf::from(&data).join("tokenizers").join(name));
    let folders =
        folders.into_iter().chain(std::env::split_paths(&named)).filter(|path| path.join("tokenizer.json").exists());
    let name = |path: &Path| path.display().to_string();
    let of_file = |path: PathBuf| {
        let metadata = Gguf::open(&path).unwrap().json("tokenizer.").unwrap();
        (name(&path), Tokenizer::from_gguf(&metadata).unwrap())
    };
    let mut all: Vec<_> = files.into_iter().filter(|path| path.exists()).map(of_file).collect();
    all.extend(folders.map(|path| (name(&path), Tokenizer::load(&path).unwrap())));
    all
}

#[test]
fn documents_are_valid_over_real_tokenizers() {
    let tokenizers = tokenizers();
    if tokenizers.is_empty() {
        println!("skipped: no tokenizers in the shared data");
    }
    let schema = json!({
        "type": "object", "required": ["name", "born", "tags", "size"], "additionalProperties": false, "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 20 },
            "born": { "type": "string", "format": "date" },
            "tags": { "type": "array", "maxItems": 4, "items": { "enum": ["née", "日本", "a\"b", "\\"] } },
            "size": { "type": "number", "minimum": -3, "maximum": 12.5 },
            "odd": { "type": "string", "pattern": "^[\u{1F600}-\u{1F610}]{2}$" }
        }
    });
    for (name, tokenizer) in tokenizers {
        let id = |text: &&str| tokenizer.token_to_id(text);
        let closing = ["\"", "}", "]", "\"}", "\","].iter().filter_map(id).collect();
        // The end of a sequence is the tests' first id.
        let model = model(tokenizer.vocab_size() + 5, 3);
        let tokens = Tokens { tokenizer, model, closing };
        let constraint = Constraint::json_schema(schema.clone()).unwrap();
        let generation = drawn(&tokens, &constraint, 4, 300, 1);
        let mut whole = 0;
        for sequence in &generation.sequences {
            if sequence.complete == Some(true) {
                let document: Value = serde_json::from_str(sequence.text.as_deref().unwrap()).unwrap();
                assert!(valid(&document, &schema, &schema), "{document}");
                whole += 1;
            }
        }
        let timings = &generation.timings;
        println!(
            "{name}: {} ids, {whole} of {} whole, {} masks of {:.0} us each",
            tokens.tokenizer.vocab_size(),
            generation.sequences.len(),
            timings.masks,
            timings.per_mask().as_secs_f64() * 1e6
        );
        assert!(whole > 0);
        for text in
            drawn(&tokens, &Constraint::choice(vec!["née 日本".into(), "no".into()]).unwrap(), 4, 40, 2).sequences
        {
            assert!(["née 日本", "no"].contains(&text.text.as_deref().unwrap()));
        }
    }
}
