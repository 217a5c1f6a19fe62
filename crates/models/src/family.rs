//! What a family of models provides, and the errors of its configuration.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::config::{invalid, refused};
use crate::gguf;
use crate::names::Rule;
use crate::task::{Task, Wanted};
use crate::{Arch, ConfigError};

/// A family: its configuration, field for field, the names of its weights and the way to an architecture.
pub trait Family: DeserializeOwned + Serialize {
    /// `model_type` in `config.json`.
    const MODEL_TYPE: &'static str;
    /// The tasks it has heads for, as `architectures` names them; the first is what a configuration without that
    /// field means.
    const ARCHITECTURES: &'static [(Task, &'static str)];
    /// Ours to theirs.
    const NAMES: &'static [Rule];
    /// What stands before every name but the heads'; checkpoints of the bare model leave it out.
    const PREFIX: &'static str;
    /// The tasks whose checkpoints leave it out when they are saved.
    const BARE: &'static [Task] = &[Task::Base];
    /// Labels of a classifier whose configuration names none.
    const LABELS: usize = 2;
    /// Ends of names that may stand in a checkpoint and mean nothing (buffers of old versions).
    const BUFFERS: &'static [&'static str] = &[];
    /// Other names of fields, and fields that do not change the arithmetic.
    const ALIASES: &'static [(&'static str, &'static str)] = &[];
    /// Fields that transformers knows for this family and that have no effect on the model's values.
    const IGNORED: &'static [&'static str] = &[];

    /// What it is called in GGUF files, if they hold it.
    const GGUF: Option<gguf::Table> = None;

    /// Values of absent fields that differ from those of the family whose fields this one flattens into its own.
    fn defaults() -> Value {
        Value::Null
    }

    /// The architecture that the configuration describes, with the head that is wanted.
    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError>;
}

/// A family, its type forgotten: a line of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// See [`Family::ARCHITECTURES`].
    pub architectures: &'static [(Task, &'static str)],
    /// Ours to theirs.
    pub names: &'static [Rule],
    /// See [`Family::PREFIX`].
    pub prefix: &'static str,
    /// See [`Family::BARE`].
    pub bare: &'static [Task],
    /// See [`Family::BUFFERS`].
    pub buffers: &'static [&'static str],
    /// See [`Family::GGUF`].
    pub gguf: Option<gguf::Table>,
    parse: Parse,
}

/// From a configuration, and the task that is asked for, to what it says.
type Parse = fn(&Map<String, Value>, Option<Task>) -> Result<Parsed, ConfigError>;

/// What a configuration says.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The architecture.
    pub arch: Arch,
    /// Fields that nobody reads: worth a warning.
    pub unknown: Vec<String>,
    /// Every field that the family has, with the value that it takes where the file does not state it.
    pub fields: Map<String, Value>,
}

impl Entry {
    /// The registry line of a family.
    pub const fn of<F: Family>() -> Self {
        Self {
            model_type: F::MODEL_TYPE,
            architectures: F::ARCHITECTURES,
            names: F::NAMES,
            prefix: F::PREFIX,
            bare: F::BARE,
            buffers: F::BUFFERS,
            gguf: F::GGUF,
            parse: parse::<F>,
        }
    }

    /// Reads a configuration of this family, for the task that `architectures` names or for another.
    pub fn parse(&self, config: &Map<String, Value>, task: Option<Task>) -> Result<Parsed, ConfigError> {
        (self.parse)(config, task)
    }

    /// A tensor's name as transformers' class for a task has it: classes without a head lack the prefix.
    pub fn named(&self, task: Task, tensor: String) -> String {
        match tensor.strip_prefix(self.prefix).filter(|_| self.bare.contains(&task)) {
            Some(bare) => bare.to_string(),
            None => tensor,
        }
    }

    /// How `architectures` names a task.
    pub fn architecture(&self, task: Task) -> Option<&'static str> {
        self.architectures.iter().find(|(known, _)| *known == task).map(|(_, name)| *name)
    }
}

/// Fields of any configuration that do not change a model's values.
const COMMON: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

/// Fields that would change a model's values in ways that no family here honours.
const REFUSED: &[&str] = &["quantization_config", "per_layer_config", "pruned_heads", "tie_last_hidden_states"];

/// The field that an error is about, where serde does not say: flattened structs read from a copy without names.
fn culprit<F: Family>(config: &Map<String, Value>, reason: &str) -> String {
    let fails_without = |name: &str| {
        let others = config.iter().filter(|(other, _)| *other != name).map(|(k, v)| (k.clone(), v.clone()));
        F::deserialize(Value::Object(others.collect())).is_err_and(|error| error.to_string() == reason)
    };
    config.keys().find(|name| !fails_without(name)).cloned().unwrap_or_else(|| "a field".into())
}

/// The task that a configuration names, or the one asked for.
fn task<F: Family>(config: &Map<String, Value>, asked: Option<Task>) -> Result<Task, ConfigError> {
    let known = || F::ARCHITECTURES.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    if let Some(task) = asked {
        return match F::ARCHITECTURES.iter().any(|(known, _)| *known == task) {
            true => Ok(task),
            false => Err(refused(
                "architectures",
                format!("{} has no head for {}; it has {}", F::MODEL_TYPE, task.describe(), known()),
            )),
        };
    }
    let default = F::ARCHITECTURES.first().map_or(Task::Base, |(task, _)| *task);
    let named = match config.get("architectures") {
        None | Some(Value::Null) => return Ok(default),
        Some(Value::Array(names)) if names.is_empty() => return Ok(default),
        Some(Value::Array(names)) => names[0].as_str(),
        Some(_) => None,
    };
    let Some(named) = named else {
        return Err(invalid("architectures", "expected a list of names"));
    };
    match F::ARCHITECTURES.iter().find(|(_, name)| *name == named) {
        Some((task, _)) => Ok(*task),
        None => Err(refused(
            "architectures",
            format!(
                "{:?} is none of the heads of {}: {}",
                named.chars().take(80).collect::<String>(),
                F::MODEL_TYPE,
                known()
            ),
        )),
    }
}

/// Labels beyond this are a mistake.
const MOST_LABELS: u64 = 1 << 22;

/// The number of labels: `num_labels`, or as many as `id2label` names; the family's usual number if neither stands there.
fn labels<F: Family>(config: &Map<String, Value>) -> Result<usize, ConfigError> {
    let named = config.get("id2label").and_then(Value::as_object).map(|names| names.len() as u64);
    let counted = match config.get("num_labels") {
        None | Some(Value::Null) => None,
        Some(value) => {
            Some(value.as_u64().ok_or_else(|| invalid("num_labels", format!("expected a count, found {value}")))?)
        }
    };
    match named.or(counted).unwrap_or(F::LABELS as u64) {
        labels @ 1..=MOST_LABELS => Ok(labels as usize),
        other => Err(invalid("num_labels", format!("expected 1 to {MOST_LABELS}, found {other}"))),
    }
}

fn parse<F: Family>(config: &Map<String, Value>, asked: Option<Task>) -> Result<Parsed, ConfigError> {
    let wanted = Wanted { task: task::<F>(config, asked)?, labels: labels::<F>(config)? };
    let mut config = config.clone();
    for (alias, name) in F::ALIASES {
        if let Some(value) = config.remove(*alias) {
            config.insert((*name).to_string(), value);
        }
    }
    if let Value::Object(defaults) = F::defaults() {
        for (name, value) in defaults {
            config.entry(name).or_insert(value);
        }
    }
    for name in REFUSED {
        let harmless = |v: &Value| {
            v.is_null() || *v == Value::Object(Map::new()) || (*name == "tie_last_hidden_states" && *v == true)
        };
        if config.get(*name).is_some_and(|value| !harmless(value)) {
            return Err(ConfigError::Refused {
                field: (*name).to_string(),
                why: "no model here honours it; remove it only if its effect is not wanted".into(),
            });
        }
    }
    let parsed: F = serde_path_to_error::deserialize(Value::Object(config.clone())).map_err(|e| {
        let (path, reason) = (e.path().to_string(), e.into_inner().to_string());
        let field = if path == "." { culprit::<F>(&config, &reason) } else { path };
        invalid(&field, reason)
    })?;
    // What the struct holds is what it writes back; anything else in the file was read by nobody.
    let known = match serde_json::to_value(&parsed) {
        Ok(Value::Object(known)) => known,
        _ => Map::new(),
    };
    let unknown = (config.into_iter())
        .filter(|(name, value)| {
            let read = known.contains_key(name) || COMMON.contains(&name.as_str());
            !read && !REFUSED.contains(&name.as_str()) && !F::IGNORED.contains(&name.as_str()) && !value.is_null()
        })
        .map(|(name, _)| name)
        .collect();
    let mut arch = parsed.arch(&wanted)?;
    arch.task = wanted.task;
    Ok(Parsed { arch, unknown, fields: known })
}
