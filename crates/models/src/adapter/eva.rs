//! EVA (Paischer et al. 2024, section 3): LoRA whose first matrices are the directions in which the inputs of their maps
//! vary most, and whose ranks go where they vary.

use std::sync::Arc;

use phyla_kernels::variation::Variation;
use phyla_nn::adapter::{Change, LowRank, Probe};
use phyla_ops::Param;

use super::fresh::param;
use super::spec::LoraSpec;
use super::{Adapter, AdapterSpec, Part};
use crate::{LoadError, Model};

/// Directions alike from one batch to the next by this cosine are found (peft's `tau`).
const ALIKE: f64 = 0.99;

/// Hears a model's maps, until their directions are known.
pub struct Eva {
    lora: LoraSpec,
    adapter: Adapter,
    heard: Vec<Heard>,
}

/// One module's inputs.
struct Heard {
    module: String,
    path: String,
    probe: Arc<Change>,
    found: Variation,
    alike: bool,
    rank: usize,
}

impl Eva {
    /// Begins to hear what the maps of `adapter` read; the model stays as it is.
    ///
    /// # Errors
    /// An adapter that is no LoRA.
    pub fn new(adapter: Adapter) -> Result<Self, LoadError> {
        let AdapterSpec::Lora(lora) = adapter.spec.clone() else {
            return Err(LoadError::Adapter(format!("init = \"eva\" is LoRA's, not {}'s", adapter.spec.name())));
        };
        let mut heard: Vec<Heard> = vec![];
        for part in &adapter.parts {
            // Parts of one module read the same.
            if heard.iter().any(|known| known.module == part.site.module) {
                continue;
            }
            let (path, input) = (part.site.slot.path().to_string(), part.site.slot.sizes()[1]);
            let rank = lora.at(&path).0;
            let wanted = (rank as f64 * lora.eva_rho).round() as usize;
            let probe = Arc::new(Change::Probe(Probe::default()));
            part.site.slot.set(vec![probe.clone()]);
            let (module, found) = (part.site.module.clone(), Variation::new(input, wanted));
            heard.push(Heard { module, path, probe, found, alike: false, rank });
        }
        Ok(Self { lora, adapter, heard })
    }

    /// Takes in what the maps have read since the last call. `counts` says of a map and its number of rows which of them
    /// count; all, if it says nothing. True when no more is needed.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&mut self, counts: impl Fn(&str, usize) -> Option<Vec<bool>>) -> Result<bool, LoadError> {
        for heard in &mut self.heard {
            let Change::Probe(probe) = &*heard.probe else { continue };
            let Some(x) = probe.take() else { continue };
            let columns = x.last_dim().max(1);
            let mut values: Vec<f32> = x.data().flatten_all()?.to_vec1()?;
            if let Some(counts) = counts(&heard.path, values.len() / columns) {
                let rows = values.chunks_exact(columns).zip(counts).filter(|(_, counts)| *counts);
                values = rows.flat_map(|(row, _)| row.iter().copied()).collect();
            }
            if let Some(alike) = heard.found.add(&values) {
                heard.alike = alike >= ALIKE;
            }
        }
        Ok(self.heard.iter().all(|heard| heard.alike))
    }

    /// The adapter that begins with what was found; it is not in use yet.
    ///
    /// # Errors
    /// Maps that have read too little.
    pub fn finish(self, model: &Model) -> Result<Adapter, LoadError> {
        model.use_adapters(&[]);
        if let Some(deaf) = self.heard.iter().find(|heard| heard.found.directions().is_empty()) {
            return Err(LoadError::Adapter(format!(
                "{}: init = \"eva\" found no batch of as many rows as it looks for directions ({}): use larger batches, or a \
                 smaller rank",
                deaf.path,
                (deaf.rank as f64 * self.lora.eva_rho).round()
            )));
        }
        let ranks = self.ranks();
        let mut parts = vec![];
        for (heard, rank) in self.heard.iter().zip(ranks).filter(|(_, rank)| *rank > 0) {
            let own = self.adapter.parts.iter().filter(|part| part.site.module == heard.module);
            let columns = heard.found.directions().len() / heard.found.shares().len();
            let numbers = heard.found.directions()[..rank * columns].to_vec();
            let a = param(format!("{}.lora_A", heard.path), numbers, &[rank, columns])?;
            for part in own {
                parts.push(Part { site: part.site.clone(), change: Arc::new(self.change(part, &a)?) });
            }
        }
        Ok(Adapter { parts, ..self.adapter })
    }

    fn change(&self, part: &Part, a: &Arc<Param>) -> Result<Change, LoadError> {
        let ([output, _], path, rank) = (part.site.slot.sizes(), part.site.slot.path(), a.dims()[0]);
        let b = param(format!("{path}.lora_B"), vec![0.; output * rank], &[output, rank])?;
        let Change::LowRank(old) = &*part.change else {
            return Err(LoadError::Adapter(format!("{path}: expected a change of LoRA")));
        };
        let magnitude = old.magnitude.as_ref().map(|magnitude| magnitude.again());
        let (scale, dropout) = (self.lora.scale_of(path, rank), old.dropout);
        Ok(Change::LowRank(LowRank { a: a.clone(), b, scale, dropout, importance: None, magnitude, origin: None }))
    }

    /// The rank of each module: the directions with the largest shares of their inputs' variance, as many as were asked for
    /// in all.
    fn ranks(&self) -> Vec<usize> {
        let budget: usize = self.heard.iter().map(|heard| heard.rank).sum();
        let of = |(at, heard): (usize, &Heard)| heard.found.shares().into_iter().map(move |share| (share, at));
        let mut shares: Vec<(f64, usize)> = self.heard.iter().enumerate().flat_map(of).collect();
        shares.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut ranks = vec![0; self.heard.len()];
        shares.iter().take(budget).for_each(|(_, at)| ranks[*at] += 1);
        ranks
    }
}
