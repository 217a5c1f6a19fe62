//! DeBERTa's additive scores (He et al. 2021, section 3.1): content times relative position, on either side, picked from
//! products that never exist for more than 64 tokens of one head at a time.
//!
//! Floor: of the products `[time, rows]` only those rows count that a block of tokens can reach, `keys + 63` of them at
//! most, so that a side costs a little more than the scores themselves. Picking costs a load for each score.

use super::tiles::{BQ, pack, with_scratch};
use crate::isa::{Isa, isa};
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{self, Shared};
use crate::tile::{Start, Tile};

/// From one row of a product to the next: [`BQ`] lanes and a line more. Picking walks down the rows, which at a power of
/// two would share a sixteenth of the first-level cache.
const ROW: usize = BQ + 16;

/// Everything but the tensors.
#[derive(Clone, Copy, Debug)]
pub struct Disentangled<'a> {
    /// Sequences.
    pub batch: usize,
    /// Queries of each.
    pub time_q: usize,
    /// Keys of each.
    pub keys: usize,
    /// Heads, of queries, keys and positions.
    pub heads: usize,
    /// Elements of a head.
    pub dim: usize,
    /// `[time_q + keys - 1]`: the row of the tables for query `i` and key `j`, at `j + time_q - 1 - i`.
    pub index: &'a [u32],
    /// Rows of the tables.
    pub rows: usize,
    /// Factor on both terms.
    pub scale: f32,
}

/// One term: content times the positions it looks at.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// `[batch, time, heads, dim]`: queries for content to position, keys for position to content.
    pub content: &'a [f32],
    /// `[rows, heads, dim]`.
    pub positions: &'a [f32],
}

/// The gradients of a [`Side`].
#[derive(Debug)]
pub struct SideGradients<'a> {
    /// Overwritten.
    pub content: &'a mut [f32],
    /// Added to.
    pub positions: &'a mut [f32],
}

/// `bias[b, h, i, j] = scale (q[b, i, h] · pos_k[r, h] + k[b, j, h] · pos_q[r, h])` with `r = index[j + time_q - 1 - i]`,
/// each term where its side is given.
pub fn forward(bias: &mut [f32], c2p: Option<Side>, p2c: Option<Side>, a: &Disentangled) {
    forward_on(isa(), bias, c2p, p2c, a);
}

fn forward_on(isa: Isa, bias: &mut [f32], c2p: Option<Side>, p2c: Option<Side>, a: &Disentangled) {
    a.check(bias.len());
    let sides: Vec<_> = [(c2p, true), (p2c, false)].into_iter().filter_map(|(s, q)| s.map(|s| (s, q))).collect();
    for (side, of_queries) in &sides {
        a.check_side(side.content.len(), side.positions.len(), *of_queries);
    }
    let plane = a.time_q * a.keys;
    if sides.is_empty() {
        bias.fill(0.0);
    }
    let work = 2 * bias.len() * a.dim * sides.len();
    threads::for_each_chunk(bias, plane, work, |head, bias| {
        let (b, h) = (head / a.heads, head % a.heads);
        for (n, &(side, of_queries)) in sides.iter().enumerate() {
            let place = Place { a, of_queries, b, h };
            with_scratch(a.dim * BQ + a.rows * ROW, |scratch| {
                dispatch(isa, Pick { place, side, bias: &mut *bias, first: n == 0, scratch });
            });
        }
    });
}

/// The gradient of one side of [`forward`], `c2p` or (`of_queries` false) `p2c`.
pub fn backward(g: SideGradients, dbias: &[f32], side: Side, of_queries: bool, a: &Disentangled) {
    backward_on(isa(), g, dbias, side, of_queries, a);
}

fn backward_on(isa: Isa, g: SideGradients, dbias: &[f32], side: Side, of_queries: bool, a: &Disentangled) {
    a.check(dbias.len());
    a.check_side(side.content.len(), side.positions.len(), of_queries);
    a.check_side(g.content.len(), g.positions.len(), of_queries);
    if dbias.is_empty() {
        return g.content.fill(0.0);
    }
    let (content, positions) = (Shared(g.content.as_mut_ptr()), Shared(g.positions.as_mut_ptr()));
    // The positions' gradient is summed over the sequences, so that a head is one task.
    threads::for_each(a.heads, 4 * dbias.len() * a.dim, |h| {
        for b in 0..a.batch {
            let place = Place { a, of_queries, b, h };
            with_scratch(a.rows * ROW, |scratch| {
                dispatch(isa, Spread { place, side, dbias, content, positions, scratch });
            });
        }
    });
}

impl Disentangled<'_> {
    fn check(&self, bias: usize) {
        let plane = self.time_q * self.keys;
        assert!(bias == self.batch * self.heads * plane, "disentangled: bias must be [batch, heads, time_q, keys]");
        assert!(plane == 0 || self.index.len() == self.time_q + self.keys - 1, "disentangled: one row per distance");
        assert!(self.index.iter().all(|&row| (row as usize) < self.rows), "disentangled: a row beyond the tables");
    }

    fn check_side(&self, content: usize, positions: usize, of_queries: bool) {
        let time = if of_queries { self.time_q } else { self.keys };
        assert!(
            content == self.batch * time * self.heads * self.dim && positions == self.rows * self.heads * self.dim,
            "disentangled: expected content [batch, time, heads, dim] and positions [rows, heads, dim]"
        );
    }
}

/// One side of one head of one sequence.
#[derive(Clone, Copy)]
struct Place<'a> {
    a: &'a Disentangled<'a>,
    of_queries: bool,
    b: usize,
    h: usize,
}

/// A block of tokens: the first, how many, and the rows of the tables that they reach.
#[derive(Clone, Copy)]
struct Reach {
    x0: usize,
    nx: usize,
    r0: usize,
    rows: usize,
}

impl Place<'_> {
    fn blocks(&self) -> impl Iterator<Item = Reach> + use<'_> {
        let Disentangled { time_q, keys, index, .. } = *self.a;
        let time = if self.of_queries { time_q } else { keys };
        (0..time).step_by(BQ).map(move |x0| {
            let nx = BQ.min(time - x0);
            let reached = if self.of_queries {
                &index[time_q - x0 - nx..][..keys + nx - 1]
            } else {
                &index[x0..][..time_q + nx - 1]
            };
            let (low, high) = reached.iter().fold((u32::MAX, 0), |(low, high), &r| (low.min(r), high.max(r)));
            Reach { x0, nx, r0: low as usize, rows: (high - low) as usize + 1 }
        })
    }

    /// Elements before the first of token `x`.
    fn content(&self, x: usize) -> usize {
        let time = if self.of_queries { self.a.time_q } else { self.a.keys };
        ((self.b * time + x) * self.a.heads + self.h) * self.a.dim
    }

    /// Elements before the first of row `r` of the positions.
    fn position(&self, r: usize) -> usize {
        (r * self.a.heads + self.h) * self.a.dim
    }

    /// Calls `each(at, row, key)` for the scores of a block: `at` is the place of `(row, lane)` in a product `[rows, ROW]`
    /// whose first row is `r0`, `row` and `key` those of the score. Neighbouring scores of 16 tokens come together, so
    /// that the lines of the product that they share are still near.
    #[inline(always)]
    fn scores(&self, reach: Reach, mut each: impl FnMut(usize, usize, usize)) {
        let Disentangled { time_q, keys, index, .. } = *self.a;
        let Reach { x0, nx, r0, .. } = reach;
        if self.of_queries {
            for i in x0..x0 + nx {
                let rows = &index[time_q - 1 - i..][..keys];
                for (j, &r) in rows.iter().enumerate() {
                    each((r as usize - r0) * ROW + (i - x0), i, j);
                }
            }
            return;
        }
        for j0 in (x0..x0 + nx).step_by(16) {
            let nj = 16.min(x0 + nx - j0);
            for i in 0..time_q {
                let rows = &index[j0 + time_q - 1 - i..][..nj];
                for (j, &r) in rows.iter().enumerate() {
                    each((r as usize - r0) * ROW + (j0 + j - x0), i, j0 + j);
                }
            }
        }
    }
}

/// Forward: a plane of the bias.
struct Pick<'a> {
    place: Place<'a>,
    side: Side<'a>,
    bias: &'a mut [f32],
    /// Whether the bias is written, not added to.
    first: bool,
    scratch: &'a mut [f32],
}

impl Kernel for Pick<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Pick { place, side, bias, first, scratch } = self;
        let a = place.a;
        let (xt, product) = scratch.split_at_mut(a.dim * BQ);
        for reach in place.blocks() {
            let Reach { x0, nx, r0, rows } = reach;
            // SAFETY: `check` and `check_side` compared every length; a block's rows lie inside the tables, `scores`
            // stays inside product and bias.
            unsafe {
                let row = a.heads * a.dim;
                pack::<S>(side.content.as_ptr().add(place.content(x0)), row, nx, a.dim, xt.as_mut_ptr(), a.scale);
                S::tile(&Tile {
                    m: rows,
                    n: nx.next_multiple_of(S::LANES),
                    k: a.dim,
                    a: side.positions.as_ptr().add(place.position(r0)),
                    a_i: row,
                    a_p: 1,
                    b: xt.as_ptr(),
                    b_row: BQ,
                    c: product.as_mut_ptr(),
                    c_row: ROW,
                    start: Start::Zero,
                });
                let (product, bias) = (product.as_ptr(), bias.as_mut_ptr());
                if first {
                    place.scores(reach, |at, i, j| *bias.add(i * a.keys + j) = *product.add(at));
                } else {
                    place.scores(reach, |at, i, j| *bias.add(i * a.keys + j) += *product.add(at));
                }
            }
        }
    }
}

/// Backward: what a plane of the bias's gradient sends to its tokens and to the positions.
struct Spread<'a> {
    place: Place<'a>,
    side: Side<'a>,
    dbias: &'a [f32],
    content: Shared<f32>,
    positions: Shared<f32>,
    scratch: &'a mut [f32],
}

impl Kernel for Spread<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Spread { place, side, dbias, content, positions, scratch } = self;
        let a = place.a;
        let plane = a.time_q * a.keys;
        let dbias = &dbias[(place.b * a.heads + place.h) * plane..][..plane];
        for reach in place.blocks() {
            let Reach { x0, nx, r0, rows } = reach;
            let product = &mut scratch[..rows * ROW];
            product.fill(0.0);
            let row = a.heads * a.dim;
            // SAFETY: as in `Pick`; no other task has this head.
            unsafe {
                let (at0, dbias) = (product.as_mut_ptr(), dbias.as_ptr());
                place.scores(reach, |at, i, j| *at0.add(at) += *dbias.add(i * a.keys + j) * a.scale);
                let (x, p) = (place.content(x0), place.position(r0));
                let (m, n, k) = (nx, a.dim, rows);
                let (b, c, start) = (side.positions.as_ptr().add(p), content.0.add(x), Start::Zero);
                S::tile(&Tile { m, n, k, a: at0, a_i: 1, a_p: ROW, b, b_row: row, c, c_row: row, start });
                let (m, n, k) = (rows, a.dim, nx);
                let (b, c, start) = (side.content.as_ptr().add(x), positions.0.add(p), Start::Add);
                S::tile(&Tile { m, n, k, a: at0, a_i: ROW, a_p: 1, b, b_row: row, c, c_row: row, start });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn values(n: usize, stream: u64) -> Vec<f32> {
        let mut x = vec![0.0; n];
        Rng::new(1).split(stream).fill_uniform(&mut x, -1.0, 1.0);
        x
    }

    /// `bias` and, from `dbias`, all gradients, by plain loops in f64.
    fn plain(a: &Disentangled, sides: [Option<Side>; 2], dbias: &[f32]) -> (Vec<f64>, [[Vec<f64>; 2]; 2]) {
        let mut bias = vec![0.0; dbias.len()];
        let mut grads = sides
            .map(|side| side.map_or([vec![], vec![]], |s| [s.content.len(), s.positions.len()].map(|n| vec![0.0; n])));
        for at in 0..bias.len() {
            let (j, i) = (at % a.keys, at / a.keys % a.time_q);
            let (h, b) = (at / a.keys / a.time_q % a.heads, at / a.keys / a.time_q / a.heads);
            let r = a.index[j + a.time_q - 1 - i] as usize;
            for (n, side) in sides.iter().enumerate() {
                let Some(side) = side else { continue };
                let (time, t) = if n == 0 { (a.time_q, i) } else { (a.keys, j) };
                let (x, p) = (((b * time + t) * a.heads + h) * a.dim, (r * a.heads + h) * a.dim);
                for d in 0..a.dim {
                    let (content, position) = (f64::from(side.content[x + d]), f64::from(side.positions[p + d]));
                    bias[at] += f64::from(a.scale) * content * position;
                    let up = f64::from(a.scale) * f64::from(dbias[at]);
                    grads[n][0][x + d] += up * position;
                    grads[n][1][p + d] += up * content;
                }
            }
        }
        (bias, grads)
    }

    /// Sums of some hundred terms below 1, in f32.
    fn close(got: &[f32], want: &[f64], what: &str) {
        assert_eq!(got.len(), want.len());
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let ok = (f64::from(*got) - want).abs() <= 2e-5 * (1.0 + want.abs());
            assert!(ok, "{what}: at {i} {got} for {want}");
        }
    }

    #[test]
    fn values_and_gradients_match_plain_loops() {
        for [batch, time_q, keys, heads, dim, rows] in [
            [1, 1, 1, 1, 1, 2],
            [2, 5, 9, 3, 7, 8],
            [1, 65, 64, 2, 16, 40],
            [2, 70, 131, 1, 33, 300],
            [1, 130, 1, 5, 8, 12],
            [3, 0, 4, 2, 8, 12],
            [2, 1, 0, 2, 8, 12],
        ] {
            // Rows that rise with clamped ends, and rows in no order.
            let mut rng = Rng::new(9);
            let risen = |i: usize| (i / 2).min(rows - 1) as u32;
            let mixed = |_: usize| rng.below(rows as u64) as u32;
            let len = (time_q + keys).saturating_sub(1);
            for index in [(0..len).map(risen).collect::<Vec<_>>(), (0..len).map(mixed).collect()] {
                let a = Disentangled { batch, time_q, keys, heads, dim, index: &index, rows, scale: 0.3 };
                let (q, k) = (values(batch * time_q * heads * dim, 1), values(batch * keys * heads * dim, 2));
                let (pos_k, pos_q) = (values(rows * heads * dim, 3), values(rows * heads * dim, 4));
                let dbias = values(batch * heads * time_q * keys, 5);
                let c2p = Some(Side { content: &q, positions: &pos_k });
                let p2c = Some(Side { content: &k, positions: &pos_q });
                for sides in [[c2p, p2c], [c2p, None], [None, p2c], [None, None]] {
                    let (want, grads) = plain(&a, sides, &dbias);
                    for isa in Isa::all_available() {
                        let what = format!("{isa:?} {batch} {time_q} {keys} {heads} {dim} {rows}");
                        let mut bias = vec![f32::NAN; want.len()];
                        forward_on(isa, &mut bias, sides[0], sides[1], &a);
                        close(&bias, &want, &format!("bias {what}"));
                        for (n, side) in sides.iter().enumerate() {
                            let Some(side) = *side else { continue };
                            let (mut x, mut p) = (vec![f32::NAN; side.content.len()], vec![0.5; side.positions.len()]);
                            let g = SideGradients { content: &mut x, positions: &mut p };
                            backward_on(isa, g, &dbias, side, n == 0, &a);
                            close(&x, &grads[n][0], &format!("content {n} {what}"));
                            let sums: Vec<f64> = grads[n][1].iter().map(|x| x + 0.5).collect();
                            close(&p, &sums, &format!("positions {n} {what}"));
                        }
                    }
                }
            }
        }
    }
}
