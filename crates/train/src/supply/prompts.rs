//! From prompts to what roll-outs draw of: one prompt at a time, since a roll-out may end anywhere in an epoch.

use std::sync::Arc;

use phyla_data::supervised::loader::{Examples, Loader, LoaderSettings, Size};
use phyla_data::supervised::prompts::Prompts;
use phyla_data::supervised::records::Prompt;

use super::{Maker, Supply, named};
use crate::TrainError;
use crate::recipe::Rollout;
use crate::records::Records;

impl Maker<'_> {
    pub(super) fn prompts(&self, records: &Records, rollout: &Rollout) -> Result<Supply, TrainError> {
        let most = rollout.max_prompt_length;
        let (train, held_out) = self.both(records, |part, _: Option<&Arc<Prompts>>| {
            Ok(Prompts::new(part.records::<Prompt>(), self.tokenizer, most)?)
        })?;
        let mut notes = vec![];
        for (validation, prompts) in [(false, Some(&train)), (true, held_out.as_ref())] {
            let Some(prompts) = prompts else { continue };
            notes.push(named(validation, &format!("{} prompts", prompts.count())));
            notes.extend(prompts.notes().iter().map(|text| named(validation, text)));
        }
        let order = LoaderSettings { seed: self.recipe.seed, ..LoaderSettings::new(Size::Examples(1)) };
        let one = LoaderSettings::in_order(Size::Examples(1));
        let validation = held_out.clone().map(|prompts| Loader::new(prompts, one)).transpose()?;
        let longest = (0..train.count()).map(|at| train.length(at)).max().unwrap_or(0) + rollout.max_completion_length;
        let batches = Box::new(Loader::new(train.clone(), order)?);
        let validation = validation.map(|loader| Box::new(loader) as _);
        let prompts = Some((train, held_out));
        Ok(Supply { notes, prompts, ..Supply::new(batches, validation, (longest, longest)) })
    }
}
