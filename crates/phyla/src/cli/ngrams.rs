//! The options of an assistant that is no model: counts of what has followed what, from files.

use std::path::PathBuf;

use phyla::{Assistant, Session};
use phyla_generate::Ngrams;

use super::error::usage;

#[derive(clap::Args, Clone, Debug, Default)]
pub struct NgramArgs {
    /// A memory of runs of tokens, from which what follows is guessed: the same text, sooner where texts are alike. It is made
    /// where there is none, and learns from every answer
    #[arg(long, value_name = "FILE", conflicts_with = "assistant_model")]
    ngram_cache: Option<PathBuf>,

    /// A text whose runs of tokens are guessed, too; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "assistant_model")]
    ngram_text: Vec<PathBuf>,
}

impl NgramArgs {
    /// Lets the counts guess, if any are asked for.
    pub fn assist(&self, session: Session) -> anyhow::Result<Session> {
        if self.ngram_cache.is_none() && self.ngram_text.is_empty() {
            return Ok(session);
        }
        let vocab = session.model.arch.vocab();
        let ngrams = match self.ngram_cache.as_ref().filter(|path| path.exists()) {
            Some(path) => Ngrams::load(path, vocab)?,
            None => Ngrams::new(vocab),
        };
        for path in &self.ngram_text {
            let read = std::fs::read_to_string(path);
            let text =
                read.map_err(|error| usage(format!("cannot read `{}`: {error}", path.display()), "give a text"))?;
            let Some(tokenizer) = &session.tokenizer else {
                return Err(usage(
                    "--ngram-text: this model has no tokenizer",
                    "learn from answers with --ngram-cache",
                ));
            };
            ngrams.learn(&tokenizer.encode(&text, false)?);
        }
        tracing::debug!("{} runs of tokens are known", ngrams.len());
        Ok(Session { assistant: Some(Assistant::Ngrams(ngrams)), ..session })
    }

    /// Keeps what has been learnt.
    pub fn keep(&self, session: &Session) -> anyhow::Result<()> {
        if let (Some(path), Some(Assistant::Ngrams(ngrams))) = (&self.ngram_cache, &session.assistant) {
            ngrams.save(path)?;
        }
        Ok(())
    }
}
