//! How good a model is on data with known answers: one function for each task, all to one [`Evaluation`].
//!
//! Every metric is the one that papers report (see [`phyla_metrics`]). Labels are mapped through the model's
//! `id2label`; labels of the data that the model does not know are an error that names them.

mod answer;
mod choose;
mod classify;
mod language;
mod page;
pub mod reason;
mod similarity;
mod tag;
mod translate;

use std::collections::BTreeMap;

use phyla_data::supervised::labels::LabelSet;
use phyla_data::supervised::lengths::LengthBatches;
use phyla_metrics::{Averages, Scores};
use serde::{Serialize, Serializer};

pub use answer::{Language, answers};
pub use choose::choices;
pub use classify::classification;
pub use language::{Text, perplexity};
pub use page::html;
pub use similarity::similarity;
pub use tag::tags;
pub use translate::{TranslateOptions, translation};

use crate::Error;

/// What all evaluations ask for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How inputs are put together.
    pub batches: LengthBatches,
    /// Tokens of a row at most; see [`crate::task::max_len`].
    pub max_len: Option<usize>,
    /// Examples of errors that are kept.
    pub mistakes: usize,
    /// Names of the model's labels in place of `id2label`.
    pub labels: Option<Vec<String>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { batches: LengthBatches::default(), max_len: None, mistakes: 20, labels: None }
    }
}

/// Told after each input: how many are done, and of how many if that is known.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

/// Everything that came of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// Which task.
    pub task: &'static str,
    /// What was evaluated: texts, questions, tokens.
    pub unit: &'static str,
    /// How many.
    pub count: u64,
    /// The metrics, the most telling first.
    #[serde(serialize_with = "as_object")]
    pub metrics: Vec<Metric>,
    /// Of reasoning: one method beside the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<reason::MethodScore>,
    /// Scores of each class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Class>,
    /// How often each class was taken for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
    /// What has to be equal for two scores to be comparable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
    /// What a reader should know: how much was cut, left out, or could not be told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Examples of errors, the worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<Mistake>,
}

/// A metric and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// How it is to be read.
    pub scale: Scale,
}

/// How a metric is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Up to 1.
    Fraction,
    /// Up to 100.
    Percent,
    /// Any number.
    Number,
    /// Whole.
    Count,
}

impl Metric {
    fn new(name: impl Into<String>, value: f64, scale: Scale) -> Self {
        Self { name: name.into(), value, scale }
    }

    fn fraction(name: impl Into<String>, value: f64) -> Self {
        Self::new(name, value, Scale::Fraction)
    }

    /// Its value as it is shown.
    pub fn shown(&self) -> String {
        match self.scale {
            Scale::Fraction | Scale::Number => format!("{:.4}", self.value),
            Scale::Percent => format!("{:.2}", self.value),
            Scale::Count => format!("{:.0}", self.value),
        }
    }
}

fn as_object<S: Serializer>(metrics: &[Metric], out: S) -> Result<S::Ok, S::Error> {
    out.collect_map(metrics.iter().map(|metric| (&metric.name, metric.value)))
}

/// Scores of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: Scores,
}

/// How often each class was taken for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// The classes.
    pub labels: Vec<String>,
    /// `[reference][prediction]`.
    pub counts: Vec<Vec<u64>>,
}

/// An error of the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mistake {
    /// What was asked.
    pub input: String,
    /// What would have been right.
    pub expected: String,
    /// What the model said.
    pub found: String,
    /// How sure it was, or how near it came.
    pub score: f64,
}

/// The worst errors so far.
#[derive(Debug)]
struct Worst {
    most: usize,
    found: Vec<(f64, Mistake)>,
}

impl Worst {
    fn new(most: usize) -> Self {
        Self { most, found: vec![] }
    }

    /// Keeps an error if there are fewer, or lesser ones.
    fn add(&mut self, weight: f64, mistake: impl FnOnce() -> Mistake) {
        let place = self.found.partition_point(|(other, _)| *other >= weight);
        if place < self.most {
            self.found.insert(place, (weight, mistake()));
            self.found.truncate(self.most);
        }
    }

    fn take(self) -> Vec<Mistake> {
        self.found.into_iter().map(|(_, mistake)| mistake).collect()
    }
}

/// F1 by the usual averages.
fn averages(averages: &Averages) -> [Metric; 3] {
    [("micro", averages.micro), ("macro", averages.macro_), ("weighted", averages.weighted)]
        .map(|(name, scores)| Metric::fraction(format!("f1_{name}"), scores.f1))
}

/// The names of a model's labels, or those to use in their place.
fn named(own: &LabelSet, options: &Options) -> Result<LabelSet, Error> {
    let Some(names) = &options.labels else { return Ok(own.clone()) };
    if names.len() != own.len() {
        return Err(Error::Task(format!("{} labels are named, and the model has {}", names.len(), own.len())));
    }
    Ok(LabelSet::new(names.clone())?)
}

/// Labels of the data that the model does not know, each with how often it comes.
#[derive(Debug, Default)]
struct Unknown(BTreeMap<String, u64>);

impl Unknown {
    fn note(&mut self, labels: &LabelSet, label: &str) {
        if labels.id(label).is_none() {
            *self.0.entry(label.to_owned()).or_default() += 1;
        }
    }

    fn check(self, labels: &LabelSet) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (unknown, known) = (self.0.len(), labels.len());
        let found: Vec<String> = self.0.iter().take(10).map(|(name, count)| format!("`{name}` ({count})")).collect();
        let names: Vec<String> = labels.names().iter().take(20).map(|name| format!("`{name}`")).collect();
        let more = |all: usize, shown: usize| if all > shown { ", …" } else { "" };
        Err(Error::Task(format!(
            "the data has {unknown} labels that the model does not know: {}{}; the model's {known} are {}{}",
            found.join(", "),
            more(unknown, 10),
            names.join(", "),
            more(known, 20)
        )))
    }
}

/// `part` of `whole` as a note, if there is any.
fn note(notes: &mut Vec<String>, part: u64, whole: u64, what: &str) {
    if part > 0 {
        notes.push(format!("{part} of {whole} {what}"));
    }
}
