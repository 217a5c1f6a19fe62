//! `generation_config.json`: every key is honoured, known to change nothing, or named in a warning.

use std::path::Path;

use serde_json::{Map, Value};

use super::GenerationConfig;
use crate::{Error, Result};

/// Keys that say nothing about how to decode here, whatever their value.
const SILENT: &[&str] = &[
    "_from_model_config",
    "_commit_hash",
    "transformers_version",
    // Rows of different length stand side by side: nothing is ever padded.
    "pad_token_id",
    // How transformers computes or returns what we compute and return in our own way.
    "use_cache",
    "cache_implementation",
    "cache_config",
    "max_cache_len",
    "compile_config",
    "disable_compile",
    "prefill_chunk_size",
    "continuous_batching_config",
    "return_dict_in_generate",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "low_memory",
    "remove_invalid_values",
    // Settings of assisted decoding, which another key turns on; and of beams, likewise.
    "is_assistant",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "target_lookbehind",
    "max_matching_ngram_size",
    "early_stopping",
    "length_penalty",
    // Normalising logits does not change which id is drawn.
    "renormalize_logits",
];

/// Keys of transformers that are not honoured yet, and the value at which each changes nothing (besides null).
const NEUTRAL: &[(&str, &str)] = &[
    ("num_beams", "1"),
    ("num_beam_groups", "1"),
    ("diversity_penalty", "0.0"),
    ("penalty_alpha", "0.0"),
    ("dola_layers", "null"),
    ("use_mtp", "false"),
    ("max_time", "null"),
    ("top_h", "null"),
    ("typical_p", "1.0"),
    ("epsilon_cutoff", "0.0"),
    ("eta_cutoff", "0.0"),
    ("encoder_repetition_penalty", "1.0"),
    ("no_repeat_ngram_size", "0"),
    ("encoder_no_repeat_ngram_size", "0"),
    ("bad_words_ids", "[]"),
    ("force_words_ids", "[]"),
    ("constraints", "[]"),
    ("forced_bos_token_id", "null"),
    ("forced_eos_token_id", "null"),
    ("exponential_decay_length_penalty", "null"),
    ("begin_suppress_tokens", "[]"),
    ("sequence_bias", "null"),
    ("token_healing", "false"),
    ("guidance_scale", "1.0"),
    ("watermarking_config", "null"),
    ("decoder_start_token_id", "null"),
    ("prompt_lookup_num_tokens", "null"),
    ("assistant_early_exit", "null"),
    ("assistant_ensemble_weight", "null"),
    ("speculation_type", "null"),
];

/// Keys that [`GenerationConfig`] has, for suggestions.
const HONOURED: &[&str] = &[
    "max_new_tokens",
    "max_length",
    "min_new_tokens",
    "min_length",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "eos_token_id",
    "bos_token_id",
    "stop_strings",
    "num_return_sequences",
    "suppress_tokens",
];

/// The largest file that is read: real ones have a few hundred bytes, some with long lists a few thousand.
const LARGEST_FILE: u64 = 16 << 20;

impl GenerationConfig {
    /// The settings of a model's folder, and sentences that a user should see.
    ///
    /// They are those of `generation_config.json`, or, where there is no such file, the special ids that the model's
    /// own configuration (`config.json`) names.
    ///
    /// # Errors
    /// Names the file and the key whose value cannot be understood.
    pub fn load(folder: &Path, model: &Map<String, Value>) -> Result<(Self, Vec<String>)> {
        let path = folder.join("generation_config.json");
        let wrong = |reason: String| Error::Settings(format!("{}: {reason}", path.display()));
        let size = match std::fs::metadata(&path) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Self::of_model(model)?, vec![])),
            Err(error) => return Err(wrong(error.to_string())),
        };
        if size > LARGEST_FILE {
            return Err(wrong(format!("a file of {size} bytes is no generation configuration")));
        }
        let text = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let map = match serde_json::from_slice(&text) {
            Ok(Value::Object(map)) => map,
            Ok(_) => return Err(wrong("expected an object at the top".into())),
            Err(error) => return Err(wrong(format!("not valid JSON: {error}"))),
        };
        Self::from_map(&map).map_err(|error| wrong(error.to_string()))
    }

    /// The special ids of a `config.json`.
    fn of_model(model: &Map<String, Value>) -> Result<Self> {
        let ids = model.iter().filter(|(key, _)| matches!(key.as_str(), "eos_token_id" | "bos_token_id"));
        let ids = ids.map(|(key, value)| (key.clone(), value.clone())).collect();
        let (config, _) = Self::from_map(&ids).map_err(|error| Error::Settings(format!("config.json: {error}")))?;
        Ok(config)
    }

    /// The settings that `map` holds, and a warning for every key that says something without being honoured.
    ///
    /// # Errors
    /// Names the key whose value cannot be understood.
    pub fn from_map(map: &Map<String, Value>) -> Result<(Self, Vec<String>)> {
        let (mut config, mut warnings) = (Self::default(), vec![]);
        for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            if !config.set(key, value)? {
                warnings.extend(warning(key, value));
            }
        }
        let shaping = [
            ("temperature", config.temperature.is_some_and(|t| t != 1. && t != 0.)),
            ("top_k", config.top_k.is_some_and(|k| k != super::DEFAULT_TOP_K)),
            ("top_p", config.top_p.is_some_and(|p| p != 1.)),
            ("min_p", config.min_p.is_some_and(|p| p != 0.)),
        ];
        let idle: Vec<&str> = shaping.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect();
        if !idle.is_empty() && config.do_sample != Some(true) {
            warnings.push(format!("{} without do_sample: decoding is greedy", idle.join(", ")));
        }
        Ok((config, warnings))
    }

    /// Takes one key; false if it is none of ours.
    fn set(&mut self, key: &str, value: &Value) -> Result<bool> {
        match key {
            "max_new_tokens" => self.max_new_tokens = Some(count(key, value)?),
            "max_length" => self.max_length = Some(count(key, value)?),
            "min_new_tokens" => self.min_new_tokens = Some(count(key, value)?),
            "min_length" => self.min_length = Some(count(key, value)?),
            "do_sample" => self.do_sample = Some(value.as_bool().ok_or_else(|| wrong(key, "true or false", value))?),
            "temperature" => self.temperature = Some(number(key, value)?),
            "top_k" => self.top_k = Some(count(key, value)?),
            "top_p" => self.top_p = Some(number(key, value)?),
            "min_p" => self.min_p = Some(number(key, value)?),
            "repetition_penalty" => self.repetition_penalty = Some(number(key, value)?),
            "eos_token_id" => self.eos_token_id = Some(list(key, value, id)?),
            "bos_token_id" => self.bos_token_id = Some(id(key, value)?),
            "stop_strings" => self.stop_strings = Some(list(key, value, text)?),
            "num_return_sequences" => self.num_return_sequences = Some(count(key, value)?),
            "suppress_tokens" => self.suppress_tokens = Some(list(key, value, id)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn warning(key: &str, value: &Value) -> Option<String> {
    if SILENT.contains(&key) {
        return None;
    }
    if let Some((_, neutral)) = NEUTRAL.iter().find(|(name, _)| *name == key) {
        let neutral = serde_json::from_str::<Value>(neutral).unwrap_or_default();
        let same = *value == neutral || value.as_f64().is_some_and(|value| neutral.as_f64() == Some(value));
        return (!same).then(|| format!("{key} is {}, which is not supported yet and has no effect", short(value)));
    }
    let known = HONOURED.iter().chain(NEUTRAL.iter().map(|(key, _)| key));
    let near = known.map(|name| (strsim::damerau_levenshtein(&short(&Value::from(key)), &format!("{name:?}")), name));
    let near = near.min().filter(|(distance, name)| 3 * distance <= name.len());
    let near = near.map(|(_, name)| format!("; did you mean {name}?")).unwrap_or_default();
    Some(format!("{} is no setting of decoding and has no effect{near}", short(&Value::from(key))))
}

/// A value as it is shown in a message: hostile ones may be long.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    Error::Settings(format!("{key}: expected {expected}, found {}", short(found)))
}

fn count(key: &str, value: &Value) -> Result<usize> {
    // Some files write 50.0.
    let whole = value.as_f64().filter(|x| x.fract() == 0. && (0. ..=9e15).contains(x));
    whole.map(|x| x as usize).ok_or_else(|| wrong(key, "a whole number from 0", value))
}

fn number(key: &str, value: &Value) -> Result<f32> {
    value.as_f64().map(|x| x as f32).ok_or_else(|| wrong(key, "a number", value))
}

fn id(key: &str, value: &Value) -> Result<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| wrong(key, "token ids from 0", value))
}

fn text(key: &str, value: &Value) -> Result<String> {
    value.as_str().map(str::to_string).ok_or_else(|| wrong(key, "strings", value))
}

/// One value, or a list of them.
fn list<T>(key: &str, value: &Value, item: impl Fn(&str, &Value) -> Result<T>) -> Result<Vec<T>> {
    match value {
        Value::Array(items) => items.iter().map(|value| item(key, value)).collect(),
        value => Ok(vec![item(key, value)?]),
    }
}
