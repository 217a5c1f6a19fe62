//! Why a model wrote what it wrote: everything that was weighed, picked and kept at each step of decoding, gathered while
//! it happens, for people (a page, a terminal) and programs (JSON).

mod page;
mod recorder;
mod token;

use phyla_generate::{GenerationConfig, Settings};
use serde::Serialize;

use crate::{Error, Session};
pub use page::html;
use recorder::Recorder;
use token::Tokens;
pub use token::visible;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Candidates of each step: so many of the likeliest before the processors, and so many behind them.
    pub candidates: usize,
    /// Steps, over all beams or sequences; what comes later is counted.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { candidates: 10, steps: 1000 }
    }
}

/// What decoding did. Its JSON has these names.
#[derive(Clone, Debug, Serialize)]
pub struct Decoding {
    /// `phyla.explain.decode`.
    pub format: &'static str,
    /// Grows when a field changes its meaning or goes; new fields do not count.
    pub version: u32,
    /// As it was named.
    pub model: String,
    /// `greedy`, `sampling`, `beams`, `drawn beams` or `contrastive`.
    pub method: &'static str,
    /// Of all draws.
    pub seed: u64,
    /// What was read: of an encoder-decoder by its encoder.
    pub prompt: Vec<Token>,
    /// What came out, best first where there are scores.
    pub sequences: Vec<Answer>,
    /// Each choice of an id: of each sequence or beam that ran, in order.
    pub steps: Vec<Step>,
    /// Each step of a search; empty without beams.
    pub beams: Vec<BeamStep>,
    /// Ids that were guessed ahead and checked together; empty without speculation.
    pub guesses: Vec<Guesses>,
    /// Each pass of the model, and the cache behind it.
    pub passes: Vec<Pass>,
    /// Steps that happened and are not in `steps`.
    pub left_out: usize,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// What it adds to a text (parts of characters as U+FFFD), a special token's name, or nothing without a tokenizer.
    pub text: String,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The new tokens.
    pub tokens: Vec<Token>,
    /// Their text; `null` without a tokenizer.
    pub text: Option<String>,
    /// Why it ended.
    pub finish_reason: &'static str,
    /// Of a search: the sum of log-probabilities over length to a power.
    pub score: Option<f32>,
}

/// The choice of an id.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Which sequence or, in a search, the rank of the beam that goes on.
    pub branch: usize,
    /// New ids before.
    pub step: usize,
    /// What may come next and is likely, or was picked: the likeliest for the model first.
    pub candidates: Vec<Token>,
    /// What becomes of their scores: the model's logits, then behind each processor.
    pub stages: Vec<Stage>,
    /// What came of it; `null` in a search, where all beams choose together (see `beams`).
    pub pick: Option<Pick>,
}

/// The distribution at some point of a step.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// `logits`, `log-probabilities`, or the setting whose processor came last.
    pub name: &'static str,
    /// Ids that have not been ruled out.
    pub left: usize,
    /// In bits.
    pub entropy: f32,
    /// Of the step's candidates in their order: logits or log-probabilities; `null` is ruled out.
    pub scores: Vec<Option<f32>>,
    /// Their probabilities: softmax of all scores.
    pub probabilities: Vec<f32>,
}

/// An id that was picked.
#[derive(Clone, Debug, Serialize)]
pub struct Pick {
    /// Which candidate, from 0.
    pub candidate: usize,
    /// `likeliest`, `drawn` or `contrast`.
    pub why: &'static str,
    /// The number that was drawn, from 0 to 1.
    pub uniform: Option<f64>,
    /// Where the probabilities of all ids lie side by side in the order of ids, the picked one's part begins here.
    pub below: Option<f64>,
    /// What contrastive search found.
    pub weighed: Vec<Weighed>,
}

/// A candidate of contrastive search.
#[derive(Clone, Debug, Serialize)]
pub struct Weighed {
    /// Which candidate, from 0.
    pub candidate: usize,
    /// Its probability.
    pub probability: f32,
    /// The largest cosine between its state and an earlier one.
    pub likeness: f32,
    /// What decides.
    pub score: f32,
}

/// A step of a search.
#[derive(Clone, Debug, Serialize)]
pub struct BeamStep {
    /// New ids of each beam before it.
    pub step: usize,
    /// The best continuations of all beams, in the order of the choice.
    pub candidates: Vec<BeamCandidate>,
}

/// A continuation of a beam.
#[derive(Clone, Debug, Serialize)]
pub struct BeamCandidate {
    /// Rank of the beam it continues, as in the step before.
    pub parent: usize,
    /// By which token.
    pub token: Token,
    /// Sum of log-probabilities.
    pub score: f32,
    /// `runs`, `finished` or `dropped`.
    pub fate: &'static str,
    /// Of a running one its rank from now on.
    pub rank: Option<usize>,
    /// Of a finished one its score with the length in mind.
    pub final_score: Option<f32>,
    /// Whether it is on the way to a sequence that came out.
    pub returned: bool,
}

/// Ids that were guessed.
#[derive(Clone, Debug, Serialize)]
pub struct Guesses {
    /// New ids before the first of them.
    pub step: usize,
    /// The guesses.
    pub tokens: Vec<Token>,
    /// How many of them, from the first, were right.
    pub right: usize,
}

/// A pass of the model.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pass {
    /// Ids that it read, over all rows.
    pub ids: usize,
    /// Ids that the cache holds behind it, over all rows; what rows share counts for each.
    pub positions: usize,
    /// Bytes that the cache takes up behind it; what rows share counts once.
    pub bytes: usize,
}

/// Answers a prompt and tells how it came to that; `settings` go before the model's own.
///
/// # Errors
/// As [`Session::generate_ids`].
pub fn decode(
    session: &Session,
    model: &str,
    prompt: &[u32],
    settings: GenerationConfig,
    seed: u64,
    limits: Limits,
) -> Result<Decoding, Error> {
    let config = session.config.clone().merge(settings);
    let method = method(&Settings::try_from(&config)?);
    let tokens = Tokens::new(session.tokenizer.as_ref());
    let recorder = Recorder::new(&tokens, limits);
    let watch = |moment: &phyla_generate::Moment| recorder.hear(moment);
    let prompts = [prompt.to_vec()];
    let generation = session.generator().watched_by(&watch).generate(&prompts, &config, seed, &mut |_| {})?;
    let told = recorder.into_told();
    let mut decoding = Decoding {
        format: "phyla.explain.decode",
        version: 1,
        model: model.to_owned(),
        method,
        seed,
        prompt: prompt.iter().map(|&id| tokens.token(id)).collect(),
        sequences: generation.sequences.iter().map(|sequence| answer(sequence, &tokens)).collect(),
        steps: told.steps,
        beams: told.beams,
        guesses: told.guesses,
        passes: told.passes,
        left_out: told.left_out,
    };
    mark_returned(&mut decoding);
    Ok(decoding)
}

fn method(settings: &Settings) -> &'static str {
    match (settings.contrast.is_some(), settings.beams > 1, settings.sampling.is_some()) {
        (true, ..) => "contrastive",
        (_, true, true) => "drawn beams",
        (_, true, false) => "beams",
        (_, false, true) => "sampling",
        (_, false, false) => "greedy",
    }
}

fn answer(sequence: &phyla_generate::Sequence, tokens: &Tokens) -> Answer {
    Answer {
        tokens: sequence.ids.iter().map(|&id| tokens.token(id)).collect(),
        text: sequence.text.clone(),
        finish_reason: sequence.finish_reason.as_str(),
        score: sequence.score,
    }
}

/// Follows the sequences that came out through the search, and marks their beams.
fn mark_returned(decoding: &mut Decoding) {
    let answers: Vec<Vec<u32>> =
        decoding.sequences.iter().map(|answer| answer.tokens.iter().map(|token| token.id).collect()).collect();
    let mut running: Vec<Vec<u32>> = vec![vec![]];
    for step in &mut decoding.beams {
        let mut next = vec![vec![]; running.len().max(step.candidates.len())];
        for candidate in &mut step.candidates {
            let before = running.get(candidate.parent).map_or(&[][..], Vec::as_slice);
            let ids = [before, &[candidate.token.id]].concat();
            candidate.returned = match candidate.fate {
                "runs" => answers.iter().any(|answer| answer.starts_with(&ids)),
                "finished" => answers.contains(&ids),
                _ => false,
            };
            if let Some(place) = candidate.rank.and_then(|rank| next.get_mut(rank)) {
                *place = ids;
            }
        }
        running = next;
    }
}
