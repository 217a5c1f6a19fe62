//! The model that tests of decoding ask; apart from its neighbour, since not every test does.
#![expect(clippy::unwrap_used, reason = "tests")]

use crate::common::said;

/// A folder with a tiny decoder, `model`, without tokenizer.
pub fn tiny_decoder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 200, "initializer_range": 0.3,
    });
    std::fs::write(folder.path().join("c.json"), config.to_string()).unwrap();
    said(folder.path(), &["init", "--config", "c.json", "--output", "model", "--seed", "5"]);
    folder
}
