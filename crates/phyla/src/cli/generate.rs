//! `phyla generate`: continues a prompt, word by word as it comes, or many at once.

mod many;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use phyla::Session;
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{Event, Generation, PrefixCache, Sequence};
use serde_json::{Map, Value, json};

use super::asking::{Asked, Asking};
use super::constraint;
use super::engine::EngineArgs;
use super::error::usage;
use super::output;
use super::outputs;

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
  phyla generate --model models/small --prompt @letter.txt --json-schema letter.schema.json
  echo \"Once upon a time\" | phyla generate --model models/small --prompt - --json
  phyla generate --model models/small --input prompts.jsonl --output answers.jsonl --max-new-tokens 200
  phyla generate --model models/small --adapter de=runs/de/model --adapter en=runs/en/model --input prompts.jsonl

Without options the model's own generation_config.json decides. Text goes to standard output as it is
written; --json prints everything at the end.

--input answers a file of prompts, many at once, each as if it were alone: a JSON object a line, with \"prompt\"
or \"ids\", perhaps an \"id\", a \"seed\" and an \"adapter\" (the name of one, a list, or null for none; all without it), and
any setting of its own (\"temperature\": 0.8); or, where the file is not called .jsonl, a prompt a line. A JSON line comes
out for each, in order: {\"id\", \"sequences\": [{\"text\", \"ids\", \"finish_reason\"}]}, or {\"error\"}; the exit status is 2 if there was one.")]
pub struct Args {
    #[command(flatten)]
    asking: Asking,

    /// A file of prompts, a JSON object or a text a line; `-` reads standard input
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["prompt", "ids", "json", "prompt_cache"])]
    input: Option<PathBuf>,

    /// Where the answers to --input go [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    engine: EngineArgs,

    /// Keep what was read of the prompt in this file: a later prompt that begins alike reads only what differs
    #[arg(long, value_name = "FILE")]
    prompt_cache: Option<PathBuf>,

    /// Keep the answer there, too
    #[arg(long, requires = "prompt_cache")]
    prompt_cache_all: bool,

    /// Use that file as it is, and do not write it
    #[arg(long, requires = "prompt_cache", conflicts_with = "prompt_cache_all")]
    prompt_cache_ro: bool,

    /// Print JSON at the end instead of text as it comes
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether the file of prompts is called one of JSON lines, and holds nothing else.
    fn is_json_lines(&self) -> bool {
        let name = self.input.as_deref().map(|path| path.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        name.ends_with(".jsonl") || name.ends_with(".ndjson")
    }
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    if let Some(input) = &args.input {
        return many::run(args, input, quiet);
    }
    let output = args.output.is_some().then_some("--output");
    if let Some(option) = args.engine.given().or(output) {
        return Err(usage(format!("{option} is for many prompts"), "give these with --input, or leave it out"));
    }
    let Asked { session, prompt, settings: user } = args.asking.open()?;
    if !args.json {
        outputs::warn_of_unprinted(&user);
    }
    let session = match &args.prompt_cache {
        Some(file) => remembering(args, file, session)?,
        None => session,
    };
    let known = session.prefixes.as_ref().map(PrefixCache::latest);
    let streams = !args.json
        && session.tokenizer.is_some()
        && user.num_return_sequences.or(session.config.num_return_sequences).unwrap_or(1) == 1;
    let mut failed = None;
    let generation =
        session.generate_ids(std::slice::from_ref(&prompt), user, args.asking.sampling.seed, &mut |event| {
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
    args.asking.ngrams.keep(&session)?;
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
    constraint::warn(&generation.sequences);
    let timings = &generation.timings;
    if timings.masks > 0 {
        let each = timings.per_mask().as_secs_f64() * 1e6;
        tracing::debug!("the constraint was asked {} times what may follow, {each:.1} us each", timings.masks);
    }
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

/// A sequence as JSON.
fn sequence(s: &Sequence, tokenizer: Option<&Tokenizer>) -> Map<String, Value> {
    let mut fields = outputs::fields(s, tokenizer);
    fields.insert("text".into(), json!(s.text));
    fields.insert("ids".into(), json!(s.ids));
    fields.insert("finish_reason".into(), json!(s.finish_reason.as_str()));
    if let Some(complete) = s.complete {
        fields.insert("complete".into(), complete.into());
    }
    fields
}

fn as_json(session: &Session, generation: &Generation) -> anyhow::Result<()> {
    let sequences: Vec<_> = generation.sequences.iter().map(|s| sequence(s, session.tokenizer.as_ref())).collect();
    let timings = &generation.timings;
    output::json(&json!({
        "sequences": sequences,
        "prompt_ids": generation.prompts[0],
        "timings": {
            "load": session.load.as_secs_f64(),
            "first_token": timings.first_token.as_secs_f64(),
            "per_token": timings.per_token().as_secs_f64(),
            "masks": timings.masks,
            "per_mask": timings.per_mask().as_secs_f64(),
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
