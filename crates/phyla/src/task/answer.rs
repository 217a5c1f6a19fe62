//! Answers cut from a text, read in windows where it is long; the data crate ranks the spans.

use phyla_data::supervised::qa::{AnswerSettings, QaSettings, Ranked, Window, answers, windows};
use phyla_data::supervised::records::Question;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::Task;

use super::prediction::{Prediction, Span};
use super::{Head, Row, Scores, expect};
use crate::{Error, Session};

/// Questions on texts.
#[derive(Debug)]
pub struct Respond<'a> {
    tokenizer: &'a Tokenizer,
    settings: QaSettings,
    /// How answers are chosen.
    pub answers: AnswerSettings,
}

impl<'a> Respond<'a> {
    /// The task of a model with such a head. Windows have `max_len` tokens, by default 384 or as many as the model can
    /// take, and share `doc_stride`, by default 128 or a third of them.
    ///
    /// # Errors
    /// Another head; more tokens than the model has positions for.
    pub fn new(session: &'a Session, max_len: Option<usize>, doc_stride: Option<usize>) -> Result<Self, Error> {
        let (model, tokenizer) = super::parts(session)?;
        expect(model, &[Task::QuestionAnswering], "answering questions")?;
        let usual = QaSettings::default();
        let asked = max_len.is_some();
        let max_len = super::max_len(model, tokenizer, max_len)?;
        let max_len = if asked { max_len } else { max_len.min(usual.max_len) };
        let settings = QaSettings {
            max_len,
            doc_stride: doc_stride.unwrap_or(usual.doc_stride.min(max_len / 3)),
            max_question_len: usual.max_question_len.min(max_len / 3).max(1),
        };
        Ok(Self { tokenizer, settings, answers: AnswerSettings::default() })
    }
}

/// The answer as it is written down, with at most `best` others.
pub fn prediction(question: &Question, ranked: &Ranked, best: usize) -> Prediction {
    let span = |span: &phyla_data::supervised::qa::Span| Span {
        text: span.text.clone(),
        start: span.characters.start,
        end: span.characters.end,
        score: span.probability,
    };
    let chosen = match ranked.impossible {
        true => ranked.spans.iter().find(|span| span.text.is_empty()),
        false => ranked.spans.iter().find(|span| !span.text.is_empty()),
    };
    let chosen = chosen.map_or(Span { text: String::new(), start: 0, end: 0, score: 0. }, span);
    let Span { text: answer, start, end, score } = chosen;
    Prediction::Answer {
        id: question.id.clone(),
        answer,
        start,
        end,
        score,
        null_odds: null_odds(ranked) as f32,
        best: ranked.spans.iter().take(best).map(span).collect(),
    }
}

/// How much higher "no answer" scores than the best span.
pub fn null_odds(ranked: &Ranked) -> f64 {
    let best = ranked.spans.iter().find(|span| !span.text.is_empty()).map(|span| span.score);
    // Without any span nothing speaks against "no answer"; a finite number is one that JSON has.
    best.map_or(f64::from(f32::MAX), |best| f64::from(ranked.null_score) - f64::from(best))
}

impl Head for Respond<'_> {
    type Input = Question;
    type Prepared = (Vec<Window>, bool);
    type Output = (Ranked, bool);

    fn rows(&self, input: &Question) -> phyla_data::Result<(Vec<Row>, Self::Prepared)> {
        let (mut windows, cut) = windows(self.tokenizer, &input.question, &input.context, &self.settings)?;
        let row = |window: &mut Window| Row {
            ids: std::mem::take(&mut window.ids),
            types: std::mem::take(&mut window.types),
        };
        let rows = windows.iter_mut().map(row).collect();
        Ok((rows, (windows, cut)))
    }

    fn answer(
        &self,
        input: &Question,
        (windows, cut): Self::Prepared,
        scores: Vec<Scores>,
    ) -> phyla_data::Result<(Ranked, bool)> {
        let time = scores.iter().map(|scores| scores.values.len()).max().unwrap_or(0);
        // Filling is never an answer.
        let filled = |of: fn(&Scores) -> &Vec<f32>| -> Vec<f32> {
            let row = |row| of(row).iter().copied().chain(std::iter::repeat(f32::NEG_INFINITY)).take(time);
            scores.iter().flat_map(row).collect()
        };
        let (start, end) = (filled(|row| &row.values), filled(|row| &row.second));
        Ok((answers(&start, &end, &windows, &input.context, &self.answers)?, cut))
    }
}
