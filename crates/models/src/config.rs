//! What the configurations of several families share: checks, rotary positions in both spellings, and the
//! file itself.

use std::path::Path;
use std::sync::Arc;

use phyla_nn::{Act, RopeScaling, RopeSpec, Style};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::checkpoint::is_gguf;
use crate::gguf::{self, Gguf, GgufError};

/// What can be wrong with a `config.json`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// The system's or the parser's words.
        reason: String,
    },
    /// A GGUF file's metadata.
    #[error(transparent)]
    Gguf(Box<GgufError>),
    /// A field has the wrong type or is missing.
    #[error("config.json: {field}: {reason}")]
    Field {
        /// Its name.
        field: String,
        /// What was expected and found.
        reason: String,
    },
    /// A field asks for something that is not done here.
    #[error("config.json: {field} is not supported: {why}")]
    Refused {
        /// Its name.
        field: String,
        /// Why, and what to do.
        why: String,
    },
    /// No such family.
    #[error("config.json: model_type {found:?} is not known; known are {known}{nearest}")]
    UnknownFamily {
        /// What the file says.
        found: String,
        /// All families.
        known: String,
        /// The nearest one, as the end of the sentence.
        nearest: String,
    },
}

impl From<GgufError> for ConfigError {
    fn from(error: GgufError) -> Self {
        Self::Gguf(Box::new(error))
    }
}

/// An error about one field.
pub(crate) fn invalid(field: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Field { field: field.into(), reason: short(reason.into()) }
}

/// A value that is quoted may be as long as a file: what says something about it stands at the ends.
fn short(text: String) -> String {
    const HALF: usize = 300;
    let count = text.chars().count();
    if count <= 2 * HALF {
        return text;
    }
    let (head, tail): (String, String) = (text.chars().take(HALF).collect(), text.chars().skip(count - HALF).collect());
    format!("{head} … {tail}")
}

/// A refusal of one field.
pub(crate) fn refused(field: &str, why: impl Into<String>) -> ConfigError {
    ConfigError::Refused { field: field.into(), why: short(why.into()) }
}

/// Reads a JSON object from a file, or from a GGUF file what says the same.
pub fn read(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    if is_gguf(path) {
        return Ok(gguf::config(&Gguf::open(path)?)?);
    }
    let error = |reason: String| ConfigError::Read { path: path.display().to_string(), reason };
    let size = std::fs::metadata(path).map_err(|e| error(e.to_string()))?.len();
    if size > LARGEST {
        return Err(error(format!("{size} bytes is no configuration (limit {LARGEST})")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(error("expected a JSON object".into())),
        Err(e) => Err(error(format!("not valid JSON: {e}"))),
    }
}

const LARGEST: u64 = 16 << 20;

/// Counts that a configuration may state: far beyond any real model, small enough that a lie costs nothing.
const LIMITS: &[(&str, usize)] =
    &[("layers", 10_000), ("vocabulary", 1 << 26), ("positions", 1 << 30), ("size", 1 << 22)];

/// A positive count within reason.
pub(crate) fn count(field: &str, value: usize, kind: &str) -> Result<usize, ConfigError> {
    let limit = LIMITS.iter().find(|(name, _)| *name == kind).map_or(usize::MAX, |&(_, limit)| limit);
    if value == 0 || value > limit {
        return Err(invalid(field, format!("expected 1 to {limit}, found {value}")));
    }
    Ok(value)
}

/// A size that a number of parts must divide.
pub(crate) fn divides(parts_field: &str, parts: usize, field: &str, size: usize) -> Result<(), ConfigError> {
    if parts == 0 || !size.is_multiple_of(parts) {
        return Err(invalid(field, format!("{size} is not a multiple of {parts} ({parts_field})")));
    }
    Ok(())
}

/// A positive count that another one bounds.
pub(crate) fn at_most(field: &str, value: usize, bound_field: &str, bound: usize) -> Result<usize, ConfigError> {
    if value == 0 || value > bound {
        return Err(invalid(field, format!("expected 1 to {bound} ({bound_field}), found {value}")));
    }
    Ok(value)
}

/// A size made of so many parts of one size; 0 parts are none.
pub(crate) fn times(field: &str, parts: usize, size: usize) -> Result<usize, ConfigError> {
    if parts == 0 {
        return Ok(0);
    }
    count(field, parts.saturating_mul(size), "size")
}

/// The size of two parts together.
pub(crate) fn sum(a: usize, b: usize) -> usize {
    a + b
}

/// What `taken` of `parts` equal parts of `whole` hold.
pub(crate) fn share(whole: usize, parts: usize, taken: usize) -> usize {
    whole / parts.max(1) * taken
}

/// An activation by its name in transformers.
pub(crate) fn activation(field: &str, name: &str) -> Result<Act, ConfigError> {
    Act::from_name(name).map_err(|e| invalid(field, e.to_string()))
}

/// A probability.
pub(crate) fn probability(field: &str, p: f64) -> Result<f32, ConfigError> {
    if !(0. ..1.).contains(&p) {
        return Err(invalid(field, format!("expected a probability below 1, found {p}")));
    }
    Ok(p as f32)
}

/// A positive, finite number.
pub(crate) fn positive(field: &str, x: f64) -> Result<f64, ConfigError> {
    if !(x > 0. && x.is_finite()) {
        return Err(invalid(field, format!("expected a positive number, found {x}")));
    }
    Ok(x)
}

/// Standard deviation of fresh weights.
pub(crate) fn std(value: f64) -> Result<f32, ConfigError> {
    if !(value >= 0. && value.is_finite()) {
        return Err(invalid("initializer_range", format!("expected a number of at least 0, found {value}")));
    }
    Ok(value as f32)
}

/// `pad_token_id` as a row of the token table; -1 counts from the end.
pub(crate) fn padding(id: Option<i64>, vocab: usize) -> Result<Option<u32>, ConfigError> {
    let Some(id) = id else { return Ok(None) };
    let row = if id < 0 { id + vocab as i64 } else { id };
    if !(0..vocab as i64).contains(&row) {
        return Err(invalid("pad_token_id", format!("{id} is outside the vocabulary of {vocab}")));
    }
    Ok(Some(row as u32))
}

/// A token's id, stated alone or as a list of one.
pub(crate) fn token(field: &str, value: &Value) -> Result<Option<u32>, ConfigError> {
    let alone = match value {
        Value::Array(ids) if ids.len() == 1 => &ids[0],
        other => other,
    };
    let id = alone.as_u64().and_then(|id| u32::try_from(id).ok());
    match alone {
        Value::Null => Ok(None),
        _ => id.map(Some).ok_or_else(|| invalid(field, format!("expected one token id, found {value}"))),
    }
}

/// Reads a configuration whose absent fields mean `defaults`, not what they mean to `T`.
pub(crate) fn over<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
    defaults: Value,
) -> Result<T, D::Error> {
    let mut fields = match defaults {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.extend(Map::deserialize(deserializer)?);
    T::deserialize(Value::Object(fields)).map_err(serde::de::Error::custom)
}

/// Rotary positions as transformers 5 writes them, and as it read them before; checked in [`RopeFields::build`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RopeFields {
    #[serde(default)]
    rope_theta: Value,
    #[serde(default)]
    rope_scaling: Value,
    #[serde(default)]
    rope_parameters: Value,
    #[serde(default)]
    original_max_position_embeddings: Value,
    #[serde(default)]
    partial_rotary_factor: Value,
}

const THETA: f64 = 10_000.;

impl RopeFields {
    /// The rotation of heads of `dim` elements.
    ///
    /// As in transformers: a non-empty `rope_scaling` stands for the whole of `rope_parameters`; `rope_theta` is
    /// looked for inside first; `original_max_position_embeddings` outside first.
    pub fn build(&self, dim: usize, max_positions: usize) -> Result<Arc<RopeSpec>, ConfigError> {
        self.styled(Style::Half, dim, max_positions)
    }

    /// As [`RopeFields::build`] with other pairs than a head's two halves.
    pub fn styled(&self, style: Style, dim: usize, max_positions: usize) -> Result<Arc<RopeSpec>, ConfigError> {
        if !dim.is_multiple_of(2) {
            return Err(invalid(
                "head_dim",
                format!("rotary positions turn pairs: expected an even number, found {dim}"),
            ));
        }
        let (name, fields) = self.table()?;
        let outer = Map::from_iter([
            ("rope_theta".to_string(), self.rope_theta.clone()),
            ("original_max_position_embeddings".to_string(), self.original_max_position_embeddings.clone()),
            ("partial_rotary_factor".to_string(), self.partial_rotary_factor.clone()),
        ]);
        let (read, outer) = (Table { table: name, fields: &fields }, Table { table: "", fields: &outer });
        let theta = read.number("rope_theta")?.or(outer.number("rope_theta")?).unwrap_or(THETA);
        let theta = positive("rope_theta", theta)?;
        let kind = read.kind()?;
        let partial = read.number("partial_rotary_factor")?.or(outer.number("partial_rotary_factor")?).unwrap_or(1.);
        if fields.values().any(Value::is_object) {
            return Err(refused(name.trim_end_matches('.'), "a table for each layer type"));
        }
        if partial != 1. && kind != "proportional" && kind != "default" {
            return Err(refused(
                "partial_rotary_factor",
                format!("rope type {kind:?} turns whole heads in these families"),
            ));
        }
        let context = Context {
            dim,
            max_positions,
            original: match outer.count("original_max_position_embeddings")? {
                Some(original) => original,
                None => read.count("original_max_position_embeddings")?.unwrap_or(max_positions),
            },
            partial,
        };
        let scaling = context.scaling(&kind, &read)?;
        Ok(Arc::new(RopeSpec { dim, theta, style, scaling }))
    }

    /// The factor on scores over heads of `dim` elements, `1 / sqrt(dim)`, which DeepSeek's `mscale_all_dim` makes
    /// larger for a stretched context.
    pub fn score_scale(&self, dim: usize) -> Result<f32, ConfigError> {
        let (name, fields) = self.table()?;
        let read = Table { table: name, fields: &fields };
        let usual = (dim as f64).sqrt().recip();
        let all = read.number("mscale_all_dim")?.filter(|&all| all != 0.);
        let factor = match (all, read.kind()?.as_str()) {
            (None, _) | (_, "default") => return Ok(usual as f32),
            (Some(all), kind) => magnitude(read.number("factor")?.ok_or_else(|| read.missing("factor", kind))?, all),
        };
        Ok((usual * factor * factor) as f32)
    }

    /// The table that says how positions turn: a non-empty `rope_scaling`, or `rope_parameters`.
    fn table(&self) -> Result<(&'static str, Map<String, Value>), ConfigError> {
        let table = |name: &'static str, value: &Value| match value {
            Value::Null => Ok(None),
            Value::Object(fields) => Ok(Some(fields.clone())),
            other => Err(invalid(name, format!("expected a table, found {other}"))),
        };
        Ok(match (table("rope_scaling", &self.rope_scaling)?, table("rope_parameters", &self.rope_parameters)?) {
            (Some(fields), _) if !fields.is_empty() => ("rope_scaling.", fields),
            (_, fields) => ("rope_parameters.", fields.unwrap_or_default()),
        })
    }
}

/// How much larger cosine and sine become where YaRN stretches the context `factor` times.
fn magnitude(factor: f64, mscale: f64) -> f64 {
    if factor <= 1. { 1. } else { 0.1 * mscale * factor.ln() + 1. }
}

/// What the scaling depends on besides its own table.
struct Context {
    dim: usize,
    max_positions: usize,
    original: usize,
    partial: f64,
}

impl Context {
    fn scaling(&self, kind: &str, read: &Table) -> Result<RopeScaling, ConfigError> {
        let original = count("original_max_position_embeddings", self.original, "positions")?;
        let required = |key: &str| read.number(key)?.ok_or_else(|| read.missing(key, kind));
        let factor = || positive("factor", required("factor")?);
        Ok(match kind {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: factor()? },
            "dynamic" if self.dim <= 2 => {
                return Err(invalid("head_dim", "dynamic rope needs heads of more than 2 elements"));
            }
            "dynamic" => RopeScaling::Dynamic { factor: factor()?, max_positions: self.max_positions },
            "yarn" => self.yarn(read, original)?,
            "longrope" => self.longrope(read, original)?,
            "llama3" => {
                let (low, high) = (required("low_freq_factor")?, required("high_freq_factor")?);
                RopeScaling::Llama3 {
                    factor: factor()?,
                    low: positive("low_freq_factor", low)?,
                    high: positive("high_freq_factor", high)?,
                    original,
                }
            }
            "proportional" => RopeScaling::Proportional {
                pairs: (self.partial.clamp(0., 1.) * self.dim as f64 / 2.).floor() as usize,
                factor: read.number("factor")?.map_or(Ok(1.), |f| positive("factor", f))?,
            },
            other => {
                return Err(refused(
                    "rope_type",
                    format!("{other:?}; known are default, linear, dynamic, yarn, longrope, llama3, proportional"),
                ));
            }
        })
    }

    fn yarn(&self, read: &Table, original: usize) -> Result<RopeScaling, ConfigError> {
        let factor = match read.number("factor")? {
            Some(factor) => positive("factor", factor)?,
            None if read.fields.contains_key("factor") => self.max_positions as f64 / original as f64,
            None => return Err(read.missing("factor", "yarn")),
        };
        let magnitude = |mscale: f64| magnitude(factor, mscale);
        let set = |key: &str| Ok::<_, ConfigError>(read.number(key)?.filter(|&x| x != 0.));
        let attention = match (read.number("attention_factor")?, set("mscale")?, set("mscale_all_dim")?) {
            (Some(attention), ..) => attention,
            (None, Some(mscale), Some(all)) => magnitude(mscale) / magnitude(all),
            _ => magnitude(1.),
        };
        Ok(RopeScaling::Yarn {
            factor,
            original,
            beta_fast: set("beta_fast")?.unwrap_or(32.),
            beta_slow: set("beta_slow")?.unwrap_or(1.),
            truncate: read.flag("truncate")?.unwrap_or(true),
            attention,
        })
    }

    fn longrope(&self, read: &Table, original: usize) -> Result<RopeScaling, ConfigError> {
        let stretch = read.number("factor")?.unwrap_or(self.max_positions as f64 / original as f64);
        let attention = match read.number("attention_factor")? {
            Some(attention) => attention,
            None if stretch <= 1. => 1.,
            None => (1. + stretch.ln() / (original as f64).ln()).sqrt(),
        };
        let list = |key: &str| -> Result<Vec<f64>, ConfigError> {
            let list = read.list(key)?.ok_or_else(|| read.missing(key, "longrope"))?;
            if list.len() != self.dim / 2 {
                return Err(invalid(
                    key,
                    format!("expected {} factors, one for each pair, found {}", self.dim / 2, list.len()),
                ));
            }
            list.into_iter().map(|f| positive(key, f)).collect()
        };
        Ok(RopeScaling::LongRope { short: list("short_factor")?, long: list("long_factor")?, original, attention })
    }
}

/// A nested table of the configuration, with errors that name it.
struct Table<'a> {
    table: &'static str,
    fields: &'a Map<String, Value>,
}

impl Table<'_> {
    fn get<T>(&self, key: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, ConfigError> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(invalid(&format!("{}{key}", self.table), format!("expected {expected}, found {value}"))),
            },
        }
    }

    fn kind(&self) -> Result<String, ConfigError> {
        Ok(match self.text("rope_type")? {
            Some(kind) => kind,
            None => self.text("type")?.unwrap_or_else(|| "default".into()),
        })
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.get(key, "a number", Value::as_f64)
    }

    fn count(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.get(key, "a whole number", |v| {
            v.as_u64()
                .or_else(|| v.as_f64().filter(|f| f.fract() == 0. && *f >= 0.).map(|f| f as u64))
                .map(|n| n as usize)
        })
    }

    fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.get(key, "a string", |v| v.as_str().map(str::to_string))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.get(key, "true or false", Value::as_bool)
    }

    fn list(&self, key: &str) -> Result<Option<Vec<f64>>, ConfigError> {
        self.get(key, "a list of numbers", |v| v.as_array()?.iter().map(Value::as_f64).collect())
    }

    fn missing(&self, key: &str, kind: &str) -> ConfigError {
        invalid(&format!("{}{key}", self.table), format!("rope type {kind:?} needs it"))
    }
}
