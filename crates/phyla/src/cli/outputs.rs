//! What a decoding call gives besides text, as JSON: log-probabilities as in OpenAI's interface, scores and layers in lists.

use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{Array, GenerationConfig, Sequence};
use serde_json::{Map, Value, json};

/// The fields of a sequence, as far as they were asked for, or a search has them.
pub fn fields(sequence: &Sequence, tokenizer: Option<&Tokenizer>) -> Map<String, Value> {
    let outputs = &sequence.outputs;
    let mut fields = Map::new();
    let mut put = |name: &str, there: bool, value: &dyn Fn() -> Value| {
        if there {
            fields.insert(name.to_owned(), value());
        }
    };
    put("score", sequence.score.is_some(), &|| json!(sequence.score));
    put("beam_indices", sequence.beam_indices.is_some(), &|| json!(sequence.beam_indices));
    put("forced_words_met", sequence.forced_words_met.is_some(), &|| json!(sequence.forced_words_met));
    // Nothing stands for minus infinity in JSON: there it is null.
    put("scores", !outputs.scores.is_empty(), &|| json!(outputs.scores));
    put("logits", !outputs.logits.is_empty(), &|| json!(outputs.logits));
    put("logprobs", !outputs.logprobs.is_empty(), &|| logprobs(sequence, tokenizer));
    let steps = |steps: &[Vec<Array>]| Value::from(steps.iter().map(|step| arrays(step)).collect::<Vec<_>>());
    put("hidden_states", !outputs.hidden_states.is_empty(), &|| steps(&outputs.hidden_states));
    put("attentions", !outputs.attentions.is_empty(), &|| steps(&outputs.attentions));
    put("cross_attentions", !outputs.cross_attentions.is_empty(), &|| steps(&outputs.cross_attentions));
    put("encoder_hidden_states", !outputs.encoder_hidden_states.is_empty(), &|| arrays(&outputs.encoder_hidden_states));
    put("encoder_attentions", !outputs.encoder_attentions.is_empty(), &|| arrays(&outputs.encoder_attentions));
    fields
}

/// Each layer's numbers, in one list beside their shape.
fn arrays(arrays: &[Array]) -> Value {
    arrays.iter().map(|array| json!({ "shape": array.shape, "values": array.values })).collect()
}

/// A token each: its text, its bytes, its log-probability, and the same of the likeliest ones.
fn logprobs(sequence: &Sequence, tokenizer: Option<&Tokenizer>) -> Value {
    let bytes = tokenizer.and_then(|tokenizer| tokenizer.token_bytes().ok());
    let one = |id: u32, logprob: f32| {
        let name = tokenizer.and_then(|tokenizer| tokenizer.id_to_token(id));
        let bytes = bytes.as_ref().and_then(|all| all.get(id as usize)).filter(|bytes| !bytes.is_empty());
        // A special token has no bytes, and goes by its name.
        let text = bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).or(name);
        json!({ "id": id, "token": text, "bytes": bytes, "logprob": logprob })
    };
    let token = |said: &phyla_generate::Logprob| {
        let mut value = one(said.id, said.logprob);
        value["top_logprobs"] = said.top.iter().map(|&(id, logprob)| one(id, logprob)).collect();
        value
    };
    sequence.outputs.logprobs.iter().map(token).collect()
}

/// Says which settings ask for what a command that prints text does not print.
pub fn warn_of_unprinted(config: &GenerationConfig) {
    let asked = [
        ("output_scores", config.output_scores),
        ("output_logits", config.output_logits),
        ("output_attentions", config.output_attentions),
        ("output_hidden_states", config.output_hidden_states),
        ("logprobs", config.logprobs),
        ("top_logprobs", config.top_logprobs.map(|_| true)),
    ];
    let asked: Vec<&str> = asked.iter().filter(|(_, asked)| *asked == Some(true)).map(|(name, _)| *name).collect();
    if !asked.is_empty() {
        tracing::warn!("{}: only `generate --json` prints these", asked.join(", "));
    }
}
