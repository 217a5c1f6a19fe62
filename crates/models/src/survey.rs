//! What a configuration asks for, beside what a checkpoint holds: from headers alone, and without anything having to
//! fit, as it has to for loading.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use candle_core::{DType, Device};
use phyla_nn::{Init, Source};
use phyla_ops::{Data, Param, Weight};
use serde_json::{Map, Value};

use crate::checkpoint::{Checkpoint, Dtype, nearest};
use crate::family::Entry;
use crate::names::{Place, place};
use crate::naming::{Naming, TiedHead};
use crate::{Arch, LoadError, Model, NewHead, registry};

/// A model that need not be there.
#[derive(Debug)]
pub struct Survey {
    /// Its family.
    pub family: &'static Entry,
    /// The architecture, its head tied or not as the checkpoint has it.
    pub arch: Arch,
    /// Every parameter once, in the order of the blocks.
    pub slots: Vec<Slot>,
    /// Tensors that no parameter asks for.
    pub unused: Vec<String>,
    /// Sentences that a user should see.
    pub warnings: Vec<String>,
}

/// A parameter that the architecture asks for.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its path in the model.
    pub path: String,
    /// Its shape, as we hold it.
    pub shape: Vec<usize>,
    /// Where it stands in a checkpoint of its family.
    pub place: Place,
    /// What stands there.
    pub found: Found,
}

/// What a checkpoint has for a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no checkpoint.
    Nothing,
    /// A tensor that fits.
    Stored(Dtype),
    /// No tensor of that name; the nearest ones among those that no parameter asks for.
    Missing(Vec<String>),
    /// A tensor of another shape than this one.
    Misshapen {
        /// As stored.
        shape: Vec<usize>,
        /// What the configuration asks for.
        expected: Vec<usize>,
    },
}

impl Slot {
    /// Number of weights.
    pub fn count(&self) -> usize {
        self.shape.iter().fold(1, |count, &size| count.saturating_mul(size))
    }
}

impl Survey {
    /// Number of weights.
    pub fn count(&self) -> usize {
        self.slots.iter().fold(0, |count, slot| count.saturating_add(slot.count()))
    }
}

/// Missing tensors for which the nearest names are looked for: a file of another family misses them all.
const EXPLAINED: usize = 50;

/// Holds a configuration against a checkpoint, or describes it alone.
///
/// # Errors
/// A configuration that describes no model; what is wrong with the checkpoint is in the result.
pub fn survey(config: &Map<String, Value>, checkpoint: Option<&Checkpoint>) -> Result<Survey, LoadError> {
    Ok(hollow(config, checkpoint, None)?.1)
}

/// As [`survey`], under another head if one is given, and the model itself: all its blocks over parameters that have sizes
/// and no numbers, for those to whom sizes are enough.
///
/// # Errors
/// As [`survey`].
pub fn hollow(
    config: &Map<String, Value>,
    checkpoint: Option<&Checkpoint>,
    head: Option<&NewHead>,
) -> Result<(Model, Survey), LoadError> {
    let mut config = config.clone();
    config.extend(head.map(|head| head.config.clone()).unwrap_or_default());
    let (family, parsed) = registry::parse_as(&config, head.map(|head| head.task))?;
    let mut arch = parsed.arch;
    let unknown =
        |field: &String| format!("config.json: {field} is not a field of {} and has no effect", family.model_type);
    let mut warnings: Vec<String> = parsed.unknown.iter().map(unknown).collect();
    let naming = checkpoint.map(|checkpoint| Naming::new(checkpoint, family));
    let (mut used, table) = (BTreeSet::new(), arch.table());
    let mut source = Hollow { family, checkpoint, naming, lent: None, table, slots: vec![], params: HashMap::new() };
    warnings.extend(source.naming.as_ref().and_then(|naming| naming.settle_pooler(&mut arch)));
    match source.naming.as_ref().map(|naming| naming.tied_head(arch.tied(), table)).transpose()? {
        None | Some(TiedHead::AsConfigured) => {}
        Some(TiedHead::Same { head }) => _ = used.insert(head),
        Some(TiedHead::Lent { head }) => source.lent = Some(head),
        Some(TiedHead::Own { warning }) => {
            warnings.push(warning);
            arch.untie();
        }
    }
    let model = Model::build(arch.clone(), family, config, &mut source).map_err(|error| {
        // Nothing is computed here: what fails is what the configuration asks for.
        LoadError::Weights(match error {
            candle_core::Error::WithBacktrace { inner, .. } => inner.to_string(),
            error => error.to_string(),
        })
    })?;
    used.extend(source.slots.iter().map(|slot| slot.place.tensor.clone()));
    let read: Vec<(String, Place)> = source.slots.iter().map(|slot| (slot.path.clone(), slot.place.clone())).collect();
    let unused = source.naming.as_ref().map(|naming| naming.unused(&used, &read)).unwrap_or_default();
    for slot in source.slots.iter_mut().filter(|slot| matches!(slot.found, Found::Missing(_))).take(EXPLAINED) {
        slot.found = Found::Missing(nearest(&slot.place.tensor, unused.iter().map(String::as_str)));
    }
    Ok((model, Survey { family, arch, slots: source.slots, unused, warnings }))
}

/// Parameters without numbers, which remembers what was asked of it.
struct Hollow<'a> {
    family: &'static Entry,
    checkpoint: Option<&'a Checkpoint>,
    naming: Option<Naming<'a>>,
    /// The head that stands for the token table.
    lent: Option<Place>,
    /// Path of the token table.
    table: &'static str,
    slots: Vec<Slot>,
    params: HashMap<String, Arc<Param>>,
}

impl Hollow<'_> {
    fn found(&self, place: &Place, shape: &[usize]) -> Found {
        let Some(checkpoint) = self.checkpoint else { return Found::Nothing };
        let Ok(view) = checkpoint.get(&place.tensor) else {
            return Found::Missing(vec![]);
        };
        if place.fits(shape, &view.shape) {
            Found::Stored(view.dtype)
        } else {
            Found::Misshapen { shape: view.shape, expected: place.stored_shape(shape) }
        }
    }
}

impl Source for Hollow<'_> {
    fn param(&mut self, path: &str, shape: &[usize], init: Init) -> candle_core::Result<Arc<Param>> {
        if let Some(param) = self.params.get(path) {
            return Ok(param.clone());
        }
        if shape.iter().try_fold(4usize, |bytes, &size| bytes.checked_mul(size)).is_none() {
            candle_core::bail!("{path}: shape {shape:?} is too large for any machine");
        }
        let lent = self.lent.clone().filter(|_| path == self.table);
        let place = lent.or_else(|| match &self.naming {
            Some(naming) => naming.place(path),
            None => place(self.family.names, path, |other| self.params.contains_key(other)),
        });
        let Some(place) = place else {
            candle_core::bail!("{}: no name for {path} in the family's table", self.family.model_type);
        };
        let found = match self.found(&place, shape) {
            // A buffer that is not there is all 0: nothing is missing.
            Found::Missing(_) if init == Init::Fixed => Found::Nothing,
            found => found,
        };
        self.slots.push(Slot { path: path.to_string(), shape: shape.to_vec(), place, found });
        // One number, repeated by strides: any shape, and no memory.
        let hollow = Data::zeros((), DType::F32, &Device::Cpu)?.broadcast_as(shape)?;
        let param = Arc::new(Param::new(path, Weight::Dense(hollow)));
        self.params.insert(path.to_string(), param.clone());
        Ok(param)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::checkpoint::{SafetensorsWriter, TensorSpec};
    use serde_json::json;

    fn config(more: Value) -> Map<String, Value> {
        let mut config = json!({
            "model_type": "llama", "vocab_size": 64_000_000, "hidden_size": 65536, "intermediate_size": 65536,
            "num_hidden_layers": 200, "num_attention_heads": 16,
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config.as_object().unwrap().clone()
    }

    #[test]
    fn a_model_larger_than_any_memory_is_described() {
        let survey = survey(&config(json!({})), None).unwrap();
        assert_eq!(survey.slots.len(), 200 * 9 + 3);
        assert!(survey.count() > 1 << 40);
        assert!(survey.slots.iter().all(|slot| slot.found == Found::Nothing));
    }

    #[test]
    fn sizes_beyond_counting_are_refused() {
        let sizes = json!({"hidden_size": 4_194_304, "num_attention_heads": 4_194_304, "head_dim": 4_194_304});
        let error = survey(&config(sizes), None).unwrap_err();
        // By the configuration's own check or by ours; never a wrapped product.
        assert!(matches!(error, LoadError::Config(_) | LoadError::Weights(_)), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let spec =
            |name: &str, shape: &[usize]| TensorSpec { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec() };
        let specs = [spec("model.norm.weight", &[4]), spec("model.nrm.weight", &[4]), spec("lm_head.weight", &[3, 8])];
        let mut writer = SafetensorsWriter::create(folder.path(), &specs, u64::MAX).unwrap();
        for spec in &specs {
            let zeros = vec![0f32; spec.shape.iter().product()];
            writer.write(&spec.name, crate::checkpoint::Values::F32(&zeros)).unwrap();
        }
        writer.finish().unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let small = json!({"vocab_size": 3, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1,
            "num_hidden_layers": 1, "tie_word_embeddings": true});
        let survey = survey(&config(small), Some(&checkpoint)).unwrap();
        let found = |path: &str| survey.slots.iter().find(|slot| slot.path == path).unwrap().found.clone();
        assert_eq!(found("tokens.weight"), Found::Stored(Dtype::F32), "lent by the head");
        assert_eq!(found("decoder.norm.weight"), Found::Misshapen { shape: vec![4], expected: vec![8] });
        assert_eq!(found("decoder.layers.0.attn.q.weight"), Found::Missing(vec![]), "no name is near");
        assert_eq!(survey.unused, ["model.nrm.weight"]);
    }
}
