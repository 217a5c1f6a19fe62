//! What `generate` and `explain decode` are asked: a model, perhaps with one that guesses, a prompt, and how to decode.

use std::io::{self, Read};

use anyhow::Context;
use phyla::device::Choice;
use phyla::{Session, adapt};
use phyla_generate::{ForcedWords, GenerationConfig};

use super::error::usage;
use super::model::{self, AdapterArgs, Dtype, QuantizeArgs};
use super::ngrams::NgramArgs;
use super::sampling::Sampling;

#[derive(clap::Args)]
pub struct Asking {
    /// A folder, or a hub id such as org/name
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub model: String,

    /// The prompt; `@file` reads a file, `-` standard input
    #[arg(long, value_name = "TEXT|@FILE|-", required_unless_present_any = ["ids", "input"])]
    prompt: Option<String>,

    /// The prompt as token ids
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', conflicts_with = "prompt")]
    ids: Option<Vec<u32>>,

    /// A smaller model, which guesses what follows: the same text, sooner. Best of the same tokenizer
    #[arg(long, value_name = "DIR|HUB_ID")]
    assistant_model: Option<String>,

    #[command(flatten)]
    pub ngrams: NgramArgs,

    /// Write this text somewhere in the answer, as a search with --num-beams can; a space before it counts; repeatable
    #[arg(long, value_name = "TEXT")]
    force_words: Vec<String>,

    /// Contrastive decoding: a smaller model of the same tokenizer, whose opinion counts against the model's
    #[arg(long, value_name = "DIR|HUB_ID")]
    amateur_model: Option<String>,

    /// What --guidance-scale guides away from; `@file` reads a file [default: the prompt's last token]
    #[arg(long, value_name = "TEXT|@FILE")]
    negative_prompt: Option<String>,

    /// The negative prompt as token ids
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', conflicts_with = "negative_prompt")]
    negative_ids: Option<Vec<u32>>,

    /// What the decoder of an encoder-decoder reads before it writes
    #[arg(long, value_name = "1,2,3", value_delimiter = ',')]
    decoder_ids: Option<Vec<u32>>,

    #[command(flatten)]
    pub sampling: Sampling,

    /// Type of the weights
    #[arg(long, value_enum, default_value = "auto")]
    dtype: Dtype,

    #[command(flatten)]
    bits: QuantizeArgs,

    #[command(flatten)]
    adapters: AdapterArgs,

    /// auto, cpu, cuda:N or metal
    #[arg(long, default_value = "auto")]
    device: Choice,
}

/// What was asked, ready to be answered.
pub struct Asked {
    pub session: Session,
    /// Ids of the prompt.
    pub prompt: Vec<u32>,
    /// The user's settings, which go before the model's.
    pub settings: GenerationConfig,
}

impl Asking {
    /// Reads the prompt and the settings, and opens the models.
    pub fn open(&self) -> anyhow::Result<Asked> {
        // Before the model, which takes longer to load than a missing file takes to be missed.
        let text = self.prompt.as_deref().map(read).transpose()?;
        let (session, settings) = self.session()?;
        let prompt = self.ids(&session, self.ids.as_ref(), text.as_deref())?;
        Ok(Asked { session, prompt, settings })
    }

    /// The models and the settings, whatever the prompts are.
    pub fn session(&self) -> anyhow::Result<(Session, GenerationConfig)> {
        let negative = self.negative_prompt.as_deref().map(read).transpose()?;
        let mut settings = self.sampling.config()?;
        let open = |model: &str| model::session(model, self.device, self.dtype, self.bits);
        let session = match &self.assistant_model {
            Some(assistant) => open(&self.model)?.assisted_by(open(assistant)?),
            None => self.ngrams.assist(open(&self.model)?)?,
        };
        let adapters = adapt(&session.model, &self.adapters.adapters)?;
        let session = Session { adapters, ..session };
        let mut session = match &self.amateur_model {
            Some(amateur) => session.against(open(amateur)?)?,
            None => session,
        };
        self.force(&session, &mut settings)?;
        if self.negative_ids.is_some() || negative.is_some() {
            session.negative = vec![self.ids(&session, self.negative_ids.as_ref(), negative.as_deref())?];
        }
        session.decoder_ids = self.decoder_ids.clone().unwrap_or_default();
        Ok((session, settings))
    }

    /// Ids as they are given, or those of a text.
    fn ids(&self, session: &Session, ids: Option<&Vec<u32>>, text: Option<&str>) -> anyhow::Result<Vec<u32>> {
        match (ids, text, &session.tokenizer) {
            (Some(ids), ..) => Ok(ids.clone()),
            (None, Some(text), Some(tokenizer)) => Ok(tokenizer.encode(text, true)?),
            _ => Err(usage(format!("`{}` has no tokenizer", self.model), "give the prompt as --ids 1,2,3")),
        }
    }

    /// Adds the words that are given as text to those that are given as ids.
    fn force(&self, session: &Session, settings: &mut GenerationConfig) -> anyhow::Result<()> {
        for text in &self.force_words {
            let Some(tokenizer) = &session.tokenizer else {
                return Err(usage(
                    format!("`{}` has no tokenizer", self.model),
                    "give the words as --force-words-ids [[1,2]]",
                ));
            };
            settings.force_words_ids.get_or_insert_default().push(ForcedWords(vec![tokenizer.encode(text, false)?]));
        }
        Ok(())
    }
}

/// A text as it is given: itself, of a file, or of standard input.
pub fn read(prompt: &str) -> anyhow::Result<String> {
    let bytes = match (prompt, prompt.strip_prefix('@')) {
        ("-", _) => {
            let mut bytes = vec![];
            io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
            bytes
        }
        (_, Some(path)) => std::fs::read(path)
            .map_err(|error| usage(format!("cannot read the prompt from `{path}`: {error}"), "give a text file"))?,
        (text, None) => return Ok(text.to_owned()),
    };
    let end = |error: std::string::FromUtf8Error| {
        let at = error.utf8_error().valid_up_to();
        usage(format!("the prompt is not UTF-8 text: byte {at} is not valid"), "give text")
    };
    let text = String::from_utf8(bytes).map_err(end)?;
    // A file's last line end is no part of what it says.
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}
