//! The families, one line each.

use serde_json::{Map, Value};

use crate::Task;
use crate::checkpoint::nearest;
use crate::family::{Entry, Parsed};
use crate::{
    ConfigError, bart, bert, deberta, deberta_v2, deepseek_v2, distilbert, gpt2, llama, marian, mbart, mistral,
    mixtral, mt5, qwen2, qwen2_moe, qwen3, qwen3_moe, roberta, t5, transformer, umt5, xlm_roberta,
};

/// Every family that can be built.
pub const FAMILIES: &[Entry] = &[
    Entry::of::<bart::Config>(),
    Entry::of::<bert::Config>(),
    Entry::of::<deberta::Config>(),
    Entry::of::<deberta_v2::Config>(),
    Entry::of::<deepseek_v2::Config>(),
    Entry::of::<distilbert::Config>(),
    Entry::of::<gpt2::Config>(),
    Entry::of::<llama::Config>(),
    Entry::of::<marian::Config>(),
    Entry::of::<mbart::Config>(),
    Entry::of::<mistral::Config>(),
    Entry::of::<mixtral::Config>(),
    Entry::of::<mt5::Config>(),
    Entry::of::<qwen2::Config>(),
    Entry::of::<qwen2_moe::Config>(),
    Entry::of::<qwen3::Config>(),
    Entry::of::<qwen3_moe::Config>(),
    Entry::of::<roberta::Config>(),
    Entry::of::<t5::Config>(),
    Entry::of::<transformer::Config>(),
    Entry::of::<umt5::Config>(),
    Entry::of::<xlm_roberta::Config>(),
];

/// The family that `model_type` names.
pub fn family(config: &Map<String, Value>) -> Result<&'static Entry, ConfigError> {
    let found = match config.get("model_type") {
        Some(Value::String(name)) => name.as_str(),
        Some(other) => {
            return Err(ConfigError::Field {
                field: "model_type".into(),
                reason: format!("expected a string, found {other}"),
            });
        }
        None => {
            return Err(ConfigError::Field {
                field: "model_type".into(),
                reason: "missing; it names the family".into(),
            });
        }
    };
    if let Some(entry) = FAMILIES.iter().find(|entry| entry.model_type == found) {
        return Ok(entry);
    }
    let known: Vec<&str> = FAMILIES.iter().map(|entry| entry.model_type).collect();
    let nearest = nearest(found, known.iter().copied());
    Err(ConfigError::UnknownFamily {
        found: found.chars().take(80).collect(),
        known: known.join(", "),
        nearest: nearest.first().map(|name| format!("; did you mean {name}?")).unwrap_or_default(),
    })
}

/// The family and what the configuration says.
pub fn parse(config: &Map<String, Value>) -> Result<(&'static Entry, Parsed), ConfigError> {
    parse_as(config, None)
}

/// As [`parse`], for another task than the configuration names.
pub fn parse_as(config: &Map<String, Value>, task: Option<Task>) -> Result<(&'static Entry, Parsed), ConfigError> {
    let family = family(config)?;
    Ok((family, family.parse(config, task)?))
}
