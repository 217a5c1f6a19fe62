//! Classes and numbers of texts: accuracy, F1, Matthews correlation, confusion; correlations of a regression.

use phyla_data::supervised::classify::ProblemType;
use phyla_data::supervised::labels::LabelSet;
use phyla_data::supervised::records::Labelled;
use phyla_data::supervised::table::Table;
use phyla_metrics::classification::{Classes, ConfusionMatrix};
use phyla_metrics::multilabel::MultiLabel;
use phyla_metrics::regression;
use serde_json::Value;

use super::{
    Class, Confusion, Evaluation, Metric, Mistake, Options, Progress, Scale, Unknown, Worst, averages, named, note,
};
use crate::task::classify::{Class as Said, Classify};
use crate::task::{Runner, highest, predict};
use crate::{Error, Session};

/// Evaluates a classifier of texts, by whatever kind of answer it gives.
///
/// # Errors
/// Another head; rows that cannot be read or have no label; labels that the model does not know.
pub fn classification(
    session: &Session,
    table: &Table,
    threshold: f32,
    options: &Options,
    progress: Progress,
) -> Result<Evaluation, Error> {
    let mut head = Classify::new(session, options.max_len)?;
    head.threshold = threshold;
    let labels = named(head.labels(), options)?;
    let mut sum = Sum::new(&head, &labels, options);
    let (mut total, mut unknown) = (0, Unknown::default());
    for record in table.records::<Labelled>() {
        let record = record?;
        if head.problem_type() != ProblemType::Regression {
            spelled(&record)?.iter().for_each(|label| unknown.note(&labels, label));
        }
        total += 1;
    }
    unknown.check(&labels)?;
    let runner = Runner::new(&session.model, session.tokenizer.as_ref(), options.batches);
    let (mut done, mut cut) = (0, 0);
    predict(&head, &runner, table.records(), |item| {
        let (record, (said, was_cut)) = item?;
        cut += u64::from(was_cut);
        sum.add(&record, &said)?;
        done += 1;
        progress(done, Some(total));
        Ok::<_, Error>(())
    })?;
    let mut made = sum.finish()?;
    made.count = done;
    note(&mut made.notes, cut, done, "texts were cut, since the model reads no more");
    note(&mut made.notes, table.faults().count, done + table.faults().count, "rows could not be used");
    Ok(made)
}

/// What is counted while answers come.
struct Sum<'a> {
    head: &'a Classify<'a>,
    labels: &'a LabelSet,
    confusion: ConfusionMatrix,
    many: MultiLabel,
    /// Of each output its references and predictions.
    values: Vec<(Vec<f64>, Vec<f64>)>,
    worst: Worst,
}

impl<'a> Sum<'a> {
    fn new(head: &'a Classify<'a>, labels: &'a LabelSet, options: &Options) -> Self {
        Self {
            head,
            labels,
            confusion: ConfusionMatrix::new(labels.len()),
            many: MultiLabel::new(labels.len()),
            values: vec![(vec![], vec![]); labels.len()],
            worst: Worst::new(options.mistakes),
        }
    }

    fn add(&mut self, record: &Labelled, said: &Said) -> Result<(), Error> {
        let name = |class: usize| self.labels.name(class as u32).unwrap_or_default().to_owned();
        let mistake = |expected: String, found: String, score: f64| Mistake {
            input: match &record.text_b {
                Some(second) => format!("{} / {second}", record.text),
                None => record.text.clone(),
            },
            expected,
            found,
            score,
        };
        match said {
            Said::One(scores) => {
                let classes = self.classes(record)?;
                let [reference] = classes[..] else {
                    return Err(fault(record, format!("expected one label, found {}", classes.len())));
                };
                let best = highest(scores);
                self.confusion.add(reference, best)?;
                if best != reference {
                    let score = f64::from(scores[best]);
                    self.worst.add(score, || mistake(name(reference), name(best), score));
                }
            }
            Said::Many(scores) => {
                let mut reference = vec![false; self.labels.len()];
                self.classes(record)?.iter().for_each(|&class| reference[class] = true);
                let found: Vec<bool> = scores.iter().map(|score| *score >= self.head.threshold).collect();
                self.many.add(&reference, &found)?;
                let wrong = (0..found.len()).filter(|&class| reference[class] != found[class]);
                let distance = |class: usize| f64::from((scores[class] - f32::from(reference[class])).abs());
                if let Some(worst) = wrong.map(distance).reduce(f64::max) {
                    let listed =
                        |on: &[bool]| (0..on.len()).filter(|&class| on[class]).map(name).collect::<Vec<_>>().join(", ");
                    self.worst.add(worst, || mistake(listed(&reference), listed(&found), worst));
                }
            }
            Said::Values(values) => {
                let expected = numbers(record)?;
                if expected.len() != values.len() {
                    let message = format!("expected {} numbers as label, found {}", values.len(), expected.len());
                    return Err(fault(record, message));
                }
                for ((references, predictions), (reference, value)) in
                    self.values.iter_mut().zip(expected.iter().zip(values))
                {
                    references.push(*reference);
                    predictions.push(f64::from(*value));
                }
                let far = expected.iter().zip(values).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0., f64::max);
                self.worst.add(far, || mistake(format!("{expected:?}"), format!("{values:?}"), far));
            }
        }
        Ok(())
    }

    /// The classes of a record's label, each once.
    fn classes(&self, record: &Labelled) -> Result<Vec<usize>, Error> {
        let mut classes = vec![];
        for label in spelled(record)? {
            match self.labels.id(&label) {
                Some(class) => classes.push(class as usize),
                None => return Err(fault(record, format!("the model does not know the label `{label}`"))),
            }
        }
        classes.sort_unstable();
        classes.dedup();
        Ok(classes)
    }

    fn finish(self) -> Result<Evaluation, Error> {
        let name = |class: usize| self.labels.name(class as u32).unwrap_or_default().to_owned();
        let mut made = Evaluation { task: "sequence_classification", unit: "texts", ..Evaluation::default() };
        match self.head.problem_type() {
            ProblemType::SingleLabelClassification => {
                let report = self.confusion.report(Classes::Seen)?;
                made.metrics.push(Metric::fraction("accuracy", report.accuracy));
                if self.labels.len() == 2 {
                    let positive = self.confusion.binary(1)?;
                    made.metrics.push(Metric::fraction("f1", positive.f1));
                    made.metrics.push(Metric::fraction("precision", positive.precision));
                    made.metrics.push(Metric::fraction("recall", positive.recall));
                    made.notes.push(format!("f1, precision and recall are those of `{}`", name(1)));
                }
                made.metrics.extend(averages(&report.averages));
                made.metrics.push(Metric::fraction("matthews", self.confusion.matthews()?));
                made.classes =
                    report.classes.iter().map(|&(class, scores)| Class { name: name(class), scores }).collect();
                made.confusion = (self.labels.len() <= MOST_SHOWN)
                    .then(|| Confusion { labels: self.labels.names().to_vec(), counts: self.confusion.rows() });
            }
            ProblemType::MultiLabelClassification => {
                let report = self.many.report()?;
                made.metrics.push(Metric::fraction("subset_accuracy", report.subset_accuracy));
                made.metrics.extend(averages(&report.averages));
                made.metrics.push(Metric::fraction("f1_samples", report.samples.f1));
                let classes = report.labels.iter().enumerate();
                made.classes = classes.map(|(class, &scores)| Class { name: name(class), scores }).collect();
                made.notes.push(format!("labels count as found from a probability of {}", self.head.threshold));
            }
            ProblemType::Regression => {
                for (class, (references, predictions)) in self.values.iter().enumerate() {
                    let called = |metric: &str| match self.values.len() {
                        1 => metric.to_owned(),
                        _ => format!("{metric} {}", name(class)),
                    };
                    for (metric, correlation) in
                        [("pearson", regression::pearson as fn(&_, &_) -> _), ("spearman", regression::spearman)]
                    {
                        match correlation(references, predictions) {
                            Ok(value) => made.metrics.push(Metric::fraction(called(metric), value)),
                            // A constant prediction has errors still.
                            Err(error) => made.notes.push(error.to_string()),
                        }
                    }
                    let mse = regression::mean_squared_error(references, predictions)?;
                    let mae = regression::mean_absolute_error(references, predictions)?;
                    made.metrics.push(Metric::new(called("mse"), mse, Scale::Number));
                    made.metrics.push(Metric::new(called("mae"), mae, Scale::Number));
                }
            }
        }
        made.mistakes = self.worst.take();
        Ok(made)
    }
}

/// Classes beyond which a square of them shows nothing.
const MOST_SHOWN: usize = 64;

pub(super) fn fault(record: &Labelled, message: String) -> Error {
    match &record.origin.0 {
        Some(position) => phyla_data::Error::Record { position: position.clone(), message }.into(),
        None => Error::Task(message),
    }
}

/// The labels of a record as they are spelled: one, a list, or those columns that say 1.
fn spelled(record: &Labelled) -> Result<Vec<String>, Error> {
    let one = |value: &Value| match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        other => Err(fault(record, format!("a label should be a string or a number, found {other}"))),
    };
    match &record.label {
        Value::Null => Err(fault(record, "there is no label to compare with".into())),
        Value::Array(values) => values.iter().map(one).collect(),
        Value::Object(columns) => {
            let on = |value: &Value| match value.as_str().map_or_else(|| value.to_string(), str::to_lowercase).trim() {
                "1" | "1.0" | "true" => Ok(true),
                "0" | "0.0" | "false" | "" | "null" => Ok(false),
                other => Err(fault(record, format!("a column of a class should be 0 or 1, found {other}"))),
            };
            let named = columns.iter().map(|(name, value)| on(value).map(|on| on.then(|| name.clone())));
            named.filter_map(Result::transpose).collect()
        }
        single => Ok(vec![one(single)?]),
    }
}

/// The numbers of a record's label.
pub(super) fn numbers(record: &Labelled) -> Result<Vec<f64>, Error> {
    let number = |text: String| match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(fault(record, format!("the label `{text}` should be a number"))),
    };
    match &record.label {
        // A column for each value.
        Value::Object(columns) => {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned());
            columns.values().map(|value| number(text(value))).collect()
        }
        _ => spelled(record)?.into_iter().map(number).collect(),
    }
}
