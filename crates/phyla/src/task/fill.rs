//! The tokens under masks, by a masked language model's head.

use phyla_data::tokenizer::Tokenizer;
use phyla_models::{Model, Task};
use serde::Serialize;

use super::rows::{numbers, states};
use super::{Row, Runner, expect, softmax};
use crate::{Error, Session};

/// How other tokenizers spell a mask; any of them in a text becomes this model's.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];

/// A token for a mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// The token as text.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Its probability among the whole vocabulary.
    pub score: f32,
}

/// What stands under the masks of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Filled {
    /// The text with the likeliest token in each mask's place.
    pub text: String,
    /// For each mask the likeliest tokens, best first.
    pub masks: Vec<Vec<Candidate>>,
}

/// Masks to be filled.
#[derive(Debug)]
pub struct Fill<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    mask: u32,
    max_len: usize,
    /// Tokens that are considered at all; empty: all.
    targets: Vec<u32>,
    /// Tokens given for each mask.
    pub top_k: usize,
}

impl<'a> Fill<'a> {
    /// The task of a model with such a head; an encoder-decoder that was trained to fill masks (BART) counts.
    ///
    /// # Errors
    /// Another head; a tokenizer without a mask.
    pub fn new(session: &'a Session, top_k: usize) -> Result<Self, Error> {
        let (model, tokenizer) = super::parts(session)?;
        expect(model, &[Task::MaskedLm, Task::PreTraining, Task::Seq2SeqLm], "filling masks")?;
        let mask = tokenizer.mask().ok_or_else(|| Error::Task("the tokenizer has no mask token".into()))?;
        let max_len = super::max_len(model, tokenizer, None)?;
        Ok(Self { model, tokenizer, mask, max_len, targets: vec![], top_k })
    }

    /// Considers these words alone.
    ///
    /// # Errors
    /// A word that is not one token.
    pub fn among(&mut self, words: &[String]) -> Result<(), Error> {
        self.targets.clear();
        for word in words {
            // Inside a text, where a vocabulary of bytes spells the space before a word as part of it.
            let spellings = [format!(" {word}"), word.clone()].map(|word| self.tokenizer.encode(&word, false));
            let mut ids: Vec<u32> = vec![];
            let mut pieces = 0;
            for spelling in spellings {
                match spelling?.as_slice() {
                    [id] if Some(*id) == self.tokenizer.unk() => {}
                    [id] => ids.push(*id),
                    more => pieces = more.len(),
                }
            }
            ids.dedup();
            if ids.is_empty() {
                let why = if pieces > 1 { format!("{pieces} tokens") } else { "not in the vocabulary".into() };
                return Err(Error::Task(format!("the target `{word}` should be one token, and is {why}")));
            }
            self.targets.extend(ids);
        }
        Ok(())
    }

    /// A text as a row, with the places of its masks.
    ///
    /// # Errors
    /// A text without a mask, or longer than the model can take.
    pub fn row(&self, text: &str) -> Result<(Row, Vec<usize>), Error> {
        let own = self.tokenizer.id_to_token(self.mask).unwrap_or_default();
        let mut spelled = text.to_owned();
        for mask in MASKS.iter().filter(|mask| **mask != own) {
            spelled = spelled.replace(mask, &own);
        }
        let ids = self.tokenizer.encode(&spelled, true)?;
        let masks: Vec<usize> = (0..ids.len()).filter(|&at| ids[at] == self.mask).collect();
        if masks.is_empty() {
            return Err(Error::Task(format!("the text has no mask: write {own} for what is to be guessed")));
        }
        if ids.len() > self.max_len {
            let message =
                format!("the text has {} tokens, and {} are the most that the model reads", ids.len(), self.max_len);
            return Err(Error::Task(message));
        }
        Ok((ids.into(), masks))
    }

    /// What stands under the masks of these rows.
    ///
    /// # Errors
    /// A failure of the model.
    pub fn fill(&self, runner: &Runner, rows: &[(Row, Vec<usize>)]) -> Result<Vec<Filled>, Error> {
        let all: Vec<&Row> = rows.iter().map(|(row, _)| row).collect();
        let filled = runner.each(&all, |input, batch| {
            let hidden = states(self.model, input)?;
            let places = batch.iter().enumerate().flat_map(|(at, &index)| {
                let from = at * input.time;
                rows[index].1.iter().map(move |mask| (from + mask) as u32)
            });
            let asked = phyla_ops::gather_rows(&hidden, &places.collect::<Vec<_>>())?;
            let logits = numbers(&self.model.logits(&asked)?)?;
            let mut logits = logits.chunks_exact(self.model.arch.vocab());
            let mut of = |index: &usize| logits.by_ref().take(rows[*index].1.len()).map(|row| self.best(row)).collect();
            Ok(batch.iter().map(&mut of).collect::<Vec<Vec<Vec<(u32, f32)>>>>())
        })?;
        filled.into_iter().zip(rows).map(|(masks, (row, places))| self.filled(row, places, &masks)).collect()
    }

    /// The likeliest tokens and their probabilities.
    fn best(&self, logits: &[f32]) -> Vec<(u32, f32)> {
        let scores = softmax(logits);
        let mut ids: Vec<u32> = match self.targets.as_slice() {
            [] => (0..scores.len() as u32).collect(),
            targets => targets.to_vec(),
        };
        let score = |id: u32| scores.get(id as usize).copied().unwrap_or_default();
        let order = |a: &u32, b: &u32| score(*b).total_cmp(&score(*a)).then(a.cmp(b));
        let keep = self.top_k.clamp(1, ids.len().max(1));
        if keep < ids.len() {
            ids.select_nth_unstable_by(keep - 1, order);
        }
        ids.truncate(keep);
        ids.sort_by(order);
        ids.into_iter().map(|id| (id, score(id))).collect()
    }

    fn filled(&self, row: &Row, places: &[usize], masks: &[Vec<(u32, f32)>]) -> Result<Filled, Error> {
        let mut ids = row.ids.clone();
        for (&place, best) in places.iter().zip(masks) {
            if let Some((id, _)) = best.first() {
                ids[place] = *id;
            }
        }
        // Rows of an embedding beyond the vocabulary are filling: they have a score and no text.
        let spell = |ids: &[u32]| self.tokenizer.decode(ids, true).unwrap_or_default();
        let candidate = |&(id, score): &(u32, f32)| Candidate { token: spell(&[id]).trim().to_owned(), id, score };
        let masks = masks.iter().map(|best| best.iter().map(candidate).collect()).collect();
        Ok(Filled { text: spell(&ids), masks })
    }
}
