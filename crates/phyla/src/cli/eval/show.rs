//! An evaluation in the terminal, or as JSON.

use std::io::{self, Write};

use phyla::evaluate::reason::MethodScore;
use phyla::evaluate::{Confusion, Evaluation};
use serde_json::{Value, json};

use crate::cli::output;

/// Columns of a square of counts in a terminal; a larger one is in the report.
const WIDEST: usize = 12;

/// Prints JSON.
pub fn json(evaluation: &Evaluation, model: &str, data: &[String], seconds: f64) -> anyhow::Result<()> {
    let mut value = serde_json::to_value(evaluation)?;
    if let Value::Object(object) = &mut value {
        object.shift_insert(0, "model".into(), json!(model));
        object.shift_insert(1, "data".into(), json!(data));
        object.insert("seconds".into(), json!(seconds));
    }
    output::json(&value)
}

/// Prints tables.
pub fn table(evaluation: &Evaluation, seconds: f64) -> anyhow::Result<()> {
    output::stdout(|out| {
        let pace = evaluation.count as f64 / seconds.max(1e-9);
        let Evaluation { task, unit, count, .. } = evaluation;
        writeln!(out, "{}, {count} {unit} in {seconds:.2} s ({pace:.1} {unit}/s)\n", task.replace('_', " "))?;
        if !evaluation.methods.is_empty() {
            methods(out, &evaluation.methods)?;
            return notes(out, evaluation);
        }
        let names = evaluation.metrics.iter().map(|metric| metric.name.len()).max().unwrap_or(0);
        let values = evaluation.metrics.iter().map(|metric| metric.shown().len()).max().unwrap_or(0);
        for metric in &evaluation.metrics {
            writeln!(out, "{:names$}  {:>values$}", metric.name, metric.shown())?;
        }
        classes(out, evaluation)?;
        if let Some(confusion) = evaluation.confusion.as_ref().filter(|confusion| confusion.labels.len() <= WIDEST) {
            square(out, confusion)?;
        }
        notes(out, evaluation)
    })
}

fn notes(out: &mut dyn Write, evaluation: &Evaluation) -> io::Result<()> {
    let said: Vec<&String> = evaluation.notes.iter().chain(&evaluation.signatures).collect();
    if !said.is_empty() {
        writeln!(out)?;
    }
    said.iter().try_for_each(|note| writeln!(out, "{note}"))
}

/// A line for each method, and below it one for each group of problems.
fn methods(out: &mut dyn Write, methods: &[MethodScore]) -> io::Result<()> {
    let groups = methods.iter().flat_map(|row| &row.groups).map(|group| group.name.len() + 2);
    let width = methods.iter().map(|row| row.method.len()).chain(groups).max().unwrap_or(0).max(6);
    writeln!(out, "{:width$}  accuracy  95 % interval     right          answered  tokens", "method")?;
    for row in methods {
        let [low, high] = row.interval;
        let right = format!("{} of {}", row.correct, row.count);
        let tokens = row.tokens.map_or("-".to_owned(), |tokens| format!("{tokens:.1}"));
        let (accuracy, answered) = (row.accuracy, row.answered);
        write!(
            out,
            "{:width$}  {accuracy:8.4}  {low:.4} to {high:.4}  {right:13}  {answered:8.4}  {tokens:>6}",
            row.method
        )?;
        match row.confidence {
            Some(confidence) => writeln!(out, "  (mean confidence {confidence:.3})")?,
            None => writeln!(out)?,
        }
        for group in &row.groups {
            let share = group.correct as f64 / group.count.max(1) as f64;
            let name = format!("  {}", group.name);
            writeln!(out, "{name:width$}  {share:8.4}  {:16}  {} of {}", "", group.correct, group.count)?;
        }
    }
    Ok(())
}

fn classes(out: &mut dyn Write, evaluation: &Evaluation) -> io::Result<()> {
    if evaluation.classes.is_empty() {
        return Ok(());
    }
    let width = evaluation.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(5);
    writeln!(out, "\n{:width$}  precision  recall      f1  support", "class")?;
    for class in &evaluation.classes {
        let scores = &class.scores;
        let (precision, recall, f1, support) = (scores.precision, scores.recall, scores.f1, scores.support);
        writeln!(out, "{:width$}  {precision:9.4}  {recall:6.4}  {f1:6.4}  {support:7}", class.name)?;
    }
    Ok(())
}

fn square(out: &mut dyn Write, confusion: &Confusion) -> io::Result<()> {
    let widths = |label: &String| label.chars().count();
    let names = confusion.labels.iter().map(widths).max().unwrap_or(0);
    let cell = |column: usize| {
        let counts = confusion.counts.iter().map(|row| row[column].to_string().len());
        counts.max().unwrap_or(0).max(widths(&confusion.labels[column]))
    };
    let cells: Vec<usize> = (0..confusion.labels.len()).map(cell).collect();
    writeln!(out, "\nrows: what is right; columns: what the model said")?;
    write!(out, "{:names$}", "")?;
    confusion.labels.iter().zip(&cells).try_for_each(|(label, width)| write!(out, "  {label:>width$}"))?;
    for (label, row) in confusion.labels.iter().zip(&confusion.counts) {
        write!(out, "\n{label:names$}")?;
        row.iter().zip(&cells).try_for_each(|(count, width)| write!(out, "  {count:>width$}"))?;
    }
    writeln!(out)
}
