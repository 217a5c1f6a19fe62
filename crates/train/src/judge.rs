//! What a validation pass measures besides the loss: the metrics of each objective's field, by its own names.

use std::collections::BTreeMap;
use std::sync::Arc;

use phyla_data::batch::{Batch, IGNORE, Labels};
use phyla_data::supervised::qa::{AnswerSettings, QuestionAnswering, answers};
use phyla_metrics::classification::{Classes, ConfusionMatrix};
use phyla_metrics::entities::EntityCounts;
use phyla_metrics::multilabel::MultiLabel;
use phyla_metrics::regression::{mean_squared_error, pearson, spearman};
use phyla_metrics::squad::{Squad, Version};
use phyla_metrics::tags::{Scheme, entities};

use crate::TrainError;
use crate::calibration::{Bin, bins, error};
use crate::metrics::Means;
use crate::objective::preference::ranked;
use crate::objective::{Answers, Said};

/// Numbers by name; those of accuracy and F1 are fractions, but SQuAD's are percentages, as everywhere.
pub type Scores = BTreeMap<String, f64>;

/// Which metrics there are.
#[derive(Clone, Debug)]
pub enum Judge {
    /// None: the loss says all.
    Loss,
    /// The part of targets that are likeliest, under the given name; and that of rows, where they have classes.
    Tokens(&'static str),
    /// One class a row.
    Classes {
        /// How many there are.
        count: usize,
        /// Accuracy alone: of choices, whose numbers mean nothing.
        plain: bool,
    },
    /// Any number of classes a row.
    Many,
    /// Numbers.
    Numbers,
    /// Tags, by name.
    Tags(Vec<String>),
    /// What the objective itself measures, in means.
    Means,
    /// The same, and how often the better one of two graded texts has the higher score.
    Grades,
    /// Answers cut from texts.
    Answers(Arc<QuestionAnswering>, AnswerSettings),
}

/// What is counted on the way.
#[derive(Debug)]
pub struct Tally<'a> {
    judge: &'a Judge,
    /// Right and all, of tokens and of rows.
    right: [(u64, u64); 2],
    confusion: ConfusionMatrix,
    many: Option<MultiLabel>,
    /// References and predictions of a regression.
    numbers: (Vec<f64>, Vec<f64>),
    width: usize,
    tags: EntityCounts,
    /// Whether all tags spell entities, as B-X and the like.
    spells_entities: bool,
    /// Scores of each window's starts and ends.
    windows: Vec<[Vec<f32>; 2]>,
    means: Means,
    margins: Vec<f64>,
    /// Scores of texts and the places of their grades.
    graded: (Vec<f64>, Vec<usize>),
}

impl Judge {
    /// Begins to count.
    #[must_use]
    pub fn begin(&self) -> Tally<'_> {
        let classes = if let Self::Classes { count, .. } = self { *count } else { 0 };
        let spells_entities = match self {
            // One by one: an `I-X` is no entity of its own in a strict scheme, but it is spelled as one.
            Self::Tags(names) => names.iter().all(|name| entities(&[name], Scheme::Lenient).is_ok()),
            _ => false,
        };
        Tally {
            judge: self,
            right: [(0, 0); 2],
            confusion: ConfusionMatrix::new(classes),
            many: None,
            numbers: (vec![], vec![]),
            width: 1,
            tags: EntityCounts::new(Scheme::Lenient),
            spells_entities,
            windows: vec![],
            means: Means::default(),
            margins: vec![],
            graded: (vec![], vec![]),
        }
    }
}

impl Tally<'_> {
    /// Counts a batch; batches come in the order of the data.
    ///
    /// # Errors
    /// A class or tag that the model and the data number differently.
    pub fn add(&mut self, batch: &Batch, said: &Answers) -> Result<(), TrainError> {
        match self.judge {
            Judge::Loss => {}
            Judge::Means => {
                self.means.merge(&said.means);
                self.margins.extend(&said.margins);
            }
            Judge::Grades => {
                self.means.merge(&said.means);
                if let (Labels::Class(grades), Some(logits)) = (&batch.labels, said.rows.first()) {
                    self.graded.0.extend(logits.values.iter().map(|&x| f64::from(x)));
                    self.graded.1.extend(grades.iter().map(|&grade| grade.max(0) as usize));
                }
            }
            Judge::Tokens(_) => {
                self.tokens(batch, said);
                if let (Labels::Class(classes), Some(logits)) = (&batch.labels, said.rows.first()) {
                    self.classes(classes, logits)?;
                }
            }
            Judge::Classes { .. } => {
                if let (Labels::Class(classes), Some(logits)) = (&batch.labels, said.rows.first()) {
                    self.classes(classes, logits)?;
                }
            }
            Judge::Many => {
                if let (Labels::Many(wanted), Some(logits)) = (&batch.labels, said.rows.first()) {
                    let tally = self.many.get_or_insert_with(|| MultiLabel::new(logits.width));
                    let rows = wanted.chunks(logits.width.max(1)).zip(logits.values.chunks(logits.width.max(1)));
                    for (wanted, logits) in rows {
                        let wanted: Vec<bool> = wanted.iter().map(|&label| label > 0.5).collect();
                        // The sigmoid of 0 is a half.
                        let found: Vec<bool> = logits.iter().map(|&logit| logit > 0.).collect();
                        tally.add(&wanted, &found)?;
                    }
                }
            }
            Judge::Numbers => {
                if let (Labels::Value(wanted), Some(logits)) = (&batch.labels, said.rows.first()) {
                    self.width = logits.width.max(1);
                    self.numbers.0.extend(wanted.iter().map(|&x| f64::from(x)));
                    self.numbers.1.extend(logits.values.iter().map(|&x| f64::from(x)));
                }
            }
            Judge::Tags(names) => {
                self.tokens(batch, said);
                if self.spells_entities {
                    self.sentences(names, batch, said)?;
                }
            }
            Judge::Answers(..) => {
                if let [start, end] = said.rows.as_slice() {
                    let rows = start.values.chunks(start.width.max(1)).zip(end.values.chunks(end.width.max(1)));
                    self.windows.extend(rows.map(|(start, end)| [start.to_vec(), end.to_vec()]));
                }
            }
        }
        Ok(())
    }

    fn tokens(&mut self, batch: &Batch, said: &Answers) {
        let wanted = batch.targets.iter().filter(|&&target| target != IGNORE);
        for (&target, &found) in wanted.zip(&said.tokens) {
            self.right[0].0 += u64::from(target == found as i32);
            self.right[0].1 += 1;
        }
    }

    fn classes(&mut self, classes: &[i32], logits: &Said) -> Result<(), TrainError> {
        for (&class, logits) in classes.iter().zip(logits.values.chunks(logits.width.max(1))) {
            if class == IGNORE {
                continue;
            }
            let first = (0, f32::NEG_INFINITY);
            let pick = |best: (usize, f32), (at, &x): (usize, &f32)| if x > best.1 { (at, x) } else { best };
            let found = logits.iter().enumerate().fold(first, pick).0;
            self.right[1].0 += u64::from(class == found as i32);
            self.right[1].1 += 1;
            if matches!(self.judge, Judge::Classes { .. }) {
                self.confusion.add(class as usize, found)?;
            }
        }
        Ok(())
    }

    fn sentences(&mut self, names: &[String], batch: &Batch, said: &Answers) -> Result<(), TrainError> {
        let mut found = said.tokens.iter();
        let name = |tag: usize| names.get(tag).map_or("O", String::as_str);
        for row in batch.targets.chunks(batch.time.max(1)) {
            let wanted: Vec<&str> = row.iter().filter(|&&tag| tag != IGNORE).map(|&tag| name(tag as usize)).collect();
            let found: Vec<&str> = found.by_ref().take(wanted.len()).map(|&tag| name(tag as usize)).collect();
            self.tags.add(&wanted, &found)?;
        }
        Ok(())
    }

    /// How far a reward model's confidence can be believed; nothing of other models.
    pub fn reliability(&self) -> Vec<Bin> {
        bins(&self.margins)
    }

    /// The scores. A metric without a value, such as the correlation of constant predictions, is left out.
    ///
    /// # Errors
    /// Scores of windows that do not belong to the data's.
    pub fn scores(self) -> Result<Scores, TrainError> {
        let mut scores = Scores::new();
        let mut put = |name: &str, score: f64| {
            scores.insert(name.to_owned(), score);
        };
        let part = |(right, all): (u64, u64)| (all > 0).then(|| right as f64 / all as f64);
        match self.judge {
            Judge::Loss => {}
            Judge::Means => {
                let mut scores = self.means.values();
                if !self.margins.is_empty() {
                    scores.insert("calibration_error".to_owned(), error(&bins(&self.margins)));
                }
                return Ok(scores);
            }
            Judge::Grades => {
                let mut scores = self.means.values();
                let ranked = ranked(&self.graded.0, &self.graded.1);
                scores.extend(ranked.map(|share| ("ranking_accuracy".to_owned(), share)));
                return Ok(scores);
            }
            Judge::Tokens(name) => {
                part(self.right[0]).into_iter().for_each(|score| put(name, score));
                part(self.right[1]).into_iter().for_each(|score| put("next_sentence_accuracy", score));
            }
            Judge::Classes { count, plain } => {
                part(self.right[1]).into_iter().for_each(|score| put("accuracy", score));
                if !plain && self.right[1].1 > 0 {
                    let f1 = match count {
                        2 => self.confusion.binary(1)?.f1,
                        _ => self.confusion.report(Classes::Seen)?.averages.macro_.f1,
                    };
                    put(if *count == 2 { "f1" } else { "f1_macro" }, f1);
                    put("matthews", self.confusion.matthews()?);
                }
            }
            Judge::Many => {
                if let Some(report) = self.many.map(|many| many.report()).transpose()? {
                    put("accuracy", report.subset_accuracy);
                    put("f1_micro", report.averages.micro.f1);
                    put("f1_macro", report.averages.macro_.f1);
                }
            }
            Judge::Numbers => {
                let (wanted, found) = &self.numbers;
                if let Ok(error) = mean_squared_error(wanted, found) {
                    put("mse", error);
                }
                // Of several numbers a row each is a scale of its own; their mixture correlates by that alone.
                if self.width == 1 {
                    pearson(wanted, found).into_iter().for_each(|score| put("pearson", score));
                    spearman(wanted, found).into_iter().for_each(|score| put("spearman", score));
                }
            }
            Judge::Tags(_) => {
                part(self.right[0]).into_iter().for_each(|score| put("accuracy", score));
                if self.spells_entities && self.right[0].1 > 0 {
                    let micro = self.tags.report()?.averages.micro;
                    put("precision", micro.precision);
                    put("recall", micro.recall);
                    put("f1", micro.f1);
                }
            }
            Judge::Answers(examples, settings) => {
                if let Some((exact, f1)) = squad(examples, settings, &self.windows)? {
                    put("exact_match", exact);
                    put("f1", f1);
                }
            }
        }
        Ok(scores)
    }
}

/// Exact match and F1 over the questions all of whose windows have been read.
fn squad(
    examples: &QuestionAnswering,
    settings: &AnswerSettings,
    scores: &[[Vec<f32>; 2]],
) -> Result<Option<(f64, f64)>, TrainError> {
    let mut squad = Squad::new(Version::V2);
    let (windows, mut first, mut asked) = (examples.windows(), 0, 0);
    while first < scores.len() {
        let question = examples.question_of(first);
        let last = (first..windows.len()).find(|&at| examples.question_of(at) != question).unwrap_or(windows.len());
        let Some(read) = scores.get(first..last) else { break };
        let width = read.iter().map(|[start, _]| start.len()).max().unwrap_or(0);
        // Batches are as wide as their longest row.
        let side = |side: usize| -> Vec<f32> {
            let filled = |scores: &[f32]| [scores, &vec![f32::NEG_INFINITY; width - scores.len()]].concat();
            read.iter().flat_map(|scores| filled(&scores[side])).collect()
        };
        if let (Some(asking), Some(windows)) = (examples.questions().get(question), windows.get(first..last)) {
            let ranked = answers(&side(0), &side(1), windows, &asking.context, settings)?;
            let accepted: Vec<&str> = asking.answers.iter().map(|answer| answer.text.as_str()).collect();
            squad.add(&accepted, ranked.best())?;
            asked += 1;
        }
        first = last;
    }
    Ok(match asked {
        0 => None,
        _ => squad.report().map(|report| Some((report.all.exact, report.all.f1)))?,
    })
}
