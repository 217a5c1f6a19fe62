//! One class for a text or a pair, several, or a number: what a head over a whole row says.

use phyla_data::supervised::classify::ProblemType;
use phyla_data::supervised::encode;
use phyla_data::supervised::labels::LabelSet;
use phyla_data::supervised::records::Labelled;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::{Model, Task};
use serde_json::{Map, Value, json};

use super::prediction::{Prediction, Scored};
use super::{Head, Row, Scores, expect, highest, labels, softmax};
use crate::{Error, Session};

/// How likely a label must be to be given, where there may be several.
pub const THRESHOLD: f32 = 0.5;

/// Classes of texts.
#[derive(Debug)]
pub struct Classify<'a> {
    tokenizer: &'a Tokenizer,
    max_len: usize,
    problem: ProblemType,
    labels: LabelSet,
    /// See [`THRESHOLD`].
    pub threshold: f32,
    /// Give the scores of all classes.
    pub all: bool,
}

/// What the head says.
#[derive(Clone, Debug, PartialEq)]
pub enum Class {
    /// Probabilities of classes of which one is right.
    One(Vec<f32>),
    /// Probabilities of classes, each right or wrong by itself.
    Many(Vec<f32>),
    /// Numbers.
    Values(Vec<f32>),
}

impl<'a> Classify<'a> {
    /// The task of a model with such a head; `max_len` as in [`super::max_len`].
    ///
    /// # Errors
    /// Another head; labels that do not fit it.
    pub fn new(session: &'a Session, max_len: Option<usize>) -> Result<Self, Error> {
        let (model, tokenizer) = super::parts(session)?;
        expect(model, &[Task::SequenceClassification, Task::NextSentence], "classifying texts")?;
        let max_len = super::max_len(model, tokenizer, max_len)?;
        let labels = match model.arch.task {
            // BERT's order: class 0 says that the second text follows the first.
            Task::NextSentence => LabelSet::new(vec!["next".into(), "random".into()])?,
            _ => labels(model)?,
        };
        let problem = problem_type(model, labels.len())?;
        Ok(Self { tokenizer, max_len, problem, labels, threshold: THRESHOLD, all: false })
    }

    /// The classes.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// What kind of answer the head gives.
    pub fn problem_type(&self) -> ProblemType {
        self.problem
    }

    /// The answer as it is written down.
    pub fn prediction(&self, class: &Class) -> Prediction {
        let scored = |(label, &score): (&String, &f32)| Scored { label: label.clone(), score };
        let named = |scores: &[f32]| -> Map<String, Value> {
            self.labels.names().iter().cloned().zip(scores.iter().map(|&score| json!(score))).collect()
        };
        let all = |scores: &[f32]| if self.all { named(scores) } else { Map::new() };
        match class {
            Class::One(scores) => {
                let best = highest(scores);
                let best = Scored {
                    label: self.labels.name(best as u32).unwrap_or_default().to_owned(),
                    score: scores.get(best).copied().unwrap_or_default(),
                };
                Prediction::Label { best, scores: all(scores) }
            }
            Class::Many(scores) => {
                let mut labels: Vec<Scored> = self.labels.names().iter().zip(scores).map(scored).collect();
                labels.retain(|label| label.score >= self.threshold);
                labels.sort_by(|a, b| b.score.total_cmp(&a.score));
                Prediction::Labels { labels, scores: all(scores) }
            }
            Class::Values(values) => match values.as_slice() {
                [value] => Prediction::Value { value: json!(value) },
                values => Prediction::Value { value: named(values).into() },
            },
        }
    }
}

/// What kind of answer a classifier gives: as its configuration says, else a number where it has one output only.
fn problem_type(model: &Model, labels: usize) -> Result<ProblemType, Error> {
    match model.config.get("problem_type").filter(|value| !value.is_null()) {
        Some(value) => serde_json::from_value(value.clone()).map_err(|_| {
            Error::Task(format!(
                "config.json: problem_type: expected single_label_classification, multi_label_classification or \
                 regression, found {value}"
            ))
        }),
        None if labels == 1 => Ok(ProblemType::Regression),
        None => Ok(ProblemType::SingleLabelClassification),
    }
}

impl Head for Classify<'_> {
    type Input = Labelled;
    /// Whether the text was cut.
    type Prepared = bool;
    type Output = (Class, bool);

    fn rows(&self, input: &Labelled) -> phyla_data::Result<(Vec<Row>, bool)> {
        let (ids, types, cut) = encode(self.tokenizer, &input.text, input.text_b.as_deref(), self.max_len)?;
        Ok((vec![Row { ids, types }], cut))
    }

    fn answer(&self, _: &Labelled, cut: bool, scores: Vec<Scores>) -> phyla_data::Result<(Class, bool)> {
        let scores = scores.into_iter().next().unwrap_or_default().values;
        let class = match self.problem {
            ProblemType::SingleLabelClassification => Class::One(softmax(&scores)),
            ProblemType::MultiLabelClassification => {
                Class::Many(scores.iter().map(|score| 1. / (1. + (-score).exp())).collect())
            }
            ProblemType::Regression => Class::Values(scores),
        };
        Ok((class, cut))
    }
}
