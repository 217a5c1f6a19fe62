//! `phyla tokenize`: what a tokenizer makes of a text, or of a conversation through its chat template.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use phyla_data::template::Chat;
use phyla_data::tokenizer::{Detailed, Tokenizer};
use serde_json::{Value, json};

use super::error::usage;
use super::output;

/// Show how a tokenizer cuts a text: ids, pieces, byte offsets
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla tokenize --model models/small \"One day, a little fox\"
  phyla tokenize --model models/small --ids < story.txt
  phyla tokenize --model models/instruct --chat messages.json --json

messages.json is a list such as [{\"role\": \"user\", \"content\": \"Hello\"}]; `-` reads it from standard
input. A conversation ends with the prompt for the model's answer unless its last message is one.")]
pub struct Args {
    /// A folder, a `tokenizer.json`, or a hub id such as org/name
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,

    /// The text; standard input when absent
    #[arg(conflicts_with = "chat")]
    text: Option<String>,

    /// Render this JSON list of messages through the chat template
    #[arg(long, value_name = "FILE")]
    chat: Option<PathBuf>,

    /// Leave out the tokens that the tokenizer adds around a text
    #[arg(long, conflicts_with = "chat")]
    no_special: bool,

    /// Print the ids alone, on one line
    #[arg(long, conflicts_with = "json")]
    ids: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let tokenizer = open(&args.model)?;
    let (text, add_special) = match &args.chat {
        // The template writes every special token itself.
        Some(path) => (conversation(&tokenizer, path)?, false),
        None => (plain(args.text.as_deref())?, !args.no_special),
    };
    let tokens = tokenizer.encode_detailed(&text, add_special)?;
    tracing::debug!("{} bytes, {} tokens", text.len(), tokens.ids.len());
    if args.json {
        let offsets: Vec<_> = tokens.offsets.iter().map(|at| [at.start, at.end]).collect();
        let (ids, pieces) = (&tokens.ids, &tokens.pieces);
        return output::json(&json!({ "text": text, "ids": ids, "pieces": pieces, "offsets": offsets }));
    }
    output::stdout(|out| if args.ids { ids(out, &tokens) } else { table(out, &tokens) })
}

/// A file is taken as it is: the folder around it need not hold a model.
pub fn open(reference: &str) -> anyhow::Result<Tokenizer> {
    let path = Path::new(reference);
    let path = if path.exists() { path.to_owned() } else { super::model::folder(reference)? };
    Ok(Tokenizer::load(path)?)
}

fn plain(text: Option<&str>) -> anyhow::Result<String> {
    match text {
        Some(text) => Ok(text.to_owned()),
        None => utf8(stdin()?, "standard input"),
    }
}

/// The text of a conversation as the template renders it.
fn conversation(tokenizer: &Tokenizer, path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let bytes = if path == Path::new("-") {
        stdin()?
    } else {
        std::fs::read(path)
            .map_err(|error| usage(format!("cannot read `{name}`: {error}"), "give a JSON list of messages"))?
    };
    let messages: Vec<Value> = serde_json::from_slice(&bytes).map_err(|error| {
        usage(
            format!("`{name}` is not a JSON list of messages: {error}"),
            "expected, for instance, [{\"role\": \"user\", \"content\": \"Hello\"}]",
        )
    })?;
    let answered = messages.last().is_some_and(|last| last["role"] == "assistant");
    let chat = Chat { messages: &messages, add_generation_prompt: !answered, ..Chat::default() };
    Ok(tokenizer.templates().render(None, &chat)?.text)
}

fn stdin() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(bytes)
}

fn utf8(bytes: Vec<u8>, name: &str) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        usage(
            format!("{name} is not UTF-8 text: byte {at} fits no character"),
            "convert it, for instance with `iconv -t UTF-8`",
        )
    })
}

fn ids(out: &mut dyn Write, tokens: &Detailed) -> io::Result<()> {
    for (i, id) in tokens.ids.iter().enumerate() {
        let gap = if i == 0 { "" } else { " " };
        write!(out, "{gap}{id}")?;
    }
    writeln!(out)
}

/// One token a line: id, bytes of the text it covers, spelling. The spelling last, since its width is anyone's guess.
fn table(out: &mut dyn Write, tokens: &Detailed) -> io::Result<()> {
    for ((id, piece), at) in tokens.ids.iter().zip(&tokens.pieces).zip(&tokens.offsets) {
        let bytes = format!("{}..{}", at.start, at.end);
        writeln!(out, "{id:>7}  {bytes:>12}  {}", visible(piece))?;
    }
    Ok(())
}

/// Control characters escaped: a spelling may hold line breaks, which would break the table.
fn visible(piece: &str) -> String {
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    piece.chars().map(show).collect()
}
