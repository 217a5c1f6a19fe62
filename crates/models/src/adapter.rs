//! Adapters: few parameters beside a model's own, that change what it does (parameter-efficient fine-tuning). Made fresh,
//! or read from and written to the folders of peft.

mod adalora;
mod combine;
mod eva;
mod fresh;
mod load;
mod merge;
mod modules;
mod peft;
mod prompt;
mod save;
mod spec;
mod start;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use phyla_kernels::rng::Rng;
use phyla_nn::SublayerSpec;
use phyla_nn::adapter::{Change, Slot};
use phyla_ops::Param;

pub use adalora::{AdaLoraSpec, Directions, Kept};
pub use combine::{Combine, Majority, RULES, Rule, combine};
pub use eva::Eva;
pub use merge::merge;
pub use prompt::{Network, PTuningSpec, PrefixSpec, Prompt, PromptInit, PromptSpec};
pub use spec::{AdapterSpec, BottleneckSpec, Ia3Spec, LoraSpec, VeraSpec};
pub use start::LoraInit;

use crate::{LoadError, Model};
use modules::Site;

/// Whether a folder holds an adapter and no model.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(peft::CONFIG).is_file() && !folder.join("config.json").is_file()
}

/// One adapter of one model.
#[derive(Debug)]
pub struct Adapter {
    spec: AdapterSpec,
    parts: Vec<Part>,
    /// What it puts before every text.
    prompt: Option<Arc<Prompt>>,
    /// Parameters of the model itself that belong to the adapter.
    saved: Vec<Arc<Param>>,
    /// What AdaLoRA left of the directions of each module.
    kept: Kept,
}

/// What it changes of one linear map.
#[derive(Debug)]
struct Part {
    site: Site,
    change: Arc<Change>,
}

impl Adapter {
    /// A new adapter for `model`, which leaves the model as it is until it is trained.
    ///
    /// # Errors
    /// A pattern that matches no linear map; a map that has no name in transformers.
    pub fn fresh(model: &Model, spec: &AdapterSpec, seed: u64) -> Result<Self, LoadError> {
        fresh::fresh(model, spec, seed)
    }

    /// Reads a folder of peft (`adapter_config.json`, `adapter_model.safetensors`) for `model`. Parameters that the
    /// adapter replaces whole (`modules_to_save`) are put into the model.
    ///
    /// # Errors
    /// A file that is missing or wrong, a method that is not known, tensors that do not fit the model, and tensors that
    /// nothing would use.
    pub fn load(model: &Model, folder: &Path) -> Result<Self, LoadError> {
        load::load(model, folder)
    }

    /// Writes a folder that peft opens.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, model: &Model, folder: &Path, base: Option<&str>) -> Result<(), LoadError> {
        save::save(self, model, folder, base)
    }

    /// How it was made.
    pub fn spec(&self) -> &AdapterSpec {
        &self.spec
    }

    /// Its own parameters, each once, those that never learn included.
    pub fn params(&self) -> Vec<&Arc<Param>> {
        let mut known = HashSet::new();
        let before = self.prompt.iter().flat_map(|prompt| prompt.params());
        let all = self.parts.iter().flat_map(|part| part.change.params()).chain(before);
        all.filter(|param| known.insert(Arc::as_ptr(param))).collect()
    }

    /// How many numbers it holds, without parameters of the model itself.
    pub fn count(&self) -> usize {
        self.params().iter().map(|param| param.count()).sum()
    }

    /// The same adapter under the settings that it is trained further with.
    ///
    /// # Errors
    /// One that was not saved under such settings.
    pub fn with_spec(mut self, spec: AdapterSpec) -> Result<Self, LoadError> {
        let parts = match &spec {
            AdapterSpec::Lora(lora) => start::further(std::mem::take(&mut self.parts), lora)?,
            _ => std::mem::take(&mut self.parts),
        };
        Ok(Self { spec, parts, ..self })
    }

    /// Parameters of the model that it trains whole and keeps.
    pub fn saved(&self) -> &[Arc<Param>] {
        &self.saved
    }

    /// Whether one of its own parameters learns.
    pub fn learns(&self, param: &Param) -> bool {
        let name = param.path().rsplit('.').next().unwrap_or_default();
        match (&self.spec, name) {
            (AdapterSpec::Lora(lora), "lora_A") => !lora.freeze_a,
            (AdapterSpec::Vera(_), "vera_A" | "vera_B") | (_, start::A | start::B) => false,
            _ => true,
        }
    }
}

type Changes = HashMap<*const Slot, Vec<Arc<Change>>>;

fn changes_by_slot(adapters: &[Arc<Adapter>]) -> Changes {
    let mut changes = Changes::new();
    for part in adapters.iter().flat_map(|adapter| &adapter.parts) {
        changes.entry(Arc::as_ptr(&part.site.slot)).or_default().push(part.change.clone());
    }
    changes
}

impl Model {
    /// Lets these adapters change the model, and no others: what several add to one map is added up, and of prompts and
    /// prefixes the first one counts. None at all is the model itself.
    pub fn use_adapters(&self, adapters: &[Arc<Adapter>]) {
        let mut changes = changes_by_slot(adapters);
        let prompt = adapters.iter().find_map(|adapter| adapter.prompt.clone());
        *self.prompt.write().unwrap_or_else(PoisonError::into_inner) = prompt;
        for slot in self.slots() {
            slot.set(changes.remove(&Arc::as_ptr(slot)).unwrap_or_default());
        }
    }

    /// Lets some adapters change so many rows of what passes, others so many more, and so on: outside training, for models
    /// whose [rows stay rows](Model::keeps_rows), and of adapters that put nothing before a text.
    pub fn use_adapters_by_rows(&self, groups: &[(usize, Vec<Arc<Adapter>>)]) {
        if let [(_, adapters)] = groups {
            return self.use_adapters(adapters);
        }
        let mut groups: Vec<_> = groups.iter().map(|(rows, adapters)| (*rows, changes_by_slot(adapters))).collect();
        for slot in self.slots() {
            let of_slot = |changes: &mut Changes| changes.remove(&Arc::as_ptr(slot)).unwrap_or_default();
            slot.set_rows(groups.iter_mut().map(|(rows, changes)| (*rows, of_slot(changes))).collect());
        }
    }

    /// Whether each map of the main tower reads one row for each row of a pass: experts read those that chose them, and maps of
    /// latents read all that is cached.
    pub fn keeps_rows(&self) -> bool {
        let mut sublayers = self.arch.main().layers.iter().flat_map(|layer| &layer.sublayers);
        self.arch.source().is_none()
            && sublayers.all(|sublayer| matches!(sublayer, SublayerSpec::Attention(_) | SublayerSpec::Mlp(_)))
    }

    /// Randomness of the adapters' dropout in training; none outside.
    pub fn set_adapter_rng(&self, rng: Option<&Rng>) {
        self.slots().iter().for_each(|slot| slot.set_rng(rng));
    }
}
