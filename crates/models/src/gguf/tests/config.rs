//! What a file's metadata becomes, and what of it is refused by name.

use serde_json::json;

use super::*;

fn number(key: &str, value: u32) -> Vec<u8> {
    pair(key, Kind::U32, &value.to_le_bytes())
}

fn words(key: &str, value: &str) -> Vec<u8> {
    pair(key, Kind::Text, &text(value))
}

/// A Llama with these pairs more.
fn llama(more: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let float = |key: &str, value: f32| pair(key, Kind::F32, &value.to_le_bytes());
    let mut pairs = vec![
        words("general.architecture", "llama"),
        number("llama.block_count", 2),
        number("llama.context_length", 64),
        number("llama.embedding_length", 16),
        number("llama.feed_forward_length", 12),
        number("llama.attention.head_count", 4),
        float("llama.attention.layer_norm_rms_epsilon", 1e-5),
        float("llama.rope.freq_base", 500_000.),
        number("tokenizer.ggml.bos_token_id", 1),
        number("tokenizer.ggml.eos_token_id", 2),
        list("tokenizer.ggml.tokens", Kind::Text, 3, &[text("a"), text("b"), text("c")].concat()),
    ];
    pairs.extend_from_slice(more);
    pairs
}

fn read(pairs: &[Vec<u8>]) -> std::result::Result<serde_json::Value, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let tensors = [tensor("token_embd.weight", &[16, 5], 0, 0), tensor("output.weight", &[16, 5], 0, 320)];
    std::fs::write(&path, file(pairs, &tensors, 32, 640)).unwrap();
    let config = config(&Gguf::open(&path).unwrap());
    config.map(serde_json::Value::Object).map_err(|error| error.to_string())
}

#[test]
fn keys_become_fields() {
    let config = read(&llama(&[])).unwrap();
    let expected = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 5, "bos_token_id": 1,
        "eos_token_id": 2, "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 12,
        "max_position_embeddings": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 4,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false, "attention_bias": false,
        "mlp_bias": false, "rope_parameters": {"rope_theta": 500_000.},
    });
    assert_eq!(config, expected);
    let more = [
        number("llama.attention.head_count_kv", 2),
        number("tokenizer.ggml.eot_token_id", 4),
        number("tokenizer.ggml.padding_token_id", 9),
        words("llama.rope.scaling.type", "linear"),
        number("llama.rope.scaling.factor", 4),
    ];
    let config = read(&llama(&more)).unwrap();
    assert_eq!((&config["num_key_value_heads"], &config["eos_token_id"]), (&json!(2), &json!([2, 4])));
    assert_eq!(config["rope_parameters"], json!({"rope_theta": 500_000., "rope_type": "linear", "factor": 4.}));
    assert!(config["pad_token_id"].is_null(), "beyond the table");
}

#[test]
fn what_is_not_built_is_refused_by_its_key() {
    for (more, expected) in [
        (number("llama.logit_scale", 2), "llama.logit_scale is 2, which is not supported: nobody here knows"),
        (number("llama.expert_count", 8), "llama.expert_count is 8, which is not supported: only 0 is built for llama"),
        (
            number("llama.rope.dimension_count", 2),
            "llama.rope.dimension_count is 2, which is not supported: heads have 4",
        ),
        (words("llama.rope.scaling.type", "longrope"), "llama.rope.scaling.type is \"longrope\""),
        (words("llama.rope.scaling.type", "yarn"), "has no llama.rope.scaling.factor"),
        (number("llama.rope.scaling.type", 1), "llama.rope.scaling.type: expected a string, found 1"),
        (
            words("llama.attention.head_count_kv", "two"),
            "llama.attention.head_count_kv: expected a number, found \"two\"",
        ),
        (
            list("llama.attention.head_count_kv", Kind::U32, 2, &[0; 8]),
            "llama.attention.head_count_kv: expected a number, found a list of 2 values",
        ),
    ] {
        let error = read(&llama(&[more])).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let error = read(&[words("general.architecture", "lama")]).unwrap_err();
    assert!(error.contains("general.architecture is \"lama\"") && error.ends_with("did you mean llama?"), "{error}");
    let error = read(&[words("general.architecture", "qwen2")]).unwrap_err();
    assert!(error.contains("has no qwen2.block_count in its metadata"), "{error}");
}
