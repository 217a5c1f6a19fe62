//! Sequence to sequence: a source for the encoder, and its target for the decoder, shifted right by one.

use serde::{Deserialize, Serialize};

use super::loader::Examples;
use super::records::Parallel;
use super::rows::{Digest, TokenRows, encode, in_parallel, note};
use crate::batch::{Batch, IGNORE, Source};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// How pairs of texts become examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seq2SeqSettings {
    /// Tokens of a source at most, with those that the tokenizer adds.
    pub max_source_len: usize,
    /// Tokens of a target at most, with its end.
    pub max_target_len: usize,
    /// Put before every source (T5: `translate English to German: `).
    pub source_prefix: String,
    /// The token at which the decoder begins; without it the model's `decoder_start_token_id`.
    pub decoder_start: Option<u32>,
}

impl Default for Seq2SeqSettings {
    fn default() -> Self {
        Self { max_source_len: 512, max_target_len: 512, source_prefix: String::new(), decoder_start: None }
    }
}

/// Pairs of texts in token ids.
#[derive(Debug)]
pub struct Seq2Seq {
    sources: TokenRows,
    /// Beside `sources`, each with its end; empty when there are only sources.
    targets: TokenRows,
    decoder_start: u32,
    notes: Vec<String>,
}

/// A target as what the decoder is to write: it ends with the token that ends sequences.
///
/// Tokenizers of encoder-decoders end every text themselves (T5, Marian, BART); others are helped.
fn target(tokenizer: &Tokenizer, text: &str, end: u32, max_len: usize) -> Result<(Vec<u32>, bool)> {
    let (mut ids, _, mut cut) = encode(tokenizer, text, None, max_len)?;
    if ids.last() != Some(&end) {
        if ids.len() >= max_len {
            ids.truncate(max_len.saturating_sub(1));
            cut = true;
        }
        ids.push(end);
    }
    Ok((ids, cut))
}

impl Seq2Seq {
    /// Encodes `records`: sources with one tokenizer, targets with the same or another. `decoder_start` is the model's
    /// `decoder_start_token_id`, for settings without their own.
    ///
    /// # Errors
    /// A wrong record; pairs of which some have a target and some not; no token to begin or to end a target with.
    pub fn new(
        records: impl Iterator<Item = Result<Parallel>>,
        source: &Tokenizer,
        target_tokenizer: Option<&Tokenizer>,
        settings: &Seq2SeqSettings,
        decoder_start: Option<u32>,
    ) -> Result<Self> {
        let tokenizer = target_tokenizer.unwrap_or(source);
        let special = tokenizer.special();
        let missing = |what: &str| Error::Settings(format!("the target's tokenizer has no token that {what}"));
        let decoder_start = settings.decoder_start.or(decoder_start).ok_or_else(|| {
            Error::Settings("no token at which the decoder begins: set `decoder_start`, or `decoder_start_token_id` in the model's config.json".to_owned())
        })?;
        if decoder_start as usize >= tokenizer.vocab_size() {
            return Err(Error::Settings(format!(
                "`decoder_start` is {decoder_start}, but the target's ids end at {}",
                tokenizer.vocab_size().saturating_sub(1)
            )));
        }
        let end = special.eos.as_ref().or(special.sep.as_ref()).map(|token| token.id);
        let end = end.ok_or_else(|| missing("ends a sequence"))?;
        let (mut sources, mut targets) = (TokenRows::new(source), TokenRows::new(tokenizer));
        let work = |record: Parallel| {
            let text = match settings.source_prefix.as_str() {
                "" => record.source,
                prefix => format!("{prefix}{}", record.source),
            };
            let source = encode(source, &text, None, settings.max_source_len)?;
            let target = record.target.map(|text| target(tokenizer, &text, end, settings.max_target_len));
            Ok((source, target.transpose()?))
        };
        let (mut cut_sources, mut cut_targets) = (0, 0);
        in_parallel(records, work, |((ids, types, cut), target)| {
            sources.push(&ids, &types);
            cut_sources += usize::from(cut);
            if let Some((ids, cut)) = target {
                cut_targets += usize::from(cut);
                targets.push(&ids, &[]);
            }
            Ok(())
        })?;
        if targets.len() != 0 && targets.len() != sources.len() {
            return Err(Error::Settings(format!(
                "{} of {} sources have no target, the others have",
                sources.len() - targets.len(),
                sources.len()
            )));
        }
        let mut notes = Vec::new();
        notes.extend(note(
            cut_sources,
            sources.len(),
            &format!("sources were cut at {} tokens", settings.max_source_len),
        ));
        notes.extend(note(
            cut_targets,
            targets.len(),
            &format!("targets were cut at {} tokens", settings.max_target_len),
        ));
        Ok(Self { sources, targets, decoder_start, notes })
    }

    /// The tokens that a pair's target is, with its end; empty when there are only sources.
    pub fn target(&self, index: usize) -> &[u32] {
        if self.targets.len() == 0 { &[] } else { self.targets.ids.get(index) }
    }
}

impl Examples for Seq2Seq {
    fn count(&self) -> usize {
        self.sources.len()
    }

    fn length(&self, index: usize) -> usize {
        // As fairseq counts: the longer side decides.
        self.sources.ids.length(index).max(self.target(index).len())
    }

    fn collate(&self, indices: &[u32]) -> Batch {
        let rows = indices.iter().map(|&index| index as usize);
        let Batch { ids, lengths, time, .. } = self.sources.batch(rows.clone());
        let source = Some(Source { ids, lengths, time });
        if self.targets.len() == 0 {
            // The decoder stands at its first token.
            let count = indices.len();
            let ids = vec![self.decoder_start; count];
            let (positions, lengths) = (vec![0; count], vec![1; count]);
            return Batch { ids, positions, lengths, batch: count, time: 1, source, ..Batch::default() };
        }
        let mut batch = self.targets.batch(rows);
        batch.targets.reserve(batch.ids.len());
        for (row, &length) in batch.ids.chunks_exact_mut(batch.time).zip(&batch.lengths) {
            batch.targets.extend(row[..length].iter().map(|&id| id as i32));
            batch.targets.resize(batch.targets.len() + row.len() - length, IGNORE);
            // The decoder reads what it has written so far: the target one step late.
            row[..length].rotate_right(1);
            if let Some(first) = row.first_mut() {
                *first = self.decoder_start;
            }
        }
        batch.tokens = batch.lengths.iter().sum();
        batch.source = source;
        batch
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        self.sources.digest(&mut digest);
        self.targets.digest(&mut digest);
        digest.add(u64::from(self.decoder_start));
        digest.value()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::super::loader::{Loader, LoaderSettings, Size};
    use super::super::testing::{bert, row, whole};
    use super::*;
    use crate::batch::Batches;
    use crate::tokenizer::{BpeSettings, train_bpe};

    fn made(pairs: &[(&str, &str)], settings: &Seq2SeqSettings) -> Result<Seq2Seq> {
        let pairs = pairs.iter().map(|(source, target)| Ok(Parallel::new(*source, *target)));
        Seq2Seq::new(pairs, &bert(), None, settings, Some(2))
    }

    #[test]
    fn the_decoder_reads_its_target_one_step_late() {
        let batch = whole(made(&[("good", "bad fox"), ("the good fox", "a")], &Seq2SeqSettings::default()).unwrap());
        let source = batch.source.clone().unwrap();
        assert_eq!((source.time, &*source.lengths), (5, &[3, 5][..]));
        assert_eq!(source.ids, [2, 5, 3, 0, 0, 2, 8, 5, 7, 3]);
        // The target is [CLS] bad fox [SEP]; the decoder reads the start, [CLS], bad, fox.
        assert_eq!(row(&batch, 0), [2, 2, 6, 7]);
        assert_eq!(batch.targets[..4], [2, 6, 7, 3]);
        assert_eq!(row(&batch, 1).len(), 3);
        assert_eq!(batch.targets[7], IGNORE);
        assert_eq!(batch.ids[7], 0);
        assert_eq!((batch.tokens, batch.time, batch.batch), (7, 4, 2));
    }

    #[test]
    fn long_sides_are_cut_and_keep_their_end() {
        let settings = Seq2SeqSettings {
            max_source_len: 4,
            max_target_len: 3,
            source_prefix: "the ".into(),
            ..Seq2SeqSettings::default()
        };
        let made = made(&[("good fox", "bad fox"), ("a", "b")], &settings).unwrap();
        assert_eq!(made.notes(), ["1 of 2 sources were cut at 4 tokens", "1 of 2 targets were cut at 3 tokens"]);
        assert_eq!(made.target(0), [2, 6, 3]);
        assert_eq!(whole(made).source.unwrap().ids[..4], [2, 8, 5, 3]);
    }

    #[test]
    fn a_tokenizer_that_ends_nothing_is_helped_and_two_tokenizers_serve_two_languages() {
        let bpe = train_bpe((0..10).map(|_| Ok("eins zwei drei")), &BpeSettings::default(), &mut |_| {}).unwrap();
        let end = bpe.eos().unwrap();
        let pairs = [Ok(Parallel::new("good fox", "eins drei"))];
        let made = Seq2Seq::new(
            pairs.into_iter(),
            &bert(),
            Some(&bpe),
            &Seq2SeqSettings { max_target_len: 6, ..Seq2SeqSettings::default() },
            Some(end),
        )
        .unwrap();
        let target = made.target(0).to_vec();
        assert_eq!(target.last(), Some(&end));
        assert_eq!(bpe.decode(&target[..target.len() - 1], false).unwrap(), "eins drei");
        let batch = whole(made);
        assert_eq!((row(&batch, 0)[0], &row(&batch, 0)[1..]), (end, &target[..target.len() - 1]));
        // Cut targets still end.
        let pairs = [Ok(Parallel::new("good", "eins zwei drei eins zwei drei"))];
        let settings = Seq2SeqSettings { max_target_len: 3, ..Seq2SeqSettings::default() };
        let made = Seq2Seq::new(pairs.into_iter(), &bert(), Some(&bpe), &settings, Some(end)).unwrap();
        assert_eq!((made.target(0).len(), made.target(0)[2]), (3, end));
    }

    #[test]
    fn sources_alone_wait_for_a_decoder() {
        let pairs = [Ok(Parallel { source: "good".into(), target: None })];
        let made = Seq2Seq::new(pairs.into_iter(), &bert(), None, &Seq2SeqSettings::default(), Some(2)).unwrap();
        let batch = whole(made);
        assert_eq!((&*batch.ids, batch.time, batch.tokens, batch.targets.len()), (&[2][..], 1, 0, 0));
        let pairs = [Ok(Parallel { source: "good".into(), target: None }), Ok(Parallel::new("a", "b"))];
        assert!(Seq2Seq::new(pairs.into_iter(), &bert(), None, &Seq2SeqSettings::default(), Some(2)).is_err());
    }

    #[test]
    fn a_missing_or_wrong_start_is_refused() {
        let make = |start| {
            Seq2Seq::new([Ok(Parallel::new("a", "b"))].into_iter(), &bert(), None, &Seq2SeqSettings::default(), start)
        };
        assert!(make(None).unwrap_err().to_string().contains("decoder_start_token_id"));
        assert!(make(Some(100_000)).unwrap_err().to_string().contains("the target's ids end at"));
    }

    #[test]
    fn a_budget_of_tokens_counts_the_longer_side() {
        let long = "a ".repeat(30);
        let pairs: Vec<(&str, &str)> =
            (0..60).map(|index| if index % 3 == 0 { ("a", &*long) } else { ("a b", "c") }).collect();
        let made = Arc::new(made(&pairs, &Seq2SeqSettings::default()).unwrap());
        let settings = LoaderSettings { group_by_length: true, ..LoaderSettings::new(Size::Tokens(128)) };
        let mut loader = Loader::new(made, settings).unwrap();
        let (mut rows, batches) = (0, loader.batches_per_epoch());
        for _ in 0..batches {
            let batch = loader.next_batch().unwrap();
            assert!(batch.batch * batch.time.max(batch.source.unwrap().time) <= 128);
            rows += batch.batch;
        }
        assert_eq!(rows, 60);
        assert!(batches < 15, "{batches}");
    }
}
