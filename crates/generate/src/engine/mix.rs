//! Logits that are mixed from more than one distribution, where a model's own are what it gives: guidance away from a negative
//! prompt, an expert against an amateur, a model's last layer against an earlier one.
//!
//! A [`Batch`] mixes: what is behind it (draws, beams, contrastive search, guesses that are checked) sees the logits of a step as
//! if one model had given them. What they are mixed with stands in rows beside the batch's own, which take part in all that
//! happens to those.

pub(super) mod rules;

use std::ops::Range;

use phyla_models::Model;
use phyla_nn::Takeover;
use phyla_ops::{Data, Tensor, cpu};

use super::batch::Batch;
use super::{Generator, Prompt};
use crate::config::{Contrastive, DolaLayers};
use crate::{Error, Result, Settings};

/// What logits are mixed with.
pub(super) enum Mix<'a> {
    /// Those of rows beside.
    Beside(Box<Beside<'a>>),
    /// Those that the states entering these layers would have.
    Layers(Vec<usize>),
}

/// Rows beside a batch's own.
pub(super) struct Beside<'a> {
    batch: Batch<'a>,
    rule: Rule,
    /// What each row reads in place of its prompt; without, the prompt.
    instead: Vec<Vec<u32>>,
}

/// How two distributions become one.
#[derive(Clone, Copy)]
enum Rule {
    Guidance(f32),
    Contrast(Contrastive),
}

impl Rule {
    /// Mixes logits, `[rows, vocab]`, with those beside.
    fn apply(self, own: &Data, other: &Data, vocab: usize) -> Result<()> {
        let other = cpu::view::<f32>(other)?;
        cpu::mutate(own, |own: &mut [f32]| {
            for (own, other) in own.chunks_exact_mut(vocab).zip(other.chunks_exact(vocab)) {
                match self {
                    Rule::Guidance(scale) => rules::guide(own, other, scale),
                    Rule::Contrast(contrast) => rules::contrast(own, other, contrast),
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

impl<'a> Beside<'a> {
    /// Reads a prompt, of which `own` is what the batch's own row says.
    pub fn prefill(&mut self, row: usize, ids: &[u32], own: &Data, cancelled: impl Fn() -> bool) -> Result<Option<()>> {
        let instead = self.instead.get(row).cloned();
        let Some(other) = self.batch.prefill(row, instead.as_deref().unwrap_or(ids), cancelled)? else {
            return Ok(None);
        };
        self.rule.apply(own, &other, self.batch.vocab())?;
        Ok(Some(()))
    }

    /// The same ids more in the same rows.
    pub fn go_on(&mut self, rows: Range<usize>, ids: &[u32], own: &Data) -> Result<()> {
        let other = self.batch.ahead(rows, ids)?;
        self.rule.apply(own, &other, self.batch.vocab())
    }

    /// The rows.
    pub fn batch(&mut self) -> &mut Batch<'a> {
        &mut self.batch
    }

    /// Up to so many rows have the same bits as each alone.
    pub fn limits(&self) -> (usize, bool) {
        self.batch.limits()
    }

    /// As [`Batch::take_over`]: what two rows share is longer or shorter here by what was read in place of the prompt.
    pub fn take_over(&mut self, moves: &[Takeover], own: &[usize]) -> Result<()> {
        let held = self.batch.lengths();
        let here = |from: usize, shared: usize| (shared + held[from]).saturating_sub(own[from]);
        let moves: Vec<Takeover> = (moves.iter())
            .map(|m| Takeover { shared: if m.shared == 0 { 0 } else { here(m.from, m.shared) }, ..*m })
            .collect();
        self.batch.take_over(&moves)
    }

    /// Forgets so many last ids of the only row.
    pub fn forget(&mut self, ids: usize) -> Result<()> {
        let left = self.batch.length().saturating_sub(ids);
        self.batch.forget(left)
    }
}

/// Mixes logits with those of earlier layers, `[rows, vocab]` each.
pub(super) fn with_layers(own: &Data, early: &[Data], vocab: usize) -> Result<()> {
    let early = early.iter().map(cpu::view::<f32>).collect::<candle_core::Result<Vec<_>>>()?;
    cpu::mutate(own, |own: &mut [f32]| {
        for (row, own) in own.chunks_exact_mut(vocab).enumerate() {
            let early: Vec<&[f32]> = early.iter().map(|early| &early[row * vocab..][..vocab]).collect();
            rules::dola(own, &early);
        }
        Ok(())
    })?;
    Ok(())
}

/// Last states of a pass, and those that enter the layers that were asked for, `[rows, time, hidden]` each.
pub(super) struct Passed {
    pub hidden: Tensor,
    pub early: Vec<Tensor>,
}

impl Passed {
    /// Those of the last token alone.
    pub fn last(&self) -> Result<Self> {
        let last = |x: &Tensor| x.narrow(1, x.dims()[1] - 1, 1);
        Ok(Self {
            hidden: last(&self.hidden)?,
            early: self.early.iter().map(last).collect::<candle_core::Result<_>>()?,
        })
    }
}

impl<'a> Generator<'a> {
    /// What these prompts' logits are mixed with.
    pub(super) fn mix(&self, prompts: &[&Prompt], settings: &Settings) -> Option<Mix<'a>> {
        let beside = |model: &'a Model, rule: Rule, instead: Vec<Vec<u32>>| {
            let read =
                |(i, prompt): (usize, &&Prompt)| instead.get(i).map_or(prompt.ids.len(), Vec::len) + prompt.limit;
            let positions = prompts.iter().enumerate().map(read).max().unwrap_or(0);
            let batch = Batch::new(model, prompts.len(), settings.cache.spec(positions));
            Mix::Beside(Box::new(Beside { batch, rule, instead }))
        };
        if let Some(scale) = settings.guidance {
            let negative = prompts.iter().map(|prompt| prompt.negative.clone()).collect();
            return Some(beside(self.model, Rule::Guidance(scale), negative));
        }
        if let Some(amateur) = self.amateur {
            return Some(beside(amateur, Rule::Contrast(settings.contrastive), vec![]));
        }
        settings.dola.as_ref().map(|layers| Mix::Layers(self.layers(layers)))
    }

    /// The candidates of DoLa, as transformers 4.49 chooses them.
    fn layers(&self, which: &DolaLayers) -> Vec<usize> {
        let arch = &self.model.arch;
        let all = arch.main().layers.len();
        // Read by the head that they are tied to, embeddings say the ids that they are of.
        let first = match all {
            _ if !arch.tied() => 0,
            0 | 1 => 0,
            2 => 1,
            _ => 2,
        };
        let reach = if all > 40 { 20 } else { all - all / 2 };
        match which {
            DolaLayers::Low if first == all / 2 => vec![first],
            DolaLayers::Low => (first..if all > 40 { 20 } else { all / 2 }).step_by(2).collect(),
            DolaLayers::High => (all - reach..all).step_by(2).collect(),
            DolaLayers::These(layers) => layers.clone(),
        }
    }

    /// What cannot be mixed, or not with one another.
    pub(super) fn check_mix(&self, settings: &Settings) -> Result<()> {
        let asked = [
            ("guidance_scale", settings.guidance.is_some()),
            ("dola_layers", settings.dola.is_some()),
            ("an amateur", self.amateur.is_some()),
        ];
        let asked: Vec<&str> = asked.iter().filter(|(_, asked)| *asked).map(|(name, _)| *name).collect();
        if let [first, second, ..] = asked[..] {
            return Err(Error::Settings(format!(
                "{first} and {second}: logits are mixed in one way at a time; leave one of the two"
            )));
        }
        if settings.contrasts && self.amateur.is_none() {
            return Err(Error::Settings(
                "contrastive_alpha, contrastive_beta and amateur_temperature say how an amateur counts, and none is given".into(),
            ));
        }
        if !self.negative.is_empty() && settings.guidance.is_none() {
            return Err(Error::Settings(
                "a negative prompt has no effect without a guidance_scale other than 1".into(),
            ));
        }
        let arch = &self.model.arch;
        if !self.decoder.is_empty() && arch.source().is_none() {
            return Err(Error::Settings(format!(
                "decoder ids: {} has no encoder, and continues its prompt; put them there",
                self.model.family.model_type
            )));
        }
        if let (Some(name), Some(_)) = (asked.first(), arch.source()) {
            return Err(Error::Settings(format!(
                "{name}: for decoders alone, and {} has an encoder",
                self.model.family.model_type
            )));
        }
        self.check_layers(settings)?;
        let Some(amateur) = self.amateur else { return Ok(()) };
        // Its cache is as the model's.
        { settings.cache }.settle(&amateur.arch, settings.speculates)?;
        let (ours, theirs) = (arch.vocab(), amateur.arch.vocab());
        if amateur.arch.source().is_some() || !amateur.arch.main().causal || ours != theirs {
            return Err(Error::Settings(format!(
                "the amateur is a decoder with the model's {ours} tokens, found {} with {theirs}",
                amateur.family.model_type
            )));
        }
        Ok(())
    }

    fn check_layers(&self, settings: &Settings) -> Result<()> {
        let all = self.model.arch.main().layers.len();
        let Some(which) = &settings.dola else { return Ok(()) };
        let layers = self.layers(which);
        match layers.iter().find(|&&layer| layer >= all) {
            Some(layer) => Err(Error::Settings(format!(
                "dola_layers: expected layers below the model's {all}, 0 being what the first reads, found {layer}"
            ))),
            None if layers.is_empty() => {
                Err(Error::Settings(format!("dola_layers: of {all} layers there is none to contrast with; name one")))
            }
            None => Ok(()),
        }
    }
}
