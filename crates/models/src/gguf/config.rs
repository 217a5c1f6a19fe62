//! From a GGUF file's metadata to the `config.json` of the family it belongs to, by the family's table. What the table
//! does not know is an error that names it: a key that is passed over might change every number.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::table::{Field, Fixed, ROPE_FREQS, Table};
use super::value::shortest;
use super::{Gguf, GgufError, Result, Value};
use crate::checkpoint::nearest;
use crate::registry::FAMILIES;

/// Keys by which positions turn.
const ROPE: [&str; 11] = [
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];
const YARN_LOG: &str = "rope.scaling.yarn_log_multiplier";
const GROUPS: &str = "expert_group_count";

/// The configuration that a file describes, as `config.json` would have it.
///
/// # Errors
/// Names the architecture, the key or the value that is missing, of the wrong type or not supported.
pub fn config(gguf: &Gguf) -> Result<Map<String, Json>> {
    let key = "general.architecture";
    let arch = gguf.need(key, gguf.text(key))?;
    let tables = || FAMILIES.iter().filter_map(|family| Some((family, family.gguf?)));
    let marked = |table: &Table| match table.marked_by {
        Some(mark) => Ok(gguf.count(&format!("{arch}.{mark}"))?.unwrap_or(0) > 0),
        None => Ok(false),
    };
    let mut found = None;
    for (family, table) in tables().filter(|(_, table)| table.arch == arch) {
        if marked(&table)? || (table.marked_by.is_none() && found.is_none()) {
            found = Some((family, table));
        }
    }
    let Some((family, table)) = found else {
        let known: BTreeSet<&str> = tables().map(|(_, table)| table.arch).collect();
        let near = nearest(arch, known.iter().copied()).first().map(|name| format!("; did you mean {name}?"));
        let known = Vec::from_iter(known).join(", ");
        let advice = format!("known are {known}{}", near.unwrap_or_default());
        return Err(GgufError::unsupported(&gguf.path, key, Value::Text(arch), advice));
    };
    let mut reader = Reader { gguf, arch, known: BTreeSet::new(), config: Map::new() };
    reader.config.insert("model_type".into(), json!(family.model_type));
    if let Some((_, name)) = family.architectures.first() {
        reader.config.insert("architectures".into(), json!([name]));
    }
    for field in table.fields.iter().copied().flatten() {
        reader.field(field)?;
    }
    reader.finish()
}

struct Reader<'a> {
    gguf: &'a Gguf,
    arch: &'a str,
    /// The keys that somebody reads.
    known: BTreeSet<String>,
    config: Map<String, Json>,
}

impl<'a> Reader<'a> {
    /// The full key, from now on a known one.
    fn key(&mut self, short: &str) -> String {
        let key = if short.starts_with("tokenizer.") { short.to_string() } else { format!("{}.{short}", self.arch) };
        self.known.insert(key.clone());
        key
    }

    /// A plain value: a number, or true or false.
    fn plain(&mut self, short: &str) -> Result<Option<Value<'a>>> {
        let key = self.key(short);
        self.gguf.typed(&key, "a number", |value| match value {
            Value::Text(_) | Value::List(_) => None,
            plain => Some(plain),
        })
    }

    fn number(&mut self, short: &str) -> Result<Option<f64>> {
        let key = self.key(short);
        self.gguf.number(&key)
    }

    fn count(&mut self, short: &str) -> Result<Option<u64>> {
        let key = self.key(short);
        self.gguf.count(&key)
    }

    /// The first of the keys that is there.
    fn first(&mut self, keys: &[&str]) -> Result<Option<Value<'a>>> {
        let mut found = None;
        for key in keys {
            let value = self.plain(key)?;
            found = found.or(value);
        }
        Ok(found)
    }

    /// A missing key, the first of those that would do.
    fn missing<T>(&mut self, keys: &[&str]) -> Result<T> {
        let key = self.key(keys.first().copied().unwrap_or_default());
        self.gguf.need(&key, Ok(None))
    }

    fn refuse<T>(&mut self, short: &str, found: impl ToString, advice: impl Into<String>) -> Result<T> {
        let key = self.key(short);
        Err(GgufError::unsupported(&self.gguf.path, key, found, advice))
    }

    fn set(&mut self, field: &str, value: impl Into<Json>) {
        self.config.insert(field.into(), value.into());
    }

    fn field(&mut self, field: &Field) -> Result<()> {
        match *field {
            Field::Need(field, keys) => match self.first(keys)? {
                Some(value) => self.set(field, value),
                None => return self.missing(keys),
            },
            Field::May(field, keys) => {
                if let Some(value) = self.first(keys)? {
                    self.set(field, value);
                }
            }
            Field::OrNull(field, keys) => {
                let value = self.first(keys)?;
                self.set(field, value.map_or(Json::Null, Json::from));
            }
            Field::Always(field, fixed) => self.set(field, fixed),
            Field::Only(key, fixed) => self.only(key, fixed)?,
            Field::Unread(key) => _ = self.key(key),
            Field::Rows(field, tensor, key) => {
                let rows = self.gguf.tensor(tensor).and_then(|tensor| Some(*tensor.shape.first()? as u64));
                let listed = || Ok(self.gguf.list(key)?.map(|list| list.len() as u64));
                let rows = rows.map_or_else(listed, |rows| Ok(Some(rows)))?;
                self.set(field, rows.unwrap_or(0));
            }
            Field::Less(field, keys, less) => {
                let (whole, less) = (self.first(keys)?.and_then(super::whole), self.count(less)?);
                match whole.zip(less).and_then(|(whole, less)| whole.checked_sub(less)) {
                    Some(rest) => self.set(field, rest),
                    None => return self.missing(keys),
                }
            }
            Field::Absent(field, tensor) => self.set(field, self.gguf.tensor(tensor).is_none()),
            Field::Present(field, tensor) => self.set(field, self.gguf.tensor(tensor).is_some()),
            Field::HeadDim => self.head_dim()?,
            Field::Rope => self.rope()?,
            Field::YarnLog => {
                if let Some(tenth) = self.number(YARN_LOG)? {
                    let mscale = shortest((10. * tenth) as f32);
                    if let Some(rope) = self.config.get_mut("rope_parameters").and_then(Json::as_object_mut) {
                        rope.extend([("mscale".into(), json!(mscale)), ("mscale_all_dim".into(), json!(mscale))]);
                    }
                }
            }
            Field::Groups => {
                let several = self.count(GROUPS)?.unwrap_or(0) > 1;
                self.set("topk_method", if several { "group_limited_greedy" } else { "greedy" });
            }
            Field::Ends => self.ends()?,
        }
        Ok(())
    }

    fn only(&mut self, key: &str, fixed: Fixed) -> Result<()> {
        let full = self.key(key);
        let Some(value) = self.gguf.get(&full) else { return Ok(()) };
        let same = match (value, fixed) {
            (Value::Bool(found), Fixed::Flag(only)) => found == only,
            (Value::Text(found), Fixed::Text(only)) => found == only,
            (Value::Unsigned(found), Fixed::Number(only)) => found as f64 == only,
            (Value::Signed(found), Fixed::Number(only)) => found as f64 == only,
            (Value::Float(found), Fixed::Number(only)) => found == only,
            _ => false,
        };
        if same { Ok(()) } else { self.refuse(key, value, format!("only {fixed} is built for {}", self.arch)) }
    }

    fn head_dim(&mut self) -> Result<()> {
        let (hidden, heads) = (self.count("embedding_length")?, self.count("attention.head_count")?);
        let stated = self.count("attention.key_length")?;
        let share = hidden.zip(heads).and_then(|(hidden, heads)| hidden.checked_div(heads));
        let Some(dim) = stated.or(share) else { return self.missing(&["attention.head_count"]) };
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.count(key)?.filter(|&other| other != dim) {
                return self.refuse(key, other, format!("heads have {dim} elements, and all of them is what is built"));
            }
        }
        self.set("head_dim", dim);
        Ok(())
    }

    fn rope(&mut self) -> Result<()> {
        for key in ROPE {
            self.key(key);
        }
        let mut rope = Map::new();
        rope.insert("rope_theta".into(), self.number("rope.freq_base")?.unwrap_or(10_000.).into());
        let factor = self.number("rope.scaling.factor")?.or(self.number("rope.scale_linear")?);
        let key = self.key("rope.scaling.type");
        let kind = match (self.gguf.text(&key)?, factor) {
            (Some(kind), _) => kind,
            (None, Some(_)) => "linear",
            (None, None) => "none",
        };
        for key in ["rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor"] {
            self.only(key, Fixed::Number(1.))?;
        }
        let original = self.count("rope.scaling.original_context_length")?;
        match (kind, factor) {
            ("none", _) => {}
            ("linear", Some(factor)) => {
                rope.extend([("rope_type".into(), json!("linear")), ("factor".into(), json!(factor))])
            }
            ("yarn", Some(factor)) => {
                rope.extend([("rope_type".into(), json!("yarn")), ("factor".into(), json!(factor))]);
                let original = original.map_or_else(|| self.need("context_length"), Ok)?;
                rope.insert("original_max_position_embeddings".into(), original.into());
                for (field, key) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
                    if let Some(beta) = self.number(&format!("rope.scaling.{key}"))? {
                        rope.insert(field.into(), beta.into());
                    }
                }
            }
            ("linear" | "yarn", None) => return self.missing(&["rope.scaling.factor"]),
            (other, _) => return self.refuse("rope.scaling.type", Value::Text(other), "known are none, linear, yarn"),
        }
        if let Some(tensor) = self.gguf.tensor(ROPE_FREQS) {
            if kind != "none" {
                return self.refuse(
                    "rope.scaling.type",
                    Value::Text(kind),
                    format!("{ROPE_FREQS} scales positions, too"),
                );
            }
            let factors = match tensor.to_f32() {
                Ok(factors) if factors.len() <= 1 << 16 => factors.into_iter().map(shortest).collect::<Vec<f64>>(),
                _ => {
                    return Err(GgufError::unsupported(
                        &self.gguf.path,
                        ROPE_FREQS,
                        tensor.dtype,
                        "expected F32 factors",
                    ));
                }
            };
            // Whatever rule they came from (Llama 3's as a rule), factors they are: the same ones at any length.
            rope.insert("rope_type".into(), json!("longrope"));
            rope.insert("short_factor".into(), json!(factors));
            rope.insert("long_factor".into(), json!(factors));
            rope.insert("attention_factor".into(), json!(1.));
            rope.insert("original_max_position_embeddings".into(), self.need("context_length")?.into());
        }
        self.set("rope_parameters", rope);
        Ok(())
    }

    fn need(&mut self, short: &str) -> Result<u64> {
        let key = self.key(short);
        self.gguf.need(&key, self.gguf.count(&key))
    }

    fn ends(&mut self) -> Result<()> {
        let mut ends = vec![];
        for key in ["eos", "eot", "eom"] {
            ends.extend(self.count(&format!("tokenizer.ggml.{key}_token_id"))?);
        }
        let mut seen = BTreeSet::new();
        ends.retain(|end| seen.insert(*end));
        self.set(
            "eos_token_id",
            match ends.as_slice() {
                [] => Json::Null,
                [end] => json!(end),
                several => json!(several),
            },
        );
        Ok(())
    }

    fn finish(mut self) -> Result<Map<String, Json>> {
        let ours = format!("{}.", self.arch);
        if let Some(key) = self.gguf.keys().find(|key| key.starts_with(&ours) && !self.known.contains(*key)) {
            let found = self.gguf.get(key).map_or_else(String::new, |value| value.to_string());
            let advice = "nobody here knows what it changes";
            return Err(GgufError::unsupported(
                &self.gguf.path,
                crate::checkpoint::Shown(key).to_string(),
                found,
                advice,
            ));
        }
        // Some files number a token that the table does not have; to pad with it is impossible.
        let rows = self.config.get("vocab_size").and_then(Json::as_u64).unwrap_or(0);
        if self.config.get("pad_token_id").and_then(Json::as_u64).is_some_and(|pad| pad >= rows) {
            self.set("pad_token_id", Json::Null);
        }
        Ok(self.config)
    }
}

impl From<Fixed> for Json {
    fn from(fixed: Fixed) -> Json {
        match fixed {
            Fixed::Text(text) => text.into(),
            Fixed::Number(number) => number.into(),
            Fixed::Flag(flag) => flag.into(),
        }
    }
}

impl std::fmt::Display for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fixed::Text(text) => f.write_str(text),
            Fixed::Number(number) => write!(f, "{number}"),
            Fixed::Flag(flag) => write!(f, "{flag}"),
        }
    }
}
