//! From the recipe's data and objective to batches, and to what the model has to know of them: its head, its labels,
//! its tokens with a role.

mod preference;
mod prompts;

use std::sync::Arc;

use phyla_data::batch::{Batch, Batches};
use phyla_data::pretrain::{MlmBatches, NspBatches, Sentences, Share, SpanBatches};
use phyla_data::supervised::classify::{Classify, ProblemType};
use phyla_data::supervised::graded::Scale;
use phyla_data::supervised::labels::LabelSet;
use phyla_data::supervised::loader::{Examples, Loader, LoaderSettings, Size};
use phyla_data::supervised::multiple_choice::MultipleChoice;
use phyla_data::supervised::preference::Preferences;
use phyla_data::supervised::prompts::Prompts;
use phyla_data::supervised::qa::{Purpose, QuestionAnswering};
use phyla_data::supervised::records::{
    Choice, Dialogue, Graded, Judgement, Labelled, Parallel, Preference, Prompt, Question, Tagged,
};
use phyla_data::supervised::seq2seq::Seq2Seq;
use phyla_data::supervised::sft::Sft;
use phyla_data::supervised::token_classify::TokenClassify;
use phyla_data::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use crate::TrainError;
use crate::corpus::Texts;
use crate::judge::Judge;
use crate::recipe::{Objective, Reads, Recipe};
use crate::records::{Kind, Part, Records};

/// Everything that comes of the data.
#[derive(Debug)]
pub struct Supply {
    /// Training batches.
    pub train: Box<dyn Batches>,
    /// Validation batches, in order.
    pub validation: Option<Box<dyn Batches>>,
    /// Fields for the model's configuration.
    pub head: Map<String, Value>,
    /// What is measured besides the loss.
    pub judge: Judge,
    /// Held-out items to show, or to be answered in evaluation; of training data where nothing is held out.
    pub shown: Vec<Shown>,
    /// Sentences that the user should see.
    pub notes: Vec<String>,
    /// Tokens of the longest row, for the encoder (or the only tower) and for the decoder.
    pub longest: (usize, usize),
    /// Where log-probabilities of a reference are still to be put.
    pub preferences: Vec<Arc<Preferences>>,
    /// Prompts for the model to answer, and those that it is measured on.
    pub prompts: Option<(Arc<Prompts>, Option<Arc<Prompts>>)>,
    /// The grades of texts, and how often each is given.
    pub grades: Option<(Scale, Vec<usize>)>,
}

impl Supply {
    /// Batches of which nothing but the loss is measured, with the tokens of their longest row.
    pub fn new(train: Box<dyn Batches>, validation: Option<Box<dyn Batches>>, longest: (usize, usize)) -> Self {
        Self {
            train,
            validation,
            head: Map::new(),
            judge: Judge::Loss,
            shown: vec![],
            notes: vec![],
            longest,
            preferences: vec![],
            prompts: None,
            grades: None,
        }
    }
}

/// An item to look at.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What the model is given, in ids.
    pub batch: Batch,
    /// The same as text.
    pub text: String,
    /// What it should answer.
    pub expected: String,
}

/// Data of any kind, found.
#[derive(Debug)]
pub enum Material {
    /// Documents without labels.
    Texts(Texts),
    /// Labelled records.
    Records(Records),
}

/// Items that are shown in a sample.
const SAMPLES: usize = 3;

impl Material {
    /// Finds it; generated text is written into `folder`.
    pub fn open(recipe: &Recipe, folder: &std::path::Path) -> Result<Self, TrainError> {
        Ok(match recipe.objective.reads() {
            Reads::Text => Self::Texts(Texts::open(recipe, folder)?),
            _ => Self::Records(Records::open(recipe)?),
        })
    }

    /// The tokenizer that the recipe asks for, trained on the training data if need be.
    pub fn tokenizer(&self, recipe: &Recipe, note: &mut dyn FnMut(&str)) -> Result<Option<Tokenizer>, TrainError> {
        let Some(table) = &recipe.tokenizer else { return Ok(None) };
        let records = match self {
            Self::Texts(texts) => return texts.tokenizer(table, note).map(Some),
            Self::Records(records) => records,
        };
        let train = || Ok(texts(&records.train, &recipe.objective));
        let validation = || Ok(records.validation.as_ref().map(|part| texts(part, &recipe.objective)));
        crate::vocabulary::tokenizer(table, train, validation, note).map(Some)
    }

    /// Batches for every objective but next-token prediction, whose rows follow from the model. `config` is the
    /// checkpoint's or the recipe's.
    pub fn supply(
        &self,
        recipe: &Recipe,
        tokenizer: &Tokenizer,
        config: &Map<String, Value>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Option<Supply>, TrainError> {
        let maker = Maker { recipe, tokenizer, config };
        Ok(Some(match (self, &recipe.objective) {
            (_, Objective::Lm(_)) => return Ok(None),
            (Self::Texts(texts), _) => maker.pretraining(texts, note)?,
            (Self::Records(records), _) => maker.labelled(records)?,
        }))
    }
}

type TextStream<'a> = Box<dyn Iterator<Item = phyla_data::Result<String>> + 'a>;

/// Every text of the records that an objective learns from; both sides of pairs.
fn texts<'a>(part: &'a Part, objective: &Objective) -> TextStream<'a> {
    fn of<R: Kind>(part: &Part) -> TextStream<'_> {
        Box::new(part.records::<R>().flat_map(|record| match record {
            Ok(record) => record.texts().into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }))
    }
    match objective {
        Objective::Seq2Seq(_) => of::<Parallel>(part),
        Objective::Classify(_) => of::<Labelled>(part),
        Objective::TokenClassify(_) => of::<Tagged>(part),
        Objective::Qa(_) => of::<Question>(part),
        Objective::Kto(_) => of::<Judgement>(part),
        objective if objective.reads() == Reads::Grades => of::<Graded>(part),
        objective if objective.compares() => of::<Preference>(part),
        Objective::Sft(_) => of::<Dialogue>(part),
        objective if objective.play().is_some() => of::<Prompt>(part),
        _ => of::<Choice>(part),
    }
}

struct Maker<'a> {
    recipe: &'a Recipe,
    tokenizer: &'a Tokenizer,
    config: &'a Map<String, Value>,
}

impl Maker<'_> {
    fn pretraining(&self, texts: &Texts, note: &mut dyn FnMut(&str)) -> Result<Supply, TrainError> {
        let share = Share { seed: self.recipe.seed, ..Share::new(self.recipe.train.batch) };
        let in_order = Share { shuffle: false, ..share };
        let mut notes = vec![];
        let (mut longest, mut head) = ((0, 0), Map::new());
        let mut make = |validation: bool| -> Result<Option<Box<dyn Batches>>, TrainError> {
            let share = if validation { in_order } else { share };
            let Some(corpus) = texts.part(validation) else { return Ok(None) };
            let mut file = || texts.file(self.recipe, self.tokenizer, validation, false, note);
            let (batches, told): (Box<dyn Batches>, Vec<String>) = match &self.recipe.objective {
                Objective::Mlm(mlm) => {
                    longest = (mlm.max_len, 0);
                    let made = MlmBatches::new(file()?, self.tokenizer, mlm, share)?;
                    let notes = made.notes();
                    (Box::new(made), notes)
                }
                Objective::MlmNsp(nsp) => {
                    longest = (nsp.max_len, 0);
                    let sentences = Arc::new(Sentences::read(corpus, self.tokenizer, nsp.sentences)?);
                    let made = NspBatches::new(sentences, self.tokenizer, &nsp.settings(), share)?;
                    let notes = made.notes();
                    (Box::new(made), notes)
                }
                Objective::T5Span(span) => {
                    let made = SpanBatches::new(file()?, self.tokenizer, span, share)?;
                    longest = made.lengths();
                    // These batches begin their targets with padding, as T5 does.
                    head.insert("decoder_start_token_id".into(), json!(self.tokenizer.pad()));
                    let notes = made.notes();
                    (Box::new(made), notes)
                }
                other => return Err(TrainError::Settings(format!("`{}` does not learn from text", other.name()))),
            };
            notes.extend(told.into_iter().map(|text| named(validation, &text)));
            Ok(Some(batches))
        };
        let validation = make(true)?;
        let Some(mut train) = make(false)? else { return Err(TrainError::Settings("no training text".into())) };
        let judge = match self.recipe.objective {
            Objective::T5Span(_) => Judge::Tokens("token_accuracy"),
            _ => Judge::Tokens("masked_accuracy"),
        };
        let mut shown = vec![];
        if self.recipe.train.sample.every > 0 {
            let before = train.state();
            let first = train.next_batch()?;
            train.restore(before)?;
            shown.extend(
                (0..SAMPLES.min(first.batch))
                    .map(|row| masked(&first, row, self.tokenizer))
                    .collect::<Result<Vec<_>, _>>()?,
            );
        }
        Ok(Supply { head, judge, shown, notes, ..Supply::new(train, validation, longest) })
    }

    fn labelled(&self, records: &Records) -> Result<Supply, TrainError> {
        match &self.recipe.objective {
            Objective::Seq2Seq(settings) => {
                let start = settings.decoder_start.or_else(|| self.decoder_start());
                let make = |part: &Part| {
                    Seq2Seq::new(part.records::<Parallel>(), self.tokenizer, None, &settings.settings(), start)
                };
                let head = Map::from_iter([("decoder_start_token_id".into(), json!(start))]);
                let (train, validation) = self.both(records, |part, _| Ok(make(part)?))?;
                let held_out = validation.as_ref().unwrap_or(&train);
                let part = records.validation.as_ref().unwrap_or(&records.train);
                let mut shown = vec![];
                for (record, index) in part.records::<Parallel>().zip(0..self.shown()) {
                    let Parallel { source, target } = record?;
                    shown.push(Shown {
                        batch: held_out.collate(&[index]),
                        text: source,
                        expected: target.unwrap_or_default(),
                    });
                }
                self.finish(records, train, validation, head, Judge::Tokens("token_accuracy"), shown)
            }
            Objective::Classify(settings) => {
                let (train, validation) = self.both(records, |part, known: Option<&Arc<Classify>>| {
                    let known = known.map(|train| train.labels().clone());
                    let make = |known: Option<&LabelSet>| {
                        Classify::new(part.records::<Labelled>(), self.tokenizer, settings, known)
                    };
                    let made = make(known.as_ref())?;
                    match self.reordered(made.labels()).filter(|_| known.is_none() && settings.labels.is_none()) {
                        Some(order) => Ok(make(Some(&order))?),
                        None => Ok(made),
                    }
                })?;
                let outputs = train.outputs();
                let mut head = labels(train.labels(), outputs);
                let problem = serde_json::to_value(train.problem_type()).unwrap_or_default();
                head.insert("problem_type".into(), problem);
                let judge = match train.problem_type() {
                    ProblemType::SingleLabelClassification => Judge::Classes { count: outputs, plain: false },
                    ProblemType::MultiLabelClassification => Judge::Many,
                    ProblemType::Regression => Judge::Numbers,
                };
                if outputs < 2 && train.problem_type() == ProblemType::SingleLabelClassification {
                    return Err(TrainError::Settings(format!(
                        "the training data has {outputs} classes; to tell classes apart there must be at least 2"
                    )));
                }
                let held_out = validation.as_ref().unwrap_or(&train);
                let part = records.validation.as_ref().unwrap_or(&records.train);
                let mut shown = vec![];
                // Rows that are left out for their label have no place among the examples.
                let left_out =
                    |label: &str, gold| gold && label == "-" || settings.skip_labels.iter().any(|l| l == label);
                let kept = part.records::<Labelled>().filter(|record| match record {
                    Ok(Labelled { label: Value::String(label), gold, .. }) => !left_out(label.trim(), *gold),
                    Ok(Labelled { label, gold, .. }) => !left_out(&label.to_string(), *gold),
                    Err(_) => true,
                });
                for (record, index) in kept.zip(0..self.shown()) {
                    let record = record?;
                    let text = [Some(record.text), record.text_b].into_iter().flatten().collect::<Vec<_>>().join(" | ");
                    let expected = match record.label {
                        Value::String(label) => label,
                        other => other.to_string(),
                    };
                    shown.push(Shown { batch: held_out.collate(&[index]), text, expected });
                }
                self.finish(records, train, validation, head, judge, shown)
            }
            Objective::TokenClassify(settings) => {
                let (train, validation) = self.both(records, |part, known: Option<&Arc<TokenClassify>>| {
                    let known = known.map(|train| train.labels().clone());
                    let make = |known: Option<&LabelSet>| {
                        TokenClassify::new(part.records::<Tagged>(), self.tokenizer, settings, known)
                    };
                    let made = make(known.as_ref())?;
                    match self.reordered(made.labels()).filter(|_| known.is_none() && settings.labels.is_none()) {
                        Some(order) => Ok(make(Some(&order))?),
                        None => Ok(made),
                    }
                })?;
                let head = labels(train.labels(), train.labels().len());
                let judge = Judge::Tags(train.labels().names().to_vec());
                self.finish(records, train, validation, head, judge, vec![])
            }
            Objective::Qa(settings) => {
                let (train, validation) = self.both(records, |part, known: Option<&Arc<QuestionAnswering>>| {
                    let purpose = if known.is_some() { Purpose::Evaluate } else { Purpose::Train };
                    let asked = part.records::<Question>();
                    Ok(QuestionAnswering::new(asked, self.tokenizer, &settings.settings(), purpose)?)
                })?;
                let judge = match &validation {
                    Some(examples) => {
                        let mut answers = settings.answers;
                        if examples.questions().iter().any(|question| question.answers.is_empty()) {
                            answers.null_threshold = answers.null_threshold.or(Some(0.));
                        }
                        Judge::Answers(examples.clone(), answers)
                    }
                    None => Judge::Loss,
                };
                self.finish(records, train, validation, Map::new(), judge, vec![])
            }
            Objective::MultipleChoice(settings) => {
                let (train, validation) = self.both(records, |part, _| {
                    Ok(MultipleChoice::new(part.records::<Choice>(), self.tokenizer, settings)?)
                })?;
                let judge = Judge::Classes { count: train.choices(), plain: true };
                self.finish(records, train, validation, Map::new(), judge, vec![])
            }
            Objective::Sft(settings) => {
                let (train, validation) = self.both(records, |part, _| {
                    Ok(Sft::new(part.records::<Dialogue>(), self.tokenizer, &settings.settings())?)
                })?;
                // An answer ends where the template ends turns, whatever token the tokenizer calls the end.
                let ends: Vec<u32> = self.tokenizer.eos().into_iter().chain(train.end()).collect();
                let head = Map::from_iter([("eos_token_id".into(), json!(ends))]);
                let held_out = validation.as_ref().unwrap_or(&train);
                let wanted = if self.recipe.train.sample.every > 0 { SAMPLES } else { 0 };
                let shown = (0..held_out.examples().min(wanted)).map(|at| self.asked(held_out.asked(at)));
                let shown = shown.collect::<Result<Vec<_>, _>>()?;
                self.finish(records, train, validation, head, Judge::Tokens("token_accuracy"), shown)
            }
            other => match (other.completions(), other.play()) {
                (Some(settings), _) if other.reads() == Reads::Grades => self.graded(records, settings),
                (Some(settings), _) => self.preferences(records, settings),
                (None, Some(play)) => self.prompts(records, play.rollout),
                (None, None) => {
                    let name = other.name();
                    Err(TrainError::Settings(format!("`{name}` does not learn from labelled data")))
                }
            },
        }
    }

    /// Examples of both parts; the second is made knowing the first.
    fn both<E>(
        &self,
        records: &Records,
        make: impl Fn(&Part, Option<&Arc<E>>) -> Result<E, TrainError>,
    ) -> Result<(Arc<E>, Option<Arc<E>>), TrainError> {
        let train = Arc::new(make(&records.train, None)?);
        let validation = records.validation.as_ref().map(|part| make(part, Some(&train))).transpose()?;
        Ok((train, validation.map(Arc::new)))
    }

    fn finish<E: Examples + 'static>(
        &self,
        records: &Records,
        train: Arc<E>,
        validation: Option<Arc<E>>,
        head: Map<String, Value>,
        judge: Judge,
        shown: Vec<Shown>,
    ) -> Result<Supply, TrainError> {
        let settings = &self.recipe.train;
        let size = settings.batch_tokens.map_or(Size::Examples(settings.batch), Size::Tokens);
        let order = LoaderSettings {
            seed: self.recipe.seed,
            group_by_length: settings.group_by_length || settings.batch_tokens.is_some(),
            ..LoaderSettings::new(size)
        };
        let mut notes = vec![];
        let mut tell = |examples: &E, part: &Part, validation: bool| {
            notes.extend(part.faults().map(|text| named(validation, &text)));
            notes.push(named(validation, &format!("{} examples", examples.count())));
            notes.extend(examples.notes().iter().map(|text| named(validation, text)));
        };
        tell(&train, &records.train, false);
        if let (Some(examples), Some(part)) = (&validation, &records.validation) {
            tell(examples, part, true);
        }
        let longest = |examples: &Arc<E>| (0..examples.count()).map(|at| examples.length(at)).max().unwrap_or(0);
        let longest = longest(&train).max(validation.as_ref().map_or(0, longest));
        let train: Box<dyn Batches> = Box::new(Loader::new(train, order)?);
        // In the order of the data: who measures answers counts on that.
        let validation =
            validation.map(|examples| Loader::new(examples, LoaderSettings::in_order(size))).transpose()?;
        let validation = validation.map(|loader| Box::new(loader) as Box<dyn Batches>);
        let longest = (longest, longest);
        Ok(Supply { head, judge, shown, notes, ..Supply::new(train, validation, longest) })
    }

    /// How many held-out items are wanted.
    fn shown(&self) -> u32 {
        let samples = if self.recipe.train.sample.every > 0 { SAMPLES } else { 0 };
        self.recipe.train.eval_generate.max(samples).min(u32::MAX as usize) as u32
    }

    /// A question in ids and the answer to it.
    fn asked(&self, (question, answer): (&[u32], &[u32])) -> Result<Shown, TrainError> {
        let (ids, time) = (question.to_vec(), question.len());
        let positions = (0..time as u32).collect();
        Ok(Shown {
            batch: Batch { ids, lengths: vec![time], batch: 1, time, positions, ..Batch::default() },
            text: self.tokenizer.decode(question, false)?,
            expected: self.tokenizer.decode(answer, true)?,
        })
    }

    /// Where the decoder begins, when the recipe does not say.
    fn decoder_start(&self) -> Option<u32> {
        let named = |key: &str| self.config.get(key).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        named("decoder_start_token_id").or_else(|| self.tokenizer.bos()).or_else(|| self.tokenizer.pad())
    }

    /// The order in which the checkpoint has the same labels, if it is another one: its head knows them by number.
    fn reordered(&self, found: &LabelSet) -> Option<LabelSet> {
        let known = LabelSet::from_id2label(self.config.get("id2label")?.as_object()?).ok()?;
        let sorted = |set: &LabelSet| {
            let mut names = set.names().to_vec();
            names.sort();
            names
        };
        (known != *found && sorted(&known) == sorted(found)).then_some(known)
    }
}

fn named(validation: bool, text: &str) -> String {
    format!("{} data: {text}", if validation { "validation" } else { "training" })
}

/// What a configuration says of classes; of a regression's numbers, which have no names, how many there are.
fn labels(set: &LabelSet, outputs: usize) -> Map<String, Value> {
    let generic = || LabelSet::sorted((0..outputs).map(|at| format!("LABEL_{at}")));
    let set = if set.is_empty() { generic() } else { set.clone() };
    Map::from_iter([
        ("id2label".into(), Value::Object(set.id2label())),
        ("label2id".into(), Value::Object(set.label2id())),
        ("num_labels".into(), json!(outputs)),
    ])
}

/// One row of a batch with hidden tokens, as text with its masks, and what stood under them.
fn masked(batch: &Batch, row: usize, tokenizer: &Tokenizer) -> Result<Shown, TrainError> {
    let (from, length) = (row * batch.time, batch.lengths.get(row).copied().unwrap_or(0));
    let ids = batch.ids[from..from + length].to_vec();
    let targets = batch.targets[from..from + length].to_vec();
    let hidden: Vec<u32> = targets.iter().filter_map(|&target| u32::try_from(target).ok()).collect();
    let words: Vec<String> = hidden.iter().map(|&id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
    Ok(Shown {
        text: tokenizer.decode(&ids, false)?,
        expected: words.join(" "),
        batch: Batch {
            ids,
            targets,
            token_types: batch.token_types.as_ref().map(|types| types[from..from + length].to_vec()),
            positions: (0..length as u32).collect(),
            lengths: vec![length],
            batch: 1,
            time: length,
            ..Batch::default()
        },
    })
}
