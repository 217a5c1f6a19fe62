//! One vector for a text: the states of its tokens pooled, as the files of sentence-transformers say or by their mean.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use phyla_data::supervised::encode;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::Model;
use serde_json::{Map, Value};

use super::rows::numbers;
use super::{Row, Runner};
use crate::{Error, Session};

/// How the states of a text's tokens become one vector; filling takes no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean (Reimers and Gurevych 2019).
    #[default]
    Mean,
    /// The first token's.
    Cls,
    /// The largest number of each place.
    Max,
    /// The last token's.
    Last,
}

const POOLINGS: [(&str, Pooling); 4] =
    [("mean", Pooling::Mean), ("cls", Pooling::Cls), ("max", Pooling::Max), ("last", Pooling::Last)];

impl FromStr for Pooling {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = POOLINGS.iter().find(|(known, _)| *known == name);
        known.map(|(_, pooling)| *pooling).ok_or_else(|| {
            let known: Vec<&str> = POOLINGS.iter().map(|(name, _)| *name).collect();
            format!("no pooling is called `{name}`; expected {}", known.join(", "))
        })
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(POOLINGS.iter().find(|(_, pooling)| pooling == self).map_or("", |(name, _)| name))
    }
}

/// How texts become vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// How states become a vector.
    pub pooling: Pooling,
    /// Whether vectors are brought to length 1.
    pub normalize: bool,
    /// Whether texts are read in small letters.
    pub lowercase: bool,
    /// Tokens of a text at most; `None`: as many as the model can take.
    pub max_len: Option<usize>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self { pooling: Pooling::Mean, normalize: true, lowercase: false, max_len: None }
    }
}

impl Recipe {
    /// What a folder of sentence-transformers says (`modules.json`, `1_Pooling/config.json`,
    /// `sentence_bert_config.json`); without these files, the mean at length 1.
    ///
    /// # Errors
    /// Files that cannot be read; a module or a pooling that is not known here.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let Some(modules) = json(&folder.join("modules.json"))? else { return Ok(Self::default()) };
        let wrong = |what: &str| Error::Task(format!("{}: {what}", folder.join("modules.json").display()));
        let modules = modules.as_array().ok_or_else(|| wrong("expected a list of modules"))?;
        let mut recipe = Self { normalize: false, ..Self::default() };
        let mut pooled = false;
        for module in modules {
            let kind = module["type"].as_str().unwrap_or_default();
            let path = folder.join(inside(module["path"].as_str().unwrap_or_default())?);
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => recipe.reading(&path)?,
                "Pooling" => {
                    let config = json(&path.join("config.json"))?.unwrap_or_default();
                    recipe.pooling = pooling(config.as_object().unwrap_or(&Map::new()), &path)?;
                    pooled = true;
                }
                "Normalize" => recipe.normalize = true,
                // It only acts in training.
                "Dropout" => {}
                other => {
                    return Err(wrong(&format!(
                        "the module `{other}` is not known; known are Transformer, Pooling, Normalize"
                    )));
                }
            }
        }
        if !pooled {
            return Err(wrong("no module is a Pooling"));
        }
        Ok(recipe)
    }

    /// How its first module reads texts.
    fn reading(&mut self, folder: &Path) -> Result<(), Error> {
        let Some(config) = json(&folder.join("sentence_bert_config.json"))? else { return Ok(()) };
        let len = config["max_seq_length"].as_u64().and_then(|len| usize::try_from(len).ok());
        self.max_len = len.filter(|&len| len > 0);
        self.lowercase = config["do_lower_case"].as_bool().unwrap_or(false);
        Ok(())
    }
}

/// A module's path, which must stay within the model's folder.
fn inside(path: &str) -> Result<&str, Error> {
    let plain = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if plain {
        Ok(path)
    } else {
        Err(Error::Task(format!("modules.json: the path `{path}` leaves the model's folder")))
    }
}

/// A JSON file, if it is there.
fn json(path: &Path) -> Result<Option<Value>, Error> {
    if !path.is_file() {
        return Ok(None);
    }
    let wrong = |error: &dyn fmt::Display| Error::Task(format!("{}: {error}", path.display()));
    let text = fs::read(path).map_err(|error| wrong(&error))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| wrong(&error))
}

/// The pooling that `1_Pooling/config.json` names: one of its switches, or by name as newer files have it.
fn pooling(config: &Map<String, Value>, folder: &Path) -> Result<Pooling, Error> {
    const SWITCHES: [(&str, Pooling); 4] = [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    let wrong = |what: String| Error::Task(format!("{}: {what}", folder.join("config.json").display()));
    if let Some(name) = config.get("pooling_mode").and_then(Value::as_str) {
        let name = if name == "lasttoken" { "last" } else { name };
        return name.parse().map_err(wrong);
    }
    let on = |(name, value): (&String, &Value)| {
        (name.starts_with("pooling_mode_") && value.as_bool() == Some(true)).then(|| name.clone())
    };
    let on: Vec<String> = config.iter().filter_map(on).collect();
    let known = |name: &String| SWITCHES.iter().find(|(known, _)| known == name).map(|(_, pooling)| *pooling);
    match on.as_slice() {
        [] => Err(wrong("no pooling is switched on".into())),
        [one] => known(one).ok_or_else(|| wrong(format!("`{one}` is not known here"))),
        more => Err(wrong(format!("{} are switched on together, which is not known here", more.join(", ")))),
    }
}

/// Texts to vectors.
#[derive(Debug)]
pub struct Embed<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    recipe: Recipe,
    max_len: usize,
}

impl<'a> Embed<'a> {
    /// Vectors as `recipe` says; of an encoder-decoder from its encoder.
    ///
    /// # Errors
    /// No tokenizer; texts longer than the model has positions for.
    pub fn new(session: &'a Session, recipe: Recipe) -> Result<Self, Error> {
        let (model, tokenizer) = super::parts(session)?;
        let max_len = super::max_len(model, tokenizer, recipe.max_len)?;
        Ok(Self { model, tokenizer, recipe, max_len })
    }

    /// Numbers of a vector.
    pub fn dim(&self) -> usize {
        self.model.arch.source().map_or(self.model.arch.hidden(), |encoder| encoder.hidden)
    }

    /// A text as a row, and whether it was cut.
    ///
    /// # Errors
    /// When the tokenizer cannot encode it.
    pub fn row(&self, text: &str) -> phyla_data::Result<(Row, bool)> {
        let lower = self.recipe.lowercase.then(|| text.to_lowercase());
        let (ids, types, cut) = encode(self.tokenizer, lower.as_deref().unwrap_or(text), None, self.max_len)?;
        Ok((Row { ids, types }, cut))
    }

    /// The vectors of these rows, in their order; of a row without tokens, zeros.
    ///
    /// # Errors
    /// A failure of the model.
    pub fn vectors(&self, runner: &Runner, rows: &[&Row]) -> Result<Vec<Vec<f32>>, Error> {
        let dim = self.dim();
        let vectors = runner.each(rows, |input, batch| {
            let hidden = match self.model.arch.source() {
                Some(_) => self.model.encode(input, &mut input.source_pass(&self.model.arch)?)?.states,
                None => {
                    let mut pass = input.pass(&self.model.arch)?;
                    self.model.forward(&input.ids, input.token_types.as_deref(), &mut pass)?
                }
            };
            let states = numbers(&hidden)?;
            let texts = states.chunks_exact(input.time * dim).zip(batch);
            Ok(texts.map(|(text, &index)| self.pooled(&text[..rows[index].ids.len() * dim], dim)).collect())
        })?;
        Ok(vectors)
    }

    /// The vector of `states[tokens, dim]`.
    fn pooled(&self, states: &[f32], dim: usize) -> Vec<f32> {
        let tokens = states.chunks_exact(dim);
        let count = tokens.len().max(1) as f32;
        let mut vector: Vec<f32> = match self.recipe.pooling {
            Pooling::Mean => {
                let mut sum = vec![0.; dim];
                tokens.for_each(|token| sum.iter_mut().zip(token).for_each(|(sum, x)| *sum += x));
                sum.iter_mut().for_each(|sum| *sum /= count);
                sum
            }
            Pooling::Max => tokens
                .map(<[f32]>::to_vec)
                .reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a.max(*b)).collect())
                .unwrap_or_default(),
            Pooling::Cls => states.get(..dim).unwrap_or_default().to_vec(),
            Pooling::Last => tokens.last().unwrap_or_default().to_vec(),
        };
        vector.resize(dim, 0.);
        if self.recipe.normalize {
            let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
            // As PyTorch's `normalize`: zeros stay zeros.
            vector.iter_mut().for_each(|x| *x /= length.max(1e-12));
        }
        vector
    }
}
