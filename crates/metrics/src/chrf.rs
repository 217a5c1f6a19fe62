//! chrF (Popović 2015) and chrF++ (2017): the F-score of character n-grams, for the latter of words too, equal to
//! sacrebleu's. Unlike BLEU it needs no tokenisation and rewards words that are nearly right.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bleu::{References, version};
use crate::ngrams::{Interner, count, shared};
use crate::text::{is_space, words};
use crate::{Error, Result};

const LONGEST: usize = 32;

/// How chrF is computed; the default is chrF2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The longest character n-grams, up to 32.
    pub char_order: usize,
    /// The longest word n-grams, up to 32: 0 for chrF, 2 for chrF++.
    pub word_order: usize,
    /// How many times as important as precision recall is.
    pub beta: u32,
    /// Ignore case.
    pub lowercase: bool,
    /// Count white space as characters.
    pub whitespace: bool,
    /// Average F-scores over all orders, as the author's script does, in place of precisions and recalls over the
    /// orders that both texts are long enough for.
    pub eps_smoothing: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { char_order: 6, word_order: 0, beta: 2, lowercase: false, whitespace: false, eps_smoothing: false }
    }
}

impl Options {
    /// chrF++: words and pairs of words count as well.
    pub fn plus_plus() -> Self {
        Self { word_order: 2, ..Self::default() }
    }
}

/// chrF over a corpus, segment by segment.
#[derive(Debug, Clone)]
pub struct Chrf {
    options: Options,
    sum: Vec<Order>,
    references: References,
}

/// The counts of one order of n-grams.
#[derive(Debug, Clone, Copy, Default)]
struct Order {
    hypothesis: u64,
    reference: u64,
    shared: u64,
}

/// A chrF score; displays as sacrebleu's does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// `chrF2`, `chrF2++` …
    pub name: String,
    /// 0 to 100.
    pub score: f64,
}

impl Chrf {
    /// An empty corpus.
    ///
    /// # Errors
    /// Orders out of range or both 0.
    pub fn new(options: Options) -> Result<Self> {
        let Options { char_order, word_order, .. } = options;
        if char_order.max(word_order) > LONGEST || char_order + word_order == 0 {
            return Err(Error::Settings(format!(
                "chrF: expected orders up to {LONGEST} and not both 0, found char_order {char_order} and word_order \
                 {word_order}"
            )));
        }
        Ok(Self { options, sum: vec![Order::default(); char_order + word_order], references: References::default() })
    }

    /// Counts one segment: a translation against the reference that suits it best.
    ///
    /// # Errors
    /// No reference.
    pub fn add<T: AsRef<str>>(&mut self, hypothesis: &str, references: &[T]) -> Result<()> {
        self.references.see(references.len(), "chrF")?;
        let hypothesis = self.prepared(hypothesis);
        let references: Vec<String> = references.iter().map(|text| self.prepared(text.as_ref())).collect();
        let mut interner = Interner::default();
        let hypothesis = Ids::new(&hypothesis, &self.options, &mut interner);
        let counts = hypothesis.counts(&self.options);

        let mut best: Option<(f64, Vec<Order>)> = None;
        for reference in &references {
            let reference = Ids::new(reference, &self.options, &mut interner);
            let orders: Vec<Order> =
                counts.iter().zip(reference.counts(&self.options)).map(|(a, b)| Order::new(a, &b)).collect();
            let score = score(&orders, &self.options);
            if best.as_ref().is_none_or(|(best, _)| score > *best) {
                best = Some((score, orders));
            }
        }
        for (sum, order) in self.sum.iter_mut().zip(best.into_iter().flat_map(|(_, orders)| orders)) {
            *sum += order;
        }
        Ok(())
    }

    /// Adds another part of the corpus.
    ///
    /// # Errors
    /// A part that was counted with other options.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.options != other.options {
            let (ours, theirs) = (self.signature(), other.signature());
            return Err(Error::Settings(format!("chrF: expected a part scored with `{ours}`, found `{theirs}`")));
        }
        self.references = self.references.and(other.references);
        self.sum.iter_mut().zip(&other.sum).for_each(|(sum, order)| *sum += *order);
        Ok(())
    }

    /// The score of all segments so far.
    ///
    /// # Errors
    /// No segments.
    pub fn score(&self) -> Result<Score> {
        if self.references == References::Unknown {
            return Err(Error::Empty { metric: "chrF", unit: "segment" });
        }
        let name = format!("chrF{}{}", self.options.beta, "+".repeat(self.options.word_order));
        Ok(Score { name, score: score(&self.sum, &self.options) })
    }

    /// What has to be equal for two scores to be comparable; as [`crate::bleu::Bleu::signature`].
    pub fn signature(&self) -> String {
        let Options { char_order, word_order, lowercase, whitespace, eps_smoothing, .. } = self.options;
        let case = if lowercase { "lc" } else { "mixed" };
        let effective = if eps_smoothing { "no" } else { "yes" };
        let space = if whitespace { "yes" } else { "no" };
        format!(
            "nrefs:{}|case:{case}|eff:{effective}|nc:{char_order}|nw:{word_order}|space:{space}|version:{}",
            self.references,
            version()
        )
    }

    fn prepared(&self, text: &str) -> String {
        if self.options.lowercase { text.to_lowercase() } else { text.to_owned() }
    }
}

/// chrF of a corpus in which every segment has the references of its place.
///
/// # Errors
/// As [`Chrf::new`] and [`Chrf::add`]; lists of different lengths; no segments.
pub fn corpus<T: AsRef<str>, R: AsRef<[U]>, U: AsRef<str>>(
    hypotheses: &[T],
    references: &[R],
    options: Options,
) -> Result<Score> {
    crate::error::same_length("hypotheses", references.len(), hypotheses.len())?;
    let mut chrf = Chrf::new(options)?;
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        chrf.add(hypothesis.as_ref(), references.as_ref())?;
    }
    chrf.score()
}

/// chrF of one segment.
///
/// # Errors
/// As [`Chrf::new`] and [`Chrf::add`].
pub fn sentence<T: AsRef<str>>(hypothesis: &str, references: &[T], options: Options) -> Result<Score> {
    let mut chrf = Chrf::new(options)?;
    chrf.add(hypothesis, references)?;
    chrf.score()
}

/// A text as the numbers of its characters and words.
struct Ids {
    chars: Vec<u32>,
    words: Vec<u32>,
}

impl Ids {
    fn new<'a>(text: &'a str, options: &Options, interner: &mut Interner<'a>) -> Self {
        let counted = |c: &char| options.whitespace || !is_space(*c);
        Self {
            chars: text.chars().filter(counted).map(u32::from).collect(),
            words: if options.word_order > 0 { interner.ids(words(text).flat_map(trimmed)) } else { Vec::new() },
        }
    }

    fn counts(&self, options: &Options) -> Vec<HashMap<&[u32], u64>> {
        let chars = (1..=options.char_order).map(|n| count(&self.chars, n));
        chars.chain((1..=options.word_order).map(|n| count(&self.words, n))).collect()
    }
}

/// A word and one ASCII punctuation mark at its end or else at its beginning: `(hi)` is `(hi` and `)`.
fn trimmed(word: &str) -> impl Iterator<Item = &str> {
    let mark = |c: Option<char>| c.is_some_and(|c| c.is_ascii_punctuation());
    let mut chars = word.chars();
    let (first, last) = (chars.next(), chars.next_back());
    // A mark is one byte long.
    let (head, tail) = match last {
        Some(_) if mark(last) => word.split_at(word.len() - 1),
        Some(_) if mark(first) => word.split_at(1),
        _ => (word, ""),
    };
    [head, tail].into_iter().filter(|part| !part.is_empty())
}

impl Order {
    fn new(hypothesis: &HashMap<&[u32], u64>, reference: &HashMap<&[u32], u64>) -> Self {
        // A reference too short for this order says nothing about the hypothesis.
        let own = if reference.is_empty() { 0 } else { hypothesis.values().sum() };
        Self { hypothesis: own, reference: reference.values().sum(), shared: shared(hypothesis, reference) }
    }
}

impl std::ops::AddAssign for Order {
    fn add_assign(&mut self, other: Self) {
        self.hypothesis += other.hypothesis;
        self.reference += other.reference;
        self.shared += other.shared;
    }
}

fn score(orders: &[Order], options: &Options) -> f64 {
    const EPS: f64 = 1e-16;
    let weight = f64::from(options.beta) * f64::from(options.beta);
    let (mut sum, mut precisions, mut recalls, mut effective) = (0.0, 0.0, 0.0, 0.0);
    for order in orders {
        let part = |of: u64| if of > 0 { order.shared as f64 / of as f64 } else { EPS };
        let (precision, recall) = (part(order.hypothesis), part(order.reference));
        let divisor = weight * precision + recall;
        sum += if divisor > 0.0 { (1.0 + weight) * precision * recall / divisor } else { EPS };
        if order.hypothesis > 0 && order.reference > 0 {
            precisions += precision;
            recalls += recall;
            effective += 1.0;
        }
    }
    if options.eps_smoothing {
        return 100.0 * sum / orders.len() as f64;
    }
    if precisions + recalls == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precisions / effective, recalls / effective);
    100.0 * (1.0 + weight) * precision * recall / (weight * precision + recall)
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} = {:.2}", self.name, self.score)
    }
}
