//! Reasoning: how often a model comes to the right answer, method beside method, or how often given outputs do.

mod problems;

use phyla_generate::GenerationConfig;
use phyla_metrics::interval::wilson;
use serde::Serialize;

pub use problems::{Problem, Puzzle, problems};

use super::{Evaluation, Metric, Mistake, Progress, Scale};
use crate::cot::{Chain, Method, Reasoner, Settings, ThroughChat, Vote};
use crate::{Error, Session};

/// Questions that are asked together: enough to keep a processor busy, few enough to bound the memory of their caches.
const TOGETHER: usize = 16;

/// Tokens for a sum: the steps of nine digits fit.
const SUM_TOKENS: usize = 256;

/// One method, or given outputs, on all problems.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MethodScore {
    /// `plain`, `zero-shot-cot`, `few-shot-cot`, `self-consistency`, `least-to-most`, `answer` of sums, or `predictions`.
    pub method: String,
    /// Share of right answers.
    pub accuracy: f64,
    /// Its 95 % confidence interval (Wilson).
    pub interval: [f64; 2],
    /// Right answers.
    pub correct: u64,
    /// Problems.
    pub count: u64,
    /// Share of problems for which there was any answer.
    pub answered: f64,
    /// Tokens written for a problem, on average; of given outputs nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<f64>,
    /// Of votes: the confidence on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Right answers among problems of a group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// Problems that are counted together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// What they have in common: `3 digits`.
    pub name: String,
    /// Right answers.
    pub correct: u64,
    /// Problems.
    pub count: u64,
}

/// What a method made of a problem.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome<'a> {
    /// The problem's number, from 0.
    pub index: usize,
    /// Which method; see [`MethodScore::method`].
    pub method: &'a str,
    /// What was asked.
    pub question: &'a str,
    /// What is right.
    pub expected: &'a str,
    /// The answer found.
    pub answer: Option<&'a str>,
    /// Whether it is right.
    pub correct: bool,
    /// Of several chains: their vote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vote: Option<&'a Vote>,
    /// Prompts and what was written behind them.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub chains: &'a [Chain],
    /// A given output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<&'a str>,
}

/// Told what came of each problem.
pub type Told<'a> = &'a mut dyn FnMut(&Outcome) -> Result<(), Error>;

/// Asks a model by each method.
///
/// # Errors
/// As [`Reasoner::new`] and [`Reasoner::solve`], and what `told` returns.
pub fn reasoning(
    session: &Session,
    puzzle: Puzzle,
    problems: &[Problem],
    methods: &[Settings],
    mistakes: usize,
    told: Told,
    progress: Progress,
) -> Result<Evaluation, Error> {
    let (mut tally, mut done) = (Tally::new(puzzle, problems.len(), mistakes), 0);
    let total = (problems.len() * methods.len()) as u64;
    let mut through_chat = false;
    for settings in methods {
        let name = row_name(settings.method, puzzle);
        let reasoner = Reasoner::new(session, settings.clone())?;
        through_chat |= reasoner.through_chat();
        tally.begin(name);
        for (start, part) in (0..).step_by(TOGETHER).zip(problems.chunks(TOGETHER)) {
            let questions: Vec<_> = part.iter().map(|problem| problem.question.clone()).collect();
            let solved = reasoner.solve(&questions, &mut |_| {})?;
            for (index, (problem, solved)) in (start..).zip(part.iter().zip(&solved)) {
                let answer = solved.answer.as_deref();
                tally.count(problem, answer, solved.vote.as_ref(), Some(solved.tokens()));
                told(&Outcome {
                    vote: solved.vote.as_ref(),
                    chains: &solved.chains,
                    ..outcome(index, name, problem, answer)
                })?;
                done += 1;
                progress(done, Some(total));
            }
        }
    }
    let mut made = tally.finish();
    if through_chat {
        made.notes.push("prompts went through the model's chat template".into());
    }
    Ok(made)
}

/// Scores given outputs, one for each problem: what is found in them by the rules of [`Kind::find`](crate::cot::Kind::find).
///
/// # Errors
/// If there are not as many outputs as problems, and what `told` returns.
pub fn predicted(
    puzzle: Puzzle,
    problems: &[Problem],
    outputs: &[String],
    mistakes: usize,
    told: Told,
) -> Result<Evaluation, Error> {
    let (given, asked) = (outputs.len(), problems.len());
    if given != asked {
        return Err(Error::Task(format!(
            "there are {given} predictions for {asked} problems: give one for each, in order"
        )));
    }
    let mut tally = Tally::new(puzzle, asked, mistakes);
    tally.begin("predictions");
    for (index, (problem, output)) in problems.iter().zip(outputs).enumerate() {
        let found = puzzle.kind().find(output);
        tally.count(problem, found.as_deref(), None, None);
        told(&Outcome { output: Some(output), ..outcome(index, "predictions", problem, found.as_deref()) })?;
    }
    Ok(tally.finish())
}

/// The settings of a method on a data set; `base` holds what all methods share.
pub fn settings(puzzle: Puzzle, method: Method, base: &Settings) -> Settings {
    let mut settings = Settings { method, kind: puzzle.kind(), ..base.clone() };
    if puzzle == Puzzle::Sums {
        // A model of sums goes on as it has learned to, and its answer is the last number. What ends a sum ends it.
        settings.method = Method::FewShot;
        settings.template = Some(("sums".into(), "{{ question }}".into()));
        settings.shots = Some(vec![]);
        settings.chat = ThroughChat::Never;
        let end = vec![phyla_data::tasks::sums::END.to_owned()];
        let generation = &settings.generation;
        settings.generation = GenerationConfig {
            max_new_tokens: generation.max_new_tokens.or(Some(SUM_TOKENS)),
            stop_strings: generation.stop_strings.clone().or(Some(end)),
            ..settings.generation
        };
    }
    settings
}

fn row_name(method: Method, puzzle: Puzzle) -> &'static str {
    match method {
        _ if puzzle == Puzzle::Sums => "answer",
        Method::ZeroShot => "zero-shot-cot",
        Method::FewShot => "few-shot-cot",
        method => method.name(),
    }
}

fn outcome<'a>(index: usize, method: &'a str, problem: &'a Problem, answer: Option<&'a str>) -> Outcome<'a> {
    let (question, expected) = (problem.question.text.as_str(), problem.answer.as_str());
    let correct = answer == Some(expected);
    Outcome { index, method, question, expected, answer, correct, vote: None, chains: &[], output: None }
}

/// Counts, method by method.
struct Tally {
    made: Evaluation,
    most: usize,
    answered: u64,
    tokens: Option<u64>,
    confidence: Option<f64>,
}

impl Tally {
    fn new(puzzle: Puzzle, count: usize, most: usize) -> Self {
        let made = Evaluation { task: puzzle.name(), unit: "problems", count: count as u64, ..Evaluation::default() };
        Self { made, most, answered: 0, tokens: None, confidence: None }
    }

    fn begin(&mut self, method: &str) {
        self.end();
        self.made.methods.push(MethodScore { method: method.to_owned(), ..MethodScore::default() });
    }

    fn count(&mut self, problem: &Problem, answer: Option<&str>, vote: Option<&Vote>, tokens: Option<usize>) {
        let Some(row) = self.made.methods.last_mut() else { return };
        let right = u64::from(answer == Some(problem.answer.as_str()));
        row.count += 1;
        row.correct += right;
        self.answered += u64::from(answer.is_some());
        if let Some(tokens) = tokens {
            *self.tokens.get_or_insert(0) += tokens as u64;
        }
        if let Some(vote) = vote {
            *self.confidence.get_or_insert(0.) += vote.confidence;
        }
        if let Some(name) = &problem.group {
            match row.groups.iter_mut().find(|group| group.name == *name) {
                Some(group) => (group.correct, group.count) = (group.correct + right, group.count + 1),
                None => row.groups.push(Group { name: name.clone(), correct: right, count: 1 }),
            }
        }
        if right == 0 && self.made.mistakes.len() < self.most {
            self.made.mistakes.push(Mistake {
                input: format!("[{}] {}", row.method, problem.question.text),
                expected: problem.answer.clone(),
                found: answer.unwrap_or("no answer").to_owned(),
                score: vote.map_or(1., |vote| vote.confidence),
            });
        }
    }

    /// Makes shares of the counts of the last method.
    fn end(&mut self) {
        let (answered, tokens) = (std::mem::take(&mut self.answered), self.tokens.take());
        let confidence = self.confidence.take();
        let Some(row) = self.made.methods.last_mut() else { return };
        let share = |part: f64| part / row.count.max(1) as f64;
        let (low, high) = wilson(row.correct, row.count);
        (row.accuracy, row.interval, row.answered) = (share(row.correct as f64), [low, high], share(answered as f64));
        (row.tokens, row.confidence) = (tokens.map(|tokens| share(tokens as f64)), confidence.map(share));
        row.groups.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn finish(mut self) -> Evaluation {
        self.end();
        for row in &self.made.methods {
            let name =
                if self.made.methods.len() == 1 { "accuracy".into() } else { format!("accuracy_{}", row.method) };
            self.made.metrics.push(Metric::new(name, row.accuracy, Scale::Fraction));
        }
        self.made
    }
}
