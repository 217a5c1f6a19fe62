//! Guesses of a smaller model, or of a model's own first layers (Elhoushi et al. 2024, LayerSkip).

use phyla_models::Model;
use phyla_nn::{Cache, Pass};
use phyla_ops::cpu;

use crate::{Result, sampler};

/// A smaller model, and what it has read.
pub(super) struct Small<'a> {
    model: &'a Model,
    /// How many of its layers run; all without a word.
    layers: Option<usize>,
    cache: Cache,
    ids: Vec<u32>,
    /// A guess that is less likely than this is the last.
    sure: f32,
}

impl<'a> Small<'a> {
    /// Nothing read yet.
    pub fn new(model: &'a Model, layers: Option<usize>, sure: f32) -> Self {
        Self { model, layers, cache: Cache::new(1), ids: vec![], sure }
    }

    /// Up to `most` ids behind `text`, each as `pick` takes it from the logits; one of `ends` is the last.
    ///
    /// Of what has been read before only what differs is read again.
    pub fn write(
        &mut self,
        text: &[u32],
        most: usize,
        ends: &[u32],
        mut pick: impl FnMut(&mut [f32]) -> Result<u32>,
    ) -> Result<Vec<u32>> {
        let arch = &self.model.arch;
        if text.is_empty() || arch.context_is_hard && text.len() + most > arch.context {
            // It has nothing to go on from, or has read as much as it can.
            return Ok(vec![]);
        }
        let known = self.ids.iter().zip(text).take_while(|(a, b)| a == b).count().min(text.len() - 1);
        let lead = self.model.lead();
        let known = self.cache.truncate(0, lead + known).saturating_sub(lead);
        self.ids.truncate(known);
        let (mut new, mut guessed) = (text[known..].to_vec(), vec![]);
        while guessed.len() < most {
            let mut pass = Pass::cached(self.cache.all(), new.len());
            pass.layers = self.layers;
            let hidden = self.model.forward(&new, None, &mut pass)?;
            let logits = self.model.logits(&hidden.narrow(1, new.len() - 1, 1)?)?.into_data().flatten_all()?;
            self.ids.append(&mut new);
            let mut row = cpu::view::<f32>(&logits)?.to_vec();
            let id = pick(&mut row)?;
            guessed.push(id);
            new.push(id);
            if ends.contains(&id) || self.sure > 0. && self.doubts(&row, id) {
                break;
            }
        }
        Ok(guessed)
    }

    fn doubts(&self, row: &[f32], id: u32) -> bool {
        let (weights, total) = sampler::weights(row);
        f64::from(weights[id as usize]) < f64::from(self.sure) * total
    }
}
