//! One document a row, filled up on the right: simple, wasteful, and what classifiers and small sets use.

use std::ops::Range;

use super::order::Order;
use super::rows::filled;
use super::{Batch, BatchSettings, IGNORE};
use crate::tokens::TokenFile;

/// Rows of one document each, as wide as the longest of the batch.
///
/// A document longer than `time` is cut there and, as in transformers, its last token predicts nothing.
pub(super) fn padded(data: &TokenFile, order: &Order, settings: &BatchSettings, rows: Range<u64>) -> Batch {
    let documents: Vec<_> = rows.map(|row| data.document(order.document(row))).collect();
    let longest = documents.iter().map(|document| document.len()).max().unwrap_or(1);
    let mut batch = Batch::with_room(documents.len().max(1), longest.clamp(1, settings.time), false);
    let mut ids = Vec::new();
    for document in documents {
        ids.clear();
        document.slice(0..document.len().min(settings.time)).append_to(&mut ids);
        let last = (!ids.is_empty()).then_some(IGNORE);
        let targets = ids.iter().skip(1).map(|&id| id as i32).chain(last);
        batch.push(&ids, targets, 0);
        batch.end_row(ids.len(), settings.pad, 0);
    }
    filled(batch, settings)
}
