//! One of several texts: each choice is a row beside its question, and their scores compete.

use phyla_data::supervised::encode;
use phyla_data::supervised::records::Choice;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::Task;

use super::prediction::Prediction;
use super::{Head, Row, Scores, expect, highest, softmax};
use crate::{Error, Session};

/// Choices.
#[derive(Debug)]
pub struct Choose<'a> {
    tokenizer: &'a Tokenizer,
    max_len: usize,
}

impl<'a> Choose<'a> {
    /// The task of a model with such a head; `max_len` as in [`super::max_len`].
    ///
    /// # Errors
    /// Another head.
    pub fn new(session: &'a Session, max_len: Option<usize>) -> Result<Self, Error> {
        let (model, tokenizer) = super::parts(session)?;
        expect(model, &[Task::MultipleChoice], "choosing")?;
        Ok(Self { tokenizer, max_len: super::max_len(model, tokenizer, max_len)? })
    }
}

/// The answer as it is written down; `scores` are probabilities of the choices.
pub fn prediction(question: &Choice, scores: Vec<f32>) -> Prediction {
    let choice = highest(&scores);
    Prediction::Choice {
        choice,
        text: question.choices.get(choice).cloned().unwrap_or_default(),
        score: scores.get(choice).copied().unwrap_or_default(),
        scores,
    }
}

impl Head for Choose<'_> {
    type Input = Choice;
    /// Whether a row was cut.
    type Prepared = bool;
    type Output = (Vec<f32>, bool);

    fn rows(&self, input: &Choice) -> phyla_data::Result<(Vec<Row>, bool)> {
        let (mut rows, mut any) = (vec![], false);
        for choice in &input.choices {
            // As the rows that such models learn from.
            let (first, second) = match &input.context {
                Some(context) => (context, format!("{} {choice}", input.question)),
                None => (&input.question, choice.clone()),
            };
            let (ids, types, cut) = encode(self.tokenizer, first, Some(&second), self.max_len)?;
            any |= cut;
            rows.push(Row { ids, types });
        }
        Ok((rows, any))
    }

    fn answer(&self, _: &Choice, cut: bool, scores: Vec<Scores>) -> phyla_data::Result<(Vec<f32>, bool)> {
        let scores: Vec<f32> = scores.iter().filter_map(|scores| scores.values.first().copied()).collect();
        Ok((softmax(&scores), cut))
    }
}
