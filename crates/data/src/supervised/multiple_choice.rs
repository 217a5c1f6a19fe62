//! Multiple choice: each choice is a row beside its question, and the rows of a question compete.

use serde::{Deserialize, Serialize};

use super::loader::Examples;
use super::records::Choice;
use super::rows::{Digest, TokenRows, encode, in_parallel, note};
use crate::batch::{Batch, IGNORE, Labels};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// How questions with choices become examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChoiceSettings {
    /// Tokens of a row at most, with those that the tokenizer adds; the longer of its two texts is cut first.
    pub max_len: usize,
}

impl Default for ChoiceSettings {
    fn default() -> Self {
        Self { max_len: 512 }
    }
}

/// Questions with choices in token ids.
///
/// A row is the pair of context, and question and choice joined by a space; or, without a context, of question and
/// choice: as transformers' `run_swag.py` joins them.
#[derive(Debug)]
pub struct MultipleChoice {
    /// `choices` rows for each question.
    rows: TokenRows,
    choices: usize,
    answers: Vec<i32>,
    notes: Vec<String>,
}

impl MultipleChoice {
    /// Encodes `records`.
    ///
    /// # Errors
    /// A wrong record; a question with more or fewer choices than the first.
    pub fn new(
        records: impl Iterator<Item = Result<Choice>>,
        tokenizer: &Tokenizer,
        settings: &ChoiceSettings,
    ) -> Result<Self> {
        let mut made = Self { rows: TokenRows::new(tokenizer), choices: 0, answers: Vec::new(), notes: Vec::new() };
        let work = |record: Choice| {
            let row = |choice: &String| match &record.context {
                Some(context) => {
                    encode(tokenizer, context, Some(&format!("{} {choice}", record.question)), settings.max_len)
                }
                None => encode(tokenizer, &record.question, Some(choice), settings.max_len),
            };
            let rows = record.choices.iter().map(row).collect::<Result<Vec<_>>>()?;
            Ok((record, rows))
        };
        let (mut cut, mut counts) = (0, Vec::new());
        in_parallel(records, work, |(record, rows)| {
            if made.answers.is_empty() {
                made.choices = rows.len();
                counts = vec![0_usize; rows.len()];
            }
            if rows.len() != made.choices {
                let message =
                    format!("expected {} choices, as the first question has, found {}", made.choices, rows.len());
                return Err(record.origin.error(message));
            }
            for (ids, types, was_cut) in rows {
                made.rows.push(&ids, &types);
                cut += usize::from(was_cut);
            }
            if let Some(count) = record.answer.and_then(|answer| counts.get_mut(answer)) {
                *count += 1;
            }
            made.answers.push(record.answer.map_or(IGNORE, |answer| answer as i32));
            Ok(())
        })?;
        let unanswered = made.answers.iter().filter(|answer| **answer == IGNORE).count();
        if unanswered > 0 && unanswered < made.answers.len() {
            return Err(Error::Settings(format!(
                "{unanswered} of {} questions have no answer, the others have",
                made.answers.len()
            )));
        }
        made.notes.extend(note(cut, made.rows.len(), &format!("rows were cut at {} tokens", settings.max_len)));
        if unanswered == 0 {
            let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
            made.notes.push(format!("right choices by place: {}", counts.join(", ")));
        }
        Ok(made)
    }

    /// Choices of each question.
    pub fn choices(&self) -> usize {
        self.choices
    }
}

impl Examples for MultipleChoice {
    fn count(&self) -> usize {
        self.answers.len()
    }

    fn length(&self, index: usize) -> usize {
        let rows = index * self.choices..(index + 1) * self.choices;
        rows.map(|row| self.rows.ids.length(row)).max().unwrap_or(0)
    }

    fn rows(&self) -> usize {
        self.choices.max(1)
    }

    fn collate(&self, indices: &[u32]) -> Batch {
        let rows = indices
            .iter()
            .flat_map(|&index| (0..self.choices).map(move |choice| index as usize * self.choices + choice));
        let mut batch = self.rows.batch(rows);
        let answers: Vec<i32> = indices.iter().map(|&index| self.answers[index as usize]).collect();
        batch.choices = self.choices;
        batch.tokens = answers.iter().filter(|&&answer| answer != IGNORE).count();
        batch.labels = if batch.tokens == 0 { Labels::None } else { Labels::Class(answers) };
        batch
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        self.rows.digest(&mut digest);
        digest.all(self.answers.iter().map(|&answer| u64::from(answer as u32)));
        digest.value()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::records::Origin;
    use super::super::testing::{bert, row, whole};
    use super::*;

    fn choice(context: Option<&str>, choices: &[&str], answer: Option<usize>) -> Result<Choice> {
        Ok(Choice {
            context: context.map(str::to_owned),
            question: "the".to_owned(),
            choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
            answer,
            origin: Origin::default(),
        })
    }

    fn made(records: Vec<Result<Choice>>) -> Result<MultipleChoice> {
        MultipleChoice::new(records.into_iter(), &bert(), &ChoiceSettings { max_len: 8 })
    }

    #[test]
    fn the_rows_of_a_question_stand_together() {
        let records = vec![
            choice(Some("good fox"), &["a", "b c"], Some(1)),
            choice(None, &["bad", "good"], Some(0)),
            choice(Some("a b c d e f g h"), &["bad", "good"], Some(0)),
        ];
        let made = made(records).unwrap();
        assert_eq!((made.choices(), made.count(), made.length(0), made.length(1), made.length(2)), (2, 3, 8, 5, 8));
        assert_eq!(made.notes(), ["2 of 6 rows were cut at 8 tokens", "right choices by place: 2, 1"]);
        let tokenizer = bert();
        let batch = whole(made);
        let texts: Vec<String> = (0..6).map(|at| tokenizer.decode(row(&batch, at), false).unwrap()).collect();
        assert_eq!(
            texts[..4],
            [
                "[CLS] good fox [SEP] the a [SEP]",
                "[CLS] good fox [SEP] the b c [SEP]",
                "[CLS] the [SEP] bad [SEP]",
                "[CLS] the [SEP] good [SEP]"
            ]
        );
        assert_eq!((batch.batch, batch.choices, batch.tokens), (6, 2, 3));
        assert_eq!(batch.labels, Labels::Class(vec![1, 0, 0]));
        assert_eq!(batch.token_types.unwrap().len(), 6 * 8);
    }

    #[test]
    fn unequal_numbers_of_choices_are_refused() {
        let message = made(vec![choice(None, &["a", "b"], Some(0)), choice(None, &["a", "b", "c"], Some(0))]);
        let message = message.unwrap_err().to_string();
        assert!(message.contains("expected 2 choices, as the first question has, found 3"), "{message}");
        assert!(made(vec![choice(None, &["a", "b"], Some(0)), choice(None, &["a", "b"], None)]).is_err());
        let batch = whole(made(vec![choice(None, &["a", "b"], None)]).unwrap());
        assert_eq!((batch.labels, batch.tokens, batch.choices), (Labels::None, 0, 2));
    }
}
