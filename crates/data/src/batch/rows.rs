//! Rows that hold no more filling than they must: packed documents, and windows of the whole stream.

use std::ops::Range;

use super::order::Order;
use super::{Batch, BatchSettings, IGNORE};
use crate::tokens::TokenFile;

/// Rows cut from the documents laid end to end.
///
/// A document that goes on in another row still gives its last token here a target, so every token but the first
/// of each document is predicted exactly once in an epoch.
pub(super) fn packed(data: &TokenFile, order: &Order, settings: &BatchSettings, rows: Range<u64>) -> Batch {
    let time = settings.time;
    let mut batch = Batch::with_room(rows.clone().count().max(1), time, true);
    let mut ids = Vec::new();
    for row in rows {
        let (mut place, mut skip) = order.row(row, time);
        let (mut length, mut segment) = (0, 0);
        while length < time && place < data.documents() as u64 {
            let document = data.document(order.document(place));
            let end = document.len().min(skip + time - length);
            if skip < end {
                ids.clear();
                document.slice(skip..end).append_to(&mut ids);
                let after = document.get(end).map_or(IGNORE, |id| id as i32);
                let targets = ids.iter().skip(1).map(|&id| id as i32).chain([after]);
                batch.push(&ids, targets, segment);
                length += ids.len();
                segment += 1;
            }
            place += 1;
            skip = 0;
        }
        batch.end_row(length, settings.pad, segment);
    }
    filled(batch, settings)
}

/// Windows of the whole stream; every position counts.
pub(super) fn stream(data: &TokenFile, order: &Order, settings: &BatchSettings, rows: Range<u64>) -> Batch {
    let time = settings.time;
    let mut batch = Batch::with_room(rows.clone().count().max(1), time, false);
    let mut ids = Vec::with_capacity(time + 1);
    for row in rows {
        let start = order.window(row, time, data.tokens());
        ids.clear();
        data.slice(start..start + time + 1).append_to(&mut ids);
        let (inputs, targets) = (&ids[..time], ids[1..].iter().map(|&id| id as i32));
        batch.push(inputs, targets, 0);
        batch.end_row(time, settings.pad, 0);
    }
    filled(batch, settings)
}

/// One row of filling for a rank that has no row left.
pub(super) fn filled(mut batch: Batch, settings: &BatchSettings) -> Batch {
    if batch.batch == 0 {
        batch.end_row(0, settings.pad, 0);
    }
    batch.finish()
}
