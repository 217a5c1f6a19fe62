//! AdaLoRA's settings, and adapters of which the allocator has taken directions away.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Result;
use phyla_nn::adapter::{Change, LowRank};
use phyla_nn::pattern::Pattern;
use phyla_ops::Param;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::fresh::param;
use super::spec::queries_and_values;
use super::{Adapter, Part};
use crate::LoadError;

/// AdaLoRA (Zhang et al. 2023): LoRA as a product of singular directions and values, of which training takes those away that
/// matter least, over all maps together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaLoraSpec {
    /// Directions of each map at first.
    #[serde(alias = "init_r")]
    pub rank: usize,
    /// Directions of a map that are left, on average.
    #[serde(alias = "target_r")]
    pub target_rank: usize,
    /// What is added is scaled by `alpha / rank`.
    #[serde(alias = "lora_alpha")]
    pub alpha: f64,
    /// Dropout of what the first of the two matrices reads.
    #[serde(alias = "lora_dropout")]
    pub dropout: f64,
    /// Paths of the linear maps that are adapted.
    #[serde(alias = "target_modules")]
    pub targets: Vec<Pattern>,
    /// Paths that are not, though a target covers them.
    #[serde(alias = "exclude_modules")]
    pub exclude: Vec<Pattern>,
    /// Steps before directions are taken away.
    pub tinit: u64,
    /// Steps after the last ones have been.
    pub tfinal: u64,
    /// Steps from one time to the next.
    #[serde(alias = "deltaT")]
    pub delta_t: u64,
    /// Steps in all; those of `[train]` where nothing is said.
    pub total_step: Option<u64>,
    /// How much of a number's earlier sensitivity is kept at each step.
    pub beta1: f64,
    /// The same of how uncertain that is.
    pub beta2: f64,
    /// Weight of how far directions are from orthonormal, in the loss.
    pub orth_reg_weight: f64,
    /// Paths of parameters that are trained whole and saved beside the adapter.
    #[serde(alias = "modules_to_save")]
    pub save: Vec<Pattern>,
}

impl Default for AdaLoraSpec {
    fn default() -> Self {
        Self {
            rank: 12,
            target_rank: 8,
            alpha: 8.,
            dropout: 0.,
            targets: queries_and_values(),
            exclude: vec![],
            tinit: 0,
            tfinal: 0,
            delta_t: 1,
            total_step: None,
            beta1: 0.85,
            beta2: 0.85,
            orth_reg_weight: 0.5,
            save: vec![],
        }
    }
}

impl AdaLoraSpec {
    /// What a product of directions is multiplied with: as peft divides, by the rank that training began with.
    pub(super) fn scale(&self) -> f32 {
        self.alpha as f32 / (self.rank as f32 + 1e-5)
    }

    /// Adds a sentence for each setting that no model could be adapted with.
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.target_rank == 0 || self.target_rank >= self.rank {
            problems.push(format!(
                "`method.target_rank` is {}; expected at least 1 and below `method.rank`, {}: to keep all directions is LoRA",
                self.target_rank, self.rank
            ));
        }
        for (key, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(beta > 0. && beta < 1.) {
                problems.push(format!("`method.{key}` is {beta}; expected a number above 0 and below 1"));
            }
        }
        if !(self.orth_reg_weight.is_finite() && self.orth_reg_weight >= 0.) {
            problems.push(format!("`method.orth_reg_weight` is {}; expected 0 or more", self.orth_reg_weight));
        }
        if self.delta_t == 0 {
            problems.push("`method.delta_t` is 0; expected 1 or more steps".into());
        }
    }

    /// Adds a sentence if `total` steps leave none in which directions are taken away.
    pub fn check_steps(&self, total: u64, problems: &mut Vec<String>) {
        if self.tinit >= total.saturating_sub(self.tfinal) {
            problems.push(format!(
                "`method.tinit` {} and `method.tfinal` {} leave none of {total} steps to take directions away in",
                self.tinit, self.tfinal
            ));
        }
    }

    /// peft's fields, `kept` being the directions of each module that are left.
    pub(super) fn fields(&self, kept: &Kept) -> Map<String, Value> {
        let pattern: Map<String, Value> =
            kept.iter().map(|(module, kept)| (format!("{module}.lora_E"), json!(kept))).collect();
        let whole = (self.alpha.fract() == 0.).then_some(self.alpha as i64);
        let fields = json!({
            "peft_type": "ADALORA",
            "init_r": self.rank,
            "target_r": self.target_rank,
            "lora_alpha": whole.map_or(json!(self.alpha), |whole| json!(whole)),
            "lora_dropout": self.dropout,
            "tinit": self.tinit,
            "tfinal": self.tfinal,
            "deltaT": self.delta_t,
            // peft does not open it without a length, nor with one that leaves no step between the others.
            "total_step": self.total_step.unwrap_or(self.tinit + self.tfinal + 1),
            "beta1": self.beta1,
            "beta2": self.beta2,
            "orth_reg_weight": self.orth_reg_weight,
            "rank_pattern": if pattern.is_empty() { Value::Null } else { Value::Object(pattern) },
            "bias": "none",
            "init_lora_weights": true,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

/// Of each module of transformers, which of the directions that it began with are left; nothing where all are.
pub type Kept = BTreeMap<String, Vec<bool>>;

/// The directions of one module of transformers, which may be several maps of ours.
#[derive(Clone, Debug)]
pub struct Directions {
    /// The module's name.
    pub module: String,
    /// Right singular directions, `[rank, input]`.
    pub a: Arc<Param>,
    /// Singular values, `[rank, 1]`.
    pub values: Arc<Param>,
    /// Left singular directions, `[output, rank]`, those of each map.
    pub b: Vec<Arc<Param>>,
}

impl Directions {
    /// All its parameters.
    pub fn params(&self) -> impl Iterator<Item = &Arc<Param>> {
        [&self.a, &self.values].into_iter().chain(&self.b)
    }
}

impl Adapter {
    /// The directions of an adapter of AdaLoRA, by module; nothing of others.
    pub fn directions(&self) -> Vec<Directions> {
        let mut found: Vec<Directions> = vec![];
        for part in &self.parts {
            let Change::LowRank(change) = &*part.change else { continue };
            let Some(values) = &change.importance else { continue };
            match found.iter_mut().find(|known| Arc::ptr_eq(&known.values, values)) {
                Some(known) => known.b.push(change.b.clone()),
                None => found.push(Directions {
                    module: part.site.module.clone(),
                    a: change.a.clone(),
                    values: values.clone(),
                    b: vec![change.b.clone()],
                }),
            }
        }
        found
    }

    /// The same adapter without the directions that are not `kept`, which are masked; as it is saved in the end. What it computes
    /// stays the same.
    ///
    /// # Errors
    /// A module with another number of directions.
    pub fn narrowed(&self, kept: &Kept) -> std::result::Result<Adapter, LoadError> {
        let mut made: BTreeMap<*const Param, Arc<Param>> = BTreeMap::new();
        let mut parts = vec![];
        for part in &self.parts {
            let change = match (&*part.change, kept.get(&part.site.module)) {
                (Change::LowRank(change), Some(kept)) => {
                    if change.a.dims()[0] != kept.len() {
                        return Err(LoadError::Adapter(format!(
                            "{}: {} directions, of which {} should be chosen",
                            part.site.module,
                            change.a.dims()[0],
                            kept.len()
                        )));
                    }
                    Arc::new(Change::LowRank(narrow(change, kept, &mut made)?))
                }
                _ => part.change.clone(),
            };
            parts.push(Part { site: part.site.clone(), change });
        }
        Ok(Adapter { spec: self.spec.clone(), parts, prompt: None, saved: self.saved.clone(), kept: kept.clone() })
    }
}

/// One change with some of its directions; what maps share they go on sharing.
fn narrow(change: &LowRank, kept: &[bool], made: &mut BTreeMap<*const Param, Arc<Param>>) -> Result<LowRank> {
    let rank = kept.iter().filter(|kept| **kept).count();
    let mut rows = |whole: &Arc<Param>| -> Result<Arc<Param>> {
        if let Some(made) = made.get(&Arc::as_ptr(whole)) {
            return Ok(made.clone());
        }
        let columns = whole.dims()[1];
        let numbers = whole.numbers()?;
        let left = numbers.chunks_exact(columns).zip(kept).filter(|(_, kept)| **kept);
        let left: Vec<f32> = left.flat_map(|(row, _)| row.iter().copied()).collect();
        let new = param(whole.path().to_string(), left, &[rank, columns])?;
        made.insert(Arc::as_ptr(whole), new.clone());
        Ok(new)
    };
    let b = change.b.numbers()?;
    let b: Vec<f32> = b.iter().zip(kept.iter().cycle()).filter(|(_, kept)| **kept).map(|(x, _)| *x).collect();
    let shape = [change.b.dims()[0], rank];
    Ok(LowRank {
        a: rows(&change.a)?,
        b: param(change.b.path().to_string(), b, &shape)?,
        scale: change.scale,
        dropout: change.dropout,
        importance: change.importance.as_ref().map(rows).transpose()?,
        magnitude: None,
        origin: None,
    })
}
