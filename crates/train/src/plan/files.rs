//! The files of a checkpoint while it is loaded and afterwards: they are read through a map, whose pages count once they have
//! been read, and as long as anything is used where it lies.

use std::collections::{HashMap, HashSet};

use candle_core::Storage;
use phyla_models::checkpoint::Dtype;
use phyla_models::{Found, Model, Survey};
use phyla_ops::{Param, Weight};

use super::known::Stored;

/// The files of a model.
pub struct Files {
    /// All bytes.
    pub bytes: usize,
    /// What parameters are stored as there, by path.
    stored: HashMap<String, Dtype>,
}

impl Files {
    /// Those that a survey found.
    pub fn new(bytes: usize, survey: &Survey) -> Self {
        let dtype = |found: &Found| if let Found::Stored(dtype) = found { Some(*dtype) } else { None };
        let slots = survey.slots.iter().filter_map(|slot| Some((slot.path.clone(), dtype(&slot.found)?)));
        Self { bytes, stored: slots.collect() }
    }

    /// Whether a parameter is used where it lies: a matrix that does not learn and is kept as it is stored.
    fn in_place(&self, param: &Param, kept: Stored) -> bool {
        let alike = matches!(
            (kept, self.stored.get(param.path())),
            (Stored::F32 { .. }, Some(Dtype::F32))
                | (Stored::Half, Some(Dtype::BF16))
                | (Stored::Blocks(_), Some(Dtype::Quant(_)))
        );
        alike && !param.trainable() && param.dims().len() > 1
    }

    /// Bytes that loading makes beside the files' own.
    pub fn made(&self, param: &Param, kept: Stored) -> usize {
        let copy = if kept == (Stored::F32 { copy: true }) { 2 * param.count() } else { 0 };
        copy + if self.in_place(param, kept) { 0 } else { kept.bytes(param.count()) }
    }

    /// Bytes of the files that nothing uses any more, and that are there since something else in them is used.
    pub fn held(&self, model: &Model, kept: impl Fn(&Param) -> Stored) -> usize {
        let placed = model.params().iter().filter(|param| self.in_place(param, kept(param)));
        match placed.map(|param| kept(param).bytes(param.count())).sum::<usize>() {
            0 => 0,
            used => self.bytes.saturating_sub(used),
        }
    }
}

/// Bytes of a parameter's numbers, of those that several share once.
pub fn numbers(param: &Param, seen: &mut HashSet<usize>) -> usize {
    let Weight::Dense(data) = param.weight() else { return 4 * param.count() };
    let (storage, _) = data.storage_and_layout();
    let (at, all) = (
        std::ptr::from_ref::<Storage>(&storage).addr(),
        match &*storage {
            Storage::Cpu(candle_core::CpuStorage::F32(all)) => all.len(),
            _ => param.count(),
        },
    );
    if seen.insert(at) { 4 * all } else { 0 }
}
