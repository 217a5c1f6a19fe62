//! `generation_config.json`: every key is honoured, known to change nothing, or named in a warning.

use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::cache::{EIGHT_BITS, FOUR_BITS};
use super::keys::KEYS;
use super::{CacheConfig, CacheDtype, DolaLayers, EarlyStopping, GenerationConfig, words};
use crate::{CONSTRAINTS, Constraint, Error, Result, SeedingScheme, WatermarkingConfig};

/// Keys that say nothing about how to decode here, whatever their value.
const SILENT: &[&str] = &[
    "_from_model_config",
    "_commit_hash",
    "transformers_version",
    // Rows of different length stand side by side: nothing is ever padded.
    "pad_token_id",
    // How transformers computes or returns what we compute and return in our own way.
    "use_cache",
    "compile_config",
    "disable_compile",
    "prefill_chunk_size",
    "continuous_batching_config",
    "return_dict_in_generate",
    "low_memory",
    // About ways of assisting that are not ours: a text is told anew to an assistant of another tokenizer, as a whole.
    "is_assistant",
    "assistant_lookbehind",
    "target_lookbehind",
];

/// Keys of transformers that are not honoured yet, and the value at which each changes nothing (besides null).
const NEUTRAL: &[(&str, &str)] =
    &[("use_mtp", "false"), ("assistant_ensemble_weight", "null"), ("speculation_type", "null")];

/// What is read from `config.json`, where checkpoints kept it before there was a file of its own: special ids and the
/// search that the model was tuned with, but neither limits nor the shape of a distribution, which old files fill with
/// defaults of their time.
const OF_MODEL: &[&str] = &[
    "eos_token_id",
    "bos_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
    "num_beams",
    "early_stopping",
    "length_penalty",
    "no_repeat_ngram_size",
];

/// The largest file that is read: real ones have a few hundred bytes, some with long lists a few thousand.
const LARGEST_FILE: u64 = 16 << 20;

impl GenerationConfig {
    /// The settings of a model's folder, and sentences that a user should see.
    ///
    /// They are those of `generation_config.json`, or, where there is no such file, the special ids and the settings of
    /// beam search that the model's own configuration (`config.json`) names. What a decoder starts from is looked up
    /// there in any case: without it an encoder-decoder says nothing.
    ///
    /// # Errors
    /// Names the file and the key whose value cannot be understood.
    pub fn load(folder: &Path, model: &Map<String, Value>) -> Result<(Self, Vec<String>)> {
        let path = folder.join("generation_config.json");
        let wrong = |reason: String| Error::Settings(format!("{}: {reason}", path.display()));
        let size = match std::fs::metadata(&path) {
            Ok(file) => file.len(),
            // Also where the model is one file, which has nothing below it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok((Self::of_model(model)?, vec![]));
            }
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
        let (mut config, warnings) = Self::from_map(&map).map_err(|error| wrong(error.to_string()))?;
        if config.decoder_start_token_id.is_none() {
            config.decoder_start_token_id = Self::of_model(model)?.decoder_start_token_id;
        }
        Ok((config, warnings))
    }

    /// The settings of a `config.json`.
    fn of_model(model: &Map<String, Value>) -> Result<Self> {
        let ids = model.iter().filter(|(key, _)| OF_MODEL.contains(&key.as_str()));
        let ids = ids.map(|(key, value)| (key.clone(), value.clone())).collect();
        let (config, _) = Self::from_map(&ids).map_err(|error| Error::Settings(format!("config.json: {error}")))?;
        Ok(config)
    }

    /// A user's own settings, and a warning for every key that says something without being honoured. What shapes the
    /// distribution needs no `do_sample` here: see [`GenerationConfig::merge`].
    ///
    /// # Errors
    /// Names the key whose value cannot be understood.
    pub fn of_user(map: &Map<String, Value>) -> Result<(Self, Vec<String>)> {
        let (mut config, mut warnings) = (Self::default(), vec![]);
        for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            if !config.set(key, value)? {
                warnings.extend(warning(key, value));
            }
        }
        Ok((config, warnings))
    }

    /// The settings that a model's `map` holds, and a warning for every key that says something without being honoured.
    ///
    /// # Errors
    /// Names the key whose value cannot be understood.
    pub fn from_map(map: &Map<String, Value>) -> Result<(Self, Vec<String>)> {
        let (config, mut warnings) = Self::of_user(map)?;
        let shaping = [
            ("temperature", config.temperature.is_some_and(|t| t != 1. && t != 0.)),
            ("top_k", config.top_k.is_some_and(|k| k != super::DEFAULT_TOP_K) && config.penalty_alpha.is_none()),
            ("top_p", config.top_p.is_some_and(|p| p != 1.)),
            ("min_p", config.min_p.is_some_and(|p| p != 0.)),
            ("top_h", config.top_h.is_some()),
            ("typical_p", config.typical_p.is_some_and(|p| p != 1.)),
            ("epsilon_cutoff", config.epsilon_cutoff.is_some_and(|p| p != 0.)),
            ("eta_cutoff", config.eta_cutoff.is_some_and(|p| p != 0.)),
            ("xtc_probability", config.xtc_probability.is_some_and(|p| p != 0.)),
            ("dynatemp_range", config.dynatemp_range.is_some_and(|range| range != 0.)),
            ("mirostat", config.mirostat.is_some_and(|mirostat| mirostat != 0)),
        ];
        let idle: Vec<&str> = shaping.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect();
        if !idle.is_empty() && config.do_sample != Some(true) {
            warnings.push(format!("{} without do_sample: decoding is greedy", idle.join(", ")));
        }
        Ok((config, warnings))
    }

    /// Takes what answers have to be, which can be said once.
    fn constrain(&mut self, key: &str, value: &Value) -> Result<()> {
        let constraint = match (key, value) {
            ("json_object", Value::Bool(false)) => return Ok(()),
            ("json_object", Value::Bool(true)) => Constraint::json_object(),
            ("json_object", value) => return Err(wrong(key, "true or false", value)),
            // Some have it as text.
            ("json_schema", Value::String(text)) => Constraint::json_schema(
                serde_json::from_str(text)
                    .map_err(|error| Error::Settings(format!("{key}: not valid JSON: {error}")))?,
            )?,
            ("json_schema", schema) => Constraint::json_schema(schema.clone())?,
            ("regex", value) => Constraint::regex(&text(key, value)?)?,
            ("grammar", value) => Constraint::grammar(&text(key, value)?)?,
            (_, value) => Constraint::choice(list(key, value, text)?)?,
        };
        match self.constraint.replace(constraint) {
            None => Ok(()),
            Some(other) => {
                Err(Error::Settings(format!("{} and {key} are two constraints; an answer holds one", other.name())))
            }
        }
    }

    /// Takes one key; false if it is none of ours.
    fn set(&mut self, key: &str, value: &Value) -> Result<bool> {
        match key {
            name if CONSTRAINTS.contains(&name) => self.constrain(name, value)?,
            "max_new_tokens" => self.max_new_tokens = Some(count(key, value)?),
            "max_length" => self.max_length = Some(count(key, value)?),
            "min_new_tokens" => self.min_new_tokens = Some(count(key, value)?),
            "min_length" => self.min_length = Some(count(key, value)?),
            "do_sample" => self.do_sample = Some(truth(key, value)?),
            "temperature" => self.temperature = Some(number(key, value)?),
            "top_k" => self.top_k = Some(count(key, value)?),
            "top_p" => self.top_p = Some(number(key, value)?),
            "min_p" => self.min_p = Some(number(key, value)?),
            "repetition_penalty" => self.repetition_penalty = Some(number(key, value)?),
            "encoder_repetition_penalty" => self.encoder_repetition_penalty = Some(number(key, value)?),
            "frequency_penalty" => self.frequency_penalty = Some(number(key, value)?),
            "presence_penalty" => self.presence_penalty = Some(number(key, value)?),
            "sequence_bias" => self.sequence_bias = Some(biases(key, value)?),
            "exponential_decay_length_penalty" => self.exponential_decay_length_penalty = Some(decay(key, value)?),
            "remove_invalid_values" => self.remove_invalid_values = Some(truth(key, value)?),
            "output_scores" => self.output_scores = Some(truth(key, value)?),
            "output_logits" => self.output_logits = Some(truth(key, value)?),
            "output_attentions" => self.output_attentions = Some(truth(key, value)?),
            "output_hidden_states" => self.output_hidden_states = Some(truth(key, value)?),
            // A number as in OpenAI's older interface.
            "logprobs" if value.is_number() => {
                (self.logprobs, self.top_logprobs) = (Some(true), Some(count(key, value)?));
            }
            "logprobs" => self.logprobs = Some(truth(key, value)?),
            "top_logprobs" => self.top_logprobs = Some(count(key, value)?),
            "max_time" => self.max_time = Some(number(key, value)?),
            "encoder_no_repeat_ngram_size" => self.encoder_no_repeat_ngram_size = Some(count(key, value)?),
            "top_h" => self.top_h = Some(number(key, value)?),
            "typical_p" => self.typical_p = Some(number(key, value)?),
            "epsilon_cutoff" => self.epsilon_cutoff = Some(number(key, value)?),
            "eta_cutoff" => self.eta_cutoff = Some(number(key, value)?),
            "xtc_probability" => self.xtc_probability = Some(number(key, value)?),
            "xtc_threshold" => self.xtc_threshold = Some(number(key, value)?),
            "dynatemp_range" => self.dynatemp_range = Some(number(key, value)?),
            "dynatemp_exponent" => self.dynatemp_exponent = Some(number(key, value)?),
            "mirostat" => self.mirostat = Some(count(key, value)?),
            "mirostat_tau" => self.mirostat_tau = Some(number(key, value)?),
            "mirostat_eta" => self.mirostat_eta = Some(number(key, value)?),
            "dry_multiplier" => self.dry_multiplier = Some(number(key, value)?),
            "dry_base" => self.dry_base = Some(number(key, value)?),
            "dry_allowed_length" => self.dry_allowed_length = Some(count(key, value)?),
            "dry_penalty_last_n" if value.as_f64() == Some(-1.) => self.dry_penalty_last_n = Some(usize::MAX),
            "dry_penalty_last_n" => self.dry_penalty_last_n = Some(count(key, value)?),
            "dry_sequence_breakers" => self.dry_sequence_breakers = Some(list(key, value, text)?),
            "forced_decoder_ids" => self.forced_decoder_ids = Some(list(key, value, place)?),
            "guidance_scale" => self.guidance_scale = Some(number(key, value)?),
            "dola_layers" => self.dola_layers = Some(layers(key, value)?),
            "contrastive_alpha" => self.contrastive_alpha = Some(number(key, value)?),
            "contrastive_beta" => self.contrastive_beta = Some(number(key, value)?),
            "amateur_temperature" => self.amateur_temperature = Some(number(key, value)?),
            "token_healing" => self.token_healing = Some(truth(key, value)?),
            "watermarking_config" => self.watermarking_config = Some(watermark(key, value)?),
            "eos_token_id" => self.eos_token_id = Some(list(key, value, id)?),
            "bos_token_id" => self.bos_token_id = Some(id(key, value)?),
            "stop_strings" => self.stop_strings = Some(list(key, value, text)?),
            "num_return_sequences" => self.num_return_sequences = Some(count(key, value)?),
            "suppress_tokens" => self.suppress_tokens = Some(list(key, value, id)?),
            "begin_suppress_tokens" => self.begin_suppress_tokens = Some(list(key, value, id)?),
            "bad_words_ids" => self.bad_words_ids = Some(list(key, value, run)?),
            "no_repeat_ngram_size" => self.no_repeat_ngram_size = Some(count(key, value)?),
            "decoder_start_token_id" => self.decoder_start_token_id = Some(id(key, value)?),
            "forced_bos_token_id" => self.forced_bos_token_id = Some(id(key, value)?),
            "forced_eos_token_id" => self.forced_eos_token_id = Some(list(key, value, id)?),
            "num_beams" => self.num_beams = Some(count(key, value)?),
            "num_beam_groups" => self.num_beam_groups = Some(count(key, value)?),
            "diversity_penalty" => self.diversity_penalty = Some(number(key, value)?),
            "force_words_ids" => self.force_words_ids = Some(words::of_ids(key, value)?),
            "constraints" => self.constraints = Some(words::of_objects(key, value)?),
            "early_stopping" => self.early_stopping = Some(early(key, value)?),
            "length_penalty" => self.length_penalty = Some(number(key, value)?),
            "renormalize_logits" => self.renormalize_logits = Some(truth(key, value)?),
            "cache_implementation" => self.cache_implementation = Some(named(key, value)?),
            "cache_config" => {
                self.cache_dtype = bits(key, value)?.or(self.cache_dtype);
                self.cache_config = Some(cache_config(value)?);
            }
            "cache_dtype" => self.cache_dtype = Some(named(key, value)?),
            "penalty_alpha" => self.penalty_alpha = Some(number(key, value)?),
            "prompt_lookup_num_tokens" => self.prompt_lookup_num_tokens = Some(count(key, value)?),
            "max_matching_ngram_size" => self.max_matching_ngram_size = Some(count(key, value)?),
            "num_assistant_tokens" => self.num_assistant_tokens = Some(count(key, value)?),
            "num_assistant_tokens_schedule" => self.num_assistant_tokens_schedule = Some(schedule(key, value)?),
            "assistant_confidence_threshold" => self.assistant_confidence_threshold = Some(number(key, value)?),
            "assistant_early_exit" => self.assistant_early_exit = Some(count(key, value)?),
            "deterministic" => self.deterministic = Some(truth(key, value)?),
            "max_cache_len" => self.max_cache_len = Some(count(key, value)?),
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
    let known = KEYS.iter().map(|key| &key.name).chain(NEUTRAL.iter().map(|(key, _)| key));
    let near = known.map(|name| (strsim::damerau_levenshtein(&short(&Value::from(key)), &format!("{name:?}")), name));
    let near = near.min().filter(|(distance, name)| 3 * distance <= name.len());
    let near = near.map(|(_, name)| format!("; did you mean {name}?")).unwrap_or_default();
    Some(format!("{} is no setting of decoding and has no effect{near}", short(&Value::from(key))))
}

/// A value as it is shown in a message: hostile ones may be long.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

pub(super) fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    Error::Settings(format!("{key}: expected {expected}, found {}", short(found)))
}

fn truth(key: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| wrong(key, "true or false", value))
}

fn early(key: &str, value: &Value) -> Result<EarlyStopping> {
    match value {
        Value::Bool(false) => Ok(EarlyStopping::Likely),
        Value::Bool(true) => Ok(EarlyStopping::Enough),
        Value::String(never) if never == "never" => Ok(EarlyStopping::Never),
        value => Err(wrong(key, "true, false or \"never\"", value)),
    }
}

pub(super) fn run(key: &str, value: &Value) -> Result<Vec<u32>> {
    match value {
        Value::Array(ids) => ids.iter().map(|value| id(key, value)).collect(),
        value => Err(wrong(key, "lists of token ids", value)),
    }
}

/// How many tokens an assistant guesses.
fn schedule(key: &str, value: &Value) -> Result<String> {
    match text(key, value)?.as_str() {
        name @ ("constant" | "heuristic" | "heuristic_transient") => Ok(name.to_owned()),
        _ => Err(wrong(key, "constant, heuristic or heuristic_transient", value)),
    }
}

/// One of some names.
fn named<T: FromStr<Err = String>>(key: &str, value: &Value) -> Result<T> {
    text(key, value)?.parse().map_err(|expected: String| Error::Settings(format!("{key}: {expected}, found {value}")))
}

/// What a cache's configuration says besides the bits. Keys that are not ours say how transformers computes that.
fn cache_config(value: &Value) -> Result<CacheConfig> {
    let said = |key: &str| value.get(key).filter(|value| !value.is_null());
    let counted = |key: &str| said(key).map(|value| count(&format!("cache_config: {key}"), value)).transpose();
    if let Some(size) = said("q_group_size") {
        let group = count("cache_config: q_group_size", size)?;
        // Ours are of 32: smaller ones than asked for are more exact, larger ones less.
        if group < BLOCK {
            return Err(wrong("cache_config: q_group_size", "at least 32, the numbers of a block", size));
        }
    }
    Ok(CacheConfig {
        residual_length: counted("residual_length")?,
        window_length: counted("window_length")?,
        num_sink_tokens: counted("num_sink_tokens")?,
    })
}

/// Numbers that share a scale.
const BLOCK: usize = 32;

/// What a cache is kept as, if its configuration says so.
fn bits(key: &str, value: &Value) -> Result<Option<CacheDtype>> {
    let Value::Object(config) = value else { return Err(wrong(key, "an object", value)) };
    match config.get("nbits") {
        None | Some(Value::Null) => Ok(None),
        Some(bits) if bits.as_u64() == Some(4) => Ok(Some(CacheDtype(FOUR_BITS))),
        Some(bits) if bits.as_u64() == Some(8) => Ok(Some(CacheDtype(EIGHT_BITS))),
        Some(bits) => Err(wrong("cache_config: nbits", "4 or 8", bits)),
    }
}

/// Pairs of a run of ids and what is added.
fn biases(key: &str, value: &Value) -> Result<Vec<(Vec<u32>, f32)>> {
    let pair = |value: &Value| match value.as_array().map(Vec::as_slice) {
        Some([ids, bias]) => Ok((run(key, ids)?, number(key, bias)?)),
        _ => Err(wrong(key, "pairs of a list of token ids and a number", value)),
    };
    match value {
        Value::Array(pairs) => pairs.iter().map(pair).collect(),
        value => Err(wrong(key, "pairs of a list of token ids and a number", value)),
    }
}

/// Which layers.
fn layers(key: &str, value: &Value) -> Result<DolaLayers> {
    match value {
        Value::String(half) if half == "low" => Ok(DolaLayers::Low),
        Value::String(half) if half == "high" => Ok(DolaLayers::High),
        Value::Array(_) | Value::Number(_) => Ok(DolaLayers::These(list(key, value, count)?)),
        _ => Err(wrong(key, "low, high or a list of layers", value)),
    }
}

/// A watermark; what is not said is as in transformers.
fn watermark(key: &str, value: &Value) -> Result<WatermarkingConfig> {
    let Value::Object(map) = value else { return Err(wrong(key, "an object", value)) };
    let mut config = WatermarkingConfig::default();
    for (name, value) in map {
        let full = format!("{key}: {name}");
        match name.as_str() {
            "greenlist_ratio" => config.greenlist_ratio = exact(&full, value)?,
            "bias" => config.bias = number(&full, value)?,
            "hashing_key" => {
                config.hashing_key = value.as_i64().ok_or_else(|| wrong(&full, "a whole number", value))?
            }
            "seeding_scheme" => {
                config.seeding_scheme = match value.as_str() {
                    Some("lefthash") => SeedingScheme::Left,
                    Some("selfhash") => SeedingScheme::Own,
                    _ => return Err(wrong(&full, "lefthash or selfhash", value)),
                }
            }
            "context_width" => config.context_width = count(&full, value)?,
            _ => {
                let known = "greenlist_ratio, bias, hashing_key, seeding_scheme or context_width";
                return Err(wrong(key, known, &Value::from(name.as_str())));
            }
        }
    }
    Ok(config)
}

/// A position and what stands there.
fn place(key: &str, value: &Value) -> Result<(usize, Option<u32>)> {
    match value.as_array().map(Vec::as_slice) {
        Some([position, Value::Null]) => Ok((count(key, position)?, None)),
        Some([position, forced]) => Ok((count(key, position)?, Some(id(key, forced)?))),
        _ => Err(wrong(key, "pairs of a position and a token id", value)),
    }
}

/// Free tokens and a factor.
fn decay(key: &str, value: &Value) -> Result<(usize, f64)> {
    match value.as_array().map(Vec::as_slice) {
        Some([start, factor]) => Ok((count(key, start)?, exact(key, factor)?)),
        _ => Err(wrong(key, "a number of tokens and a factor", value)),
    }
}

fn count(key: &str, value: &Value) -> Result<usize> {
    // Some files write 50.0.
    let whole = value.as_f64().filter(|x| x.fract() == 0. && (0. ..=9e15).contains(x));
    whole.map(|x| x as usize).ok_or_else(|| wrong(key, "a whole number from 0", value))
}

fn number(key: &str, value: &Value) -> Result<f32> {
    exact(key, value).map(|x| x as f32)
}

fn exact(key: &str, value: &Value) -> Result<f64> {
    value.as_f64().ok_or_else(|| wrong(key, "a number", value))
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
