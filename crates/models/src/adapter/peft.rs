//! `adapter_config.json` as peft 0.21 writes it.

use std::path::Path;
use std::sync::Arc;

use fancy_regex::Regex;
use phyla_ops::Param;
use serde_json::{Map, Value, json};

use super::modules::{paths, tensor_of};
use super::{Adapter, AdapterSpec, Kept, Part};
use crate::{LoadError, Model, Task};

/// The file's name.
pub(super) const CONFIG: &str = "adapter_config.json";
/// The weights' file.
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
/// What stands before every module's name.
pub(super) const PREFIX: &str = "base_model.model.";

/// The name by which our own bottleneck adapters are known; peft has none.
pub(super) const BOTTLENECK: &str = "PHYLA_BOTTLENECK";

/// The methods that put something before every text.
pub(super) const PROMPTS: [&str; 3] = ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"];

/// What the file says, as far as it shapes what is computed.
pub(super) struct PeftConfig {
    /// `LORA`, `ADALORA`, `VERA`, `IA3`, …
    pub method: String,
    fields: Map<String, Value>,
}

/// Fields that change what is computed and that we do not have; each with the value that means nothing.
const REFUSED: &[&str] = &[
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_qalora",
    "layer_replication",
    "lora_bias",
    "target_parameters",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
];

impl PeftConfig {
    /// Reads the file of a folder.
    pub fn read(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join(CONFIG);
        let wrong = |what: String| LoadError::Adapter(format!("{}: {what}", path.display()));
        let text =
            std::fs::read_to_string(&path).map_err(|error| wrong(format!("{error}; is this an adapter's folder?")))?;
        let fields: Map<String, Value> = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let method = match fields.get("peft_type").and_then(Value::as_str) {
            Some(method) => method.to_string(),
            None => return Err(wrong("expected peft_type, the method's name, and found none".into())),
        };
        let known = ["LORA", "ADALORA", "VERA", "IA3", BOTTLENECK];
        if !known.iter().chain(&PROMPTS).any(|known| *known == method) {
            return Err(wrong(format!(
                "peft_type {method} is not supported; expected LORA, ADALORA, VERA, IA3, {}",
                PROMPTS.join(" or ")
            )));
        }
        let means_something = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        for field in REFUSED {
            if let Some(value) = fields.get(*field).filter(|value| means_something(value)) {
                return Err(wrong(format!("{field} is {value}, which changes what is computed and is not supported")));
            }
        }
        Ok(Self { method, fields })
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.fields.get(key).and_then(Value::as_f64)
    }

    /// A word.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key).and_then(Value::as_str)
    }

    /// What AdaLoRA left of the directions of each module.
    ///
    /// # Errors
    /// A list of other things than yes and no.
    pub fn kept(&self) -> Result<Kept, LoadError> {
        let Some(Value::Object(pattern)) = self.fields.get("rank_pattern").filter(|_| self.method == "ADALORA") else {
            return Ok(Kept::new());
        };
        let read = |(name, kept): (&String, &Value)| {
            let wrong =
                || LoadError::Adapter(format!("{CONFIG}: rank_pattern: {name}: expected a list of true and false"));
            let flags = kept.as_array().ok_or_else(wrong)?.iter().map(Value::as_bool).collect::<Option<Vec<bool>>>();
            // Some versions name the adapter behind the module.
            let module = name.split(".lora_E").next().unwrap_or(name);
            Ok((module.to_string(), flags.ok_or_else(wrong)?))
        };
        pattern.iter().map(read).collect()
    }

    /// A switch; off where it is not there.
    pub fn on(&self, key: &str) -> bool {
        self.fields.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The entry of `rank_pattern` or `alpha_pattern` for a module: the first whose key, a regular expression, is all of
    /// its name or the end behind a dot.
    ///
    /// # Errors
    /// A key that is no regular expression.
    pub fn special(&self, key: &str, module: &str) -> Result<Option<f64>, LoadError> {
        let Some(Value::Object(entries)) = self.fields.get(key) else { return Ok(None) };
        for (name, value) in entries {
            let wrong = |error| LoadError::Adapter(format!("{CONFIG}: the key {name:?} of {key}: {error}"));
            let expression = Regex::new(&format!(r"^(.*\.)?({name})$")).map_err(wrong)?;
            if expression.is_match(module).map_err(wrong)? {
                return Ok(value.as_f64());
            }
        }
        Ok(None)
    }
}

/// The file's text for an adapter; `modules` are those that it changes, `all` every module that is a linear map.
pub(super) fn config(
    adapter: &Adapter,
    model: &Model,
    base: Option<&str>,
    modules: &[&str],
    all: &[&str],
) -> Map<String, Value> {
    let mut fields = Map::from_iter([
        ("base_model_name_or_path".to_string(), json!(base)),
        ("inference_mode".into(), json!(true)),
        ("target_modules".into(), json!(short(modules, all))),
        ("task_type".into(), json!(task(model.arch.task))),
    ]);
    if !adapter.saved.is_empty() {
        fields.insert("modules_to_save".into(), json!(whole_modules(adapter, model)));
    }
    if let Some(prompt) = &adapter.prompt {
        fields.remove("target_modules");
        fields.extend(super::prompt::config(adapter, prompt));
        return fields;
    }
    let mut set = |key: &str, value: Value| fields.insert(key.into(), value);
    let transposed = adapter.parts.iter().any(|part| part.site.transposed);
    match &adapter.spec {
        AdapterSpec::Lora(lora) => {
            let (mut ranks, mut alphas) = (Map::new(), Map::new());
            let lora = lora.as_saved();
            for part in &adapter.parts {
                let Some((rank, alpha)) = part.rank_and_alpha(lora.rslora) else { continue };
                if rank != lora.rank {
                    ranks.insert(part.site.module.clone(), json!(rank));
                }
                if (alpha - lora.alpha).abs() > 1e-4 * lora.alpha.abs() {
                    alphas.insert(part.site.module.clone(), json!(alpha));
                }
            }
            let whole = (lora.alpha.fract() == 0.).then_some(lora.alpha as i64);
            set("peft_type", json!("LORA"));
            set("rank_pattern", Value::Object(ranks));
            set("r", json!(lora.rank));
            set("lora_alpha", whole.map_or(json!(lora.alpha), |whole| json!(whole)));
            set("lora_dropout", json!(lora.dropout));
            set("use_rslora", json!(lora.rslora));
            set("use_dora", json!(lora.dora));
            set("alpha_pattern", Value::Object(alphas));
            set("bias", json!("none"));
            set("init_lora_weights", json!(true));
            set("fan_in_fan_out", json!(transposed));
        }
        AdapterSpec::AdaLora(adalora) => {
            set("fan_in_fan_out", json!(transposed));
            fields.extend(adalora.fields(&adapter.kept));
        }
        AdapterSpec::Vera(vera) => {
            set("peft_type", json!("VERA"));
            set("r", json!(vera.rank));
            set("d_initial", json!(vera.d_initial));
            set("vera_dropout", json!(vera.dropout));
            set("save_projection", json!(true));
            set("projection_prng_key", json!(0));
            set("bias", json!("none"));
            set("fan_in_fan_out", json!(transposed));
        }
        AdapterSpec::Ia3(_) => {
            let inputs = |part: &&Part| matches!(&*part.change, phyla_nn::adapter::Change::Rescale(r) if r.input);
            let feedforward: Vec<&str> =
                adapter.parts.iter().filter(inputs).map(|part| part.site.module.as_str()).collect();
            set("peft_type", json!("IA3"));
            set("feedforward_modules", json!(short(&feedforward, all)));
            set("fan_in_fan_out", json!(transposed));
        }
        AdapterSpec::Bottleneck(bottleneck) => {
            set("peft_type", json!(BOTTLENECK));
            set("inner", json!(bottleneck.inner));
        }
        // Said above.
        AdapterSpec::Prompt(_) | AdapterSpec::PTuning(_) | AdapterSpec::Prefix(_) => {}
    }
    fields
}

/// The modules that an adapter saves whole: one at the top, such as a head of several maps, stands for all that is in it,
/// since peft, which saves heads unasked, does not look for what is inside of one.
fn whole_modules(adapter: &Adapter, model: &Model) -> Vec<String> {
    let paths = paths(model);
    let names = |params: &[Arc<Param>]| -> Vec<String> {
        params.iter().filter_map(|param| tensor_of(model, &paths, param.path())).collect()
    };
    let (all, saved) = (names(model.params()), names(&adapter.saved));
    let top = |tensor: &str| tensor.split('.').next().unwrap_or_default().to_owned();
    let mut modules: Vec<String> = vec![];
    for tensor in &saved {
        let whole = all.iter().filter(|other| top(other) == top(tensor)).all(|other| saved.contains(other));
        let module = if whole { Some(top(tensor)) } else { tensor.rsplit_once('.').map(|(module, _)| module.into()) };
        modules.extend(module.filter(|module| !modules.contains(module)));
    }
    modules
}

/// Modules by the last part of their names, as people write them, if that means the same ones; else in full.
fn short(modules: &[&str], all: &[&str]) -> Vec<String> {
    let last = |module: &str| module.rsplit('.').next().unwrap_or_default().to_string();
    let mut ends: Vec<String> = modules.iter().map(|module| last(module)).collect();
    ends.sort();
    ends.dedup();
    let meant = all.iter().filter(|module| ends.contains(&last(module))).count();
    let mut full: Vec<String> = modules.iter().map(|module| module.to_string()).collect();
    full.dedup();
    if meant == full.len() { ends } else { full }
}

/// peft's name of a task.
fn task(task: Task) -> Option<&'static str> {
    Some(match task {
        Task::CausalLm => "CAUSAL_LM",
        Task::Seq2SeqLm => "SEQ_2_SEQ_LM",
        Task::SequenceClassification => "SEQ_CLS",
        Task::TokenClassification => "TOKEN_CLS",
        Task::QuestionAnswering => "QUESTION_ANS",
        Task::Base => "FEATURE_EXTRACTION",
        _ => return None,
    })
}
