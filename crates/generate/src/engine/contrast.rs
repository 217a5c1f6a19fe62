//! Contrastive search (Su et al. 2022, "A Contrastive Framework for Neural Text Generation", eq. 5): of the `k` likeliest ids
//! the one is taken whose state is least like one that has been, as far as the model's confidence allows:
//! `(1 - α) p(id) - α max cos(state, earlier states)`.
//!
//! The candidates of a step are rows of the cache that share all of it but the position that each writes.

use std::time::Instant;

use phyla_ops::cpu;

use super::batch::Batch;
use super::{Generator, Part, Timings};
use crate::processor::chain;
use crate::sequence::Active;
use crate::watch::{Moment, Stage, Weighed, Why};
use crate::{Error, Event, FinishReason, Result, Settings, sampler};

/// The states of a sequence, each of length 1.
struct States {
    width: usize,
    all: Vec<f32>,
}

impl States {
    /// Adds states, `[n · width]`.
    fn extend(&mut self, states: &[f32]) {
        for state in states.chunks_exact(self.width.max(1)) {
            let length = state.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
            self.all.extend(state.iter().map(|x| x / length));
        }
    }

    /// How much the state most like this one is like it: the largest cosine.
    fn likeness(&self, state: &[f32]) -> f32 {
        let mut one = States { width: self.width, all: vec![] };
        one.extend(state);
        let cosine = |other: &[f32]| other.iter().zip(&one.all).map(|(a, b)| a * b).sum::<f32>();
        self.all.chunks_exact(self.width.max(1)).map(cosine).fold(f32::NEG_INFINITY, f32::max)
    }
}

/// Answers one prompt, whose row is the only one of `batch`.
pub(super) fn search(
    generator: &Generator,
    settings: &Settings,
    (alpha, k): (f32, usize),
    mut active: Active,
    mut batch: Batch,
    on_event: &mut dyn FnMut(Event),
) -> Result<Part> {
    let (start, mut timings, chain) = (Instant::now(), Timings::default(), chain(settings));
    let prompt = active.history.prompt().to_vec();
    let vocab = batch.vocab();
    let k = k.min(vocab);
    let Some((hidden, logits)) = batch.states(&prompt, || generator.cancelled())? else {
        active.end(FinishReason::Cancelled, on_event)?;
        return Ok(Part { sequences: vec![(active.index, active.into_sequence())], timings });
    };
    timings.read = prompt.len();
    let mut states = States { width: hidden.len() / prompt.len().max(1), all: vec![] };
    states.extend(&hidden);
    let (mut row, mut last) = (cpu::view::<f32>(&logits)?.to_vec(), 0);
    timings.prefill = start.elapsed();
    while active.finish.is_none() {
        if generator.cancelled() {
            active.end(FinishReason::Cancelled, on_event)?;
            break;
        }
        if timings.steps > 0 && settings.max_time.is_some_and(|time| start.elapsed() >= time) {
            active.end(FinishReason::Time, on_event)?;
            break;
        }
        let at = active.at();
        batch.tell_layers(at, last, None);
        generator.watch.scores(at, Stage::Logits, &row);
        generator.watch.process(at, &chain, &mut row, &active.history);
        let candidates = likeliest(&row, k)?;
        let ids: Vec<u32> = candidates.iter().map(|(id, _)| *id).collect();
        let (hidden, logits) = batch.branch(&ids)?;
        let hidden = cpu::view::<f32>(&hidden)?;
        let weigh = |(i, &(id, probability)): (usize, &(u32, f32))| {
            let likeness = states.likeness(&hidden[i * states.width..][..states.width]);
            Weighed { id, probability, likeness, score: (1. - alpha) * probability - alpha * likeness }
        };
        let weighed: Vec<Weighed> = candidates.iter().enumerate().map(weigh).collect();
        // Of equals the first, which is the likeliest.
        let scores = weighed.iter().map(|weighed| weighed.score).enumerate();
        let best = scores.reduce(|best, next| if next.1 > best.1 { next } else { best }).map_or(0, |(i, _)| i);
        generator.watch.tell(Moment::Picked { at, id: ids[best], why: Why::Contrast { weighed: &weighed } });
        states.extend(&hidden[best * states.width..][..states.width]);
        row.clear();
        row.extend_from_slice(&cpu::view::<f32>(&logits)?[best * vocab..][..vocab]);
        batch.keep(best)?;
        last = best;
        active.accept(ids[best], settings, on_event)?;
        if timings.steps == 0 {
            timings.first_token = start.elapsed();
        } else {
            timings.tokens += 1;
        }
        timings.steps += 1;
    }
    timings.steps = timings.steps.saturating_sub(1);
    timings.decode = start.elapsed() - timings.prefill;
    Ok(Part { sequences: vec![(active.index, active.into_sequence())], timings })
}

/// The likeliest ids with their probabilities, likeliest first.
fn likeliest(row: &[f32], k: usize) -> Result<Vec<(u32, f32)>> {
    sampler::checked_largest(row)?;
    let (weights, total) = sampler::weights(row);
    let probability = |id: u32| (id, (f64::from(weights[id as usize]) / total) as f32);
    Ok(sampler::likeliest(row, k).into_iter().map(probability).collect())
}

/// What contrastive search cannot be combined with.
pub(super) fn check(settings: &Settings) -> Result<()> {
    let Some(_) = settings.contrast else { return Ok(()) };
    if settings.beams > 1 || settings.returns > 1 || settings.speculates {
        return Err(Error::Settings(format!(
            "penalty_alpha: contrastive search follows one sequence of a prompt, without guesses; found num_beams {} and \
             num_return_sequences {}",
            settings.beams, settings.returns
        )));
    }
    Ok(())
}
