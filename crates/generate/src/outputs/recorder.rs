//! The watcher that gathers outputs: it follows sequences and beams, and keeps of each what was asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Array, Logprob, Outputs, Wanted};
use crate::watch::{At, Fate, Moment, Stage};
use crate::{Result, Sequence, sampler};

/// What is gathered.
#[derive(Debug)]
pub(crate) struct Recorder {
    wanted: Wanted,
    /// Tokens that the encoder reads of each prompt.
    sources: Vec<usize>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Steps whose id is still open.
    open: HashMap<At, Step>,
    /// Sequences and running beams, by prompt and branch.
    running: HashMap<(usize, usize), Path>,
    /// Of a search: those that have ended, with their prompts.
    finished: Vec<(usize, Path)>,
    /// States and weights of the encoder, by prompt.
    encoders: HashMap<usize, (Vec<Array>, Vec<Array>)>,
    failed: Option<candle_core::Error>,
}

/// A sequence of ids, and what was known of each; beams have what they have in common only once.
#[derive(Clone, Debug, Default)]
struct Path {
    ids: Vec<u32>,
    steps: Vec<Arc<Step>>,
    logprobs: Vec<Logprob>,
}

/// What was known when an id was picked.
#[derive(Debug, Default)]
struct Step {
    logits: Vec<f32>,
    scores: Vec<f32>,
    hidden_states: Vec<Array>,
    attentions: Vec<Array>,
    cross_attentions: Vec<Array>,
}

impl Recorder {
    /// For prompts of which an encoder reads so many tokens each, or none.
    pub fn new(wanted: Wanted, sources: Vec<usize>) -> Self {
        Self { wanted, sources, kept: Mutex::default() }
    }

    /// Takes down what is asked for.
    pub fn hear(&self, moment: &Moment) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.take(&mut kept, moment) {
            kept.failed.get_or_insert(error);
        }
    }

    fn take(&self, kept: &mut Kept, moment: &Moment) -> candle_core::Result<()> {
        let wanted = self.wanted;
        match *moment {
            Moment::Scores { at, stage, scores } => {
                let step = kept.open.entry(at).or_default();
                match stage {
                    Stage::Logits if wanted.logits || wanted.logprobs.is_some() => step.logits = scores.to_vec(),
                    Stage::Choice if wanted.scores => step.scores = scores.to_vec(),
                    _ => {}
                }
            }
            Moment::Layers { at, layers } => {
                let source = self.sources.get(at.prompt).copied().unwrap_or(0);
                let step = kept.open.entry(at).or_default();
                step.hidden_states = layers.hidden_states()?;
                step.attentions = layers.attentions()?;
                step.cross_attentions = layers.cross_attentions(source)?;
            }
            Moment::Encoded { prompt, layers } => {
                let source = self.sources.get(prompt).copied().unwrap_or(0);
                kept.encoders.insert(prompt, layers.encoder(source)?);
            }
            Moment::Picked { at, id, .. } => {
                let (step, logprob) = self.close(kept.open.remove(&at).unwrap_or_default(), &[id]);
                kept.running.entry((at.prompt, at.branch)).or_default().push(id, step, logprob.into_iter().next());
            }
            Moment::Beams { prompt, step, candidates } => self.beams(kept, prompt, step, candidates),
            Moment::Guessed { .. } | Moment::Read { .. } => {}
        }
        Ok(())
    }

    /// Lets the paths of a prompt's beams go on.
    fn beams(&self, kept: &mut Kept, prompt: usize, step: usize, candidates: &[crate::BeamCandidate]) {
        let mut grown = vec![];
        let mut parents: Vec<usize> = candidates.iter().map(|candidate| candidate.parent).collect();
        parents.sort_unstable();
        parents.dedup();
        for branch in parents {
            let path = kept.running.get(&(prompt, branch)).cloned().unwrap_or_default();
            let lasting = candidates.iter().filter(|c| c.parent == branch && c.fate != Fate::Dropped);
            let ids: Vec<u32> = lasting.clone().map(|candidate| candidate.id).collect();
            let at = At { prompt, branch, step };
            let (step, logprobs) = self.close(kept.open.remove(&at).unwrap_or_default(), &ids);
            let mut logprobs = logprobs.into_iter();
            for candidate in lasting {
                let mut path = path.clone();
                path.push(candidate.id, step.clone(), logprobs.next());
                grown.push((candidate.fate, path));
            }
        }
        kept.open.retain(|at, _| at.prompt != prompt);
        kept.running.retain(|(of, _), _| *of != prompt);
        for (fate, path) in grown {
            match fate {
                Fate::Runs(rank) => drop(kept.running.insert((prompt, rank), path)),
                Fate::Finished(_) => kept.finished.push((prompt, path)),
                Fate::Dropped => {}
            }
        }
    }

    /// A step that `ids` come from, and their log-probabilities, if these are asked for.
    fn close(&self, mut step: Step, ids: &[u32]) -> (Arc<Step>, Vec<Logprob>) {
        let mut logprobs = vec![];
        if let Some(alternatives) = self.wanted.logprobs {
            let (_, total) = sampler::weights(&step.logits);
            let all = f64::from(sampler::largest(&step.logits)) + total.ln();
            let of = |id: u32| step.logits.get(id as usize).map_or(f64::NAN, |&x| f64::from(x) - all) as f32;
            let top = sampler::likeliest(&step.logits, alternatives);
            let top: Vec<(u32, f32)> = top.into_iter().take(alternatives).map(|id| (id, of(id))).collect();
            logprobs = ids.iter().map(|&id| Logprob { id, logprob: of(id), top: top.clone() }).collect();
            if !self.wanted.logits {
                step.logits = vec![];
            }
        }
        (Arc::new(step), logprobs)
    }

    /// Gives each sequence its own.
    ///
    /// # Errors
    /// If something could not be kept.
    pub fn give(self, sequences: &mut [Sequence]) -> Result<()> {
        let kept = self.kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = kept.failed {
            return Err(error.into());
        }
        for sequence in sequences {
            let running = kept.running.iter().map(|((prompt, _), path)| (prompt, path));
            let mut all = running.chain(kept.finished.iter().map(|(prompt, path)| (prompt, path)));
            // Where two of a prompt's have the same ids, the same was known of them.
            let own = all.find(|(prompt, path)| **prompt == sequence.prompt && path.ids == sequence.ids);
            let mut outputs = own.map(|(_, path)| path.outputs(self.wanted)).unwrap_or_default();
            let encoder = kept.encoders.get(&sequence.prompt).cloned().unwrap_or_default();
            (outputs.encoder_hidden_states, outputs.encoder_attentions) = encoder;
            sequence.outputs = outputs;
        }
        Ok(())
    }
}

impl Path {
    fn push(&mut self, id: u32, step: Arc<Step>, logprob: Option<Logprob>) {
        self.ids.push(id);
        self.steps.push(step);
        self.logprobs.extend(logprob);
    }

    fn outputs(&self, wanted: Wanted) -> Outputs {
        fn each<T: Clone>(path: &Path, wanted: bool, of: impl Fn(&Step) -> &T) -> Vec<T> {
            path.steps.iter().filter(|_| wanted).map(|step| of(step).clone()).collect()
        }
        let crossing = self.steps.iter().any(|step| !step.cross_attentions.is_empty());
        Outputs {
            logits: each(self, wanted.logits, |step| &step.logits),
            scores: each(self, wanted.scores, |step| &step.scores),
            logprobs: self.logprobs.clone(),
            hidden_states: each(self, wanted.hidden_states, |step| &step.hidden_states),
            attentions: each(self, wanted.attentions, |step| &step.attentions),
            cross_attentions: each(self, crossing, |step| &step.cross_attentions),
            ..Outputs::default()
        }
    }
}
