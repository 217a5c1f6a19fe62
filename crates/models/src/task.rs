//! What a model is for: which head stands on it, and how `architectures` names that.

/// A head, or a pair of them, by what it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Hidden states alone.
    Base,
    /// Hidden states of an encoder-decoder's encoder.
    Encoder,
    /// The next token.
    #[default]
    CausalLm,
    /// The token under a mask.
    MaskedLm,
    /// Whether a text follows another.
    NextSentence,
    /// Masked tokens and next sentence.
    PreTraining,
    /// A label, several, or a number for a text.
    SequenceClassification,
    /// A label for each token.
    TokenClassification,
    /// The first and the last token of an answer.
    QuestionAnswering,
    /// One of several texts.
    MultipleChoice,
    /// A text for a text.
    Seq2SeqLm,
}

impl Task {
    /// Its name in sentences.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Base => "hidden states",
            Self::Encoder => "an encoder's hidden states",
            Self::CausalLm => "a causal language model",
            Self::MaskedLm => "a masked language model",
            Self::NextSentence => "next-sentence prediction",
            Self::PreTraining => "pretraining (masked tokens and next sentence)",
            Self::SequenceClassification => "sequence classification",
            Self::TokenClassification => "token classification",
            Self::QuestionAnswering => "question answering",
            Self::MultipleChoice => "multiple choice",
            Self::Seq2SeqLm => "sequence to sequence",
        }
    }
}

/// What is wanted of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The head.
    pub task: Task,
    /// Labels of a classifier.
    pub labels: usize,
}
