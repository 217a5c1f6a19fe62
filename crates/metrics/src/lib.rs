//! How good predictions are: each metric of the field in one file, equal to the implementation that papers report.
//!
//! Nothing here knows models or tensors: class numbers, tags, texts and numbers go in, small structs come out that
//! serialise. What is gathered over a data set is a struct with `add`, whose memory does not grow with the texts.
//! A metric that has no value (nothing to compare, a constant series) is an [`Error`], never a NaN.
//!
//! | module | metric | equal to |
//! |---|---|---|
//! | [`classification`] | accuracy, confusion matrix, precision, recall, F1, Matthews, top-k | scikit-learn |
//! | [`multilabel`] | F1 of several labels per sample, subset accuracy | scikit-learn |
//! | [`regression`] | Pearson, Spearman, mean squared and absolute error | scipy, scikit-learn |
//! | [`tags`], [`entities`] | entities of IOB tags and their F1 | seqeval |
//! | [`squad`], [`cmrc`] | exact match and F1 of answers, English and Chinese | the official scripts |
//! | [`bleu`], [`chrf`] | BLEU, chrF, chrF++ of translations | sacrebleu |
//! | [`rouge`] | ROUGE-N and ROUGE-L of summaries | rouge-score |
//! | [`answer`] | the answer that a chain of thought comes to | the scripts of Wei et al. and Kojima et al. |
//! | [`likelihood`] | perplexity, bits per byte | |
//! | [`interval`] | how far a share may be off | scipy |

pub mod answer;
pub mod bleu;
pub mod chrf;
pub mod classification;
pub mod cmrc;
pub mod entities;
mod error;
pub mod interval;
pub mod likelihood;
pub mod multilabel;
mod ngrams;
pub mod prf;
pub mod regression;
pub mod rouge;
pub mod squad;
pub mod tags;
mod text;

pub use error::{Error, Result};
pub use prf::{Averages, Counts, Scores};
