//! Rows for span corruption, T5's task: runs of text give way to sentinels, and the decoder says what stood there.

use std::sync::Arc;

use phyla_kernels::rng::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::epochs::{Epochs, Row, Rows, Share, countable, role, settings_bytes};
use super::run::Run;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::tokens::TokenFile;

/// What rows for span corruption are like (Raffel et al. 2020, arXiv:1910.10683, section 3.1.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanSettings {
    /// Tokens the encoder reads, with sentinels and the end; how much text that takes follows from it.
    pub inputs_length: usize,
    /// Share of the tokens that give way.
    pub noise_density: f64,
    /// Tokens in a run, on average.
    pub mean_span_length: f64,
}

impl Default for SpanSettings {
    fn default() -> Self {
        Self { inputs_length: 512, noise_density: 0.15, mean_span_length: 3.0 }
    }
}

/// Batches for span corruption: `source` for the encoder, `targets` to say, and `ids`, the targets one place later
/// after the padding token, for the decoder to read.
pub type SpanBatches = Epochs<SpanRows>;

/// What [`SpanBatches`] are made of.
#[derive(Debug)]
pub struct SpanRows {
    data: Arc<TokenFile>,
    settings: SpanSettings,
    corruption: Corruption,
    /// Tokens of text in a row.
    text: usize,
    /// Draws the order of documents; none keeps the file's.
    order: Option<Rng>,
    pad: u32,
    fingerprint: [u8; 32],
}

/// Takes runs out of a text and leaves sentinels in their place.
#[derive(Debug, Clone)]
pub struct Corruption {
    noise_density: f64,
    mean_span_length: f64,
    /// `<extra_id_0>`, `<extra_id_1>`, …
    sentinels: Vec<u32>,
    eos: u32,
}

/// How a text divides: kept and noise tokens, and the runs each of them comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Division {
    noise: usize,
    spans: usize,
}

impl Corruption {
    /// Finds the sentinels in the vocabulary.
    ///
    /// # Errors
    /// When there are none, or no end-of-sequence token, or the settings cannot be met.
    pub fn new(tokenizer: &Tokenizer, settings: &SpanSettings) -> Result<Self> {
        let SpanSettings { noise_density, mean_span_length, .. } = *settings;
        if !(noise_density > 0.0 && noise_density < 1.0 && (1.0..=1e6).contains(&mean_span_length)) {
            return Err(Error::Settings(format!(
                "`noise_density` should lie between 0 and 1, found {noise_density}, and `mean_span_length` be 1 or \
                 more, found {mean_span_length}"
            )));
        }
        let sentinels: Vec<u32> =
            (0..).map_while(|index| tokenizer.token_to_id(&format!("<extra_id_{index}>"))).collect();
        if sentinels.is_empty() {
            return Err(Error::Settings(
                "span corruption needs sentinels, and the vocabulary has no `<extra_id_0>`: train it with `extra_ids`, \
                 or add them as special tokens"
                    .to_owned(),
            ));
        }
        let eos = role(tokenizer.eos(), "eos_token", "span corruption")?;
        Ok(Self { noise_density, mean_span_length, sentinels, eos })
    }

    /// At least one token of each kind, and at least one run.
    fn division(&self, tokens: usize) -> Division {
        // Halves go to the even neighbour, as in T5's own code.
        let round = |value: f64| value.round_ties_even().max(1.0) as usize;
        let noise = round(tokens as f64 * self.noise_density).min(tokens.saturating_sub(1)).max(1);
        let spans = round(noise as f64 / self.mean_span_length).min(noise).min(tokens.saturating_sub(noise)).max(1);
        Division { noise, spans }
    }

    /// Lengths of source and targets, each with its end, for a text of so many tokens.
    pub fn lengths(&self, tokens: usize) -> (usize, usize) {
        let Division { noise, spans } = self.division(tokens);
        (tokens - noise + spans + 1, noise + spans + 1)
    }

    /// The longest text whose source is no longer than `inputs_length`; `None` when not even two tokens fit.
    pub fn text_length(&self, inputs_length: usize) -> Option<usize> {
        // A source grows with its text, by at most one a token.
        let (mut fits, mut too_long) = (2, 3);
        if self.lengths(fits).0 > inputs_length {
            return None;
        }
        while self.lengths(too_long).0 <= inputs_length {
            (fits, too_long) = (too_long, too_long.checked_mul(2)?);
        }
        while too_long - fits > 1 {
            let middle = fits + (too_long - fits) / 2;
            if self.lengths(middle).0 <= inputs_length { fits = middle } else { too_long = middle }
        }
        Some(fits)
    }

    /// Source and targets of a text of two tokens or more: kept runs and noise runs take turns, kept first, and every
    /// way of dividing is equally likely. In the source a sentinel stands for each noise run; in the targets each
    /// sentinel comes before the run it stands for; both end with the end-of-sequence token.
    pub fn corrupt(&self, text: &[u32], rng: &mut Rng) -> (Vec<u32>, Vec<u32>) {
        let Division { noise, spans } = self.division(text.len());
        let noise_runs = segments(noise, spans, rng);
        let kept_runs = segments(text.len().saturating_sub(noise), spans, rng);
        let (mut source, mut targets) = (Vec::with_capacity(text.len()), Vec::with_capacity(noise + spans + 1));
        let mut rest = text;
        for ((kept, noise), sentinel) in kept_runs.into_iter().zip(noise_runs).zip(&self.sentinels) {
            let (keep, after) = rest.split_at(kept.min(rest.len()));
            let (take, after) = after.split_at(noise.min(after.len()));
            source.extend_from_slice(keep);
            source.push(*sentinel);
            targets.push(*sentinel);
            targets.extend_from_slice(take);
            rest = after;
        }
        source.push(self.eos);
        targets.push(self.eos);
        (source, targets)
    }
}

/// `items` divided into `count` parts of one or more, every division equally likely.
fn segments(items: usize, count: usize, rng: &mut Rng) -> Vec<usize> {
    // Parts end after some of the items but the last: choose which (Fisher and Yates, only as far as needed).
    let mut ends: Vec<usize> = (1..items).collect();
    let cuts = count.saturating_sub(1).min(ends.len());
    for at in 0..cuts {
        let other = at + rng.below((ends.len() - at) as u64) as usize;
        ends.swap(at, other);
    }
    ends.truncate(cuts);
    ends.sort_unstable();
    ends.push(items);
    let mut before = 0;
    ends.into_iter().map(|end| end - std::mem::replace(&mut before, end)).collect()
}

impl SpanBatches {
    /// Batches over documents laid end to end, as they are in the file: whether ends stand between them is decided
    /// where the file is made (T5's own data has none).
    ///
    /// # Errors
    /// When the tokenizer lacks padding, end or enough sentinels, and when the data is empty.
    pub fn new(data: Arc<TokenFile>, tokenizer: &Tokenizer, settings: &SpanSettings, share: Share) -> Result<Self> {
        let corruption = Corruption::new(tokenizer, settings)?;
        let length = settings.inputs_length;
        let text = corruption.text_length(length).filter(|_| length <= 1 << 28).ok_or_else(|| {
            Error::Settings(format!(
                "`inputs_length` should have room for a token, a sentinel and the end, and be no more than {}; found \
                 {length}",
                1 << 28
            ))
        })?;
        let spans = corruption.division(text).spans;
        if spans > corruption.sentinels.len() {
            return Err(Error::Settings(format!(
                "rows of {length} tokens have {spans} corrupted runs, and the vocabulary has only {} sentinels: set \
                 `inputs_length` lower or `mean_span_length` higher, or add sentinels",
                corruption.sentinels.len()
            )));
        }
        countable(data.documents())?;
        let rows = SpanRows {
            text,
            order: share.shuffle.then(|| Rng::new(share.seed).split("order of documents")),
            pad: role(tokenizer.pad(), "pad_token", "span corruption")?,
            fingerprint: tokenizer.fingerprint(),
            settings: settings.clone(),
            corruption,
            data,
        };
        Self::begin(rows, share)
    }

    /// Lengths of source and targets in full rows: what the model must have room for.
    pub fn lengths(&self) -> (usize, usize) {
        self.rows.corruption.lengths(self.rows.text)
    }
}

impl Rows for SpanRows {
    /// The order of the documents.
    type Plan = Run;

    fn plan(&self, epoch: u64) -> Run {
        Run::new(&self.data, 0, self.order.as_ref().map(|order| order.split(epoch)))
    }

    fn count(&self, run: &Run) -> u64 {
        let text = self.text as u64;
        // One token left over cannot be both kept and corrupted.
        run.len() / text + u64::from(run.len() % text > 1)
    }

    fn row(&self, run: &Run, row: u64, mut rng: Rng) -> Row {
        let text = run.tokens(&self.data, row * self.text as u64, self.text, None);
        let (source, targets) = self.corruption.corrupt(&text, &mut rng);
        let said = targets.iter().take(targets.len() - 1).copied();
        let ids = std::iter::once(self.pad).chain(said).collect();
        let targets = targets.iter().map(|&id| id as i32).collect();
        Row { ids, targets, source: Some(source), ..Row::default() }
    }

    fn empty(&self) -> Row {
        Row { source: Some(Vec::new()), ..Row::default() }
    }

    fn time(&self) -> usize {
        self.settings.inputs_length.max(self.corruption.lengths(self.text).1)
    }

    fn pad(&self) -> u32 {
        self.pad
    }

    fn describe(&self, hash: &mut Sha256) {
        hash.update(b"spans");
        hash.update(self.data.digest().to_le_bytes());
        hash.update(self.fingerprint);
        hash.update(settings_bytes(&self.settings));
    }

    fn notes(&self, run: &Run) -> Vec<String> {
        let rest = run.len() % self.text as u64;
        match rest {
            0 => Vec::new(),
            1 => vec!["the last token of each epoch is left out, since it fills no row".to_owned()],
            _ => vec![format!(
                "the last row of each epoch has {rest} tokens of text, where the others have {}",
                self.text
            )],
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
