//! From a [`Dialogue`] to token ids and a mask over them: which tokens a model is to learn to write.
//!
//! What is masked and what not, is decided on the text or, of completions, on ids, as trl decides it; nothing else in the
//! project knows of roles and templates.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::records::dialogue::asked;
use super::records::{Content, Dialogue};
use crate::error::{Error, Result};
use crate::template::{Chat, DEFAULT, Templates};
use crate::tokenizer::{Detailed, Tokenizer};

/// Which tokens are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// What follows the prompt; of a conversation, its last turn if that is the assistant's.
    Completion,
    /// What the assistant wrote, and the ends of its turns; of a prompt and its completion, in the completion.
    Assistant,
    /// Every token.
    All,
}

impl LossOn {
    /// What each kind of example is for: completions, the assistant's turns, texts as a whole.
    pub fn usual(content: &Content) -> Self {
        match content {
            Content::Text(_) => Self::All,
            Content::Messages(_) => Self::Assistant,
            _ => Self::Completion,
        }
    }
}

/// An example in token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The text as the model reads it, without the tokens that a tokenizer adds to plain text.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Which of them are learned, beside `ids`.
    pub learned: Vec<bool>,
    /// The bytes of `text` that each token stands for, which leave no gap; empty for tokens that the tokenizer added.
    pub bytes: Vec<Range<usize>>,
    /// Sentences about parts that could not be told apart with certainty.
    pub doubts: Vec<String>,
}

impl Encoded {
    /// Learned tokens.
    pub fn count(&self) -> usize {
        self.learned.iter().filter(|&&learned| learned).count()
    }
}

/// Turns examples into ids and masks, under a tokenizer and, for conversations, its chat template.
#[derive(Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    loss_on: Option<LossOn>,
    special: Vec<String>,
}

impl<'a> Encoder<'a> {
    /// An encoder under the tokenizer's own template; see [`Tokenizer::with_chat_template`] for another. Without
    /// `loss_on`, each example is masked as [`LossOn::usual`] says.
    pub fn new(tokenizer: &'a Tokenizer, loss_on: Option<LossOn>) -> Self {
        Self { tokenizer, loss_on, special: tokenizer.special_texts() }
    }

    /// An example as ids and mask, of whatever length.
    ///
    /// # Errors
    /// A conversation without a chat template, or one that the template refuses; a mask that the example has no room for
    /// (a text has no completion). Errors name the place of the example.
    pub fn encode(&self, dialogue: &Dialogue) -> Result<Encoded> {
        self.encoded(dialogue).map_err(|error| match error {
            error @ Error::Tokenizer(_) => error,
            error @ Error::Record { .. } => error,
            error => dialogue.origin.error(error.to_string()),
        })
    }

    fn encoded(&self, dialogue: &Dialogue) -> Result<Encoded> {
        let loss_on = self.loss_on.unwrap_or_else(|| LossOn::usual(&dialogue.content));
        match &dialogue.content {
            Content::Text(text) => {
                if loss_on != LossOn::All {
                    let message = "a text has nothing but itself to learn: set `loss_on` to \"all\", or leave it out";
                    return Err(Error::Settings(message.into()));
                }
                self.plain(None, &self.ended(text))
            }
            Content::Completion { prompt, completion } => {
                let given = (loss_on != LossOn::All).then_some(prompt.as_str());
                self.plain(given, &self.ended(&format!("{prompt}{completion}")))
            }
            Content::Instruction { instruction, input, output } => {
                if self.tokenizer.templates().source(DEFAULT).is_some() {
                    let prompt = [json!({"role": "user", "content": asked(instruction, input)})];
                    let completion = [json!({"role": "assistant", "content": output})];
                    return self.reply(dialogue, &prompt, &completion, loss_on);
                }
                let prompt = alpaca(instruction, input);
                let given = (loss_on != LossOn::All).then_some(prompt.as_str());
                self.plain(given, &self.ended(&format!("{prompt}{output}")))
            }
            Content::Messages(messages) => match loss_on {
                LossOn::Completion => match messages.split_last() {
                    Some((last, prompt)) => self.reply(dialogue, prompt, std::slice::from_ref(last), loss_on),
                    None => Err(Error::Settings("a conversation without messages".into())),
                },
                _ => self.conversation(dialogue, messages, loss_on),
            },
            Content::Reply { prompt, completion } => self.reply(dialogue, prompt, completion, loss_on),
        }
    }

    /// A text with its end, once.
    fn ended(&self, text: &str) -> String {
        match &self.tokenizer.special().eos {
            Some(eos) if !text.ends_with(&eos.text) => format!("{text}{}", eos.text),
            _ => text.to_owned(),
        }
    }

    /// Plain text, with the tokens that the tokenizer puts around it; what follows `given` is learned.
    fn plain(&self, given: Option<&str>, text: &str) -> Result<Encoded> {
        let made = self.tokenizer.encode_detailed(text, true)?;
        let given = given.map(|given| self.tokenizer.encode(given, true)).transpose()?;
        Ok(self.completed(text.to_owned(), made, given.as_deref()))
    }

    /// Tokens that are learned from where they leave the tokens of what is given, as trl compares them.
    fn completed(&self, text: String, made: Detailed, given: Option<&[u32]>) -> Encoded {
        let given = given.unwrap_or_default();
        let same = given.iter().zip(&made.ids).take_while(|(given, id)| given == id).count();
        let mut doubts = vec![];
        // What the tokenizer puts at the end of every text is no part of the prompt.
        let added = if given.is_empty() { 0 } else { self.added_behind(&made) };
        if same + added < given.len() {
            doubts.push("prompts do not end with a token of their own: the token that joins the two is learned".into());
        }
        let learned = (0..made.ids.len()).map(|at| at >= same).collect();
        let bytes = gapless(&made, text.len());
        Encoded { text, ids: made.ids, learned, bytes, doubts }
    }

    fn added_behind(&self, made: &Detailed) -> usize {
        made.texts.iter().rev().take_while(|text| text.is_none()).count()
    }

    fn reply(&self, dialogue: &Dialogue, prompt: &[Value], completion: &[Value], loss_on: LossOn) -> Result<Encoded> {
        let all = [prompt, completion].concat();
        let mut whole = self.conversation(dialogue, &all, loss_on)?;
        if loss_on == LossOn::All {
            return Ok(whole);
        }
        let chat = Chat { add_generation_prompt: true, ..chat(dialogue, prompt) };
        let given = match prompt {
            [] => vec![],
            _ => self.tokenizer.encode(&self.templates()?.render(None, &chat)?.text, false)?,
        };
        let same = given.iter().zip(&whole.ids).take_while(|(given, id)| given == id).count();
        if same < given.len() && loss_on == LossOn::Completion {
            let message = "prompts are written differently by the template when they stand alone: what is learned begins \
                           where the two part";
            whole.doubts.push(message.into());
        }
        for (at, learned) in whole.learned.iter_mut().enumerate() {
            *learned = at >= same && (loss_on == LossOn::Completion || *learned);
        }
        Ok(whole)
    }

    fn conversation(&self, dialogue: &Dialogue, messages: &[Value], loss_on: LossOn) -> Result<Encoded> {
        let (templates, chat) = (self.templates()?, chat(dialogue, messages));
        let (text, spans, doubts) = match loss_on {
            LossOn::Assistant => {
                let turns = templates.turns(None, &chat, &self.special)?;
                (turns.rendered.text, turns.spans, turns.doubts)
            }
            _ => (templates.render(None, &chat)?.text, vec![], vec![]),
        };
        let made = self.tokenizer.encode_detailed(&text, false)?;
        let bytes = gapless(&made, text.len());
        let inside = |bytes: &Range<usize>| {
            spans.iter().any(|span| bytes.start < span.end && span.start < bytes.end.max(bytes.start + 1))
        };
        let learned = bytes.iter().map(|bytes| loss_on == LossOn::All || inside(bytes)).collect();
        Ok(Encoded { text, ids: made.ids, learned, bytes, doubts })
    }

    fn templates(&self) -> Result<&Templates> {
        let templates = self.tokenizer.templates();
        if templates.is_empty() {
            return Err(Error::Settings(
                "a conversation needs a chat template, and the tokenizer has none: set `chat_template` to a file or to one \
                 of the templates that come with the program"
                    .into(),
            ));
        }
        Ok(templates)
    }
}

fn chat<'c>(dialogue: &'c Dialogue, messages: &'c [Value]) -> Chat<'c> {
    Chat { messages, tools: dialogue.tools.as_deref(), variables: dialogue.variables.clone(), ..Chat::default() }
}

/// Alpaca's prompt (Taori et al. 2023), for models without a chat template.
fn alpaca(instruction: &str, input: &str) -> String {
    if input.trim().is_empty() {
        return format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the \
             request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
        );
    }
    format!(
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
         response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n\
         ### Response:\n"
    )
}

/// The bytes of each token, from the end of the one before, since some tokenizers leave spaces out of their offsets; tokens
/// that share a character have it all.
fn gapless(made: &Detailed, length: usize) -> Vec<Range<usize>> {
    let mut before = 0;
    let each = made.texts.iter().zip(&made.offsets).map(|(text, offsets)| {
        if text.is_none() {
            return before..before;
        }
        let start = offsets.start.min(before);
        before = offsets.end.clamp(before, length);
        start..before
    });
    let mut bytes: Vec<Range<usize>> = each.collect();
    // White space at the end belongs to the last token of the text.
    if let Some(last) = made.texts.iter().rposition(Option::is_some) {
        bytes[last].end = length;
    }
    bytes
}

#[cfg(test)]
mod tests;
