//! Answers cut from texts: exact match and F1 as SQuAD 1.1, SQuAD 2.0 and CMRC 2018 count them.

use phyla_data::supervised::qa::AnswerSettings;
use phyla_data::supervised::records::Question;
use phyla_data::supervised::table::Table;
use phyla_metrics::cmrc::{self, Cmrc};
use phyla_metrics::squad::{self, Squad, Version};

use super::{Evaluation, Metric, Mistake, Options, Progress, Scale, Worst, note};
use crate::task::answer::{Respond, null_odds};
use crate::task::{Runner, predict};
use crate::{Error, Session};

/// By whose rules answers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// SQuAD's: words between spaces. Version 2 if any question has no answer.
    #[default]
    Words,
    /// CMRC's: Chinese characters.
    Chinese,
}

/// Evaluates a model that answers questions. Where some have no answer, "no answer" is given if its score is higher
/// than the best span's by more than `chosen.null_threshold`, by default 0.
///
/// # Errors
/// Another head; questions that cannot be read; Chinese questions without answers, for which CMRC has no rule.
pub fn answers(
    session: &Session,
    table: &Table,
    language: Language,
    chosen: AnswerSettings,
    doc_stride: Option<usize>,
    options: &Options,
    progress: Progress,
) -> Result<Evaluation, Error> {
    let mut head = Respond::new(session, options.max_len, doc_stride)?;
    let (mut total, mut silent) = (0, 0);
    for question in table.records::<Question>() {
        silent += u64::from(question?.answers.is_empty());
        total += 1;
    }
    if silent == total && total > 0 {
        return Err(Error::Task("no question of the data has an answer to compare with".into()));
    }
    let version = if silent > 0 { Version::V2 } else { Version::V1 };
    let threshold = chosen.null_threshold.or((silent > 0).then_some(0.));
    head.answers = AnswerSettings { null_threshold: threshold, ..chosen };
    let (mut words, mut characters) = (Squad::new(version), Cmrc::default());
    let mut worst = Worst::new(options.mistakes);
    let (mut done, mut cut) = (0, 0);
    let runner = Runner::new(&session.model, session.tokenizer.as_ref(), options.batches);
    predict(&head, &runner, table.records::<Question>(), |item| {
        let (question, (ranked, was_cut)) = item?;
        cut += u64::from(was_cut);
        let gold: Vec<&str> = question.answers.iter().map(|answer| answer.text.as_str()).collect();
        let found = ranked.best();
        let f1 = match language {
            Language::Words => {
                // The official scripts take probabilities or differences of scores; ours are differences.
                words.add_with(&gold, found, null_odds(&ranked))?;
                let none = if gold.is_empty() { squad::f1("", found, version) } else { 0. };
                gold.iter().map(|answer| squad::f1(answer, found, version)).fold(none, f64::max)
            }
            Language::Chinese => {
                characters.add(&gold, found)?;
                let scores: phyla_metrics::Result<Vec<f64>> =
                    gold.iter().map(|answer| cmrc::f1(answer, found)).collect();
                scores?.into_iter().fold(0., f64::max)
            }
        };
        if f1 < 1. {
            worst.add(-f1, || Mistake {
                input: question.question.clone(),
                expected: if gold.is_empty() { "no answer".into() } else { gold.join(" | ") },
                found: if found.is_empty() { "no answer".into() } else { found.to_owned() },
                score: f1,
            });
        }
        done += 1;
        progress(done, Some(total));
        Ok::<_, Error>(())
    })?;
    let mut made = Evaluation { task: "question_answering", unit: "questions", count: done, ..Evaluation::default() };
    let percent = |name: &str, value| Metric::new(name, value, Scale::Percent);
    match language {
        Language::Words => {
            let report = words.report()?;
            made.metrics = vec![percent("exact_match", report.all.exact), percent("f1", report.all.f1)];
            for (name, part) in [("has_answer", report.has_answer), ("no_answer", report.no_answer)] {
                let Some(part) = part else { continue };
                made.metrics.push(percent(&format!("{name}_exact"), part.exact));
                made.metrics.push(percent(&format!("{name}_f1"), part.f1));
                made.metrics.push(Metric::new(format!("{name}_total"), part.total as f64, Scale::Count));
            }
            if version == Version::V2 {
                let best = words.best()?;
                made.metrics.push(percent("best_exact", best.exact));
                made.metrics.push(percent("best_f1", best.f1));
                made.metrics.push(Metric::new("best_f1_threshold", best.f1_threshold, Scale::Number));
            }
            let version = if version == Version::V1 { "1.1" } else { "2.0" };
            made.notes.push(format!("exact match and F1 as SQuAD {version} counts them"));
        }
        Language::Chinese => {
            let report = characters.report()?;
            made.metrics = vec![
                percent("exact_match", report.exact),
                percent("f1", report.f1),
                percent("average", report.average),
            ];
            made.notes.push("exact match and F1 as CMRC 2018 counts them".into());
        }
    }
    note(&mut made.notes, cut, done, "questions were cut");
    note(&mut made.notes, table.faults().count, done + table.faults().count, "questions could not be used");
    made.mistakes = worst.take();
    Ok(made)
}
