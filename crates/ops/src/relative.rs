//! A learned bias for each head and bucket of distances (Raffel et al. 2020, section 2.1): what T5 adds to its scores.

use std::sync::Arc;

use candle_core::{Device, Result};
use phyla_kernels::elementwise::add_assign;
use phyla_kernels::memory::zeros;
use phyla_kernels::threads;

use crate::{Data, Param, Tensor, cpu, plain};

/// How distances fall into buckets: half of them hold one distance each, the others ranges that grow exponentially.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeBuckets {
    /// Number of buckets.
    pub buckets: usize,
    /// The distance from which on all share the last bucket.
    pub max_distance: usize,
    /// Whether keys after the query have buckets of their own, half of all; else they share that of distance 0.
    pub both_ways: bool,
}

impl RelativeBuckets {
    /// Buckets of one direction, and how many of them hold a single distance.
    fn sizes(&self) -> (usize, usize) {
        let buckets = if self.both_ways { self.buckets / 2 } else { self.buckets };
        (buckets, buckets / 2)
    }

    fn check(&self) -> Result<()> {
        let (_, exact) = self.sizes();
        if exact == 0 || self.max_distance <= exact || self.buckets > u32::MAX as usize {
            candle_core::bail!(
                "relative buckets: expected at least {} buckets, and a largest distance beyond the {exact} that have \
                 one each; found {self:?}",
                if self.both_ways { 4 } else { 2 }
            );
        }
        Ok(())
    }

    /// The bucket of the distance from query to key, `key - query`.
    ///
    /// The logarithm is taken in f32 as the original does, since its rounding decides where a bucket begins.
    pub fn bucket(&self, distance: i64) -> usize {
        let (buckets, exact) = self.sizes();
        let first = if self.both_ways && distance > 0 { buckets } else { 0 };
        let distance = if self.both_ways { distance.unsigned_abs() } else { distance.min(0).unsigned_abs() };
        if distance < exact as u64 {
            return first + distance as usize;
        }
        let ln = |x: f64| x.ln() as f32;
        let share = ln(f64::from(distance as f32 / exact as f32)) / ln(self.max_distance as f64 / exact as f64);
        let further = (share * (buckets - exact) as f32) as usize;
        first + (exact + further).min(buckets - 1)
    }
}

/// Where the queries stand among the keys.
#[derive(Clone, Debug)]
struct Places {
    /// The position of each sequence's first query.
    past: Vec<u32>,
    queries: usize,
    keys: usize,
    heads: usize,
}

impl Places {
    /// Distances from the last query back to the first key, over all sequences: where distance 0 stands in a diagonal.
    fn zero(&self) -> usize {
        self.past.iter().max().map_or(0, |&past| past as usize) + self.queries.saturating_sub(1)
    }

    /// All distances that occur lie in a row of so many.
    fn distances(&self) -> usize {
        self.zero() + self.keys
    }

    /// The distances of one query, in the order of the keys: so many from here on.
    fn start(&self, row: usize) -> usize {
        self.zero() - self.past[row / self.queries] as usize - row % self.queries
    }

    fn buckets(&self, rule: RelativeBuckets) -> Vec<u32> {
        (0..self.distances()).map(|i| rule.bucket(i as i64 - self.zero() as i64) as u32).collect()
    }
}

/// `bias[b, h, i, j] = table[bucket(j - (past[b] + i)), h]`, `[1 or batch, heads, queries, keys]`, for
/// [`AttentionArgs::bias`](crate::AttentionArgs).
///
/// `table` is `[buckets, heads]`. `past` holds the position of the first query, one for all sequences or one for each
/// (cached decoding of rows of different lengths); keys stand at `0..keys`. Where all `past` are equal the result serves
/// every sequence.
pub fn relative_bias(
    table: &Arc<Param>,
    rule: RelativeBuckets,
    past: &[u32],
    queries: usize,
    keys: usize,
) -> Result<Tensor> {
    rule.check()?;
    let heads = match table.dims() {
        &[buckets, heads] if buckets == rule.buckets && heads > 0 => heads,
        dims => candle_core::bail!("{}: expected [{} buckets, heads], found {dims:?}", table.path(), rule.buckets),
    };
    if past.is_empty() || past.iter().any(|&past| past as usize + queries > keys) {
        candle_core::bail!("relative bias: {queries} queries after {past:?} do not fit {keys} keys");
    }
    let same = past.iter().all(|first| *first == past[0]);
    let past = if same { past[..1].to_vec() } else { past.to_vec() };
    let places = Places { past, queries, keys, heads };
    let device = table.weight().device();
    if !plain::fast_on(&device) {
        return plain::composed(&[], &[table], move |x| reference(&x[0], &places, rule, &device));
    }
    let weight = table.compute().to_f32()?.contiguous()?;
    let (buckets, len) = (places.buckets(rule), places.distances());
    // Each head's bias for every distance: a query's row is a piece of it.
    let mut lines = zeros(heads * len);
    {
        let weight = cpu::view::<f32>(&weight)?;
        for (h, line) in lines.chunks_exact_mut(len.max(1)).enumerate() {
            for (to, &bucket) in line.iter_mut().zip(&buckets) {
                *to = weight[bucket as usize * heads + h];
            }
        }
    }
    let batch = places.past.len();
    let mut bias = zeros(batch * heads * queries * keys);
    let plane = queries * keys;
    let work = bias.len();
    threads::for_each_chunk(&mut bias, plane, work, |i, plane| {
        let (b, h) = (i / heads, i % heads);
        for (t, row) in plane.chunks_exact_mut(keys).enumerate() {
            row.copy_from_slice(&lines[h * len + places.start(b * queries + t)..][..keys]);
        }
    });
    let (table, wants) = (table.clone(), table.wants_grad());
    Ok(Tensor::record(cpu::tensor(bias, (batch, heads, queries, keys))?, &[], wants, move |dy| {
        let dy = dy.contiguous()?;
        let dy = cpu::view::<f32>(&dy)?;
        let mut sums = zeros(heads * len);
        threads::for_each_chunk(&mut sums, len, dy.len(), |h, line| {
            for b in 0..batch {
                let rows = &dy[(b * heads + h) * plane..][..plane];
                for (t, row) in rows.chunks_exact(keys).enumerate() {
                    add_assign(&mut line[places.start(b * queries + t)..][..keys], row);
                }
            }
        });
        table.accumulate(|dtable| {
            for (h, line) in sums.chunks_exact(len.max(1)).enumerate() {
                // The last buckets hold thousands of distances.
                let mut wide = vec![0f64; rule.buckets];
                line.iter().zip(&buckets).for_each(|(dy, &bucket)| wide[bucket as usize] += f64::from(*dy));
                wide.iter().enumerate().for_each(|(bucket, sum)| dtable[bucket * heads + h] += *sum as f32);
            }
            Ok(())
        })?;
        Ok(vec![])
    }))
}

fn reference(table: &Data, places: &Places, rule: RelativeBuckets, device: &Device) -> Result<Data> {
    let Places { past, queries, keys, heads } = places;
    let mut rows = Vec::with_capacity(past.len() * queries * keys);
    for &past in past {
        for t in 0..*queries as i64 {
            rows.extend((0..*keys as i64).map(|key| rule.bucket(key - i64::from(past) - t) as u32));
        }
    }
    let rows = Data::from_vec(rows, past.len() * queries * keys, device)?;
    let bias = table.index_select(&rows, 0)?.reshape((past.len(), *queries, *keys, *heads))?;
    bias.permute((0, 3, 1, 2))?.contiguous()
}
