//! Dropout on the attention weights, drawn tile by tile and drawn again in the backward pass: no mask in memory.
//!
//! A word of the stream decides over one weight. The four words of a Philox block go to four neighbouring keys of one
//! query, so that lanes along the queries are blocks of their own and nothing has to be turned.

use super::Attention;
use super::tiles::{BQ, Block};
use crate::rng::Rng;
use crate::simd::Simd;

/// Which weights are dropped: `p` of them, by the stream `rng` from the word `offset` on, rounded up to a multiple of 4.
///
/// Weight `(b, h, i, j)` reads word `((b * heads + h) * time_q + i) * keys4 + j`, where `keys4` is `keys` rounded up to a
/// multiple of 4: a row of weights begins with a Philox block. What is kept is multiplied by `1 / (1 - p)`.
#[derive(Clone, Copy, Debug)]
pub struct Dropped<'a> {
    /// Probability that a weight is dropped, cut to [0, 1].
    pub p: f32,
    /// The stream.
    pub rng: &'a Rng,
    /// The first word.
    pub offset: u64,
}

impl Dropped<'_> {
    /// Words below this drop.
    fn below(&self) -> u32 {
        (f64::from(self.p) * 4_294_967_296.0).round() as u32
    }

    /// The factor on what is kept.
    pub(super) fn keep(&self) -> f32 {
        match self.p {
            p if p >= 1.0 => 0.0,
            p if p > 0.0 => (1.0 / (1.0 - f64::from(p))) as f32,
            _ => 1.0,
        }
    }

    /// The first Philox block of a query's weights.
    pub(super) fn row(&self, a: &Attention, b: usize, h: usize, t: usize) -> u64 {
        let s = &a.shape;
        let row = ((b * s.heads + h) * s.time_q + t) as u64 * s.keys.div_ceil(4) as u64;
        self.offset.div_ceil(4).wrapping_add(row)
    }

    /// The factor on one weight, `row` being its query's first block: what the tiles are tested against.
    pub(super) fn factor(&self, row: u64, key: usize) -> f32 {
        let word = self.rng.block(row.wrapping_add(key as u64 / 4))[key % 4];
        if self.p > 0.0 && word < self.below() { 0.0 } else { self.keep() }
    }
}

/// The dropout of a block of queries.
pub(super) struct Tosses<'a> {
    dropped: Dropped<'a>,
    below: u32,
    rows: [u64; BQ],
}

impl<'a> Tosses<'a> {
    /// `None` where nothing is dropped.
    pub fn new(a: &Attention<'a>, at: Block) -> Option<Self> {
        let dropped = a.dropped.filter(|dropped| dropped.p > 0.0)?;
        let mut rows = [0; BQ];
        for (i, row) in rows.iter_mut().enumerate().take(at.nq) {
            *row = dropped.row(a, at.b, at.h, at.q0 + i);
        }
        Some(Self { dropped, below: dropped.below(), rows })
    }

    /// Multiplies the dropped weights in `st[BK, BQ]`, keys `k0..k0 + nk`, by `factor`. With -1 the sign keeps the mask
    /// for as long as the tile lives, since weights are not negative.
    ///
    /// # Safety
    /// `st` is good for `nk` rows of `lanes <= BQ`, and the machine has `S`.
    #[inline(always)]
    pub unsafe fn drop<S: Simd>(&self, st: *mut f32, k0: usize, nk: usize, lanes: usize, factor: f32) {
        // Four rows of factors at a time, one for each word of the blocks.
        let mut factors = [[0f32; BQ]; 4];
        for group in k0 / 4..(k0 + nk).div_ceil(4) {
            draw(&mut factors, lanes, self.dropped.rng, &self.rows, group as u64, (self.below, factor));
            for (word, factors) in factors.iter().enumerate() {
                let key = group * 4 + word;
                if key < k0 || key >= k0 + nk {
                    continue;
                }
                for q in (0..lanes).step_by(S::LANES) {
                    // SAFETY: the caller's promise, k0 <= key < k0 + nk, q + LANES <= lanes.
                    unsafe {
                        let at = st.add((key - k0) * BQ + q);
                        S::store(at, S::mul(S::load(at), S::load(factors.as_ptr().add(q))));
                    }
                }
            }
        }
    }
}

/// `to[word][q]`: `factor` where the word of query `q` in its block `group` is `below`, 1 elsewhere. One loop over the
/// queries, which the compiler turns into vectors.
#[inline(always)]
fn draw(to: &mut [[f32; BQ]; 4], lanes: usize, rng: &Rng, rows: &[u64; BQ], group: u64, (below, factor): (u32, f32)) {
    let [t0, t1, t2, t3] = to;
    let toss = |word: u32| if word < below { factor } else { 1.0 };
    for i in 0..lanes.min(BQ) {
        let [w0, w1, w2, w3] = rng.block(rows[i].wrapping_add(group));
        (t0[i], t1[i], t2[i], t3[i]) = (toss(w0), toss(w1), toss(w2), toss(w3));
    }
}
