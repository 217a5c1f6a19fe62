//! Rows for masked language modelling: text between `[CLS]` and `[SEP]` with some of it hidden, anew in every epoch.

use std::sync::Arc;

use phyla_kernels::rng::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::epochs::{Epochs, Row, Rows, Share, countable, role, settings_bytes};
use super::masking::{MaskSettings, Masker};
use super::run::Run;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::tokens::TokenFile;

/// Which text stands in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MlmPacking {
    /// Text as it comes, across documents with a separator between them: RoBERTa's full sentences (arXiv:1907.11692,
    /// section 4.2). Every row but the last is full.
    #[default]
    Packed,
    /// Text of one document; a long one is divided into parts of about equal length.
    Document,
}

/// What rows for masked language modelling are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MlmSettings {
    /// Longest row, in tokens, with the two around it.
    pub max_len: usize,
    /// Which text stands in a row.
    pub packing: MlmPacking,
    /// What is hidden.
    pub mask: MaskSettings,
}

impl Default for MlmSettings {
    fn default() -> Self {
        Self { max_len: 512, packing: MlmPacking::default(), mask: MaskSettings::default() }
    }
}

/// Batches for masked language modelling: `ids` with hidden tokens, `targets` with what was there.
pub type MlmBatches = Epochs<MlmRows>;

/// What [`MlmBatches`] are made of.
#[derive(Debug)]
pub struct MlmRows {
    data: Arc<TokenFile>,
    settings: MlmSettings,
    masker: Masker,
    /// Draws the order of documents; none keeps the file's.
    order: Option<Rng>,
    /// Packing by document: rows before each document, and in all.
    parts: Vec<u64>,
    cls: u32,
    sep: u32,
    pad: u32,
    fingerprint: [u8; 32],
}

impl MlmBatches {
    /// Batches over documents without special tokens (a [`TokenFile`] made with neither `add_special` nor
    /// `append_eos`).
    ///
    /// # Errors
    /// When the tokenizer lacks `[CLS]`, `[SEP]`, `[PAD]` or `[MASK]` (under whatever names), when no text fits into a
    /// row, and when the data is empty.
    pub fn new(data: Arc<TokenFile>, tokenizer: &Tokenizer, settings: &MlmSettings, share: Share) -> Result<Self> {
        const WHAT: &str = "masked language modelling";
        if settings.max_len < 3 {
            return Err(Error::Settings(format!(
                "`max_len` should be at least 3, for two special tokens and one of text; found {}",
                settings.max_len
            )));
        }
        countable(data.documents())?;
        let mut rows = MlmRows {
            masker: Masker::new(tokenizer, &settings.mask)?,
            order: share.shuffle.then(|| Rng::new(share.seed).split("order of documents")),
            parts: Vec::new(),
            cls: role(tokenizer.cls(), "cls_token", WHAT)?,
            sep: role(tokenizer.sep(), "sep_token", WHAT)?,
            pad: role(tokenizer.pad(), "pad_token", WHAT)?,
            fingerprint: tokenizer.fingerprint(),
            settings: settings.clone(),
            data,
        };
        if settings.packing == MlmPacking::Document {
            let parts = |index| rows.data.range(index).len().div_ceil(rows.room()) as u64;
            let before = (0..rows.data.documents()).scan(0, |total, index| {
                *total += parts(index);
                Some(*total)
            });
            rows.parts = std::iter::once(0).chain(before).collect();
        }
        Self::begin(rows, share)
    }
}

impl MlmRows {
    /// Tokens of text in a row.
    fn room(&self) -> usize {
        self.settings.max_len - 2
    }

    fn text(&self, plan: &Option<Run>, row: u64) -> Vec<u32> {
        let room = self.room();
        if let Some(run) = plan {
            let mut text = run.tokens(&self.data, row * room as u64, room, Some(self.sep));
            // The separator at the row's end is there anyway, and one at its beginning would separate nothing.
            if text.last() == Some(&self.sep) {
                text.pop();
            }
            if text.first() == Some(&self.sep) {
                text.remove(0);
            }
            return text;
        }
        let document = self.parts.partition_point(|&before| before <= row).saturating_sub(1);
        let ids = self.data.document(document);
        let (part, parts) = ((row - self.parts[document]) as usize, ids.len().div_ceil(room).max(1));
        ids.slice(ids.len() * part / parts..ids.len() * (part + 1) / parts).to_vec()
    }
}

impl Rows for MlmRows {
    /// Of packed text, the order of the documents.
    type Plan = Option<Run>;

    fn plan(&self, epoch: u64) -> Self::Plan {
        let order = self.order.as_ref().map(|order| order.split(epoch));
        (self.settings.packing == MlmPacking::Packed).then(|| Run::new(&self.data, 1, order))
    }

    fn count(&self, plan: &Self::Plan) -> u64 {
        match plan {
            Some(run) => run.len().div_ceil(self.room() as u64),
            None => self.parts.last().copied().unwrap_or(0),
        }
    }

    fn row(&self, plan: &Self::Plan, row: u64, mut rng: Rng) -> Row {
        let text = self.text(plan, row);
        let mut ids = Vec::with_capacity(text.len() + 2);
        ids.push(self.cls);
        ids.extend(text);
        ids.push(self.sep);
        let targets = self.masker.mask(&mut ids, &mut rng);
        Row { ids, targets, ..Row::default() }
    }

    fn empty(&self) -> Row {
        Row::default()
    }

    fn time(&self) -> usize {
        self.settings.max_len
    }

    fn pad(&self) -> u32 {
        self.pad
    }

    fn describe(&self, hash: &mut Sha256) {
        hash.update(b"mlm");
        hash.update(self.data.digest().to_le_bytes());
        hash.update(self.fingerprint);
        hash.update(settings_bytes(&self.settings));
    }

    fn notes(&self, plan: &Self::Plan) -> Vec<String> {
        let documents = 0..self.data.documents();
        let lengths = || documents.clone().map(|index| self.data.range(index).len());
        let mut notes = Vec::new();
        let empty = lengths().filter(|&length| length == 0).count();
        if empty > 0 {
            notes.push(format!("{empty} documents are empty"));
        }
        let long = lengths().filter(|&length| length > self.room()).count();
        if plan.is_none() && long > 0 {
            notes.push(format!(
                "{long} documents longer than {} tokens are divided into several rows; nothing is left out",
                self.room()
            ));
        }
        notes
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
