//! `phyla generate`: continues a prompt, word by word as it comes.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use phyla::Session;
use phyla::device::Choice;
use phyla_generate::{Event, ForcedWords, Generation, GenerationConfig, PrefixCache};
use serde_json::json;

use super::error::usage;
use super::model::{Dtype, QuantizeArgs};
use super::ngrams::NgramArgs;
use super::output;
use super::outputs;
use super::sampling::Sampling;

/// Continue a prompt
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla generate --model runs/quickstart/model --prompt \"One day, a little fox\"
  phyla generate --model models/small --prompt @letter.txt --temperature 0.8 --top-p 0.95 --seed 3
  phyla generate --model models/small --prompt @code.rs --prompt-lookup-num-tokens 7
  phyla generate --model models/small --prompt @code.rs --ngram-cache code.ngrams --ngram-text lib.rs
  phyla generate --model models/small --prompt \"The film was\" --guidance-scale 1.5 --negative-prompt \"boring\"
  phyla generate --model models/large --amateur-model models/small --prompt \"Once upon\"
  phyla generate --model models/small --prompt \"A fox\" --num-beams 4 --force-words \" river\"
  echo \"Once upon a time\" | phyla generate --model models/small --prompt - --json

Without options the model's own generation_config.json decides. Text goes to standard output as it is
written; --json prints everything at the end.")]
pub struct Args {
    /// A folder, or a hub id such as org/name
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,

    /// The prompt; `@file` reads a file, `-` standard input
    #[arg(long, value_name = "TEXT|@FILE|-", required_unless_present = "ids")]
    prompt: Option<String>,

    /// The prompt as token ids
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', conflicts_with = "prompt")]
    ids: Option<Vec<u32>>,

    /// A smaller model, which guesses what follows: the same text, sooner. Best of the same tokenizer
    #[arg(long, value_name = "DIR|HUB_ID")]
    assistant_model: Option<String>,

    /// Keep what was read of the prompt in this file: a later prompt that begins alike reads only what differs
    #[arg(long, value_name = "FILE")]
    prompt_cache: Option<PathBuf>,

    /// Keep the answer there, too
    #[arg(long, requires = "prompt_cache")]
    prompt_cache_all: bool,

    /// Use that file as it is, and do not write it
    #[arg(long, requires = "prompt_cache", conflicts_with = "prompt_cache_all")]
    prompt_cache_ro: bool,

    /// Write this text somewhere in the answer, as a search with --num-beams can; a space before it counts; repeatable
    #[arg(long, value_name = "TEXT")]
    force_words: Vec<String>,

    #[command(flatten)]
    ngrams: NgramArgs,

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
    sampling: Sampling,

    /// Type of the weights
    #[arg(long, value_enum, default_value = "auto")]
    dtype: Dtype,

    #[command(flatten)]
    bits: QuantizeArgs,

    /// auto, cpu, cuda:N or metal
    #[arg(long, default_value = "auto")]
    device: Choice,

    /// Print JSON at the end instead of text as it comes
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    // Before the model, which takes longer to load than a missing file takes to be missed.
    let text = args.prompt.as_deref().map(read).transpose()?;
    let negative = args.negative_prompt.as_deref().map(read).transpose()?;
    let mut user = args.sampling.config()?;
    if !args.json {
        outputs::warn_of_unprinted(&user);
    }
    let open = |model: &str| super::model::session(model, args.device, args.dtype, args.bits);
    let session = match &args.assistant_model {
        Some(assistant) => open(&args.model)?.assisted_by(open(assistant)?),
        None => args.ngrams.assist(open(&args.model)?)?,
    };
    force(args, &session, &mut user)?;
    let session = match &args.amateur_model {
        Some(amateur) => session.against(open(amateur)?)?,
        None => session,
    };
    let mut session = match &args.prompt_cache {
        Some(file) => remembering(args, file, session)?,
        None => session,
    };
    let prompt = ids(args, &session, args.ids.as_ref(), text.as_deref())?;
    if args.negative_ids.is_some() || negative.is_some() {
        session.negative = vec![ids(args, &session, args.negative_ids.as_ref(), negative.as_deref())?];
    }
    session.decoder_ids = args.decoder_ids.clone().unwrap_or_default();
    let known = session.prefixes.as_ref().map(PrefixCache::latest);
    let streams = !args.json
        && session.tokenizer.is_some()
        && user.num_return_sequences.or(session.config.num_return_sequences).unwrap_or(1) == 1;
    let mut failed = None;
    let generation = session.generate_ids(std::slice::from_ref(&prompt), user, args.sampling.seed, &mut |event| {
        if let (true, Event::Token { text, .. } | Event::Finished { text, .. }) = (streams, event) {
            let mut out = io::stdout().lock();
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                failed.get_or_insert(error);
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error).context("cannot write to standard output");
    }
    args.ngrams.keep(&session)?;
    if let (Some(file), Some(prefixes), Some(known)) = (&args.prompt_cache, &session.prefixes, known) {
        tracing::debug!("{} of {} ids of the prompt were read", generation.timings.read, prompt.len());
        if !args.prompt_cache_ro && prefixes.latest() != known {
            prefixes.save(file, &session.model)?;
        }
    }
    let silent: usize = generation.sequences.iter().map(|sequence| sequence.silent).sum();
    if silent > 0 {
        tracing::warn!("{silent} of the ids that were written have no token in this tokenizer, and no text");
    }
    let unmet = generation.sequences.iter().filter(|sequence| sequence.forced_words_met == Some(false)).count();
    if unmet > 0 {
        tracing::warn!("{unmet} of the answers came to the limit of tokens without all words that were to be written");
    }
    let timings = &generation.timings;
    if timings.drafted > 0 {
        let (right, passes) = (timings.accepted as f64 / timings.drafted as f64, timings.steps);
        tracing::debug!(
            "{} of {} guesses were right ({:.0} %), {passes} passes",
            timings.accepted,
            timings.drafted,
            100. * right
        );
    }
    if args.json {
        return as_json(&session, &generation);
    }
    if streams { output::stdout(|out| writeln!(out)) } else { as_text(&generation) }
}

/// With what the file knows of prompts.
fn remembering(args: &Args, file: &Path, session: Session) -> anyhow::Result<Session> {
    let prefixes = PrefixCache::new(usize::MAX);
    let prefixes = if args.prompt_cache_all { prefixes.with_answers() } else { prefixes };
    if !prefixes.load(file, &session.model)? && args.prompt_cache_ro {
        return Err(usage(
            format!("there is no prompt cache `{}`", file.display()),
            "leave --prompt-cache-ro away, and it is written",
        ));
    }
    Ok(session.remembering(prefixes))
}

/// A text as it is given: itself, of a file, or of standard input.
pub(super) fn read(prompt: &str) -> anyhow::Result<String> {
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

/// Ids as they are given, or those of a text.
fn ids(args: &Args, session: &Session, ids: Option<&Vec<u32>>, text: Option<&str>) -> anyhow::Result<Vec<u32>> {
    match (ids, text, &session.tokenizer) {
        (Some(ids), ..) => Ok(ids.clone()),
        (None, Some(text), Some(tokenizer)) => Ok(tokenizer.encode(text, true)?),
        _ => Err(usage(format!("`{}` has no tokenizer", args.model), "give the prompt as --ids 1,2,3")),
    }
}

/// Adds the words that are given as text to those that are given as ids.
fn force(args: &Args, session: &Session, user: &mut GenerationConfig) -> anyhow::Result<()> {
    for text in &args.force_words {
        let Some(tokenizer) = &session.tokenizer else {
            return Err(usage(
                format!("`{}` has no tokenizer", args.model),
                "give the words as --force-words-ids [[1,2]]",
            ));
        };
        user.force_words_ids.get_or_insert_default().push(ForcedWords(vec![tokenizer.encode(text, false)?]));
    }
    Ok(())
}

fn as_json(session: &Session, generation: &Generation) -> anyhow::Result<()> {
    let sequences: Vec<_> = (generation.sequences.iter())
        .map(|s| {
            let mut fields = outputs::fields(s, session.tokenizer.as_ref());
            fields.insert("text".into(), json!(s.text));
            fields.insert("ids".into(), json!(s.ids));
            fields.insert("finish_reason".into(), json!(s.finish_reason.as_str()));
            fields
        })
        .collect();
    let timings = &generation.timings;
    output::json(&json!({
        "sequences": sequences,
        "prompt_ids": generation.prompts[0],
        "timings": {
            "load": session.load.as_secs_f64(),
            "first_token": timings.first_token.as_secs_f64(),
            "per_token": timings.per_token().as_secs_f64(),
        },
        "prompt_ids_read": timings.read,
        "speculation": { "drafted": timings.drafted, "accepted": timings.accepted, "passes": timings.steps },
        "copied_bytes": timings.copied,
    }))
}

/// All answers, one after the other; in ids where there is no tokenizer.
fn as_text(generation: &Generation) -> anyhow::Result<()> {
    output::stdout(|out| {
        for (number, sequence) in generation.sequences.iter().enumerate() {
            if generation.sequences.len() > 1 {
                writeln!(out, "[{}]", number + 1)?;
            }
            match &sequence.text {
                Some(text) => writeln!(out, "{text}")?,
                None => {
                    let ids: Vec<String> = sequence.ids.iter().map(u32::to_string).collect();
                    writeln!(out, "{}", ids.join(","))?;
                }
            }
        }
        Ok(())
    })
}
