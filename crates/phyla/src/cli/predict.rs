//! `phyla predict`: what a model's head says of each input: labels, entities, answers, choices, texts.

use std::path::PathBuf;

use clap::ValueEnum;
use phyla::Session;
use phyla::task::answer::{self, Respond};
use phyla::task::choose::{self, Choose};
use phyla::task::classify::{Classify, THRESHOLD};
use phyla::task::prediction::Prediction;
use phyla::task::tag::{Passage, Tag};
use phyla::task::translate::Translate;
use phyla::task::{Runner, predict};
use phyla_data::supervised::qa::AnswerSettings;
use phyla_data::supervised::records::{Choice, Labelled, Parallel, Question, Record, Tagged};
use phyla_models::Task;
use serde_json::json;

use super::error::usage;
use super::fill_mask;
use super::progress::Progress;
use super::shared::{BatchArgs, ModelArgs, TableArgs};
use super::sink::{Shape, Sink};
use super::source::{Records, Source};

/// Say what a model makes of texts: labels, entities, answers, choices
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla predict --model models/sentiment reviews.txt
  phyla predict --model models/ner --output entities.jsonl news.txt
  phyla predict --model models/squad questions.jsonl --n-best 3
  cut -f2 table.tsv | phyla predict --model models/topics - --shape tsv

The model's head decides what is asked and what comes out, a line for each input, in order:
  sequence classification  text, or text_a and text_b: {\"label\", \"score\"}; several labels above
                           --threshold: {\"labels\": [...]}; a regression: {\"value\"}
  token classification     text: {\"entities\": [{\"entity\", \"text\", \"start\", \"end\", \"score\"}]}, places
                           in characters; with --words tokens: {\"entities\", \"tags\"}, places in words
  question answering       question and context: {\"answer\", \"start\", \"end\", \"score\", \"best\": [...]}
  multiple choice          question and choices, perhaps context: {\"choice\", \"text\", \"score\"}
  sequence to sequence     source: {\"text\"}; see also `phyla translate`
  masked language model    text with a mask: see `phyla fill-mask`

Lines of text are read from files of any other ending than those of tables (.jsonl, .json, .csv, .tsv,
.parquet, .conll, each also with .gz) and from standard input unless --format says otherwise.

An input that cannot be used is told on standard error with its line, has {\"error\"} in its place, and the
rest is done; the exit status is then 2, unless --allow-faults is given.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// A file of inputs; `-` reads standard input
    #[arg(value_name = "INPUT|-", default_value = "-")]
    input: PathBuf,

    /// Be sure of this task: another head is an error
    #[arg(long, value_enum)]
    task: Option<TaskName>,

    /// Where results go [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// How results are written
    #[arg(long, value_enum, default_value = "jsonl")]
    shape: Shape,

    #[command(flatten)]
    table: TableArgs,

    #[command(flatten)]
    batch: BatchArgs,

    /// Classes: how likely one of several must be
    #[arg(long, value_name = "P", default_value_t = THRESHOLD)]
    threshold: f32,

    /// Classes: give the scores of all
    #[arg(long)]
    all_scores: bool,

    /// Tags: inputs are words, in lists or divided by spaces
    #[arg(long)]
    words: bool,

    /// Answers: how many of the best are given; masks: how many tokens
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = super::shared::count())]
    n_best: usize,

    /// Answers: "no answer" is one when its score is higher than the best span's by more than this
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    null_threshold: Option<f32>,

    /// Answers: tokens that windows over a long text share
    #[arg(long, value_name = "N")]
    doc_stride: Option<usize>,

    /// Answers: tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = super::shared::count())]
    max_answer_len: usize,

    /// End with status 0 though inputs could not be used
    #[arg(long)]
    allow_faults: bool,

    /// Write JSON lines: what --shape is anyway
    #[arg(long, conflicts_with = "shape")]
    json: bool,
}

/// A task by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskName {
    SequenceClassification,
    NextSentence,
    TokenClassification,
    QuestionAnswering,
    MultipleChoice,
    Seq2seq,
    FillMask,
}

impl TaskName {
    fn is(self, task: Task) -> bool {
        match self {
            Self::SequenceClassification => task == Task::SequenceClassification,
            Self::NextSentence => task == Task::NextSentence,
            Self::TokenClassification => task == Task::TokenClassification,
            Self::QuestionAnswering => task == Task::QuestionAnswering,
            Self::MultipleChoice => task == Task::MultipleChoice,
            Self::Seq2seq => task == Task::Seq2SeqLm,
            Self::FillMask => matches!(task, Task::MaskedLm | Task::PreTraining),
        }
    }
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    if !(0. ..=1.).contains(&args.threshold) {
        return Err(usage(format!("--threshold is {}", args.threshold), "give a probability, from 0 to 1"));
    }
    let source = Source::open(&args.input, &args.table)?;
    let session = args.model.session()?;
    let task = session.model.arch.task;
    if let Some(name) = args.task.filter(|name| !name.is(task)) {
        let name = name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let help = format!("leave --task out, or take a model with a head for {name}");
        return Err(usage(format!("--task {name}: `{}` is for {}", args.model.model, task.describe()), help));
    }
    let sink = Sink::open(args.output.as_deref(), &[&args.input])?;
    let shape = if args.json { Shape::Jsonl } else { args.shape };
    let mut results = Results::new(sink, shape, quiet);
    let done = match task {
        Task::SequenceClassification | Task::NextSentence => classify(args, &session, &source, &mut results),
        Task::TokenClassification => tag(args, &session, &source, &mut results),
        Task::QuestionAnswering => respond(args, &session, &source, &mut results),
        Task::MultipleChoice => choose(args, &session, &source, &mut results),
        Task::Seq2SeqLm => translate(args, &session, &source, &mut results),
        Task::MaskedLm | Task::PreTraining => fill(args, &session, &source, &mut results),
        Task::CausalLm => Err(usage(format!("`{}` continues texts", args.model.model), "see `phyla generate`")),
        Task::Base | Task::Encoder => {
            Err(usage(format!("`{}` gives hidden states, and has no head", args.model.model), "see `phyla embed`"))
        }
    };
    results.finish(done, args.allow_faults)
}

/// Results on their way out, and what could not be used.
pub struct Results {
    sink: Sink,
    shape: Shape,
    progress: Progress,
    done: u64,
    faults: u64,
    cut: u64,
    headed: bool,
}

impl Results {
    pub fn new(sink: Sink, shape: Shape, quiet: bool) -> Self {
        Self { sink, shape, progress: Progress::new("inputs", None, quiet), done: 0, faults: 0, cut: 0, headed: false }
    }

    /// Writes what came of the next input, and whether it was cut.
    fn add(&mut self, item: phyla_data::Result<(Prediction, bool)>) -> anyhow::Result<()> {
        match item {
            Ok((prediction, cut)) => {
                self.cut += u64::from(cut);
                match self.shape {
                    Shape::Jsonl => self.sink.json(&prediction)?,
                    Shape::Tsv => {
                        if !self.headed {
                            self.sink.line(&prediction.columns().join("\t"))?;
                            self.headed = true;
                        }
                        self.sink.cells(&prediction.cells())?;
                    }
                }
            }
            Err(error) => self.fault(&error)?,
        }
        self.step();
        Ok(())
    }

    fn fault(&mut self, error: &dyn std::fmt::Display) -> anyhow::Result<()> {
        self.faults += 1;
        self.progress.warn(&error.to_string());
        match self.shape {
            Shape::Jsonl => self.sink.json(&json!({ "error": error.to_string() })),
            Shape::Tsv => self.sink.line(""),
        }
    }

    fn step(&mut self) {
        self.done += 1;
        self.progress.set(self.done, None);
    }

    /// Ends the output; faults are the user's.
    fn finish(mut self, done: anyhow::Result<()>, allowed: bool) -> anyhow::Result<()> {
        self.progress.finish();
        // Results before a failure are results.
        let flushed = self.sink.flush();
        done.and(flushed)?;
        if self.cut > 0 {
            tracing::warn!("{} of {} inputs were cut, since the model reads no more", self.cut, self.done);
        }
        let time = self.progress.elapsed().as_secs_f64();
        tracing::debug!("{} inputs in {time:.2} s, {:.0} inputs/s", self.done, self.done as f64 / time);
        if self.faults > 0 && !allowed {
            return Err(usage(
                format!("{} of {} inputs could not be used", self.faults, self.done),
                "the others are done; mend these, or give --allow-faults to end with status 0",
            ));
        }
        Ok(())
    }
}

/// A line as a record, unless it is blank.
fn said(text: String) -> Result<String, String> {
    if text.trim().is_empty() { Err("the text is blank".into()) } else { Ok(text) }
}

fn runner<'a>(args: &Args, session: &'a Session) -> Runner<'a> {
    Runner::new(&session.model, session.tokenizer.as_ref(), args.batch.batches())
}

fn classify(args: &Args, session: &Session, source: &Source, results: &mut Results) -> anyhow::Result<()> {
    let mut head = Classify::new(session, args.batch.max_len)?;
    (head.threshold, head.all) = (args.threshold, args.all_scores);
    let records = source.records(|text| Ok(Labelled::new(said(text)?, "")))?;
    predict(&head, &runner(args, session), records, |item| {
        results.add(item.map(|(_, (class, cut))| (head.prediction(&class), cut)))
    })
}

fn tag(args: &Args, session: &Session, source: &Source, results: &mut Results) -> anyhow::Result<()> {
    let head = Tag::new(session, args.batch.max_len)?;
    let passages: Records<Passage> = if args.words || is_conll(args) {
        let words = |text: String| {
            let tokens = said(text)?.split_whitespace().map(str::to_owned).collect();
            Ok(Tagged { tokens, tags: vec![], origin: Default::default() })
        };
        Box::new(source.records(words)?.map(|record| record.map(Passage::Words)))
    } else {
        let records = source.records(|text| Ok(Labelled::new(said(text)?, "")))?;
        Box::new(records.map(|record| record.map(|record| Passage::Text(record.text))))
    };
    predict(&head, &runner(args, session), passages, |item| {
        results.add(item.map(|(passage, words)| (head.prediction(&passage, &words), false)))
    })
}

/// Such files have words and nothing else.
fn is_conll(args: &Args) -> bool {
    let name = args.input.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    args.table.format == Some(super::shared::Format::Conll)
        || [".conll", ".iob", ".iob2", ".bio", ".conll2003"].iter().any(|ending| name.ends_with(ending))
}

/// The records of tasks whose inputs have parts, for which a line of text is not enough.
fn parts<'a, R: Record + 'a>(source: &'a Source, needs: &'static str) -> anyhow::Result<Records<'a, R>> {
    match source {
        Source::Table(table) => Ok(Box::new(table.records())),
        Source::Lines(_) => Err(usage(
            format!("a line of text is not enough: this model needs {needs}"),
            "give these as JSON lines or a table; --format tells the kind where the file's name does not",
        )),
    }
}

fn respond(args: &Args, session: &Session, source: &Source, results: &mut Results) -> anyhow::Result<()> {
    let mut head = Respond::new(session, args.batch.max_len, args.doc_stride)?;
    head.answers = AnswerSettings {
        n_best: args.n_best.max(AnswerSettings::default().n_best),
        max_answer_len: args.max_answer_len,
        null_threshold: args.null_threshold,
    };
    let records = parts::<Question>(source, "question and context")?;
    predict(&head, &runner(args, session), records, |item| {
        results.add(item.map(|(question, (ranked, cut))| (answer::prediction(&question, &ranked, args.n_best), cut)))
    })
}

fn choose(args: &Args, session: &Session, source: &Source, results: &mut Results) -> anyhow::Result<()> {
    let head = Choose::new(session, args.batch.max_len)?;
    let records = parts::<Choice>(source, "question and choices")?;
    predict(&head, &runner(args, session), records, |item| {
        results.add(item.map(|(question, (scores, cut))| (choose::prediction(&question, scores), cut)))
    })
}

fn translate(args: &Args, session: &Session, source: &Source, results: &mut Results) -> anyhow::Result<()> {
    let head = Translate::new(session, args.batch.max_len)?;
    let records = source.records(|source| Ok(Parallel { source, target: None }))?;
    head.stream(
        &args.batch.batches(),
        records,
        |pair: &Parallel| pair.source.as_str(),
        |item| results.add(item.map(|(_, made)| (Prediction::Text { text: made.text }, made.cut))),
    )
}

fn fill(args: &Args, session: &Session, source: &Source, results: &mut Results) -> anyhow::Result<()> {
    let head = phyla::task::fill::Fill::new(session, args.n_best)?;
    let records = source.records(|text| Ok(Labelled::new(said(text)?, "")))?;
    let texts = records.map(|record| record.map(|record| (String::new(), record.text)));
    fill_mask::stream(&head, &runner(args, session), texts, args.batch.chunk, &mut |_, item| {
        match item {
            Ok(filled) if results.shape == Shape::Jsonl => results.sink.json(&filled)?,
            Ok(filled) => results.sink.cells(&[filled.text])?,
            Err(error) => results.fault(&error)?,
        }
        results.step();
        Ok(())
    })
}
