//! Prompts in token ids, for a model that answers them itself: with the text of each, and what its row says besides.

use serde_json::{Map, Value};

use super::loader::Examples;
use super::records::{Asked, Prompt};
use super::rows::{Digest, TokenRows, in_parallel, note};
use crate::batch::{Batch, Labels};
use crate::error::{Error, Result};
use crate::template::Chat;
use crate::tokenizer::Tokenizer;

/// Prompts as a model reads them.
#[derive(Debug)]
pub struct Prompts {
    rows: TokenRows,
    sources: Vec<Source>,
    notes: Vec<String>,
}

/// What one prompt was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// What is asked.
    pub asked: Asked,
    /// The text as the model reads it.
    pub text: String,
    /// What the row says besides.
    pub columns: Map<String, Value>,
}

impl Prompts {
    /// Encodes `records`; conversations by the tokenizer's chat template, up to where the assistant begins. Prompts of more
    /// than `max_len` tokens are left out, and told of: cut ones would ask for something else.
    ///
    /// # Errors
    /// A wrong record, a conversation without a template, and a prompt without a token.
    pub fn new(records: impl Iterator<Item = Result<Prompt>>, tokenizer: &Tokenizer, max_len: usize) -> Result<Self> {
        let mut made = Self { rows: TokenRows::new(tokenizer), sources: vec![], notes: vec![] };
        let work = |prompt: Prompt| {
            let origin = prompt.origin.clone();
            encode(prompt, tokenizer).map_err(|error| match error {
                error @ (Error::Tokenizer(_) | Error::Record { .. }) => error,
                error => origin.error(error.to_string()),
            })
        };
        let (mut count, mut left_out) = (0, 0);
        in_parallel(records, work, |(ids, source)| {
            count += 1;
            if ids.len() > max_len {
                left_out += 1;
                return Ok(());
            }
            made.rows.push(&ids, &[]);
            made.sources.push(source);
            Ok(())
        })?;
        made.notes.extend(note(left_out, count, &format!("were left out: they have more than {max_len} tokens")));
        Ok(made)
    }

    /// The tokens of one prompt.
    #[must_use]
    pub fn ids(&self, index: u32) -> &[u32] {
        self.rows.ids.get(index as usize)
    }

    /// What it was made of.
    #[must_use]
    pub fn source(&self, index: u32) -> &Source {
        &self.sources[index as usize]
    }

    /// The token that fills rows up.
    #[must_use]
    pub fn pad(&self) -> u32 {
        self.rows.pad
    }
}

fn encode(prompt: Prompt, tokenizer: &Tokenizer) -> Result<(Vec<u32>, Source)> {
    let Prompt { asked, tools, columns, .. } = prompt;
    let (text, ids) = match &asked {
        Asked::Text(text) => {
            let made = tokenizer.encode_detailed(text, true)?;
            // What a tokenizer puts behind a text ends it, and this one is to go on.
            let behind = made.texts.iter().rev().take_while(|text| text.is_none()).count();
            let mut ids = made.ids;
            if behind < ids.len() {
                ids.truncate(ids.len() - behind);
            }
            (text.clone(), ids)
        }
        Asked::Messages(messages) => {
            let templates = tokenizer.templates();
            if templates.is_empty() {
                let message = "a conversation needs a chat template, and the tokenizer has none: set `chat_template` to a \
                               file or to one of the templates that come with the program";
                return Err(Error::Settings(message.into()));
            }
            let chat = Chat { messages, tools: tools.as_deref(), add_generation_prompt: true, ..Chat::default() };
            let text = templates.render(None, &chat)?.text;
            let ids = tokenizer.encode(&text, false)?;
            (text, ids)
        }
    };
    let ids = match (ids.is_empty(), tokenizer.bos().or(tokenizer.eos())) {
        (false, _) => ids,
        // What every document of a training text follows.
        (true, Some(start)) => vec![start],
        (true, None) => return Err(Error::Settings("a prompt without a token, and none that begins texts".into())),
    };
    Ok((ids, Source { asked, text, columns }))
}

impl Examples for Prompts {
    fn count(&self) -> usize {
        self.sources.len()
    }

    fn length(&self, index: usize) -> usize {
        self.rows.ids.length(index)
    }

    fn collate(&self, indices: &[u32]) -> Batch {
        let batch = self.rows.batch(indices.iter().map(|&index| index as usize));
        Batch { labels: Labels::Prompts(indices.to_vec()), tokens: indices.len(), ..batch }
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        self.rows.digest(&mut digest);
        for source in &self.sources {
            let columns = serde_json::to_vec(&source.columns).unwrap_or_default();
            digest.all(columns.iter().map(|&byte| u64::from(byte)).collect::<Vec<_>>().into_iter());
        }
        digest.value()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
