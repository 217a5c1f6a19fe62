//! From the recipe's `[data]` of text without labels to documents in token ids, and to the rows of next-token prediction.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use phyla_data::batch::{BatchSettings, Batcher, Packing as Rows};
use phyla_data::dataset::{Corpus, Faults, Format, Portion, Split, TextSettings};
use phyla_data::tokenizer::Tokenizer;
use phyla_data::tokens::{TokenFile, TokenSettings, cache_dir};

use crate::TrainError;
use crate::recipe::{Packing, Recipe, Source, TokenizerTable};

/// Training and validation text.
#[derive(Debug)]
pub struct Texts {
    train: Corpus,
    validation: Option<Corpus>,
}

/// The line that ends a document in files that we write.
const END: &str = "<|endoftext|>";

impl Texts {
    /// Finds (or, for generated stories, writes into `folder`) the files of a recipe.
    pub fn open(recipe: &Recipe, folder: &Path) -> Result<Self, TrainError> {
        let data = &recipe.data;
        let fraction = data.validation_fraction.unwrap_or(0.);
        let base = TextSettings {
            paths: vec![],
            format: None,
            field: "text".into(),
            separator: None,
            faults: Faults::Refuse,
            split: None,
        };
        let (base, one_document) = match &data.source {
            Source::Stories(settings) => {
                let held_out = (settings.bytes as f64 * fraction) as usize;
                let train = settings.texts(false, settings.bytes);
                let validation = (fraction > 0.).then(|| settings.texts(true, held_out));
                return Self::generated(base, folder, "stories", train, validation);
            }
            Source::Sums(settings) => {
                let held_out = ((settings.items as f64 * fraction) as usize).max(1);
                let train = settings.texts(Portion::Train).take(settings.items);
                let validation = (fraction > 0.).then(|| settings.texts(Portion::Validation).take(held_out));
                return Self::generated(base, folder, "sums", train, validation);
            }
            Source::Text(text) => {
                let base =
                    TextSettings { format: Some(Format::Text), separator: text.document_separator.clone(), ..base };
                (base, text.document_separator.is_none() && text.train.len() == 1 && text.train[0].is_file())
            }
            Source::Jsonl(columns) => {
                (TextSettings { format: Some(Format::Jsonl), field: columns.field.clone(), ..base }, false)
            }
            Source::Parquet(columns) => {
                (TextSettings { format: Some(Format::Parquet), field: columns.field.clone(), ..base }, false)
            }
            Source::Table(_) | Source::Task(_) => {
                return Err(TrainError::Settings(
                    "this objective learns from `data.kind` text, jsonl, parquet, stories or sums".into(),
                ));
            }
        };
        let Some(validation) = data.validation_fraction.filter(|&f| f > 0.) else {
            return Self::files(base, data.train_files().to_vec(), data.validation_files().to_vec());
        };
        // A single document is cut, its end held out; of many, whole documents are.
        let split = |portion| match one_document {
            true => Split::Characters { validation, portion },
            false => Split::Documents { validation, seed: recipe.seed, portion },
        };
        let part = |portion| {
            Corpus::new(TextSettings {
                paths: data.train_files().to_vec(),
                split: Some(split(portion)),
                ..base.clone()
            })
        };
        Ok(Self { train: part(Portion::Train)?, validation: Some(part(Portion::Validation)?) })
    }

    /// Writes generated texts into files of `folder`, and finds them there.
    fn generated(
        base: TextSettings,
        folder: &Path,
        name: &str,
        train: impl Iterator<Item = String>,
        validation: Option<impl Iterator<Item = String>>,
    ) -> Result<Self, TrainError> {
        let base = TextSettings { separator: Some(END.into()), format: Some(Format::Text), ..base };
        let path = folder.join(format!("{name}.txt"));
        write_documents(&path, train)?;
        let mut held_out = vec![];
        if let Some(validation) = validation {
            held_out.push(folder.join(format!("{name}-validation.txt")));
            write_documents(&held_out[0], validation)?;
        }
        Self::files(base, vec![path], held_out)
    }

    fn files(base: TextSettings, train: Vec<PathBuf>, validation: Vec<PathBuf>) -> Result<Self, TrainError> {
        let open = |paths| Corpus::new(TextSettings { paths, ..base.clone() });
        let validation = if validation.is_empty() { None } else { Some(open(validation)?) };
        Ok(Self { train: open(train)?, validation })
    }

    /// The tokenizer that the recipe asks for, trained on the training text if need be.
    pub fn tokenizer(&self, table: &TokenizerTable, note: &mut dyn FnMut(&str)) -> Result<Tokenizer, TrainError> {
        fn texts(corpus: &Corpus) -> Result<impl Iterator<Item = phyla_data::Result<String>>, TrainError> {
            Ok(corpus.documents()?.map(|document| document.map(|document| document.text)))
        }
        let validation = || self.validation.as_ref().map(texts).transpose();
        crate::vocabulary::tokenizer(table, || texts(&self.train), validation, note)
    }

    /// One of the two parts.
    pub fn part(&self, validation: bool) -> Option<&Corpus> {
        if validation { self.validation.as_ref() } else { Some(&self.train) }
    }

    /// The tokens of one of the parts, made once and kept in the user's cache; of a part that is not there, none.
    pub fn file(
        &self,
        recipe: &Recipe,
        tokenizer: &Tokenizer,
        validation: bool,
        append_eos: bool,
        note: &mut dyn FnMut(&str),
    ) -> Result<Arc<TokenFile>, TrainError> {
        let Some(corpus) = self.part(validation) else {
            return Ok(Arc::new(TokenFile::from_documents(Vec::<Vec<u32>>::new())));
        };
        // Without a home the run keeps its own.
        let cache = cache_dir().unwrap_or_else(|_| recipe.output.join("data"));
        let settings = TokenSettings { add_special: false, append_eos };
        let name = if validation { "validation" } else { "training" };
        let (file, made) = TokenFile::cached(&cache, corpus, tokenizer, &settings, &mut |_| {})?;
        if let phyla_data::tokens::Made::Rebuilt(reason) = made {
            note(&format!("the cached tokens of the {name} text were unusable and are made anew: {reason}"));
        }
        note(&format!("{name} text: {} tokens in {} documents", file.tokens(), file.documents()));
        Ok(Arc::new(file))
    }

    /// Rows for next-token prediction.
    pub fn batches(
        &self,
        recipe: &Recipe,
        tokenizer: &Tokenizer,
        time: usize,
        note: &mut dyn FnMut(&str),
    ) -> Result<(Batcher, Option<Batcher>), TrainError> {
        let mut open = |validation| self.file(recipe, tokenizer, validation, tokenizer.eos().is_some(), note);
        let rows = match recipe.data.packing {
            Packing::Packed => Rows::Packed,
            Packing::Stream => Rows::Stream,
            Packing::Padded => Rows::Padded,
        };
        let pad = tokenizer.pad().or(tokenizer.eos()).unwrap_or(0);
        let settings = BatchSettings { pad, seed: recipe.seed, ..BatchSettings::new(rows, recipe.train.batch, time) };
        let train = Batcher::new(open(false)?, settings.clone())?;
        let validation = match &self.validation {
            Some(_) => Some(Batcher::new(open(true)?, BatchSettings { shuffle: rows == Rows::Stream, ..settings })?),
            None => None,
        };
        if train.truncated() > 0 {
            note(&format!("{} documents are longer than {time} tokens and are cut off there", train.truncated()));
        }
        Ok((train, validation))
    }
}

/// Writes documents as one text file, each ended by a line of its own. Generators are deterministic, so a file that
/// is there already is the same.
fn write_documents(path: &Path, documents: impl Iterator<Item = String>) -> Result<(), TrainError> {
    let write = |source| TrainError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(write)?;
    }
    let mut text = Vec::new();
    for document in documents {
        writeln!(text, "{document}\n{END}").map_err(write)?;
    }
    Ok(phyla_models::checkpoint::atomic_write(path, &text)?)
}
