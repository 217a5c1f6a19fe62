//! `model = "…"` or `[model]`: what is trained.

use toml::Value;

/// Where the model comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// A checkpoint folder, a hub id, or the path of a `config.json` to start from scratch.
    Named(String),
    /// A Hugging Face config written in the recipe: start from scratch. `vocab_size` may be left out;
    /// it is then the tokenizer's.
    Config(serde_json::Map<String, serde_json::Value>),
}

impl Model {
    /// Whether the config stands in the recipe itself.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        matches!(self, Self::Config(_))
    }

    pub(super) fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::String(name) if name.trim().is_empty() => {
                Err("`model` is empty; expected a folder, a hub id or a config".into())
            }
            Value::String(name) => Ok(Self::Named(name)),
            Value::Table(table) => {
                if !matches!(table.get("model_type"), Some(Value::String(_))) {
                    let known: Vec<&str> = phyla_models::registry::FAMILIES.iter().map(|f| f.model_type).collect();
                    return Err(format!("[model] is a config and needs its `model_type`: {}", known.join(", ")));
                }
                if let Some(key) = table.iter().find_map(|(key, value)| not_finite(key, value)) {
                    return Err(format!(
                        "`model.{key}` is not a finite number, and JSON, the form of a config, has no other"
                    ));
                }
                match serde_json::to_value(table) {
                    Ok(serde_json::Value::Object(config)) => Ok(Self::Config(config)),
                    Ok(_) => Err("[model] is not a table of settings".into()),
                    Err(error) => Err(format!("[model] has no JSON form: {error}")),
                }
            }
            other => Err(format!(
                "`model` must be a folder, a hub id, a config.json or a [model] table, found a {}",
                other.type_str()
            )),
        }
    }

    pub(super) fn to_value(&self) -> Result<Value, toml::ser::Error> {
        match self {
            Self::Named(name) => Ok(Value::String(name.clone())),
            Self::Config(config) => Value::try_from(config),
        }
    }
}

/// The path of a number that JSON cannot hold, at or below `value`.
fn not_finite(key: &str, value: &Value) -> Option<String> {
    match value {
        Value::Float(number) if !number.is_finite() => Some(key.to_owned()),
        Value::Table(table) => table.iter().find_map(|(inner, value)| not_finite(&format!("{key}.{inner}"), value)),
        Value::Array(items) => items.iter().find_map(|value| not_finite(key, value)),
        _ => None,
    }
}
