//! BLEU (Papineni et al. 2002): the n-grams a translation shares with its references, equal to sacrebleu's.

mod segment;
mod tokenize;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub use tokenize::Tokenizer;

/// n-grams longer than this say nothing about a translation.
const LONGEST: usize = 32;

/// What to do with an n-gram order without a single match, whose logarithm would be minus infinity
/// (Chen and Cherry 2014).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub enum Smoothing {
    /// Nothing: the score is 0.
    None,
    /// Put this many matches where there are none; 0.1 is usual.
    Floor(f64),
    /// Add this to matches and to totals of every order above one; 1 is usual.
    AddK(f64),
    /// Halve the imagined match for each such order in turn, as NIST's script does.
    #[default]
    Exp,
}

/// How BLEU is computed; the default is sacrebleu's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How texts are cut into words.
    pub tokenizer: Tokenizer,
    /// Ignore case.
    pub lowercase: bool,
    /// What to do with orders without matches.
    pub smoothing: Smoothing,
    /// Take no account of orders longer than the text: for single sentences.
    pub effective_order: bool,
    /// The longest n-grams, 1 to 32.
    pub max_order: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tokenizer: Tokenizer::default(),
            lowercase: false,
            smoothing: Smoothing::default(),
            effective_order: false,
            max_order: 4,
        }
    }
}

/// BLEU over a corpus, segment by segment.
#[derive(Debug, Clone)]
pub struct Bleu {
    options: Options,
    sum: Statistics,
    references: References,
}

/// The counts BLEU is made of; they add up over segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Statistics {
    length: u64,
    reference_length: u64,
    /// For each order: n-grams of the hypothesis that a reference holds as well.
    correct: Vec<u64>,
    /// For each order: n-grams of the hypothesis.
    total: Vec<u64>,
}

/// How many references the segments have, for the signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum References {
    #[default]
    Unknown,
    Each(usize),
    Various,
}

/// A BLEU score with what it is made of; displays as sacrebleu's does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// 0 to 100.
    pub score: f64,
    /// For each order: the part of n-grams found in a reference, in percent, smoothed.
    pub precisions: Vec<f64>,
    /// For each order: matching n-grams, before smoothing.
    pub counts: Vec<u64>,
    /// For each order: n-grams, before smoothing.
    pub totals: Vec<u64>,
    /// The penalty for being shorter than the references, 0 to 1.
    pub brevity_penalty: f64,
    /// Words of the hypotheses.
    pub sys_len: u64,
    /// Words of the references nearest in length.
    pub ref_len: u64,
}

impl Bleu {
    /// An empty corpus.
    ///
    /// # Errors
    /// An order out of range, a smoothing value that is negative or not finite.
    pub fn new(options: Options) -> Result<Self> {
        if !(1..=LONGEST).contains(&options.max_order) {
            let found = options.max_order;
            return Err(Error::Settings(format!("BLEU: expected `max_order` from 1 to {LONGEST}, found {found}")));
        }
        if let Smoothing::Floor(value) | Smoothing::AddK(value) = options.smoothing
            && !(value.is_finite() && value >= 0.0)
        {
            return Err(Error::Settings(format!("BLEU: expected a smoothing value of at least 0, found {value}")));
        }
        Ok(Self { options, sum: Statistics::default(), references: References::default() })
    }

    /// Counts one segment: a translation and its references.
    ///
    /// # Errors
    /// No reference.
    pub fn add<T: AsRef<str>>(&mut self, hypothesis: &str, references: &[T]) -> Result<()> {
        self.references.see(references.len(), "BLEU")?;
        self.sum += &segment::statistics(&self.options, hypothesis, references);
        Ok(())
    }

    /// Adds another part of the corpus.
    ///
    /// # Errors
    /// A part that was counted with other options.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.options != other.options {
            let (ours, theirs) = (self.signature(), other.signature());
            return Err(Error::Settings(format!("BLEU: expected a part scored with `{ours}`, found `{theirs}`")));
        }
        self.references = self.references.and(other.references);
        self.sum += &other.sum;
        Ok(())
    }

    /// The score of all segments so far.
    ///
    /// # Errors
    /// No segments.
    pub fn score(&self) -> Result<Score> {
        if self.references == References::Unknown {
            return Err(Error::Empty { metric: "BLEU", unit: "segment" });
        }
        Ok(Score::new(&self.sum, &self.options))
    }

    /// What has to be equal for two scores to be comparable, as sacrebleu prints it.
    ///
    /// All fields but the last are sacrebleu's; in place of its version stands `phyla-` and this crate's.
    pub fn signature(&self) -> String {
        let Options { tokenizer, lowercase, smoothing, effective_order, .. } = &self.options;
        let case = if *lowercase { "lc" } else { "mixed" };
        let effective = if *effective_order { "yes" } else { "no" };
        format!(
            "nrefs:{}|case:{case}|eff:{effective}|tok:{tokenizer}|smooth:{smoothing}|version:{}",
            self.references,
            version()
        )
    }
}

/// BLEU of a corpus in which every segment has the references of its place.
///
/// # Errors
/// As [`Bleu::new`] and [`Bleu::add`]; lists of different lengths; no segments.
pub fn corpus<T: AsRef<str>, R: AsRef<[U]>, U: AsRef<str>>(
    hypotheses: &[T],
    references: &[R],
    options: Options,
) -> Result<Score> {
    crate::error::same_length("hypotheses", references.len(), hypotheses.len())?;
    let mut bleu = Bleu::new(options)?;
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        bleu.add(hypothesis.as_ref(), references.as_ref())?;
    }
    bleu.score()
}

/// BLEU of one segment; set `effective_order`, or texts of fewer than four words score 0.
///
/// # Errors
/// As [`Bleu::new`] and [`Bleu::add`].
pub fn sentence<T: AsRef<str>>(hypothesis: &str, references: &[T], options: Options) -> Result<Score> {
    let mut bleu = Bleu::new(options)?;
    bleu.add(hypothesis, references)?;
    bleu.score()
}

impl Score {
    fn new(sum: &Statistics, options: &Options) -> Self {
        let (sys_len, ref_len) = (sum.length, sum.reference_length);
        let brevity_penalty = match (sys_len, ref_len) {
            (0, 1..) => 0.0,
            _ if sys_len < ref_len => (1.0 - ref_len as f64 / sys_len as f64).exp(),
            _ => 1.0,
        };
        let (precisions, orders) = precisions(sum, options);
        let any = sum.correct.iter().any(|&count| count > 0);
        let logarithms = precisions.iter().take(orders).map(|&precision| logarithm(precision)).sum::<f64>();
        let score = if any { brevity_penalty * (logarithms / orders as f64).exp() } else { 0.0 };
        let (counts, totals) = (sum.correct.clone(), sum.total.clone());
        Self { score, precisions, counts, totals, brevity_penalty, sys_len, ref_len }
    }
}

/// The smoothed precisions in percent, and how many of them the mean is over.
fn precisions(sum: &Statistics, options: &Options) -> (Vec<f64>, usize) {
    let mut precisions = vec![0.0; options.max_order];
    let mut orders = options.max_order;
    if sum.correct.iter().all(|&count| count == 0) {
        return (precisions, orders);
    }
    let mut halvings = 1.0;
    for (n, precision) in precisions.iter_mut().enumerate() {
        let added = match options.smoothing {
            Smoothing::AddK(k) if n > 0 => k,
            _ => 0.0,
        };
        let (correct, total) = (sum.correct[n] as f64 + added, sum.total[n] as f64 + added);
        // No text is as long as this order.
        if total == 0.0 {
            break;
        }
        if options.effective_order {
            orders = n + 1;
        }
        let matches = match options.smoothing {
            Smoothing::Floor(value) if correct == 0.0 => value,
            Smoothing::Exp if correct == 0.0 => {
                halvings *= 2.0;
                1.0 / halvings
            }
            _ => correct,
        };
        *precision = 100.0 * matches / total;
    }
    (precisions, orders)
}

/// The logarithm, with sacrebleu's finite floor: minus infinity times an order would be NaN's neighbour.
fn logarithm(value: f64) -> f64 {
    if value == 0.0 { -9_999_999_999.0 } else { value.ln() }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let precisions: Vec<String> = self.precisions.iter().map(|precision| format!("{precision:.1}")).collect();
        let ratio = if self.ref_len == 0 { 0.0 } else { self.sys_len as f64 / self.ref_len as f64 };
        write!(f, "BLEU = {:.2} {} (BP = {:.3} ", self.score, precisions.join("/"), self.brevity_penalty)?;
        write!(f, "ratio = {ratio:.3} hyp_len = {} ref_len = {})", self.sys_len, self.ref_len)
    }
}

impl fmt::Display for Smoothing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Floor(value) => write!(f, "floor[{value:.2}]"),
            Self::AddK(value) => write!(f, "add-k[{value:.2}]"),
            Self::Exp => f.write_str("exp"),
        }
    }
}

impl References {
    /// Takes note of a segment's references.
    pub(crate) fn see(&mut self, count: usize, metric: &'static str) -> Result<()> {
        if count == 0 {
            return Err(Error::Empty { metric, unit: "reference for each segment" });
        }
        *self = self.and(Self::Each(count));
        Ok(())
    }

    /// What holds of two parts together.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, known) | (known, Self::Unknown) => known,
            (a, b) if a == b => a,
            _ => Self::Various,
        }
    }
}

impl fmt::Display for References {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("0"),
            Self::Each(count) => count.fmt(f),
            Self::Various => f.write_str("var"),
        }
    }
}

/// What stands for sacrebleu's version in a signature.
pub(crate) fn version() -> &'static str {
    concat!("phyla-", env!("CARGO_PKG_VERSION"))
}
