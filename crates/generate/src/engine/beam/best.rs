//! The best of many scores without sorting them: what cannot be among them is passed over a block at a time.

use std::cmp::Ordering;

use phyla_kernels::rng::Rng;

/// A beam's continuation by one id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// What decides; the score itself unless drawn.
    key: f32,
    /// Sum of log-probabilities.
    pub score: f32,
    /// Rank of the beam.
    pub beam: usize,
    /// The id.
    pub id: u32,
}

impl Candidate {
    /// One that was not drawn.
    pub fn new(score: f32, beam: usize, id: u32) -> Self {
        Self { key: score, score, beam, id }
    }

    /// Best first; of equals the likelier beam's, then the lower id.
    fn order(&self, other: &Self) -> Ordering {
        other.key.total_cmp(&self.key).then(self.beam.cmp(&other.beam)).then(self.id.cmp(&other.id))
    }
}

/// The best so far.
#[derive(Debug)]
pub(super) struct Best {
    count: usize,
    found: Vec<Candidate>,
    /// What a key must reach to be among them.
    bar: f32,
}

/// Scores that are passed over at once.
const BLOCK: usize = 128;
/// Values that are compared side by side; the compiler makes vectors of them.
const LANES: usize = 16;

impl Best {
    /// None yet of `count`.
    pub fn new(count: usize) -> Self {
        Self { count, found: Vec::with_capacity(2 * count), bar: f32::NEG_INFINITY }
    }

    /// Offers a beam's continuations: `base` and the log-probability of each id. Minus infinity is none.
    pub fn offer(&mut self, beam: usize, base: f32, row: &[f32]) {
        for (block, values) in row.chunks(BLOCK).enumerate() {
            // Rounding keeps the order: what the largest does not reach none does.
            if largest(values) + base < self.bar {
                continue;
            }
            for (i, &value) in values.iter().enumerate() {
                self.push(Candidate::new(value + base, beam, (block * BLOCK + i) as u32));
            }
        }
    }

    /// As [`Best::offer`], such that the best are a draw without replacement, in the order in which they were drawn:
    /// scores disturbed by Gumbel noise (Vieira 2014; Kool et al. 2019, section 2.3). `rng` is the step's.
    pub fn draw(&mut self, beam: usize, base: f32, row: &[f32], rng: &Rng) {
        for (id, &value) in row.iter().enumerate().filter(|(_, value)| **value > f32::NEG_INFINITY) {
            let [a, b, ..] = rng.block((beam * row.len() + id) as u64);
            // In the middle of one of 2^53 equal parts: neither 0 nor 1.
            let uniform = ((u64::from(a) << 32 | u64::from(b)) >> 11) as f64 + 0.5;
            let noise = -(-(uniform / (1u64 << 53) as f64).ln()).ln();
            let score = value + base;
            let key = (f64::from(score) + noise) as f32;
            self.push(Candidate { key, score, beam, id: id as u32 });
        }
    }

    fn push(&mut self, candidate: Candidate) {
        // NaN is neither.
        if candidate.key >= self.bar && candidate.key > f32::NEG_INFINITY {
            self.found.push(candidate);
        }
        if self.found.len() == 2 * self.count {
            self.bar = self.found.select_nth_unstable_by(self.count - 1, Candidate::order).1.key;
            self.found.truncate(self.count);
        }
    }

    /// Moves the best to `into`, in order, and begins anew.
    pub fn take(&mut self, into: &mut Vec<Candidate>) {
        self.found.sort_unstable_by(Candidate::order);
        self.found.truncate(self.count);
        into.clear();
        into.append(&mut self.found);
        self.bar = f32::NEG_INFINITY;
    }
}

fn largest(values: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            most[i] = if block[i] > most[i] { block[i] } else { most[i] };
        }
    }
    most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most })
}

#[cfg(test)]
mod tests;
