//! The order of one epoch: which documents stand where, and which rows are taken when.

use phyla_kernels::rng::Rng;

use super::{BatchSettings, Packing};
use crate::tokens::TokenFile;

/// A pure function of the seed and the epoch, so that resuming needs no history.
#[derive(Debug)]
pub(super) struct Order {
    /// Documents in their order; four bytes each, and empty when it is the file's.
    documents: Vec<u32>,
    /// Packed: where each document of the order begins in the run of all of them, and the end of the last.
    starts: Vec<u64>,
    /// Packed: which row is taken when; empty when in order.
    taken: Vec<u32>,
    rows: u64,
    /// Stream: draws the windows.
    rng: Option<Rng>,
}

impl Order {
    pub(super) fn new(data: &TokenFile, settings: &BatchSettings, epoch: u64) -> Self {
        let rng = Rng::new(settings.seed).split("batches").split(epoch);
        let time = settings.time as u64;
        let mut order = Self { documents: Vec::new(), starts: Vec::new(), taken: Vec::new(), rows: 0, rng: None };
        if settings.packing == Packing::Stream {
            order.rows = ((data.tokens() - 1) as u64 / time).max(1);
            order.rng = settings.shuffle.then_some(rng);
            return order;
        }
        let count = data.documents() as u32;
        if settings.shuffle {
            order.documents = (0..count).collect();
            rng.split("documents").shuffle(&mut order.documents);
        }
        if settings.packing == Packing::Padded {
            order.rows = u64::from(count);
            return order;
        }
        let mut total = 0;
        order.starts.reserve(count as usize + 1);
        order.starts.push(0);
        for place in 0..u64::from(count) {
            total += data.range(order.document(place)).len() as u64;
            order.starts.push(total);
        }
        order.rows = total.div_ceil(time);
        // A long document fills many rows in a row; taken in another order, it does not fill a whole batch.
        // Beyond four thousand million rows it no longer matters.
        if settings.shuffle && order.rows <= u64::from(u32::MAX) {
            order.taken = (0..order.rows as u32).collect();
            rng.split("rows").shuffle(&mut order.taken);
        }
        order
    }

    /// Rows in the epoch.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The document at a place of the order.
    pub(super) fn document(&self, place: u64) -> usize {
        match self.documents.get(place as usize) {
            Some(&document) => document as usize,
            None => place as usize,
        }
    }

    /// Packed: where the `index`-th row taken begins: a place in the order, and how far into that document.
    pub(super) fn row(&self, index: u64, time: usize) -> (u64, usize) {
        let row = self.taken.get(index as usize).map_or(index, |&row| u64::from(row));
        let token = row * time as u64;
        // The last document that begins at or before the token (an empty one begins where the next does).
        let place = self.starts.partition_point(|&start| start <= token).saturating_sub(1);
        let start = self.starts.get(place).copied().unwrap_or(0);
        (place as u64, (token - start) as usize)
    }

    /// Stream: where the `index`-th window begins, so that `time` tokens and one target fit.
    pub(super) fn window(&self, index: u64, time: usize, tokens: usize) -> usize {
        match &self.rng {
            Some(rng) => rng.split(index).below((tokens - time) as u64) as usize,
            None => index as usize * time,
        }
    }
}
