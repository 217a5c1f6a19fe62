//! `phyla eval --task gsm8k` and its like: reasoning, method beside method, or given outputs that are scored.

use std::path::{Path, PathBuf};

use phyla::cot::{Method, Settings};
use phyla::evaluate::Evaluation;
use phyla::evaluate::reason::{Outcome, Problem, Puzzle, predicted, problems, reasoning, settings};
use phyla_data::dataset::Position;
use phyla_data::supervised::table::Table;
use serde_json::Value;

use super::super::cot::{MethodName, Reasoning};
use super::super::error::usage;
use super::super::progress::Progress;
use super::super::shared::count;
use super::super::sink::Sink;
use super::super::source::{Lines, is_table};

/// Problems that are made where no file is given, unless told otherwise.
const MADE: usize = 200;

/// Fields of a prediction, the first there is.
const OUTPUTS: [&str; 7] = ["output", "prediction", "text", "completion", "generation", "response", "answer"];

#[derive(clap::Args)]
pub struct Args {
    /// Reasoning: methods, a row for each (see phyla cot); sums have one row, as the model has learned them
    #[arg(
        long = "method",
        value_name = "NAME,NAME",
        value_enum,
        value_delimiter = ',',
        default_value = "plain,zero-shot,few-shot"
    )]
    methods: Vec<MethodName>,

    #[command(flatten)]
    reasoning: Reasoning,

    /// Reasoning: problems at most [default: all of a file, 200 that are made]
    #[arg(long, value_name = "N", value_parser = count())]
    limit: Option<usize>,

    /// Reasoning without a file: names in a puzzle [default: 2], digits of a number at most [default: 6]
    #[arg(long, value_name = "N", value_parser = count())]
    size: Option<usize>,

    /// Reasoning: score these outputs, one for each problem in order, in place of a model's: lines of text, or JSON lines
    /// with a field output, prediction, text, completion, generation, response or answer
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,

    /// Reasoning: where prompts, chains and answers go, a JSON line for each problem and method
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Self-consistency: the temperature that chains are drawn at [default: 0.7]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,

    /// Reasoning: seed of draws, and of problems that are made
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub fn run(args: &super::Args, puzzle: Puzzle, quiet: bool) -> anyhow::Result<()> {
    let own = &args.reason;
    if args.skip_faults {
        return Err(usage(
            format!("--skip-faults: every problem of {puzzle} counts"),
            "mend the rows that cannot be used",
        ));
    }
    let problems = given(args, puzzle)?;
    let inputs: Vec<&Path> = args.data.iter().chain(&own.predictions).map(PathBuf::as_path).collect();
    let mut sink = own.output.as_deref().map(|path| Sink::open(Some(path), &inputs)).transpose()?;
    let mut failed = None;
    let mut told = |outcome: &Outcome| {
        let written = sink.as_mut().map_or(Ok(()), |sink| sink.json(outcome));
        written.map_err(|error| {
            let stop = phyla::Error::Task(error.to_string());
            failed.get_or_insert(error);
            stop
        })
    };
    let mut progress = Progress::new("answers", None, quiet);
    let done = match &own.predictions {
        Some(path) => {
            let outputs = outputs(path, own.limit.map(|_| problems.len()))?;
            Ok(predicted(puzzle, &problems, &outputs, args.mistakes, &mut told)?)
        }
        None => {
            let methods = methods(args, puzzle)?;
            let session = args.model.session()?;
            let mut set = |done, total| progress.set(done, total);
            reasoning(&session, puzzle, &problems, &methods, args.mistakes, &mut told, &mut set)
        }
    };
    progress.finish();
    if let Some(error) = failed {
        return Err(error);
    }
    let mut done: Evaluation = done?;
    if let Some(mut sink) = sink {
        sink.flush()?;
    }
    if args.data.is_empty() {
        done.notes.push(format!("the problems were made from seed {}", own.seed));
    }
    let mut data: Vec<String> = inputs.iter().map(|path| path.display().to_string()).collect();
    if data.is_empty() {
        data.push(format!("made problems, seed {}", own.seed));
    }
    let title = if own.predictions.is_some() { "predictions" } else { &args.model.model };
    super::finish(args, &done, title, &data, progress.elapsed().as_secs_f64())
}

fn methods(args: &super::Args, puzzle: Puzzle) -> anyhow::Result<Vec<Settings>> {
    let own = &args.reason;
    let shared = own.reasoning.settings(args.cache.config()?.merge(args.decoding.config()), own.seed)?;
    let mut names: Vec<Method> = vec![];
    for &name in &own.methods {
        if !names.contains(&name.into()) {
            names.push(name.into());
        }
    }
    if puzzle == Puzzle::Sums {
        // A model of sums knows one way to answer.
        names.truncate(1);
    }
    let of = |method: Method| {
        let mut settings = settings(puzzle, method, &shared);
        if method == Method::SelfConsistency {
            settings.generation.temperature = own.temperature;
        }
        settings
    };
    Ok(names.into_iter().map(of).collect())
}

fn given(args: &super::Args, puzzle: Puzzle) -> anyhow::Result<Vec<Problem>> {
    let own = &args.reason;
    if !args.data.is_empty() {
        let table = Table::new(args.table.settings(&args.data, false))?;
        return Ok(problems(puzzle, &table, own.limit.unwrap_or(usize::MAX))?);
    }
    let made = puzzle.made(own.seed, own.size, own.limit.unwrap_or(MADE));
    made.ok_or_else(|| {
        usage(format!("{puzzle} is a collection of texts, and no file is given"), "name its files by --data")
    })
}

/// The outputs of a file, as many as there are or as are wanted.
fn outputs(path: &Path, most: Option<usize>) -> anyhow::Result<Vec<String>> {
    let most = most.unwrap_or(usize::MAX);
    if !is_table(path) {
        let lines = Lines::open(Some(path))?.take(most);
        return Ok(lines.map(|line| line.map(|(text, _)| text)).collect::<Result<_, _>>()?);
    }
    let table = Table::open(path)?;
    let text = |fields: &serde_json::Map<String, Value>, position: &Position| {
        let found = OUTPUTS.iter().find_map(|name| fields.get(*name));
        match found {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Null) => Ok(String::new()),
            Some(other @ (Value::Number(_) | Value::Bool(_))) => Ok(other.to_string()),
            _ => Err(usage(
                format!("{position}: a prediction needs one of the fields {}", OUTPUTS.join(", ")),
                "name the output so",
            )),
        }
    };
    table
        .rows()
        .take(most)
        .map(|row| row.map_err(Into::into).and_then(|row| text(&row.fields, &row.position)))
        .collect()
}
