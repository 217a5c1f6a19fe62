//! `phyla eval`: how good a model is on data with known answers.

mod reason;
mod show;

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::ArgPredicate;
use phyla::Session;
use phyla::evaluate::reason::Puzzle;
use phyla::evaluate::{self, Evaluation, Language, Options, TranslateOptions};
use phyla::task::classify::THRESHOLD;
use phyla::task::likelihood::{MASK_EVERY, Measure};
use phyla_data::supervised::qa::AnswerSettings;
use phyla_data::supervised::records::Labelled;
use phyla_data::supervised::table::{Table, TableFormat};
use phyla_metrics::tags::Scheme;
use phyla_metrics::{bleu, chrf};
use phyla_models::Task;

use super::cache::CacheArgs;
use super::error::usage;
use super::progress::Progress;
use super::shared::{BatchArgs, ModelArgs, TableArgs, count};
use super::source::is_table;
use super::translate::Decoding;

/// Measure how good a model is on data with known answers
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla eval --model models/sentiment --data dev.tsv --html report.html
  phyla eval --model models/ner --data test.conll --json
  phyla eval --model models/squad --data dev-v2.0.json
  phyla eval --model models/chinese-qa --data cmrc2018_dev.json --lang zh
  phyla eval --model models/en-de --source test.en --reference test.de --beams 4
  phyla eval --model models/gpt2 --data wiki.test.txt --stride 512
  phyla eval --model models/small --data wiki.test.txt --cache-dtype q8_0
  phyla eval --model models/embedder --task similarity --data sts-dev.csv --format tsv \\
      --column label=4 --column text=5 --column text_b=6
  phyla eval --model models/instruct --task gsm8k --data test.jsonl --limit 100 --output chains.jsonl
  phyla eval --model models/base --task coin_flip --method few-shot,self-consistency --samples 10
  phyla eval --task gsm8k --data test.jsonl --predictions outputs.jsonl
  phyla eval --model runs/sums-steps/model --task sums --limit 1000

What is measured follows from the model's head:
  sequence classification  accuracy, F1 (of two classes that of the second; micro, macro, weighted),
                           Matthews correlation, each class, confusion; of several labels F1 and subset
                           accuracy; of a regression Pearson, Spearman, squared and absolute error
  token classification     F1 of whole entities and of each kind, as seqeval counts
  question answering       exact match and F1 as SQuAD 1.1, or 2.0 if a question has no answer; --lang zh
                           as CMRC 2018
  multiple choice          accuracy
  sequence to sequence     BLEU and chrF with their signatures, as sacrebleu; exact match
  language model           perplexity and bits per byte, in windows that slide over each text; a masked one
                           guesses one of --mask-every tokens at a time from all others; with an option of
                           the cache, 64 tokens at a time through one
  no head, or --task       Spearman and Pearson correlation of the labels of pairs of texts with the
    similarity             cosines of their vectors, which are those of phyla embed

Labels of the data are found in the model's id2label, or count as ids where they are whole numbers; others
are an error that names them. A row that cannot be used is an error too, unless --skip-faults is given.")]
#[command(mut_arg("model", |model| {
    model.required(false).required_unless_present("predictions").default_value_if("predictions", ArgPredicate::IsPresent, "")
}))]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// What is measured [default: as the model's head says]
    #[arg(long, value_enum)]
    task: Option<Measured>,

    /// Files with answers: .jsonl, .json, .csv, .tsv, .parquet, .conll, for perplexity also plain text
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present_any = ["source", "task"])]
    data: Vec<PathBuf>,

    /// Translation: a file of sources, a line each
    #[arg(long, value_name = "FILE", requires = "reference", conflicts_with = "data")]
    source: Option<PathBuf>,

    /// Translation: the file of references beside it
    #[arg(long, value_name = "FILE", requires = "source")]
    reference: Option<PathBuf>,

    #[command(flatten)]
    table: TableArgs,

    /// Leave out rows that cannot be used, and count them
    #[arg(long)]
    skip_faults: bool,

    /// Names of the model's labels in the order of their ids, in place of id2label
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    labels: Option<Vec<String>>,

    /// Classes: how likely one of several must be
    #[arg(long, value_name = "P", default_value_t = THRESHOLD)]
    threshold: f32,

    /// Entities: how tags are read
    #[arg(long, value_enum, default_value = "lenient")]
    scheme: SchemeName,

    /// Answers: by whose rules they are compared
    #[arg(long, value_enum, default_value = "en")]
    lang: Lang,

    /// Answers: "no answer" is one when its score is higher than the best span's by more than this
    /// [default: 0 if a question has no answer]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    null_threshold: Option<f32>,

    /// Answers: tokens that windows over a long text share
    #[arg(long, value_name = "N")]
    doc_stride: Option<usize>,

    #[command(flatten)]
    reason: reason::Args,

    #[command(flatten)]
    decoding: Decoding,

    /// Translation: how BLEU cuts texts into words: 13a, zh, char, intl, none
    #[arg(long, value_name = "NAME", default_value = "13a")]
    tokenize: bleu::Tokenizer,

    /// Translation: count words in chrF, too (chrF++)
    #[arg(long)]
    chrf_words: bool,

    /// Perplexity: tokens from one window to the next [default: half a window]
    #[arg(long, value_name = "N", value_parser = count())]
    stride: Option<usize>,

    /// Perplexity of a masked model: one of so many tokens is hidden at a time
    #[arg(long, value_name = "N", default_value_t = MASK_EVERY, value_parser = count())]
    mask_every: usize,

    #[command(flatten)]
    cache: CacheArgs,

    #[command(flatten)]
    batch: BatchArgs,

    /// Examples of errors that the report shows
    #[arg(long, value_name = "N", default_value_t = 20)]
    mistakes: usize,

    /// Write a report: one HTML file that needs nothing beside it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measured {
    SequenceClassification,
    TokenClassification,
    QuestionAnswering,
    MultipleChoice,
    Translation,
    Perplexity,
    Similarity,
    Gsm8k,
    Svamp,
    Multiarith,
    Aqua,
    #[value(name = "coin_flip", alias = "coin-flip")]
    CoinFlip,
    #[value(name = "last_letters", alias = "last-letters")]
    LastLetters,
    Strategyqa,
    /// What the recipes of sums learn
    Sums,
}

/// How tags spell entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SchemeName {
    /// As seqeval and conlleval do by default
    Lenient,
    /// Strictly IOB2
    Iob2,
    /// Strictly IOBES
    Iobes,
    /// Strictly BILOU
    Bilou,
}

/// By whose rules answers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lang {
    /// SQuAD's
    En,
    /// CMRC's
    Zh,
}

impl Measured {
    /// What a model's head can be measured by; without one, its vectors.
    fn of(task: Task) -> Self {
        match task {
            Task::SequenceClassification | Task::NextSentence => Self::SequenceClassification,
            Task::TokenClassification => Self::TokenClassification,
            Task::QuestionAnswering => Self::QuestionAnswering,
            Task::MultipleChoice => Self::MultipleChoice,
            Task::Seq2SeqLm => Self::Translation,
            Task::CausalLm | Task::MaskedLm | Task::PreTraining => Self::Perplexity,
            Task::Base | Task::Encoder => Self::Similarity,
        }
    }

    /// The data set whose answers take reasoning.
    fn puzzle(self) -> Option<Puzzle> {
        Some(match self {
            Self::Gsm8k => Puzzle::Gsm8k,
            Self::Svamp => Puzzle::Svamp,
            Self::Multiarith => Puzzle::Multiarith,
            Self::Aqua => Puzzle::Aqua,
            Self::CoinFlip => Puzzle::CoinFlip,
            Self::LastLetters => Puzzle::LastLetters,
            Self::Strategyqa => Puzzle::Strategyqa,
            Self::Sums => Puzzle::Sums,
            _ => return None,
        })
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    if !(0. ..=1.).contains(&args.threshold) {
        return Err(usage(format!("--threshold is {}", args.threshold), "give a probability, from 0 to 1"));
    }
    // Before the model, which takes longer to load than a missing file takes to be missed.
    let puzzle = args.task.and_then(Measured::puzzle);
    if args.data.is_empty() && args.source.is_none() && puzzle.is_none() {
        return Err(usage("no data is given", "name the files with the answers by --data"));
    }
    for file in args.data.iter().chain(&args.source).chain(&args.reference) {
        let found = std::fs::metadata(file);
        let help = "name the files with the answers";
        match found {
            Ok(found) if found.is_dir() => return Err(usage(format!("`{}` is a folder", file.display()), help)),
            Ok(_) => {}
            Err(error) => return Err(usage(format!("cannot read `{}`: {error}", file.display()), help)),
        }
    }
    if let Some(puzzle) = puzzle {
        return reason::run(args, puzzle, quiet);
    }
    if args.model.model.is_empty() {
        return Err(usage("--predictions are scored for a task of reasoning", "name it, such as --task gsm8k"));
    }
    let session = args.model.session()?;
    let measured = measured(args, session.model.arch.task)?;
    let mut progress = Progress::new(if measured == Measured::Perplexity { "windows" } else { "inputs" }, None, quiet);
    let done = evaluate(args, measured, &session, &mut |done, total| progress.set(done, total));
    progress.finish();
    let (done, seconds) = (done?, progress.elapsed().as_secs_f64());
    let data: Vec<String> =
        (args.data.iter().chain(&args.source).chain(&args.reference)).map(|file| file.display().to_string()).collect();
    finish(args, &done, &args.model.model, &data, seconds)
}

/// Writes the report, and prints.
fn finish(args: &Args, done: &Evaluation, model: &str, data: &[String], seconds: f64) -> anyhow::Result<()> {
    if let Some(file) = &args.html {
        let subtitle = format!("{} on {}", done.task.replace('_', " "), data.join(", "));
        let page = evaluate::html(done, model, &subtitle);
        phyla_models::checkpoint::atomic_write(file, page.as_bytes())
            .map_err(|error| usage(format!("cannot write `{}`: {error}", file.display()), "name another file"))?;
    }
    if args.json {
        return show::json(done, model, data, seconds);
    }
    show::table(done, seconds)?;
    match &args.html {
        Some(file) => super::output::stdout(|out| writeln!(out, "report  {}", file.display())),
        None => Ok(()),
    }
}

fn measured(args: &Args, task: Task) -> anyhow::Result<Measured> {
    let own = Measured::of(task);
    match args.task {
        // Any model has hidden states.
        Some(Measured::Similarity) => Ok(Measured::Similarity),
        Some(wanted) if wanted != own => Err(usage(
            format!("--task {}: `{}` is for {}", wanted.name(), args.model.model, task.describe()),
            format!("leave --task out, or take a model with a head for {}", wanted.name()),
        )),
        _ => Ok(own),
    }
}

fn evaluate(
    args: &Args,
    measured: Measured,
    session: &Session,
    progress: evaluate::Progress,
) -> anyhow::Result<Evaluation> {
    let options = Options {
        batches: args.batch.batches(),
        max_len: args.batch.max_len,
        mistakes: args.mistakes,
        labels: args.labels.clone(),
    };
    if measured == Measured::Perplexity {
        let mut measure = Measure::new(session, args.batch.max_len, args.stride, args.mask_every)?;
        if args.cache.given() {
            measure = measure.through(args.cache.settings(&session.model)?)?;
        }
        return Ok(evaluate::perplexity(session, texts(args)?, &measure, &options, progress)?);
    }
    let table = table(args)?;
    Ok(match measured {
        Measured::SequenceClassification => {
            evaluate::classification(session, &table, args.threshold, &options, progress)?
        }
        Measured::TokenClassification => {
            let scheme = match args.scheme {
                SchemeName::Lenient => Scheme::Lenient,
                SchemeName::Iob2 => Scheme::Iob2,
                SchemeName::Iobes => Scheme::Iobes,
                SchemeName::Bilou => Scheme::Bilou,
            };
            evaluate::tags(session, &table, scheme, &options, progress)?
        }
        Measured::QuestionAnswering => {
            let language = if args.lang == Lang::Zh { Language::Chinese } else { Language::Words };
            let chosen = AnswerSettings { null_threshold: args.null_threshold, ..AnswerSettings::default() };
            evaluate::answers(session, &table, language, chosen, args.doc_stride, &options, progress)?
        }
        Measured::MultipleChoice => evaluate::choices(session, &table, &options, progress)?,
        Measured::Similarity => evaluate::similarity(session, &table, &options, progress)?,
        // Those of reasoning have gone another way.
        _ => {
            let how = TranslateOptions {
                prefix: args.decoding.prefix.clone(),
                settings: args.decoding.config(),
                seed: 0,
                bleu: bleu::Options { tokenizer: args.tokenize, ..bleu::Options::default() },
                chrf: if args.chrf_words { chrf::Options::plus_plus() } else { chrf::Options::default() },
            };
            evaluate::translation(session, &table, &how, &options, progress)?
        }
    })
}

fn table(args: &Args) -> anyhow::Result<Table> {
    if let (Some(source), Some(reference)) = (&args.source, &args.reference) {
        let mut settings = args.table.settings(&[source, reference], args.skip_faults);
        settings.format = Some(TableFormat::Parallel);
        return Ok(Table::new(settings)?);
    }
    Ok(Table::new(args.table.settings(&args.data, args.skip_faults))?)
}

/// The texts of perplexity: a plain file is one, a row of a table is one.
fn texts(args: &Args) -> anyhow::Result<impl Iterator<Item = evaluate::Text> + use<>> {
    let mut all: Vec<Box<dyn Iterator<Item = evaluate::Text>>> = vec![];
    for file in &args.data {
        if args.table.format.is_none() && !is_table(file) {
            let file = file.clone();
            all.push(Box::new(std::iter::once_with(move || whole(&file))));
            continue;
        }
        // Read anew for each file, and owned by its iterator.
        let table = Table::new(args.table.settings(&[file], args.skip_faults))?;
        let rows: Vec<_> = table.records::<Labelled>().map(|row| Ok(row?.text)).collect();
        all.push(Box::new(rows.into_iter()));
    }
    Ok(all.into_iter().flatten())
}

fn whole(file: &std::path::Path) -> evaluate::Text {
    let named = |what: String| phyla::Error::Task(format!("`{}`: {what}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| named(error.to_string()))?;
    String::from_utf8(bytes)
        .map_err(|error| named(format!("not UTF-8 text: byte {} is not valid", error.utf8_error().valid_up_to())))
}
