//! Which adapters answer a request: each names its own, and rows of different ones pass together.

use std::ops::Range;
use std::sync::Arc;

use phyla_models::Model;
use phyla_models::adapter::Adapter;

use super::Engine;
use crate::{Error, Result};

/// An adapter of a model, by the name that requests give it.
#[derive(Clone, Debug)]
pub struct NamedAdapter {
    /// The name.
    pub name: String,
    /// The adapter.
    pub adapter: Arc<Adapter>,
}

/// What changes the model for a request: places in the list of adapters.
pub(super) type Worn = Arc<[usize]>;

/// So many rows of a pass, and what changes the model for them.
pub(super) type Run = (usize, Worn);

/// The adapters that a request names; all that there are for one that names none itself.
///
/// # Errors
/// A name that no adapter has, or that is given twice; a choice where an adapter has replaced what is the model's own.
pub(super) fn worn(known: &[NamedAdapter], names: Option<&[String]>) -> Result<Worn> {
    let Some(names) = names else { return Ok((0..known.len()).collect()) };
    if let Some(named) = known.iter().find(|named| !named.adapter.saved().is_empty()) {
        return Err(Error::Settings(format!(
            "adapter {:?} has replaced whole parameters of the model (modules_to_save), so that no request can do without it: \
             leave `adapter` out of requests, or load it alone",
            named.name
        )));
    }
    let place = |name: &String| {
        let unknown = || {
            let all: Vec<String> = known.iter().map(|named| format!("{:?}", named.name)).collect();
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            Error::Settings(format!("no adapter is called {name:?}; there are: {all}"))
        };
        known.iter().position(|named| named.name == *name).ok_or_else(unknown)
    };
    if let Some(twice) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
        return Err(Error::Settings(format!("adapter {twice:?} is named twice; name each once")));
    }
    names.iter().map(place).collect()
}

/// Whether these are all adapters as they hang in the model from the start.
pub(super) fn are_all(worn: &Worn, known: &[NamedAdapter]) -> bool {
    worn.iter().copied().eq(0..known.len())
}

/// What hangs in a model at the moment.
pub(super) struct Adapters<'a> {
    model: &'a Model,
    known: &'a [NamedAdapter],
    hung: Option<Vec<Run>>,
}

impl<'a> Adapters<'a> {
    pub fn new(model: &'a Model, known: &'a [NamedAdapter]) -> Self {
        Self { model, known, hung: None }
    }

    /// Cuts a group of rows into what can pass at once, each with its runs of rows that are changed alike.
    pub fn cut(&self, group: Range<usize>, of_row: impl Fn(usize) -> Option<Worn>) -> Vec<(Range<usize>, Vec<Run>)> {
        let mut runs: Vec<Run> = vec![];
        if !self.known.is_empty() {
            for worn in group.clone().filter_map(of_row) {
                match runs.last_mut() {
                    Some((rows, last)) if *last == worn => *rows += 1,
                    _ => runs.push((1, worn)),
                }
            }
        }
        if runs.len() < 2 || self.model.keeps_rows() {
            return vec![(group, runs)];
        }
        let mut start = group.start;
        let alone = |(rows, worn): Run| {
            start += rows;
            (start - rows..start, vec![(rows, worn)])
        };
        runs.into_iter().map(alone).collect()
    }

    /// Lets rows be changed as they are to be. Where there is nothing to choose from, the model stays as it was made.
    pub fn hang(&mut self, runs: Vec<Run>) {
        // For all alike their number does not matter.
        let alike = |runs: &[Run], others: &[Run]| matches!((runs, others), ([(_, a)], [(_, b)]) if a == b);
        let hangs = self.hung.as_ref().is_some_and(|hung| *hung == runs || alike(hung, &runs));
        if self.known.is_empty() || runs.is_empty() || hangs {
            return;
        }
        let adapters = |worn: &Worn| worn.iter().map(|&at| self.known[at].adapter.clone()).collect();
        self.model.use_adapters_by_rows(&runs.iter().map(|(rows, worn)| (*rows, adapters(worn))).collect::<Vec<_>>());
        self.hung = Some(runs);
    }
}

impl Engine<'_> {
    /// Moves lines that write and are changed alike next to one another.
    pub(super) fn sort_by_adapter(&mut self) -> Result<()> {
        if self.generator.adapters().is_empty() {
            return Ok(());
        }
        let worn = |row: usize| self.calls.get(&self.lines[row].request).map(|call| call.job.adapters.clone());
        let worn: Vec<Option<Worn>> = (0..self.writing).map(worn).collect();
        let first = |row: usize| worn.iter().position(|other| *other == worn[row]).unwrap_or(row);
        let keys: Vec<usize> = (0..self.writing).map(first).collect();
        if keys.is_sorted() {
            return Ok(());
        }
        let mut rows: Vec<usize> = (0..self.lines.len()).collect();
        rows[..self.writing].sort_by_key(|&row| keys[row]);
        self.batch.arrange(&rows)?;
        let mut lines: Vec<_> = std::mem::take(&mut self.lines).into_iter().map(Some).collect();
        self.lines = rows.iter().filter_map(|&row| lines[row].take()).collect();
        Ok(())
    }
}
