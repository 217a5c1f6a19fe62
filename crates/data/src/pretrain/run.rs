//! Documents laid end to end in an order of their own, to be cut into rows of equal length.

use phyla_kernels::rng::Rng;

use crate::tokens::TokenFile;

/// One epoch's run of tokens; twelve bytes a document.
#[derive(Debug)]
pub struct Run {
    /// Documents in their order.
    documents: Vec<u32>,
    /// Where each begins, and where another would.
    starts: Vec<u64>,
    /// Places for a separator after each document.
    gap: u64,
}

impl Run {
    /// All documents that are not empty, each followed by `gap` places for a separator; shuffled by `rng`.
    pub(super) fn new(data: &TokenFile, gap: u64, rng: Option<Rng>) -> Self {
        let filled = |document: &u32| !data.range(*document as usize).is_empty();
        let mut documents: Vec<u32> = (0..data.documents() as u32).filter(filled).collect();
        if let Some(mut rng) = rng {
            rng.shuffle(&mut documents);
        }
        let mut starts = Vec::with_capacity(documents.len() + 1);
        starts.push(0);
        let mut total = 0;
        for &document in &documents {
            total += data.range(document as usize).len() as u64 + gap;
            starts.push(total);
        }
        Self { documents, starts, gap }
    }

    /// Places in all, without a separator after the last document.
    pub(super) fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0).saturating_sub(self.gap)
    }

    /// The tokens from place `start` on, at most `count` places; `separator` after every document that ends inside.
    pub(super) fn tokens(&self, data: &TokenFile, start: u64, count: usize, separator: Option<u32>) -> Vec<u32> {
        let mut out = Vec::with_capacity(count.min(data.tokens() + self.documents.len()));
        let mut place = self.starts.partition_point(|&begin| begin <= start).saturating_sub(1);
        let mut skip = (start - self.starts.get(place).copied().unwrap_or(start)) as usize;
        while out.len() < count
            && let Some(&document) = self.documents.get(place)
        {
            let ids = data.document(document as usize);
            let end = ids.len().min(skip + count - out.len());
            ids.slice(skip.min(end)..end).append_to(&mut out);
            if let Some(separator) = separator
                && out.len() < count
            {
                out.push(separator);
            }
            place += 1;
            skip = 0;
        }
        out
    }
}
