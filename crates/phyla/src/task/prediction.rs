//! Answers of every task as they are written down: an object for a line of JSON, cells for a line of a table.

use serde::Serialize;
use serde_json::{Map, Value};

/// A label and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// Its name.
    pub label: String,
    /// Its probability.
    pub score: f32,
}

/// Something that a text names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entity {
    /// Its kind (`PER`), or the tag of a word.
    pub entity: String,
    /// Its text.
    pub text: String,
    /// Its first character in the text; of words given divided, its first word.
    pub start: usize,
    /// One past its last.
    pub end: usize,
    /// Mean probability of its words' tags.
    pub score: f32,
}

/// A span of a text as an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Span {
    /// Its text, empty for "no answer".
    pub text: String,
    /// Its first character in the context.
    pub start: usize,
    /// One past its last.
    pub end: usize,
    /// Its share of probability among the answers given.
    pub score: f32,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prediction {
    /// One class.
    Label {
        /// The likeliest, and its probability.
        #[serde(flatten)]
        best: Scored,
        /// All of them.
        #[serde(skip_serializing_if = "Map::is_empty")]
        scores: Map<String, Value>,
    },
    /// Any number of classes.
    Labels {
        /// Those above the threshold, the likeliest first.
        labels: Vec<Scored>,
        /// All of them.
        #[serde(skip_serializing_if = "Map::is_empty")]
        scores: Map<String, Value>,
    },
    /// A number, or several.
    Value {
        /// By name where there are several.
        value: Value,
    },
    /// What a text names.
    Entities {
        /// From left to right.
        entities: Vec<Entity>,
        /// Of words given divided: a tag for each.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tags: Vec<String>,
    },
    /// An answer from a text.
    Answer {
        /// The question's own name.
        #[serde(skip_serializing_if = "String::is_empty")]
        id: String,
        /// Empty for "no answer".
        answer: String,
        /// Its first character in the context.
        start: usize,
        /// One past its last.
        end: usize,
        /// Its share of probability among the best.
        score: f32,
        /// How much likelier "no answer" is than the best span, as a difference of scores.
        null_odds: f32,
        /// The best, best first.
        best: Vec<Span>,
    },
    /// One of several texts.
    Choice {
        /// Which, from 0.
        choice: usize,
        /// Its text.
        text: String,
        /// Its probability.
        score: f32,
        /// Of all.
        scores: Vec<f32>,
    },
    /// A text for a text.
    Text {
        /// The text.
        text: String,
    },
}

impl Prediction {
    /// The names of [`Prediction::cells`].
    pub fn columns(&self) -> &'static [&'static str] {
        match self {
            Self::Label { .. } => &["label", "score"],
            Self::Labels { .. } => &["labels", "scores"],
            Self::Value { .. } => &["value"],
            Self::Entities { .. } => &["entities"],
            Self::Answer { .. } => &["id", "answer", "start", "end", "score"],
            Self::Choice { .. } => &["choice", "text", "score"],
            Self::Text { .. } => &["text"],
        }
    }

    /// The answer in short.
    pub fn cells(&self) -> Vec<String> {
        let joined = |parts: &mut dyn Iterator<Item = String>| parts.collect::<Vec<_>>().join(", ");
        match self {
            Self::Label { best, .. } => vec![best.label.clone(), best.score.to_string()],
            Self::Labels { labels, .. } => vec![
                joined(&mut labels.iter().map(|label| label.label.clone())),
                joined(&mut labels.iter().map(|label| label.score.to_string())),
            ],
            Self::Value { value } => vec![value.to_string()],
            Self::Entities { entities, tags } if tags.is_empty() => {
                vec![joined(&mut entities.iter().map(|entity| format!("{}:{}", entity.entity, entity.text)))]
            }
            Self::Entities { tags, .. } => vec![tags.join(" ")],
            Self::Answer { id, answer, start, end, score, .. } => {
                vec![id.clone(), answer.clone(), start.to_string(), end.to_string(), score.to_string()]
            }
            Self::Choice { choice, text, score, .. } => vec![choice.to_string(), text.clone(), score.to_string()],
            Self::Text { text } => vec![text.clone()],
        }
    }
}
