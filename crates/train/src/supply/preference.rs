//! From preferences to batches; the reference's log-probabilities come later, when there is a model.

use std::sync::Arc;

use phyla_data::supervised::labels::LabelSet;
use phyla_data::supervised::preference::{PreferenceSettings, Preferences};
use phyla_data::supervised::records::{Judgement, Preference};
use serde_json::{Map, json};

use super::{Maker, Supply, labels};
use crate::TrainError;
use crate::judge::Judge;
use crate::recipe::{Objective, Reads};
use crate::records::Records;

impl Maker<'_> {
    pub(super) fn preferences(&self, records: &Records, settings: PreferenceSettings) -> Result<Supply, TrainError> {
        let objective = &self.recipe.objective;
        let (train, validation) = self.both(records, |part, _: Option<&Arc<Preferences>>| {
            Ok(match objective.reads() {
                Reads::Judgements => Preferences::judged(part.records::<Judgement>(), self.tokenizer, settings)?,
                _ => Preferences::compared(part.records::<Preference>(), self.tokenizer, settings)?,
            })
        })?;
        let mut head = Map::new();
        if let Objective::Reward(_) = objective {
            head = labels(&LabelSet::default(), 1);
            // Where a text ends the head tells by this.
            head.insert("pad_token_id".into(), json!(train.pad()));
        }
        let parts: Vec<Arc<Preferences>> = std::iter::once(train.clone()).chain(validation.clone()).collect();
        let supply = self.finish(records, train, validation, head, Judge::Means, vec![])?;
        Ok(Supply { preferences: parts, ..supply })
    }
}
