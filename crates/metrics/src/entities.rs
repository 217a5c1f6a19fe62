//! Precision, recall and F1 of whole entities: right only with the same kind and the same borders.
//!
//! Equal to seqeval's `classification_report`. What an entity is, the tags and [`Scheme`] say.

use std::collections::BTreeMap;
use std::collections::HashSet;

use serde::Serialize;

use crate::error::{mean, same_length};
use crate::tags::{Scheme, entities};
use crate::{Averages, Counts, Result, Scores};

/// What is counted of tagged sentences.
#[derive(Debug, Clone, Default)]
pub struct EntityCounts {
    scheme: Scheme,
    counts: BTreeMap<String, Counts>,
    right_tags: u64,
    tags: u64,
}

/// Scores of each kind of entity and over all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The part of tags that are right, `O` included.
    pub accuracy: f64,
    /// Scores of each kind, by name.
    pub kinds: BTreeMap<String, Scores>,
    /// Micro (the usual "entity F1"), macro and weighted average over kinds.
    #[serde(flatten)]
    pub averages: Averages,
}

impl EntityCounts {
    /// Counts under a scheme, all zero.
    pub fn new(scheme: Scheme) -> Self {
        Self { scheme, ..Self::default() }
    }

    /// Counts one sentence.
    ///
    /// # Errors
    /// Lists of different lengths, and tags that [`entities`] refuses.
    pub fn add<T: AsRef<str>, U: AsRef<str>>(&mut self, reference: &[T], prediction: &[U]) -> Result<()> {
        same_length("predicted tags", reference.len(), prediction.len())?;
        let actual = entities(reference, self.scheme)?;
        let predicted = entities(prediction, self.scheme)?;
        for entity in &actual {
            self.of(entity.kind).actual += 1;
        }
        let actual: HashSet<_> = actual.into_iter().collect();
        for entity in predicted {
            let counts = self.of(entity.kind);
            counts.predicted += 1;
            counts.hits += u64::from(actual.contains(&entity));
        }
        let right = reference.iter().zip(prediction).filter(|(a, b)| a.as_ref() == b.as_ref()).count();
        self.right_tags += right as u64;
        self.tags += reference.len() as u64;
        Ok(())
    }

    /// Counts of each kind that was seen.
    pub fn counts(&self) -> &BTreeMap<String, Counts> {
        &self.counts
    }

    /// All scores; without a single entity on either side they are 0.
    ///
    /// # Errors
    /// No tags.
    pub fn report(&self) -> Result<Report> {
        Ok(Report {
            accuracy: mean(self.right_tags as f64, self.tags, "entity F1", "tag")?,
            kinds: self.counts.iter().map(|(kind, counts)| (kind.clone(), counts.scores())).collect(),
            averages: Averages::over(self.counts.values().copied()),
        })
    }

    fn of(&mut self, kind: &str) -> &mut Counts {
        self.counts.entry(kind.to_owned()).or_default()
    }
}
