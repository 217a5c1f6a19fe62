//! One sequence on its way: its ids, its text, and when it ends.

use phyla_data::tokenizer::Tokenizer;
use phyla_kernels::rng::Rng;

use crate::outputs::Outputs;
use crate::processor::History;
use crate::stop::{StopStrings, Text};
use crate::watch::At;
use crate::{Result, Settings};

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence id or a stop string.
    Stop,
    /// The limit of new tokens, or of the model's positions.
    Length,
    /// The time that it was given.
    Time,
    /// The caller asked to stop.
    Cancelled,
}

impl FinishReason {
    /// `stop`, `length`, `time` or `cancelled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Time => "time",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens while sequences grow. `sequence` counts through prompts first, and within each its returns.
///
/// Which of its ids a beam search keeps is known at its end: then the events of a prompt's sequences come all at once, the
/// best sequence's first.
///
/// The `text`s of a sequence's events, joined, are its [`Sequence::text`]; they are empty without a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A new token.
    Token {
        /// Which sequence.
        sequence: usize,
        /// Its new id.
        id: u32,
        /// The text that has become certain: whole characters, no beginning of a stop string.
        text: &'a str,
    },
    /// The end of a sequence.
    Finished {
        /// Which sequence.
        sequence: usize,
        /// The text that was held back until now.
        text: &'a str,
        /// Why it ended.
        reason: FinishReason,
    },
}

/// A finished sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Index of its prompt.
    pub prompt: usize,
    /// The new ids, with the end-of-sequence id or the ids of the stop string that ended it.
    pub ids: Vec<u32>,
    /// The text after the prompt, without end of sequence, stop string and special tokens; `None` without a tokenizer.
    pub text: Option<String>,
    /// How many of `ids` the tokenizer has no token for: they are no part of the text.
    pub silent: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What the settings ask for besides.
    pub outputs: Outputs,
    /// Of a beam search: the sum of the log-probabilities of `ids` over their number to the power `length_penalty`.
    ///
    /// Of a search in groups or for words it is, as in transformers 4.28.1, over the length of prompt and answer, an
    /// end-of-sequence id not counted; groups have what is taken from likely ids taken from it.
    pub score: Option<f32>,
    /// Of a beam search: for each of `ids` which of the prompt's beams, in their order before that step, it continues.
    pub beam_indices: Option<Vec<u32>>,
    /// Of a search for words: whether all of them are written in prompt and answer. Where the limit of tokens leaves no
    /// such sequence, the likeliest others are returned.
    pub forced_words_met: Option<bool>,
    /// Whether it is a whole document of the constraint; `None` without one. One that a limit cut off is the beginning of one.
    pub complete: Option<bool>,
}

/// A sequence and what it needs to go on.
pub(crate) struct Active<'a> {
    /// Its number among all sequences of the call.
    pub index: usize,
    /// Index of its prompt.
    pub prompt: usize,
    /// Its number among those of its prompt.
    pub number: usize,
    /// Prompt and new ids.
    pub history: History,
    /// Its stream of draws.
    pub rng: Rng,
    /// Most new tokens.
    pub limit: usize,
    /// Set when it has ended.
    pub finish: Option<FinishReason>,
    text: Option<Text<'a>>,
}

impl<'a> Active<'a> {
    /// A sequence that begins with `prompt`; `rng` is its own.
    pub fn new(
        [index, prompt, number]: [usize; 3],
        history: History,
        rng: Rng,
        limit: usize,
        text: Option<(&'a Tokenizer, &StopStrings)>,
    ) -> Result<Self> {
        let text = text.map(|(tokenizer, stops)| Text::after(history.prompt(), tokenizer, stops)).transpose()?;
        let history = history.drawing(&rng);
        Ok(Self { index, prompt, number, history, rng, limit, finish: None, text })
    }

    /// Where its next id is picked.
    pub fn at(&self) -> At {
        At { prompt: self.prompt, branch: self.number, step: self.history.new_ids().len() }
    }

    /// Lets its text begin with what its prompt has gained.
    pub fn gaining(mut self, more: &str) -> Self {
        if let Some(text) = &mut self.text {
            text.append(more);
        }
        self
    }

    /// Takes the next id.
    pub fn accept(&mut self, id: u32, settings: &Settings, on_event: &mut dyn FnMut(Event)) -> Result<()> {
        self.history.push(id);
        let sequence = self.index;
        let ends = settings.eos.contains(&id);
        // The end of sequence is no text, even where the tokenizer does not know it as special.
        let new = match &mut self.text {
            Some(text) if !ends => text.push(id)?,
            _ => "",
        };
        on_event(Event::Token { sequence, id, text: new });
        if ends || self.text.as_ref().is_some_and(Text::stopped) {
            self.end(FinishReason::Stop, on_event)?;
        } else if self.history.new_ids().len() >= self.limit {
            self.end(FinishReason::Length, on_event)?;
        }
        Ok(())
    }

    /// Ends the sequence.
    pub fn end(&mut self, reason: FinishReason, on_event: &mut dyn FnMut(Event)) -> Result<()> {
        let (mut rest, mut reason) = ("", reason);
        if let Some(text) = &mut self.text {
            text.finish()?;
            // What the decoder held back may complete a stop string.
            if text.stopped() && matches!(reason, FinishReason::Length | FinishReason::Time) {
                reason = FinishReason::Stop;
            }
            rest = text.rest();
        }
        self.finish = Some(reason);
        on_event(Event::Finished { sequence: self.index, text: rest, reason });
        Ok(())
    }

    /// The result.
    pub fn into_sequence(self) -> Sequence {
        Sequence {
            prompt: self.prompt,
            ids: self.history.new_ids().to_vec(),
            silent: self.text.as_ref().map_or(0, |text| text.silent),
            text: self.text.map(Text::into_string),
            finish_reason: self.finish.unwrap_or(FinishReason::Cancelled),
            outputs: Outputs::default(),
            score: None,
            beam_indices: None,
            forced_words_met: None,
            complete: None,
        }
    }
}
