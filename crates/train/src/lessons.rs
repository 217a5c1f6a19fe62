//! What a recipe of supervised fine-tuning learns from, without its model: for people to look at before they train.

use std::path::Path;

use phyla_data::supervised::records::Dialogue;
use phyla_data::supervised::sft::SftSettings;
use phyla_data::tokenizer::Tokenizer;

use crate::TrainError;
use crate::recipe::{Objective, Recipe};
use crate::records::{Records, Stream};
use crate::setup::{named_tokenizer, with_template};
use crate::supply::Material;

/// Examples, and how they become rows.
#[derive(Debug)]
pub struct Lessons {
    /// Masks, lengths, packing.
    pub settings: SftSettings,
    records: Records,
}

impl Lessons {
    /// Opens the data of a recipe, and its tokenizer with the chat template that it names; one that is to be trained is
    /// trained.
    ///
    /// # Errors
    /// A recipe of another objective, and whatever is wrong with its data or its tokenizer.
    pub fn open(recipe: &Recipe, note: &mut dyn FnMut(&str)) -> Result<(Tokenizer, Self), TrainError> {
        let Objective::Sft(sft) = &recipe.objective else {
            let message = format!("expected `objective.kind` \"sft\", found \"{}\"", recipe.objective.name());
            return Err(TrainError::Settings(message));
        };
        let material = Material::open(recipe, Path::new(""))?;
        let tokenizer = match material.tokenizer(recipe, note)? {
            Some(tokenizer) => tokenizer,
            None => named_tokenizer(recipe)?,
        };
        let tokenizer = with_template(tokenizer, sft.chat_template.as_deref())?;
        Ok((tokenizer, Self { settings: sft.settings(), records: Records::open(recipe)? }))
    }

    /// The training examples, from the first one on.
    pub fn dialogues(&self) -> Stream<'_, Dialogue> {
        self.records.train.records()
    }

    /// The held-out ones, where the recipe has any.
    pub fn held_out(&self) -> Option<Stream<'_, Dialogue>> {
        self.records.validation.as_ref().map(crate::records::Part::records)
    }
}
