//! From a configuration to the metadata of a GGUF file: the family's table read backwards. Whether the file then says what
//! the configuration does is not believed but looked up; see [`same`].

use phyla_nn::{AttentionSpec, RopeScaling, RopeSpec, SublayerSpec};
use serde_json::{Map, Value as Json, json};

use super::table::{Field, Fixed, Table};
use super::value::shortest;
use super::{Datum, Gguf};
use crate::arch::Dropouts;
use crate::family::{Entry, Parsed};
use crate::{Arch, LoadError, registry};

/// Fields that files do not have, because they matter in training alone.
const TRAINING: [&str; 14] = [
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "aux_loss_alpha",
    "classifier_dropout",
    "embd_pdrop",
    "hidden_dropout_prob",
    "initializer_range",
    "output_router_logits",
    "pad_token_id",
    "resid_pdrop",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "seq_aux",
];

type Pairs = Vec<(String, Datum)>;

/// The keys of `table` for this configuration, and the factors of positions where they need a tensor.
///
/// # Errors
/// Names the field that files of the family cannot state.
pub(super) fn keys(
    table: &Table,
    parsed: &Parsed,
    pooling: Option<u32>,
) -> Result<(Pairs, Option<Vec<f32>>), LoadError> {
    let mut writer = Writer { table, parsed, pooling, pairs: vec![], factors: None };
    for field in table.fields.iter().copied().flatten() {
        writer.field(field)?;
    }
    if let Some(mark) = table.marked_by
        && !writer.has(mark)
    {
        return Err(cannot(mark, "null", "a number above 0"));
    }
    Ok((writer.pairs, writer.factors))
}

fn cannot(field: &str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> LoadError {
    LoadError::Weights(format!(
        "config.json: {field} is {found}, and GGUF files of this family can only say {expected}: save the model as safetensors"
    ))
}

struct Writer<'a> {
    table: &'a Table,
    parsed: &'a Parsed,
    pooling: Option<u32>,
    pairs: Pairs,
    factors: Option<Vec<f32>>,
}

impl Writer<'_> {
    fn has(&self, short: &str) -> bool {
        self.pairs.iter().any(|(key, _)| *key == self.key(short))
    }

    fn key(&self, short: &str) -> String {
        if short.starts_with("tokenizer.") { short.into() } else { format!("{}.{short}", self.table.arch) }
    }

    fn put(&mut self, short: &str, datum: Datum) {
        if !self.has(short) {
            self.pairs.push((self.key(short), datum));
        }
    }

    fn count(&mut self, short: &str, count: usize) {
        self.put(short, Datum::U32(count as u32));
    }

    /// The field's value, unless it is null.
    fn value(&self, field: &str) -> Option<&Json> {
        self.parsed.fields.get(field).filter(|value| !value.is_null())
    }

    fn whole(&self, field: &str) -> Result<usize, LoadError> {
        let value = self.value(field).and_then(Json::as_u64);
        value.map(|value| value as usize).ok_or_else(|| cannot(field, "not stated", "a whole number"))
    }

    fn field(&mut self, field: &Field) -> Result<(), LoadError> {
        match *field {
            Field::Need(_, keys) | Field::May(_, keys) | Field::OrNull(_, keys)
                if keys[0].starts_with("tokenizer.") => {}
            Field::Need(field, keys) => match (self.value(field).and_then(Datum::from_json), keys) {
                (Some(datum), keys) => self.first(keys, datum),
                // Readers take the second key where the first is not there.
                (None, [_, second, ..]) if self.has(second) => {}
                (None, ["feed_forward_length"]) => {
                    let inner = self.inner().ok_or_else(|| cannot(field, "null", "a number"))?;
                    self.count("feed_forward_length", inner);
                }
                (None, _) => return Err(cannot(field, "null", "a number")),
            },
            Field::May(field, keys) | Field::OrNull(field, keys) => {
                if let Some(datum) = self.value(field).and_then(Datum::from_json) {
                    self.first(keys, datum);
                }
            }
            Field::Always(field, fixed) => {
                let found = self.parsed.fields.get(field).unwrap_or(&Json::Null);
                let same = match fixed {
                    Fixed::Number(number) => found.as_f64() == Some(number),
                    fixed => *found == Json::from(fixed),
                };
                if !same {
                    return Err(cannot(field, found, fixed));
                }
            }
            Field::Only(_, Fixed::Number(0.)) => {}
            Field::Only(key, Fixed::Number(number)) => self.count(key, number as usize),
            Field::Only(key, Fixed::Flag(flag)) => self.put(key, Datum::Bool(flag)),
            Field::Only(key, Fixed::Text(text)) => self.put(key, Datum::Text(text.into())),
            Field::Unread("vocab_size") => self.count("vocab_size", self.parsed.arch.vocab()),
            Field::Unread("context_length") => self.count("context_length", self.parsed.arch.context),
            Field::Unread("attention.head_count_kv") => {
                let heads = self.whole("num_attention_heads")?;
                self.count("attention.head_count_kv", heads);
            }
            Field::Unread("pooling_type") => {
                if let Some(pooling) = self.pooling {
                    self.put("pooling_type", Datum::U32(pooling));
                }
            }
            Field::Rows(field, "token_types.weight", _) => {
                let types = self.whole(field)?;
                self.count("tokenizer.ggml.token_type_count", types);
            }
            Field::Less(field, keys, less) => {
                let other = self.table.fields.iter().copied().flatten().find_map(|field| match field {
                    Field::Need(field, keys) if keys.contains(&less) => Some(*field),
                    _ => None,
                });
                let sum = self.whole(field)? + self.whole(other.unwrap_or(less))?;
                self.first(keys, Datum::U32(sum as u32));
            }
            Field::HeadDim => {
                let dim = self.attention().map(|attention| attention.head_dim).unwrap_or_default();
                for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
                    self.count(key, dim);
                }
            }
            Field::Rope => self.rope()?,
            Field::YarnLog => {
                let tables = ["rope_scaling", "rope_parameters"].into_iter().filter_map(|table| self.value(table));
                let all = tables.filter_map(|table| table.get("mscale_all_dim")?.as_f64()).next();
                if let Some(all) = all.filter(|&all| all != 0. && self.has("rope.scaling.factor")) {
                    self.put("rope.scaling.yarn_log_multiplier", Datum::F32((0.1 * all) as f32));
                }
            }
            Field::Groups => {
                if self.value("topk_method").is_none_or(|method| method == "greedy") {
                    let groups = [self.key("expert_group_count"), self.key("expert_group_used_count")];
                    self.pairs.retain(|(key, _)| !groups.contains(key));
                }
            }
            Field::Unread(_) | Field::Rows(..) | Field::Absent(..) | Field::Present(..) | Field::Ends => {}
        }
        Ok(())
    }

    /// The first key but for those of files whose heads are folded, which are not written.
    fn first(&mut self, keys: &[&str], datum: Datum) {
        if let Some(key) = keys.iter().find(|key| !key.ends_with("_mla")) {
            self.put(key, datum);
        }
    }

    fn sublayers(&self) -> impl Iterator<Item = &SublayerSpec> {
        self.parsed.arch.main().layers.iter().flat_map(|layer| &layer.sublayers)
    }

    fn attention(&self) -> Option<&AttentionSpec> {
        self.sublayers().find_map(|sublayer| match sublayer {
            SublayerSpec::Attention(attention) => Some(attention),
            _ => None,
        })
    }

    fn inner(&self) -> Option<usize> {
        self.sublayers().find_map(|sublayer| match sublayer {
            SublayerSpec::Mlp(mlp) => Some(mlp.inner),
            _ => None,
        })
    }

    fn rope(&mut self) -> Result<(), LoadError> {
        let rope = self.sublayers().find_map(rope_of).cloned();
        let Some(rope) = rope else { return Ok(()) };
        self.put("rope.freq_base", Datum::F32(rope.theta as f32));
        match &rope.scaling {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } => {
                self.put("rope.scaling.type", Datum::Text("linear".into()));
                self.put("rope.scaling.factor", Datum::F32(*factor as f32));
            }
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow, .. } => {
                self.put("rope.scaling.type", Datum::Text("yarn".into()));
                self.put("rope.scaling.factor", Datum::F32(*factor as f32));
                self.count("rope.scaling.original_context_length", *original);
                self.put("rope.scaling.yarn_beta_fast", Datum::F32(*beta_fast as f32));
                self.put("rope.scaling.yarn_beta_slow", Datum::F32(*beta_slow as f32));
            }
            RopeScaling::Llama3 { .. } | RopeScaling::LongRope { .. } => {
                self.factors = rope.divisors().map(|divisors| divisors.into_iter().map(|x| x as f32).collect());
            }
            RopeScaling::Dynamic { .. } | RopeScaling::Proportional { .. } => {}
        }
        // What a file cannot say comes back as something else, and that is then named.
        Ok(())
    }
}

fn rope_of(sublayer: &SublayerSpec) -> Option<&RopeSpec> {
    match sublayer {
        SublayerSpec::Attention(attention) => attention.rope.as_deref(),
        SublayerSpec::Mla(mla) => Some(&mla.rope),
        _ => None,
    }
}

/// What of `arch` a file of its family can hold at all: no dropout, no pooler, and windows only where they hide something.
pub(super) fn plain(arch: &Arch) -> Arch {
    let mut arch = arch.clone();
    arch.set_dropouts(Dropouts { attention: Some(0.), residual: Some(0.), embedding: Some(0.) });
    arch.router_loss = None;
    if arch.heads.is_empty() {
        arch.pooler = None;
    }
    for head in &mut arch.heads {
        head.dropout = 0.;
    }
    let context = arch.context;
    for sublayer in arch.main_mut().layers.iter_mut().flat_map(|layer| &mut layer.sublayers) {
        let listed = rope_of(sublayer).and_then(RopeSpec::divisors);
        match sublayer {
            SublayerSpec::Attention(attention) => {
                attention.window = attention.window.filter(|&window| window < context);
                if let (Some(listed), Some(rope)) = (listed, &mut attention.rope) {
                    let listed: Vec<f64> = listed.into_iter().map(|x| shortest(x as f32)).collect();
                    let scaling =
                        RopeScaling::LongRope { short: listed.clone(), long: listed, original: context, attention: 1. };
                    *rope = RopeSpec { scaling, ..rope.as_ref().clone() }.into();
                }
            }
            SublayerSpec::Moe(moe) => moe.balance = None,
            _ => {}
        }
    }
    arch
}

/// The windows of all attentions.
pub(super) fn windows(arch: &Arch) -> impl Iterator<Item = Option<usize>> {
    arch.main().layers.iter().flat_map(|layer| &layer.sublayers).filter_map(|sublayer| match sublayer {
        SublayerSpec::Attention(attention) => Some(attention.window),
        _ => None,
    })
}

/// Whether the file says what `parsed` does.
///
/// # Errors
/// Names the fields that it says otherwise.
pub(super) fn same(file: &Gguf, family: &Entry, parsed: &Parsed) -> Result<(), LoadError> {
    let cannot = |what: String| {
        LoadError::Weights(format!(
            "config.json says what a GGUF file of this family cannot: {what}; save the model as safetensors"
        ))
    };
    let mut config = super::config(file).map_err(crate::checkpoint::CheckpointError::from)?;
    for field in TRAINING {
        if let Some(value) = parsed.fields.get(field) {
            config.insert(field.into(), value.clone());
        }
    }
    let (_, again) = registry::parse_as(&config, None).map_err(|error| cannot(format!("in the file it is {error}")))?;
    let (ours, mut theirs) = (plain(&parsed.arch), plain(&again.arch));
    if ours.heads.is_empty() {
        // A decoder without a head comes back with one that is its token table.
        theirs.heads.clear();
        theirs.task = ours.task;
    }
    if ours == theirs {
        return Ok(());
    }
    // Of the fields that come back otherwise those that matter: with what comes back the model is another one.
    let matters = |field: &str, value: &Json| {
        let mut changed = parsed.fields.clone();
        changed.insert(field.into(), value.clone());
        family.parse(&changed, Some(ours.task)).is_ok_and(|changed| plain(&changed.arch) != ours)
    };
    let differ: Vec<String> = (parsed.fields.iter())
        .filter_map(|(field, value)| Some((field, value, again.fields.get(field)?)))
        .filter(|(field, ours, theirs)| ours != theirs && matters(field, theirs))
        .map(|(field, ours, theirs)| format!("{field} is {ours}, and would come back as {theirs}"))
        .collect();
    let some = || "what it says would come back as another model".to_string();
    Err(cannot(if differ.is_empty() { some() } else { differ.join("; ") }))
}

/// The keys of a tokenizer, with the ends of texts and the roles that the configuration names beside it.
///
/// # Errors
/// A value that the format does not have.
pub(super) fn tokenizer(
    keys: &Map<String, Json>,
    config: &Map<String, Json>,
    ends: &[u32],
) -> Result<Pairs, LoadError> {
    let mut keys = keys.clone();
    let key = |name: &str| format!("tokenizer.ggml.{name}_token_id");
    for (role, field) in [("bos", "bos_token_id"), ("padding", "pad_token_id")] {
        if let Some(id) = config.get(field).and_then(Json::as_u64) {
            keys.entry(key(role)).or_insert(json!(id));
        }
    }
    let first = keys.get(&key("eos")).and_then(Json::as_u64).filter(|end| ends.iter().any(|id| u64::from(*id) == *end));
    let first = first.or(ends.first().map(|&id| id.into()));
    let others = ends.iter().map(|&id| u64::from(id)).filter(|id| Some(*id) != first);
    for (role, id) in [("eos", first)].into_iter().chain(["eot", "eom"].into_iter().zip(others.map(Some))) {
        if let Some(id) = id {
            keys.insert(key(role), json!(id));
        }
    }
    let pair = |(key, value): (String, Json)| match Datum::from_json(&value) {
        Some(datum) => Ok((key, datum)),
        None => Err(LoadError::Weights(format!("{key}: a GGUF file has no such value"))),
    };
    keys.into_iter().map(pair).collect()
}
