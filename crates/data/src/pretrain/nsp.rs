//! Pairs of texts for BERT's two tasks at once: some tokens hidden, and does the second text follow the first?

use phyla_kernels::rng::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::Arc;

use super::epochs::{Epochs, Row, Rows, Share, role, settings_bytes};
use super::masking::{MaskSettings, Masker};
use super::sentence_file::Sentences;
use crate::batch::IGNORE;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// What pairs are like (Devlin et al. 2019, arXiv:1810.04805, appendix A.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NspSettings {
    /// Longest row, in tokens, with the three special ones.
    pub max_len: usize,
    /// Share of documents whose pairs are made for shorter rows, so that the model meets short inputs as well.
    pub short_seq_prob: f64,
    /// Share of pairs whose second text comes from another document.
    pub random_next: f64,
    /// What is hidden.
    pub mask: MaskSettings,
}

impl Default for NspSettings {
    fn default() -> Self {
        Self { max_len: 512, short_seq_prob: 0.1, random_next: 0.5, mask: MaskSettings::default() }
    }
}

/// Batches of `[CLS] A [SEP] B [SEP]` with `targets` for hidden tokens and one class a row: 0 when B follows A, 1 when
/// it comes from another document, as transformers' `next_sentence_label` has it.
pub type NspBatches = Epochs<NspRows>;

/// What [`NspBatches`] are made of.
#[derive(Debug)]
pub struct NspRows {
    data: Arc<Sentences>,
    settings: NspSettings,
    masker: Masker,
    pairs: Rng,
    cls: u32,
    sep: u32,
    pad: u32,
    fingerprint: [u8; 32],
}

/// The pairs of one epoch.
#[derive(Debug, Default)]
pub struct Pairs {
    pairs: Vec<Pair>,
    /// Pairs that were too long, and the tokens cut off them.
    cut: (u64, u64),
    /// Pairs from two documents.
    random: u64,
}

/// Two runs of sentences; 20 bytes, since there may be many millions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    first: Range<u32>,
    second: Range<u32>,
    random: bool,
}

impl NspBatches {
    /// Batches over documents of sentences.
    ///
    /// # Errors
    /// When the tokenizer lacks `[CLS]`, `[SEP]`, `[PAD]` or `[MASK]`, and when there are fewer than two documents, so
    /// that no text can come from another.
    pub fn new(data: Arc<Sentences>, tokenizer: &Tokenizer, settings: &NspSettings, share: Share) -> Result<Self> {
        const WHAT: &str = "next-sentence prediction";
        let NspSettings { max_len, short_seq_prob, random_next, .. } = *settings;
        if max_len < 5 {
            return Err(Error::Settings(format!(
                "`max_len` should be at least 5, for three special tokens and one of each text; found {max_len}"
            )));
        }
        if !(0.0..=1.0).contains(&short_seq_prob) || !(0.0..=1.0).contains(&random_next) {
            return Err(Error::Settings(format!(
                "`short_seq_prob` and `random_next` should lie between 0 and 1, found {short_seq_prob} and \
                 {random_next}"
            )));
        }
        if data.documents() < 2 {
            return Err(Error::Settings(format!(
                "{WHAT} takes texts from other documents, and the data has {} with a sentence in it: divide it into \
                 documents (`separator = \"\"` does so at blank lines)",
                data.documents()
            )));
        }
        let rows = NspRows {
            masker: Masker::new(tokenizer, &settings.mask)?,
            pairs: Rng::new(share.seed).split("sentence pairs"),
            cls: role(tokenizer.cls(), "cls_token", WHAT)?,
            sep: role(tokenizer.sep(), "sep_token", WHAT)?,
            pad: role(tokenizer.pad(), "pad_token", WHAT)?,
            fingerprint: tokenizer.fingerprint(),
            settings: settings.clone(),
            data,
        };
        Self::begin(rows, share)
    }
}

impl NspRows {
    /// Tokens of both texts together.
    fn room(&self) -> usize {
        self.settings.max_len - 3
    }

    /// The pairs of one document: sentences are gathered until a row is full, cut in two at random, and the second
    /// part is either kept or given back to be used next, with text from elsewhere in its place.
    fn document(&self, document: usize, rng: &mut Rng, out: &mut Pairs) {
        let room = self.room();
        let all = self.data.document(document);
        let target = self.target(rng);
        let (mut start, mut end, mut gathered) = (all.start, all.start, 0);
        while end < all.end {
            gathered += self.data.len(end);
            end += 1;
            if end < all.end && gathered < target {
                continue;
            }
            let count = end - start;
            let middle = start + if count > 1 { 1 + rng.below(u64::from(count) - 1) as u32 } else { 1 };
            let random = count == 1 || rng.next_f64() < self.settings.random_next;
            let length = |range: &Range<u32>| range.clone().map(|sentence| self.data.len(sentence)).sum::<usize>();
            let first = start..middle;
            let second = if random {
                // What was gathered for the second text comes back.
                end = middle;
                self.elsewhere(document, target.saturating_sub(length(&first)), rng)
            } else {
                middle..end
            };
            let excess = (length(&first) + length(&second)).saturating_sub(room) as u64;
            out.cut.0 += u64::from(excess > 0);
            out.cut.1 += excess;
            out.random += u64::from(random);
            out.pairs.push(Pair { first, second, random });
            (start, gathered) = (end, 0);
        }
    }

    /// How many tokens the pairs of a document should have.
    fn target(&self, rng: &mut Rng) -> usize {
        if rng.next_f64() < self.settings.short_seq_prob {
            2 + rng.below(self.room() as u64 - 1) as usize
        } else {
            self.room()
        }
    }

    /// Sentences of another document, from a random one on, until there are `wanted` tokens or the document ends.
    fn elsewhere(&self, document: usize, wanted: usize, rng: &mut Rng) -> Range<u32> {
        let other = rng.below(self.data.documents() as u64 - 1) as usize;
        let other = self.data.document(other + usize::from(other >= document));
        let start = other.start + rng.below(u64::from(other.end - other.start)) as u32;
        let (mut end, mut gathered) = (start, 0);
        while end < other.end && (end == start || gathered < wanted) {
            gathered += self.data.len(end);
            end += 1;
        }
        start..end
    }
}

/// Drops tokens of the longer text, each from its beginning or its end by chance, until both fit.
fn cut(first: &mut Vec<u32>, second: &mut Vec<u32>, room: usize, rng: &mut Rng) {
    let (mut one, mut two) = (0..first.len(), 0..second.len());
    while one.len() + two.len() > room {
        let longer = if one.len() > two.len() { &mut one } else { &mut two };
        if rng.next_f64() < 0.5 {
            longer.start += 1;
        } else {
            longer.end -= 1;
        }
    }
    for (text, kept) in [(first, one), (second, two)] {
        text.truncate(kept.end);
        text.drain(..kept.start);
    }
}

impl Rows for NspRows {
    type Plan = Pairs;

    fn plan(&self, epoch: u64) -> Pairs {
        let mut pairs = Pairs::default();
        let rng = self.pairs.split(epoch);
        for document in 0..self.data.documents() {
            self.document(document, &mut rng.split(document as u64), &mut pairs);
        }
        pairs
    }

    fn count(&self, pairs: &Pairs) -> u64 {
        pairs.pairs.len() as u64
    }

    fn row(&self, pairs: &Pairs, row: u64, mut rng: Rng) -> Row {
        let Some(pair) = pairs.pairs.get(row as usize) else { return self.empty() };
        let (mut first, mut second) = (self.data.ids(pair.first.clone()), self.data.ids(pair.second.clone()));
        cut(&mut first, &mut second, self.room(), &mut rng);
        let mut ids = Vec::with_capacity(first.len() + second.len() + 3);
        ids.push(self.cls);
        ids.extend(first);
        ids.push(self.sep);
        let border = ids.len();
        ids.extend(second);
        ids.push(self.sep);
        let types = (0..ids.len()).map(|at| u32::from(at >= border)).collect();
        let targets = self.masker.mask(&mut ids, &mut rng);
        Row { ids, targets, types: Some(types), label: Some(i32::from(pair.random)), source: None }
    }

    fn empty(&self) -> Row {
        Row { types: Some(Vec::new()), label: Some(IGNORE), ..Row::default() }
    }

    fn time(&self) -> usize {
        self.settings.max_len
    }

    fn pad(&self) -> u32 {
        self.pad
    }

    fn describe(&self, hash: &mut Sha256) {
        hash.update(b"nsp");
        hash.update(self.data.digest().to_le_bytes());
        hash.update(self.fingerprint);
        hash.update(settings_bytes(&self.settings));
    }

    fn notes(&self, pairs: &Pairs) -> Vec<String> {
        let all = pairs.pairs.len() as u64;
        let mut notes = self.data.notes();
        let (cut, tokens) = pairs.cut;
        if cut > 0 {
            notes.push(format!(
                "{cut} of {all} pairs are longer than {} tokens; {tokens} tokens are cut off at their ends",
                self.room()
            ));
        }
        let share = pairs.random as f64 / all.max(1) as f64;
        if (share - self.settings.random_next).abs() > 0.1 {
            notes.push(format!(
                "{:.0} % of the pairs are random, where {:.0} % were asked for: a document's last sentence has nothing \
                 to follow it, so it is always paired at random",
                100.0 * share,
                100.0 * self.settings.random_next
            ));
        }
        notes
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
