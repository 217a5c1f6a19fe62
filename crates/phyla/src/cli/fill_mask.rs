//! `phyla fill-mask`: the likeliest tokens for each mask of a text.

use phyla::task::Runner;
use phyla::task::fill::{Fill, Filled};
use phyla_data::supervised::lengths::LengthBatches;

use super::output;
use super::shared::{ModelArgs, count};
use super::source::Lines;

/// Guess the words under the masks of a text
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla fill-mask --model models/masked-lm \"Paris is the [MASK] of France.\"
  phyla fill-mask --model models/masked-lm \"The <mask> sat on the <mask>.\" --top-k 3
  phyla fill-mask --model models/masked-lm \"He was a [MASK] man.\" --targets good,bad --json
  phyla fill-mask --model models/masked-lm - < texts.txt

A mask is written as the model's tokenizer spells it, or as [MASK] or <mask> for any model. Several masks are
guessed each for itself. Probabilities are of the whole vocabulary, with --targets too. --json gives a JSON
line for each text: {\"text\", \"masks\": [[{\"token\", \"id\", \"score\"}]]}.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Texts; `-` reads standard input, a text a line
    #[arg(value_name = "TEXT|-", required = true)]
    texts: Vec<String>,

    /// Tokens for each mask
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = count())]
    top_k: usize,

    /// Consider these words alone
    #[arg(long, value_name = "WORD,WORD", value_delimiter = ',')]
    targets: Vec<String>,

    /// Print a JSON line for each text
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let session = args.model.session()?;
    let mut head = Fill::new(&session, args.top_k)?;
    head.among(&args.targets)?;
    let batches = LengthBatches::default();
    let runner = Runner::new(&session.model, session.tokenizer.as_ref(), batches);
    let mut first = true;
    for text in &args.texts {
        let texts: Box<dyn Iterator<Item = phyla_data::Result<(String, String)>>> = match text.as_str() {
            "-" => Box::new(Lines::open(None)?.map(|line| line.map(|(text, place)| (format!("{place}: "), text)))),
            text => Box::new(std::iter::once(Ok((String::new(), text.to_owned())))),
        };
        let texts = texts.filter(|text| !matches!(text, Ok((_, text)) if text.trim().is_empty()));
        stream(&head, &runner, texts, batches.chunk, &mut |place, item| {
            // One bad text among arguments or lines ends the command, which is made for few of them.
            let filled = item.map_err(|error| match error {
                phyla::Error::Task(message) => phyla::Error::Task(format!("{place}{message}")),
                other => other,
            })?;
            show(&filled, args.json, std::mem::take(&mut first))
        })?;
    }
    Ok(())
}

fn show(filled: &Filled, json: bool, first: bool) -> anyhow::Result<()> {
    if json {
        let line = serde_json::to_string(filled)?;
        return output::stdout(|out| writeln!(out, "{line}"));
    }
    output::stdout(|out| {
        if !first {
            writeln!(out)?;
        }
        writeln!(out, "{}", filled.text)?;
        for (number, mask) in filled.masks.iter().enumerate() {
            if filled.masks.len() > 1 {
                writeln!(out, "mask {}", number + 1)?;
            }
            mask.iter().try_for_each(|one| writeln!(out, "  {:>7}  {}", probability(one.score), one.token))?;
        }
        Ok(())
    })
}

/// Four places, or for what would be 0 in these, two digits.
fn probability(score: f32) -> String {
    if score >= 0.001 { format!("{score:.4}") } else { format!("{score:.1e}") }
}

/// What takes a result, with the name of its text's place.
type Give<'a> = &'a mut dyn FnMut(&str, Result<Filled, phyla::Error>) -> anyhow::Result<()>;

/// Texts, each beside the name of its place, through the model, `chunk` at a time; results in their order.
pub fn stream(
    head: &Fill,
    runner: &Runner,
    texts: impl Iterator<Item = phyla_data::Result<(String, String)>>,
    chunk: usize,
    give: Give,
) -> anyhow::Result<()> {
    let mut texts = texts.fuse();
    loop {
        let items: Vec<_> = texts.by_ref().take(chunk).collect();
        if items.is_empty() {
            return Ok(());
        }
        let (mut rows, mut places) = (vec![], vec![]);
        for item in items {
            let (place, text) = match item {
                Ok(given) => given,
                Err(error @ phyla_data::Error::Record { .. }) => {
                    places.push((String::new(), Some(error.into())));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match head.row(&text) {
                Ok(row) => {
                    rows.push(row);
                    places.push((place, None));
                }
                Err(error) => places.push((place, Some(error))),
            }
        }
        let mut filled = head.fill(runner, &rows)?.into_iter();
        for (place, error) in places {
            match error {
                Some(error) => give(&place, Err(error))?,
                None => filled.next().map_or(Ok(()), |filled| give(&place, Ok(filled)))?,
            }
        }
    }
}
