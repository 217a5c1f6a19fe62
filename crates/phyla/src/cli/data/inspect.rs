//! `phyla data inspect`: examples of supervised fine-tuning as the model will read them, and which tokens it will learn.

mod page;
mod terminal;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context;
use phyla_data::supervised::dialogue::{Encoded, Encoder, LossOn};
use phyla_data::supervised::records::Dialogue;
use phyla_data::supervised::sft::{Outcome, SftSettings, Statistics, Truncate, cut, pack};
use phyla_data::supervised::table::{Column, Table, TableSettings};
use phyla_data::tokenizer::Tokenizer;
use phyla_train::Lessons;
use phyla_train::recipe::Recipe;
use serde::Serialize;

use crate::cli::error::usage;
use crate::cli::{output, shared, tokenize};

/// Show what is learned of each example, and what the data amount to
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla data inspect chats.jsonl --model models/instruct
  phyla data inspect alpaca.json --model models/small --chat-template alpaca --limit 10
  phyla data inspect --recipe recipes/sft.toml --html sft.html
  phyla data inspect --recipe recipes/sft.toml --part validation --limit 20
  phyla data inspect pairs.parquet --model models/small --column prompt=question --column completion=answer --json

Learned text is coloured, or stands in ⟦ ⟧ where standard output is not a terminal. Statistics are of the whole
data, and of data of which nothing would be learned the status is 2. Rows are conversations (`messages` or
`conversations`), prompts with completions, instructions with outputs, or texts.")]
pub struct Args {
    /// JSONL, JSON or Parquet; of a recipe its own data when absent
    #[arg(value_name = "FILE", required_unless_present = "recipe")]
    file: Option<PathBuf>,

    /// Take tokenizer, data and settings from this recipe; the options below go before it
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,

    /// Override a key of the recipe; repeatable, the last one wins
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "recipe")]
    overrides: Vec<String>,

    /// Which of a recipe's data
    #[arg(
        long,
        value_enum,
        value_name = "PART",
        default_value = "train",
        conflicts_with = "file",
        requires = "recipe"
    )]
    part: Part,

    /// Whose tokenizer and chat template: a folder, a `tokenizer.json`, or a hub id such as org/name
    #[arg(long, alias = "tokenizer", value_name = "DIR|HUB_ID", required_unless_present = "recipe")]
    model: Option<String>,

    /// A file, one of the tokenizer's templates by name, chatml or alpaca
    #[arg(long, value_name = "FILE|NAME")]
    chat_template: Option<String>,

    /// Which tokens are learned [default: completions, the assistant's turns, texts as a whole]
    #[arg(long, value_enum)]
    loss_on: Option<Loss>,

    /// Tokens of a row at most [default: 1024]
    #[arg(long, value_name = "N", value_parser = shared::count())]
    max_len: Option<usize>,

    /// What is cut of longer examples [default: end]
    #[arg(long, value_enum)]
    truncate: Option<Cut>,

    /// Put several examples into a row
    #[arg(long)]
    packing: bool,

    /// Which column plays which role (prompt, completion, messages, text …); repeatable
    #[arg(long = "column", value_name = "ROLE=COLUMN")]
    columns: Vec<String>,

    /// Examples to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    limit: usize,

    /// Show the tokens' ids, too
    #[arg(long)]
    ids: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Write a page of HTML that needs nothing beside it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Which tokens are learned.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Loss {
    /// What follows the prompt; of a conversation its last turn
    Completion,
    /// What the assistant wrote, with the ends of its turns
    Assistant,
    /// Everything
    All,
}

/// Data of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What is learned from
    Train,
    /// What is held out
    Validation,
}

/// What is cut.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Cut {
    /// Their end
    End,
    /// Their beginning
    Start,
    /// Nothing: they are left out
    Drop,
}

/// Everything that is found out.
#[derive(Debug, Serialize)]
struct Inspection {
    statistics: Statistics,
    /// Tokens of the longest example, before cutting.
    longest: usize,
    /// Examples by their tokens before cutting: up to 16, 32, 64 …
    lengths: BTreeMap<usize, usize>,
    examples: Vec<Example>,
    /// With packing: rows, and those that examples shown are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    packed: Option<Packed>,
    #[serde(skip)]
    notes: Vec<String>,
}

/// One example.
#[derive(Debug, Serialize)]
struct Example {
    /// From 1, in the order of the data.
    number: usize,
    outcome: Outcome,
    ids: Vec<u32>,
    learned: Vec<bool>,
    /// The text in runs of tokens that are learned, or not.
    runs: Vec<Run>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    doubts: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Run {
    learned: bool,
    text: String,
}

#[derive(Debug, Serialize)]
struct Packed {
    rows: usize,
    /// Share of the rows that is no filling.
    full: f64,
    shown: Vec<Row>,
}

/// The examples of a row, by their numbers, and where each begins.
#[derive(Debug, Serialize)]
struct Row {
    number: usize,
    examples: Vec<usize>,
    begins: Vec<usize>,
    tokens: usize,
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let mut note = |text: &str| {
        if !quiet {
            eprintln!("{text}");
        }
    };
    let recipe = args.recipe.as_ref().map(|path| Recipe::read(path, &args.overrides)).transpose()?;
    let (recipes, lessons) = recipe.as_ref().map(|recipe| Lessons::open(recipe, &mut note)).transpose()?.unzip();
    let own = args.model.as_deref().map(tokenize::open).transpose()?;
    let Some(tokenizer) = own.or(recipes) else {
        return Err(usage("no tokenizer", "give --model or --recipe"));
    };
    let tokenizer = templated(tokenizer, args.chat_template.as_deref())?;
    let settings = settings(args, lessons.as_ref().map(|lessons| &lessons.settings));
    let table = args.file.as_ref().map(|path| columns(args, path)).transpose()?;
    let table = table.map(Table::new).transpose()?;
    let inspection = match (&table, &lessons) {
        (Some(table), _) => inspect(table.records(), &tokenizer, &settings, args.limit)?,
        (None, Some(lessons)) => {
            let dialogues = match args.part {
                Part::Train => Some(lessons.dialogues()),
                Part::Validation => lessons.held_out(),
            };
            let Some(dialogues) = dialogues else {
                return Err(usage(
                    "--part validation: the recipe holds nothing out",
                    "set `data.validation`, `data.validation_fraction` or `data.validation_items`",
                ));
            };
            inspect(dialogues, &tokenizer, &settings, args.limit)?
        }
        (None, None) => return Err(usage("no data", "give a FILE or --recipe")),
    };
    if let Some(path) = &args.html {
        std::fs::write(path, page::html(&inspection)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        output::json(&serde_json::to_value(&inspection)?)?;
    } else {
        let colour = std::io::stdout().is_terminal();
        output::stdout(|out| terminal::tell(out, &inspection, args.ids, colour))?;
    }
    Ok(inspection.statistics.check(&settings)?)
}

fn templated(tokenizer: Tokenizer, name: Option<&str>) -> anyhow::Result<Tokenizer> {
    let Some(name) = name else { return Ok(tokenizer) };
    let source = tokenizer.templates().find(name)?;
    Ok(tokenizer.with_chat_template(&source))
}

fn settings(args: &Args, recipe: Option<&SftSettings>) -> SftSettings {
    let given = recipe.cloned().unwrap_or_default();
    let loss_on = args.loss_on.map(|loss| match loss {
        Loss::Completion => LossOn::Completion,
        Loss::Assistant => LossOn::Assistant,
        Loss::All => LossOn::All,
    });
    let truncate = args.truncate.map(|cut| match cut {
        Cut::End => Truncate::End,
        Cut::Start => Truncate::Start,
        Cut::Drop => Truncate::Drop,
    });
    SftSettings {
        max_len: args.max_len.unwrap_or(given.max_len),
        loss_on: loss_on.or(given.loss_on),
        truncate: truncate.unwrap_or(given.truncate),
        packing: args.packing || given.packing,
    }
}

fn columns(args: &Args, path: &std::path::Path) -> anyhow::Result<TableSettings> {
    let mut settings = TableSettings::new(path);
    for given in &args.columns {
        let Some((role, column)) = given.split_once('=') else {
            return Err(usage(
                format!("--column {given}: expected ROLE=COLUMN"),
                "for instance --column prompt=question",
            ));
        };
        settings = settings.with(role, Column::Name(column.to_owned()));
    }
    Ok(settings)
}

fn inspect(
    dialogues: impl Iterator<Item = phyla_data::Result<Dialogue>>,
    tokenizer: &Tokenizer,
    settings: &SftSettings,
    limit: usize,
) -> anyhow::Result<Inspection> {
    let encoder = Encoder::new(tokenizer, settings.loss_on);
    let mut made = Inspection {
        statistics: Statistics::default(),
        longest: 0,
        lengths: BTreeMap::new(),
        examples: vec![],
        packed: None,
        notes: vec![],
    };
    // Of those that are kept: their numbers and lengths.
    let (mut kept, mut lengths) = (vec![], vec![]);
    for (dialogue, number) in dialogues.zip(1..) {
        let mut encoded = encoder.encode(&dialogue?)?;
        let length = encoded.ids.len();
        made.longest = made.longest.max(length);
        *made.lengths.entry(length.next_power_of_two().max(16)).or_default() += 1;
        let outcome = cut(&mut encoded, settings);
        made.statistics.add(&encoded, outcome);
        if outcome.is_kept() {
            kept.push(number);
            lengths.push(encoded.ids.len());
        }
        if made.examples.len() < limit {
            made.examples.push(example(number, encoded, outcome));
        }
    }
    if made.statistics.examples == 0 {
        return Err(usage("no examples: the data are empty", "give data with at least one row"));
    }
    made.notes = made.statistics.notes(settings);
    made.packed = settings.packing.then(|| packed(&kept, &lengths, settings.max_len, limit));
    Ok(made)
}

fn example(number: usize, encoded: Encoded, outcome: Outcome) -> Example {
    let Encoded { text, ids, learned, bytes, doubts } = encoded;
    let mut runs: Vec<Run> = vec![];
    // Tokens may share a character: what has been shown is not shown again.
    let mut shown = bytes.first().map_or(0, |bytes| bytes.start);
    for (bytes, &learned) in bytes.iter().zip(&learned) {
        let part = text.get(shown..bytes.end.max(shown)).unwrap_or_default();
        shown = shown.max(bytes.end);
        match runs.last_mut() {
            Some(run) if run.learned == learned => run.text.push_str(part),
            _ => runs.push(Run { learned, text: part.to_owned() }),
        }
    }
    runs.retain(|run| !run.text.is_empty());
    Example { number, outcome, ids, learned, runs, doubts }
}

fn packed(kept: &[usize], lengths: &[usize], room: usize, limit: usize) -> Packed {
    let rows = pack(lengths, room);
    let row = |(number, places): (usize, &Vec<u32>)| {
        let begin = |end: &mut usize, &place: &u32| {
            let begins = *end;
            *end += lengths[place as usize];
            Some(begins)
        };
        Row {
            number: number + 1,
            examples: places.iter().map(|&place| kept[place as usize]).collect(),
            begins: places.iter().scan(0, begin).collect(),
            tokens: places.iter().map(|&place| lengths[place as usize]).sum(),
        }
    };
    // The rows of the examples that are shown, and no more than those.
    let holds = |places: &&Vec<u32>| places.iter().any(|&place| (place as usize) < limit);
    let shown = rows.iter().enumerate().filter(|(_, places)| holds(places)).take(limit).map(row).collect();
    let full = lengths.iter().sum::<usize>() as f64 / (rows.len().max(1) * room) as f64;
    Packed { rows: rows.len(), full, shown }
}

impl Example {
    /// What became of it, in words.
    fn headline(&self) -> String {
        let learned = self.learned.iter().filter(|&&learned| learned).count();
        let fate = match self.outcome {
            Outcome::Whole => String::new(),
            Outcome::Cut(tokens) => format!(", {tokens} more cut off"),
            Outcome::TooLong => ", left out: too long".to_owned(),
            Outcome::CutEmpty => ", left out: what would be learned lies beyond the longest row".to_owned(),
            Outcome::Empty => ", left out: nothing is learned".to_owned(),
        };
        format!("example {}: {} tokens, {learned} learned{fate}", self.number, self.ids.len())
    }
}

impl Row {
    fn describe(&self) -> String {
        let parts =
            self.examples.iter().zip(&self.begins).map(|(example, begins)| format!("example {example} at {begins}"));
        format!("row {}: {} ({} tokens)", self.number, parts.collect::<Vec<_>>().join(" | "), self.tokens)
    }
}

impl Inspection {
    /// Each class of lengths, how many examples it has, and the length of its bar, at most `width`.
    fn histogram(&self, width: usize) -> Vec<(String, usize, usize)> {
        let most = self.lengths.values().copied().max().unwrap_or(1);
        let bar = |(&to, &count): (&usize, &usize)| {
            let from = if to == 16 { 1 } else { to / 2 + 1 };
            (format!("{from}-{to}"), count, (count * width).div_ceil(most))
        };
        self.lengths.iter().map(bar).collect()
    }

    /// What the data amount to, a sentence a line.
    fn summary(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} examples, of which {} are learned from; the longest has {} tokens",
            self.statistics.examples,
            self.statistics.kept(),
            self.longest
        )];
        lines.extend(self.notes.iter().cloned());
        if let Some(packed) = &self.packed {
            lines.push(format!("packed into {} rows, {:.1}% full", packed.rows, 100. * packed.full));
        }
        lines
    }
}

/// Text that cannot move a cursor or hide itself.
fn tame(text: &str) -> String {
    let show = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() || ('\u{202A}'..='\u{202E}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c) => {
            c.escape_default().to_string()
        }
        c => c.to_string(),
    };
    text.chars().map(show).collect()
}
