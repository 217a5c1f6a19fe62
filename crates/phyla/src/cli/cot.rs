//! `phyla cot`: a question answered by a chain of thought, which is shown as it is written.

mod options;
mod show;

use std::io::{self, Write};

use anyhow::Context;
use clap::builder::ArgPredicate;
use phyla::cot::{Heard, Kind, Method, Question, Reasoner};
use serde_json::json;

pub use options::{KindName, MethodName, Reasoning};

use super::error::usage;
use super::output;
use super::sampling::Sampling;
use super::shared::ModelArgs;

/// Answer a question by a chain of thought
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla cot --model models/instruct \"A box has 4 rows of 6 eggs. 5 are broken. How many are whole?\"
  phyla cot --model models/base --method few-shot --shots mine.jsonl \"How many …?\"
  phyla cot --model models/base --method self-consistency --samples 20 \"How many …?\" --json
  phyla cot --model models/base --answer choice --option \"5 km\" --option \"6 km\" \"How far …?\"
  phyla cot --print-template zero-shot > mine.jinja
  phyla cot --model models/base --template mine.jinja \"How many …?\"

Methods:
  plain             the answer at once, to compare with
  zero-shot         \"Let's think step by step\", then the answer (Kojima et al. 2022)
  few-shot          behind exemplars that reason (Wei et al. 2022)
  self-consistency  chains of few-shot (or zero-shot) that are drawn, and a vote (Wang et al. 2022)
  least-to-most     simpler questions first, their answers in the context (Zhou et al. 2022)

Reasoning goes to standard output as it is written, and the answer in the last line. Single chains are
greedy and those of self-consistency drawn at temperature 0.7, unless options say otherwise.")]
#[command(mut_arg("model", |model| {
    let model = model.required(false).required_unless_present("print_template");
    model.default_value_if("print_template", ArgPredicate::IsPresent, "")
}))]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// The question
    #[arg(value_name = "QUESTION", required_unless_present = "print_template")]
    question: Option<String>,

    /// How the model is led to an answer
    #[arg(long, value_enum, default_value = "zero-shot")]
    method: MethodName,

    /// What kind of answer is looked for in what the model writes
    #[arg(long, value_enum, default_value = "number")]
    answer: KindName,

    /// Something to choose from, for `--answer choice`; repeatable, in the order of their letters
    #[arg(long = "option", value_name = "TEXT")]
    options: Vec<String>,

    /// A template of prompts in place of the method's own
    #[arg(long, value_name = "FILE")]
    template: Option<std::path::PathBuf>,

    /// Print the built-in template of a method, to be edited, and end
    #[arg(long, value_name = "METHOD", value_enum, exclusive = true)]
    print_template: Option<MethodName>,

    #[command(flatten)]
    reasoning: Reasoning,

    #[command(flatten)]
    sampling: Sampling,

    /// Print JSON at the end instead of text as it comes
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(method) = args.print_template {
        return output::stdout(|out| out.write_all(Method::from(method).template().as_bytes()));
    }
    let question = question(args)?;
    let mut settings = args.reasoning.settings(args.sampling.config()?, args.sampling.seed)?;
    (settings.method, settings.kind) = (args.method.into(), args.answer.into());
    settings.template = args.template.as_deref().map(options::template).transpose()?;
    let session = args.model.session()?;
    let (method, kind) = (settings.method, settings.kind);
    let reasoner = Reasoner::new(&session, settings)?;
    tracing::debug!("prompts go {}", through(&reasoner));
    let (mut failed, mut begun, mut out) = (None, false, io::stdout());
    let solved = reasoner.solve(std::slice::from_ref(&question), &mut |heard| {
        let written = match heard {
            _ if args.json => Ok(()),
            Heard::Begun(line) => write!(out, "{}{line}", if std::mem::replace(&mut begun, true) { "\n" } else { "" }),
            Heard::Text(text) => write!(out, "{text}"),
        };
        if let Err(error) = written.and_then(|()| out.flush()) {
            failed.get_or_insert(error);
        }
    })?;
    if let Some(error) = failed {
        return Err(error).context("cannot write to standard output");
    }
    let Some(solved) = solved.first() else { return Ok(()) };
    if args.json {
        return output::json(&json!({
            "method": method,
            "kind": kind,
            "question": question,
            "chat_template": reasoner.through_chat(),
            "answer": solved.answer,
            "vote": solved.vote,
            "chains": solved.chains,
            "tokens": solved.tokens(),
        }));
    }
    show::answer(solved, through(&reasoner))
}

fn through(reasoner: &Reasoner) -> &'static str {
    if reasoner.through_chat() { "through the model's chat template" } else { "as plain text" }
}

fn question(args: &Args) -> anyhow::Result<Question> {
    let text = args.question.as_deref().unwrap_or_default();
    if text.trim().is_empty() {
        return Err(usage("the question is empty", "ask something"));
    }
    let choice = Kind::from(args.answer) == Kind::Choice;
    if choice == args.options.is_empty() {
        let help = "give --answer choice, and what there is to choose from by --option TEXT";
        return Err(usage("options and a choice among them go together", help));
    }
    Ok(Question::new(text, &args.options))
}
