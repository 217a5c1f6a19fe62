//! Sequence classification: a text or a pair in, one class, several, or a number out.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::labels::{Interner, LabelSet};
use super::loader::Examples;
use super::records::Labelled;
use super::rows::{Digest, Ragged, TokenRows, encode, in_parallel, note};
use crate::batch::{Batch, IGNORE, Labels};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// What kind of answer is wanted, as `problem_type` of a `config.json` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// One class of several.
    SingleLabelClassification,
    /// Any number of classes.
    MultiLabelClassification,
    /// A number, or several.
    Regression,
}

/// How labelled texts become examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifySettings {
    /// Tokens of a row at most, with those that the tokenizer adds; of a pair the longer text is cut first.
    pub max_len: usize,
    /// Without it the labels decide: lists make several classes, fractions a regression, all else one class.
    pub problem_type: Option<ProblemType>,
    /// The classes in the order of their ids; without it they are sorted.
    pub labels: Option<Vec<String>>,
    /// Rows with these labels are left out and counted (`-` in a `gold_label` is always: annotators did not agree).
    pub skip_labels: Vec<String>,
    /// What divides the classes of a row that are written as one string.
    pub label_separator: Option<String>,
}

impl Default for ClassifySettings {
    fn default() -> Self {
        Self { max_len: 512, problem_type: None, labels: None, skip_labels: Vec::new(), label_separator: None }
    }
}

/// Labelled texts in token ids.
#[derive(Debug)]
pub struct Classify {
    rows: TokenRows,
    labels: Stored,
    problem_type: ProblemType,
    set: LabelSet,
    notes: Vec<String>,
}

/// Labels row by row.
#[derive(Debug)]
enum Stored {
    None,
    Class(Vec<u32>),
    Many(Ragged<u32>),
    Value(Vec<f32>, usize),
}

/// The labels of all rows as they are met: each a list of names or numbers by their interned spelling.
#[derive(Debug, Default)]
struct Met {
    spellings: Interner,
    rows: Ragged<u32>,
    lists: bool,
    missing: usize,
}

impl Met {
    /// Notes one row's label; false when the row is to be left out.
    fn take(&mut self, record: &Labelled, settings: &ClassifySettings) -> std::result::Result<bool, String> {
        let mut ids = Vec::new();
        let mut spell = |value: &Value| -> std::result::Result<(), String> {
            ids.push(match value {
                Value::String(text) => self.spellings.id(text.trim()),
                Value::Number(number) => self.spellings.id(&number.to_string()),
                Value::Bool(truth) => self.spellings.id(&truth.to_string()),
                other => return Err(format!("a label should be a string or a number, found {other}")),
            });
            Ok(())
        };
        match &record.label {
            Value::Null => {
                self.missing += 1;
                return Ok(true);
            }
            Value::Array(values) => {
                self.lists = true;
                values.iter().try_for_each(spell)?;
            }
            // A column for each class, 0 or 1.
            Value::Object(columns) => {
                self.lists = true;
                for (name, value) in columns {
                    let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_lowercase());
                    match text.as_str() {
                        "1" | "1.0" | "true" => spell(&Value::String(name.clone()))?,
                        "0" | "0.0" | "false" | "" | "null" => {}
                        _ => return Err(format!("the class `{name}` should be 0 or 1, found {value}")),
                    }
                }
            }
            Value::String(text) if let Some(separator) = &settings.label_separator => {
                self.lists = true;
                let parts = text.split(separator.as_str()).map(str::trim).filter(|part| !part.is_empty());
                parts.map(|part| Value::String(part.to_owned())).try_for_each(|part| spell(&part))?;
            }
            single => {
                let text = single.as_str().map_or_else(|| single.to_string(), |text| text.trim().to_owned());
                if settings.skip_labels.contains(&text) || record.gold && text == "-" {
                    return Ok(false);
                }
                if text == "-1" && settings.problem_type != Some(ProblemType::Regression) {
                    let message = "the label -1 stands for no label; leave such rows out with `skip_labels = [\"-1\"]`";
                    return Err(message.to_owned());
                }
                if text.is_empty() {
                    return Err("the label is blank".to_owned());
                }
                spell(single)?;
            }
        }
        self.rows.push(&ids);
        Ok(true)
    }

    fn numbers(&self) -> std::result::Result<Vec<f32>, &str> {
        let number = |name: &String| name.parse::<f32>().ok().filter(|number| number.is_finite());
        self.spellings.names().iter().map(|name| number(name).ok_or(name.as_str())).collect()
    }

    /// The kind of problem that the labels look like.
    fn guess(&self) -> ProblemType {
        let names = self.spellings.names();
        if self.lists {
            ProblemType::MultiLabelClassification
        } else if self.numbers().is_ok() && names.iter().any(|name| name.parse::<i64>().is_err()) {
            ProblemType::Regression
        } else {
            ProblemType::SingleLabelClassification
        }
    }
}

impl Classify {
    /// Encodes `records`. For a second set (evaluation), `known` gives the classes of the first.
    ///
    /// # Errors
    /// A wrong record; a label that is none of the listed or known ones; rows of which some have a label and some not.
    pub fn new(
        records: impl Iterator<Item = Result<Labelled>>,
        tokenizer: &Tokenizer,
        settings: &ClassifySettings,
        known: Option<&LabelSet>,
    ) -> Result<Self> {
        let mut rows = TokenRows::new(tokenizer);
        let (mut met, mut cut, mut skipped, mut all) = (Met::default(), 0, 0, 0);
        let work = |record: Labelled| {
            let encoded = encode(tokenizer, &record.text, record.text_b.as_deref(), settings.max_len)?;
            Ok((record, encoded))
        };
        let mut origins = Vec::new();
        in_parallel(records, work, |(record, (ids, types, was_cut))| {
            all += 1;
            let missing = met.missing;
            if !met.take(&record, settings).map_err(|message| record.origin.error(message))? {
                skipped += 1;
                return Ok(());
            }
            if met.missing == missing {
                origins.push(record.origin);
            }
            cut += usize::from(was_cut);
            rows.push(&ids, &types);
            Ok(())
        })?;
        if met.missing > 0 && met.missing < rows.len() {
            return Err(Error::Settings(format!(
                "{} of {} rows have no label, the others have",
                met.missing,
                rows.len()
            )));
        }
        let problem_type = settings.problem_type.unwrap_or_else(|| met.guess());
        let set = match (known, &settings.labels) {
            (Some(known), _) => known.clone(),
            (None, Some(names)) => LabelSet::new(names.clone())?,
            (None, None) if problem_type == ProblemType::Regression => LabelSet::default(),
            (None, None) => LabelSet::sorted(met.spellings.names().iter().cloned()),
        };
        let labels = if met.missing > 0 || rows.len() == 0 {
            Stored::None
        } else {
            let place = |row: usize, message: String| origins[row].error(message);
            store(&met, problem_type, &set, place)?
        };
        let mut notes: Vec<String> =
            note(cut, rows.len(), &format!("texts were cut at {} tokens", settings.max_len)).into_iter().collect();
        notes.extend(note(skipped, all, "rows were left out for their label"));
        let mut made = Self { rows, labels, problem_type, set, notes };
        made.describe();
        Ok(made)
    }

    /// The classes; of a regression, none.
    pub fn labels(&self) -> &LabelSet {
        &self.set
    }

    /// What kind of answer the labels are.
    pub fn problem_type(&self) -> ProblemType {
        self.problem_type
    }

    /// Outputs that a model needs: classes, or values of a regression.
    pub fn outputs(&self) -> usize {
        match &self.labels {
            Stored::Value(_, width) => *width,
            _ => self.set.len(),
        }
    }

    /// Notes how labels are distributed.
    fn describe(&mut self) {
        let mut counts = vec![0_usize; self.set.len()];
        match &self.labels {
            Stored::Class(classes) => classes.iter().for_each(|&class| counts[class as usize] += 1),
            Stored::Many(rows) => rows.values().iter().for_each(|&class| counts[class as usize] += 1),
            Stored::None | Stored::Value(..) => return,
        }
        let named = counts.iter().zip(self.set.names()).take(20).map(|(count, name)| format!("{name} {count}"));
        self.notes.push(format!("labels: {}", named.collect::<Vec<_>>().join(", ")));
    }
}

/// The labels as ids or numbers.
fn store(
    met: &Met,
    problem_type: ProblemType,
    set: &LabelSet,
    place: impl Fn(usize, String) -> Error,
) -> Result<Stored> {
    let names = met.spellings.names();
    let count = met.rows.len();
    let one = |row: usize| match met.rows.get(row) {
        [one] => Ok(*one as usize),
        more => Err(place(row, format!("expected one label, found {}; set `problem_type`", more.len()))),
    };
    if problem_type == ProblemType::Regression {
        let width = met.rows.length(0);
        let mut values = Vec::with_capacity(count * width);
        let numbers = met.numbers();
        for row in 0..count {
            let spelled = met.rows.get(row);
            if spelled.len() != width || width == 0 {
                return Err(place(
                    row,
                    format!("expected {width} numbers, as the first row has, found {}", spelled.len()),
                ));
            }
            match &numbers {
                Ok(numbers) => values.extend(spelled.iter().map(|&id| numbers[id as usize])),
                Err(wrong) if spelled.iter().any(|&id| names[id as usize] == *wrong) => {
                    return Err(place(row, format!("the label `{wrong}` should be a number, for a regression")));
                }
                Err(_) => {}
            }
        }
        return Ok(Stored::Value(values, width));
    }
    // Spellings to classes once, not row by row.
    let ids: Vec<_> = names.iter().map(|name| set.expect(name)).collect();
    let class = |row: usize, id: u32| ids[id as usize].clone().map_err(|message| place(row, message));
    if problem_type == ProblemType::MultiLabelClassification {
        let mut rows = Ragged::default();
        for row in 0..count {
            let classes: Result<Vec<u32>> = met.rows.get(row).iter().map(|&id| class(row, id)).collect();
            rows.push(&classes?);
        }
        return Ok(Stored::Many(rows));
    }
    if set.len() > 20 && set.len() * 2 > count {
        return Err(Error::Settings(format!(
            "{} classes in {count} rows: if the labels are numbers to come near to, set `problem_type = \"regression\"`; \
             if another column has the label, set `columns.label`",
            set.len()
        )));
    }
    (0..count).map(|row| class(row, one(row)? as u32)).collect::<Result<_>>().map(Stored::Class)
}

impl Examples for Classify {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn length(&self, index: usize) -> usize {
        self.rows.ids.length(index)
    }

    fn collate(&self, indices: &[u32]) -> Batch {
        let mut batch = self.rows.batch(indices.iter().map(|&index| index as usize));
        let rows = indices.iter().map(|&index| index as usize);
        batch.labels = match &self.labels {
            Stored::None => Labels::None,
            Stored::Class(classes) => {
                Labels::Class(rows.map(|row| classes.get(row).map_or(IGNORE, |&class| class as i32)).collect())
            }
            Stored::Many(classes) => {
                let mut many = vec![0.0; indices.len() * self.set.len()];
                for (at, row) in rows.enumerate() {
                    for &class in classes.get(row) {
                        many[at * self.set.len() + class as usize] = 1.0;
                    }
                }
                Labels::Many(many)
            }
            Stored::Value(values, width) => {
                Labels::Value(rows.flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect())
            }
        };
        batch.tokens = if matches!(batch.labels, Labels::None) { 0 } else { indices.len() };
        batch
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        self.rows.digest(&mut digest);
        match &self.labels {
            Stored::None => {}
            Stored::Class(classes) => digest.all(classes.iter().map(|&class| u64::from(class))),
            Stored::Many(classes) => {
                (0..classes.len()).for_each(|row| digest.all(classes.get(row).iter().map(|&class| u64::from(class))));
            }
            Stored::Value(values, _) => digest.all(values.iter().map(|value| u64::from(value.to_bits()))),
        }
        digest.value()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
mod tests;
