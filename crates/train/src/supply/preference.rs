//! From preferences to batches; the reference's log-probabilities come later, when there is a model.

use std::sync::Arc;

use phyla_data::supervised::graded::{GradedTexts, Scale};
use phyla_data::supervised::labels::LabelSet;
use phyla_data::supervised::preference::{PreferenceSettings, Preferences};
use phyla_data::supervised::records::{Graded, Judgement, Preference};
use serde_json::{Map, Value, json};

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
        let head = if let Objective::Reward(_) = objective { score(train.pad()) } else { Map::new() };
        let parts: Vec<Arc<Preferences>> = std::iter::once(train.clone()).chain(validation.clone()).collect();
        let supply = self.finish(records, train, validation, head, Judge::Means, vec![])?;
        Ok(Supply { preferences: parts, ..supply })
    }

    pub(super) fn graded(&self, records: &Records, settings: PreferenceSettings) -> Result<Supply, TrainError> {
        let listed = match &self.recipe.objective {
            Objective::Reward(reward) => reward.grades.clone().map(Scale::new).transpose()?,
            _ => None,
        };
        let (train, validation) = self.both(records, |part, known: Option<&Arc<GradedTexts>>| {
            let scale = known.map(|train| train.scale()).or(listed.as_ref());
            Ok(GradedTexts::new(part.records::<Graded>(), self.tokenizer, settings, scale)?)
        })?;
        let grades = Some((train.scale().clone(), train.counts()));
        let head = score(train.pad());
        let supply = self.finish(records, train, validation, head, Judge::Grades, vec![])?;
        Ok(Supply { grades, ..supply })
    }
}

/// What a configuration says of a head with one number for a text.
fn score(pad: u32) -> Map<String, Value> {
    let mut head = labels(&LabelSet::default(), 1);
    // Where a text ends the head tells by this.
    head.insert("pad_token_id".into(), json!(pad));
    head
}
