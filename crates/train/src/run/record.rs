//! What a run leaves beside its weights: where they come from, and its report.

use phyla_models::lineage::{self, Lineage};
use sha2::{Digest, Sha256};

use super::Trainer;
use crate::TrainError;
use crate::metrics::Row;
use crate::report::Report;
use crate::setup::Setup;

impl Trainer<'_> {
    /// Where what is written comes from.
    pub(super) fn lineage(&self, setup: &Setup) -> Lineage {
        let recipe = self.recipe;
        let mut metrics = serde_json::Map::new();
        let last = |value: fn(&Row) -> Option<f64>| self.rows.iter().rev().find_map(value);
        let values = [("loss", last(|row| row.loss)), ("eval_loss", last(|row| row.eval_loss))];
        metrics.extend(values.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?.into()))));
        let scores = self.rows.iter().rev().find(|row| row.is_evaluation()).map(|row| row.eval_scores.clone());
        metrics.extend(scores.unwrap_or_default().into_iter().map(|(name, score)| (name, score.into())));
        Lineage {
            version: env!("CARGO_PKG_VERSION").into(),
            method: recipe.method.name().into(),
            objective: Some(recipe.objective.name().into()),
            parent: setup.parent.clone(),
            quantize: recipe.quantize.clone(),
            data: Some(self.state.text.clone()),
            recipe: Some(lineage::hex(&Sha256::digest(self.resolved.as_bytes()))),
            seed: Some(recipe.seed),
            step: Some(self.state.step),
            metrics,
            ..Lineage::default()
        }
    }

    /// The page about the run so far.
    pub(super) fn write_report(&self, setup: &Setup) -> Result<(), TrainError> {
        let title =
            self.run.root().file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
        let machine = crate::report::machine();
        let report = Report {
            title: &title,
            subtitle: setup.model.family.model_type,
            parameters: setup.model.count() as u64,
            machine: &machine,
            rows: &self.rows,
            samples: &self.state.samples,
            recipe: &self.resolved,
            warnings: &setup.warnings,
        };
        Ok(self.run.write(&self.run.report(), &report.html())?)
    }
}
