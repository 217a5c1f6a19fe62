//! `[objective] kind = "qa"`: spans of a text, read in windows that overlap, and how answers are chosen in evaluation.

use phyla_data::supervised::qa::{AnswerSettings, QaSettings};
use serde::{Deserialize, Serialize};

use super::check_length;

/// Cross-entropy of the answer's first and of its last token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Qa {
    /// Tokens of a window at most: question, part of the text, and what the tokenizer adds.
    pub max_len: usize,
    /// Tokens that neighbouring windows share.
    pub doc_stride: usize,
    /// Tokens of a question at most; longer ones are cut, and counted.
    pub max_question_len: usize,
    /// How answers are chosen when exact match and F1 are measured. Where the data has questions without an answer,
    /// `null_threshold` is 0 unless given.
    pub answers: AnswerSettings,
}

impl Default for Qa {
    fn default() -> Self {
        let QaSettings { max_len, doc_stride, max_question_len } = QaSettings::default();
        Self { max_len, doc_stride, max_question_len, answers: AnswerSettings::default() }
    }
}

impl Qa {
    /// What the maker of windows is asked for.
    #[must_use]
    pub fn settings(&self) -> QaSettings {
        let Self { max_len, doc_stride, max_question_len, .. } = *self;
        QaSettings { max_len, doc_stride, max_question_len }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_length(problems, "max_len", self.max_len, 5);
        check_length(problems, "max_question_len", self.max_question_len, 1);
        if self.max_question_len.saturating_add(self.doc_stride) >= self.max_len {
            problems.push(format!(
                "`objective.max_len` is {}; a window needs more than `max_question_len` and `doc_stride` together ({})",
                self.max_len,
                self.max_question_len.saturating_add(self.doc_stride)
            ));
        }
        if self.answers.n_best == 0 || self.answers.max_answer_len == 0 {
            problems.push("`objective.answers.n_best` and `max_answer_len` must be at least 1".into());
        }
        if self.answers.null_threshold.is_some_and(|threshold| !threshold.is_finite()) {
            problems.push("`objective.answers.null_threshold` must be a finite number".into());
        }
    }
}
