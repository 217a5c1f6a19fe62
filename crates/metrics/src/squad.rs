//! Exact match and F1 of answers cut from a text, as the scripts of SQuAD 1.1 and 2.0 compute them.
//!
//! For Chinese, where words are not separated by spaces, see [`crate::cmrc`].

use serde::Serialize;

use crate::error::mean;
use crate::ngrams::{Interner, count, shared};
use crate::text::{is_word, words};
use crate::{Error, Result};

/// The two editions of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Every question has an answer (Rajpurkar et al. 2016).
    V1,
    /// Some have none, and the empty prediction is then the right one (Rajpurkar et al. 2018).
    V2,
}

/// The text as answers are compared: lower case, without ASCII punctuation, articles and superfluous space.
pub fn normalize(text: &str) -> String {
    let lower = text.to_lowercase();
    let plain: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut out = String::with_capacity(plain.len());
    // An article between letters is part of a word; one between symbols (`a€`) is an article.
    for run in runs(&plain) {
        if matches!(run, "a" | "an" | "the") {
            out.push(' ');
        } else {
            out.push_str(run);
        }
    }
    words(&out).collect::<Vec<_>>().join(" ")
}

/// Whether the two are equal once normalized.
pub fn exact_match(answer: &str, prediction: &str) -> bool {
    normalize(answer) == normalize(prediction)
}

/// F1 of the words of two answers, order aside.
///
/// Two answers without words score 1 in version 2, where they mean "no answer", and 0 in version 1.
pub fn f1(answer: &str, prediction: &str, version: Version) -> f64 {
    let (answer, prediction) = (normalize(answer), normalize(prediction));
    if version == Version::V2 && answer.is_empty() && prediction.is_empty() {
        return 1.0;
    }
    let mut interner = Interner::default();
    let answer = interner.ids(words(&answer));
    let prediction = interner.ids(words(&prediction));
    let same = shared(&count(&answer, 1), &count(&prediction, 1));
    if same == 0 { 0.0 } else { 2.0 * same as f64 / (answer.len() + prediction.len()) as f64 }
}

/// Scores over a data set, question by question.
#[derive(Debug, Clone)]
pub struct Squad {
    version: Version,
    questions: Vec<Question>,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    exact: f64,
    f1: f64,
    has_answer: bool,
    predicted_empty: bool,
    no_answer_score: f64,
}

/// Means over questions, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Part {
    /// Questions answered exactly.
    pub exact: f64,
    /// Mean F1.
    pub f1: f64,
    /// Questions.
    pub total: u64,
}

/// Scores over all questions and, for version 2, over those with and without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Report {
    /// All questions.
    #[serde(flatten)]
    pub all: Part,
    /// Those with an answer (`HasAns`), if there are any.
    pub has_answer: Option<Part>,
    /// Those without (`NoAns`), if there are any.
    pub no_answer: Option<Part>,
}

/// The thresholds on the no-answer score that would have given the best scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Best {
    /// The best exact match, in percent.
    pub exact: f64,
    /// Predictions with a no-answer score above this count as "no answer" for it.
    pub exact_threshold: f64,
    /// The best F1, in percent.
    pub f1: f64,
    /// The threshold for it.
    pub f1_threshold: f64,
}

impl Squad {
    /// An empty data set.
    pub fn new(version: Version) -> Self {
        Self { version, questions: Vec::new() }
    }

    /// Counts one question with all its accepted answers; the best of them counts.
    ///
    /// # Errors
    /// In version 1, a question without answers.
    pub fn add<T: AsRef<str>>(&mut self, answers: &[T], prediction: &str) -> Result<()> {
        self.add_with(answers, prediction, 0.0)
    }

    /// As [`Self::add`], with a score that says how likely there is no answer (a probability, or a difference of
    /// logits), for thresholds.
    ///
    /// # Errors
    /// As [`Self::add`], and a score that is not a number.
    pub fn add_with<T: AsRef<str>>(&mut self, answers: &[T], prediction: &str, no_answer_score: f64) -> Result<()> {
        if no_answer_score.is_nan() {
            return Err(Error::Input("SQuAD: expected a number as no-answer score, found NaN".to_owned()));
        }
        let has_answer = !answers.is_empty();
        let mut answers: Vec<&str> = answers.iter().map(AsRef::as_ref).collect();
        match self.version {
            Version::V1 if answers.is_empty() => {
                let message = "SQuAD 1.1: expected at least one answer, found none; score such data as version 2";
                return Err(Error::Input(message.to_owned()));
            }
            Version::V1 => {}
            Version::V2 => {
                answers.retain(|answer| !normalize(answer).is_empty());
                if answers.is_empty() {
                    answers.push("");
                }
            }
        }
        self.questions.push(Question {
            exact: f64::from(u8::from(answers.iter().any(|answer| exact_match(answer, prediction)))),
            f1: answers.iter().map(|answer| f1(answer, prediction, self.version)).fold(0.0, f64::max),
            has_answer,
            predicted_empty: prediction.is_empty(),
            no_answer_score,
        });
        Ok(())
    }

    /// The scores of the predictions as they are.
    ///
    /// # Errors
    /// No questions.
    pub fn report(&self) -> Result<Report> {
        self.report_above(f64::INFINITY)
    }

    /// The scores if predictions with a no-answer score above `threshold` said "no answer" instead.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub fn report_above(&self, threshold: f64) -> Result<Report> {
        let part = |wanted: fn(&Question) -> bool| {
            let (mut exact, mut f1, mut total) = (0.0, 0.0, 0u64);
            for question in self.questions.iter().filter(|question| wanted(question)) {
                let silent = question.no_answer_score > threshold;
                let right = f64::from(u8::from(!question.has_answer));
                exact += if silent { right } else { question.exact };
                f1 += if silent { right } else { question.f1 };
                total += 1;
            }
            let percent = |sum: f64| mean(100.0 * sum, total, "SQuAD", "question");
            Ok(Part { exact: percent(exact)?, f1: percent(f1)?, total })
        };
        let all = part(|_| true)?;
        if self.version == Version::V1 {
            return Ok(Report { all, has_answer: None, no_answer: None });
        }
        let (has_answer, no_answer) = (part(|question| question.has_answer), part(|question| !question.has_answer));
        Ok(Report { all, has_answer: has_answer.ok(), no_answer: no_answer.ok() })
    }

    /// The best scores that a threshold on the no-answer score could give.
    ///
    /// # Errors
    /// No questions.
    pub fn best(&self) -> Result<Best> {
        let mut order: Vec<&Question> = self.questions.iter().collect();
        order.sort_by(|a, b| a.no_answer_score.total_cmp(&b.no_answer_score));
        // From a threshold below all scores, where every answer is empty, upwards.
        let search = |score: fn(&Question) -> f64| {
            let mut current = order.iter().filter(|question| !question.has_answer).count() as f64;
            let mut best = (current, 0.0);
            for question in &order {
                current += match (question.has_answer, question.predicted_empty) {
                    (true, _) => score(question),
                    (false, true) => 0.0,
                    (false, false) => -1.0,
                };
                if current > best.0 {
                    best = (current, question.no_answer_score);
                }
            }
            Ok((mean(100.0 * best.0, order.len() as u64, "SQuAD", "question")?, best.1))
        };
        let (exact, exact_threshold) = search(|question| question.exact)?;
        let (f1, f1_threshold) = search(|question| question.f1)?;
        Ok(Best { exact, exact_threshold, f1, f1_threshold })
    }
}

/// The text cut where letters and numbers meet anything else.
fn runs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let kind = is_word(rest.chars().next()?);
        let end = rest.find(|c| is_word(c) != kind).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(run)
    })
}
