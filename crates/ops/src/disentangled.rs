//! DeBERTa's disentangled attention (He et al. 2021, section 3.1): scores between contents and relative positions, as a
//! bias on those between contents.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::attention::disentangled::{self as kernels, Disentangled, Side, SideGradients};
use phyla_kernels::memory::zeros;

use crate::{Data, Tensor, cpu, plain};

/// Which row of a table of `2 · span` relative positions belongs to each pair of query and key.
///
/// A row depends on the distance alone, and is the same for both terms: the distance from query to key, which the
/// original negates where it stands on the keys' side, comes out as the same number.
#[derive(Clone, Debug)]
pub struct RelativeIndex {
    /// `[queries + keys - 1]`: the row of query `i` and key `j` at `j + queries - 1 - i`.
    rows: Arc<Vec<u32>>,
    queries: usize,
    keys: usize,
    span: usize,
}

impl RelativeIndex {
    /// One row for each distance `i - j` in `-span .. span`; those beyond share the first or the last (DeBERTa).
    pub fn linear(span: usize, queries: usize, keys: usize) -> Result<Self> {
        Self::new(span, queries, keys, |distance| distance)
    }

    /// One row for each distance up to half of `buckets`, then rows for ranges that grow exponentially, such that the
    /// distance `max_distance - 1` has the last (DeBERTa-v2). The span is `buckets`.
    pub fn log_buckets(buckets: usize, max_distance: usize, queries: usize, keys: usize) -> Result<Self> {
        if buckets < 2 || max_distance <= buckets / 2 + 1 {
            candle_core::bail!(
                "relative positions: expected at least 2 buckets and a largest distance above half their number, found \
                 {buckets} and {max_distance}"
            );
        }
        Self::new(buckets, queries, keys, |distance| log_bucket(buckets, max_distance, distance))
    }

    fn new(span: usize, queries: usize, keys: usize, bucket: impl Fn(i64) -> i64) -> Result<Self> {
        if span == 0 || span > u32::MAX as usize / 2 {
            candle_core::bail!("relative positions: expected a span of 1 to 2^31, found {span}");
        }
        let row = |at: usize| {
            let distance = queries as i64 - 1 - at as i64;
            (bucket(distance) + span as i64).clamp(0, 2 * span as i64 - 1) as u32
        };
        let rows = Arc::new((0..(queries + keys).saturating_sub(1)).map(row).collect());
        Ok(Self { rows, queries, keys, span })
    }

    /// The row of query `i` and key `j`.
    pub fn row(&self, i: usize, j: usize) -> usize {
        self.rows[j + self.queries - 1 - i] as usize
    }

    /// Half the rows of a table.
    pub fn span(&self) -> usize {
        self.span
    }
}

/// The bucket of a distance `i - j`, negative where that is. The logarithms are taken in f32 as the original does, since
/// their rounding decides where a bucket begins; where torch's own logarithm is a unit in the last place off, so is a
/// border now and then (none with the settings of the released models).
fn log_bucket(buckets: usize, max_distance: usize, distance: i64) -> i64 {
    let (middle, far) = (buckets / 2, distance.unsigned_abs());
    if far <= middle as u64 {
        return distance;
    }
    let ln = |x: f32| f64::from(x).ln() as f32;
    let share = ln(far as f32 / middle as f32) / ln(((max_distance - 1) as f64 / middle as f64) as f32);
    ((share * (middle - 1) as f32).ceil() as i64 + middle as i64) * distance.signum()
}

/// `bias[b, h, i, j] = scale (q[b, i, h] · pos_k[r, h] + k[b, j, h] · pos_q[r, h])`, `r` being the row of `i` and `j`, for
/// [`AttentionArgs::bias`](crate::AttentionArgs): content to position and position to content, each where its table is
/// given.
///
/// `q` is `[batch, queries, heads, dim]`, `k` `[batch, keys, heads, dim]`, the tables `[2 · span, heads, dim]`. The scale
/// is that of the attention: `1 / sqrt(dim · (1 + number of terms))`.
pub fn disentangled_bias(
    q: &Tensor,
    k: &Tensor,
    pos_k: Option<&Tensor>,
    pos_q: Option<&Tensor>,
    index: &RelativeIndex,
    scale: f32,
) -> Result<Tensor> {
    let call = Call::new(q, k, [pos_k, pos_q], index, scale)?;
    let sides = [(q, pos_k), (k, pos_q)].map(|(content, positions)| positions.map(|positions| (content, positions)));
    let inputs: Vec<&Tensor> = sides.iter().flatten().flat_map(|&(content, positions)| [content, positions]).collect();
    if !plain::fast(q) {
        let of_queries = pos_k.is_some();
        return plain::composed(&inputs, &[], move |x| reference(x, of_queries, &call));
    }
    let mut numbers = vec![];
    for (of_queries, side) in [true, false].into_iter().zip(sides) {
        let Some((content, positions)) = side else { continue };
        let wanted = [content.tracked(), positions.tracked()];
        numbers.push((of_queries, content.data().contiguous()?, positions.data().contiguous()?, wanted));
    }
    let mut bias = zeros(call.batch * call.heads * index.queries * index.keys);
    {
        let views = numbers
            .iter()
            .map(|(of_queries, content, positions, _)| Ok((*of_queries, cpu::view(content)?, cpu::view(positions)?)))
            .collect::<Result<Vec<_>>>()?;
        let side = |which: bool| {
            let (_, content, positions) = views.iter().find(|view| view.0 == which)?;
            Some(Side { content, positions })
        };
        kernels::forward(&mut bias, side(true), side(false), &call.kernel());
    }
    let bias = cpu::tensor(bias, (call.batch, call.heads, index.queries, index.keys))?;
    Ok(Tensor::record(bias, &inputs, false, move |dbias| {
        let dbias = dbias.contiguous()?;
        let mut grads = vec![];
        for (of_queries, content, positions, wanted) in numbers {
            if wanted == [false; 2] {
                grads.extend([None, None]);
                continue;
            }
            let (mut dx, mut dp) = (zeros(content.elem_count()), zeros(positions.elem_count()));
            let side = Side { content: &cpu::view(&content)?, positions: &cpu::view(&positions)? };
            let gradients = SideGradients { content: &mut dx, positions: &mut dp };
            kernels::backward(gradients, &cpu::view(&dbias)?, side, of_queries, &call.kernel());
            let [dx, dp] = [(dx, &content), (dp, &positions)].map(|(grad, of)| cpu::tensor(grad, of.shape().clone()));
            grads.extend([Some(dx?).filter(|_| wanted[0]), Some(dp?).filter(|_| wanted[1])]);
        }
        Ok(grads)
    }))
}

struct Call {
    batch: usize,
    heads: usize,
    dim: usize,
    index: RelativeIndex,
    scale: f32,
}

impl Call {
    fn new(q: &Tensor, k: &Tensor, tables: [Option<&Tensor>; 2], index: &RelativeIndex, scale: f32) -> Result<Self> {
        let &[batch, queries, heads, dim] = q.dims() else {
            candle_core::bail!("disentangled scores expect q [batch, queries, heads, dim], found {:?}", q.dims());
        };
        if k.dims() != [batch, index.keys, heads, dim] || queries != index.queries {
            candle_core::bail!(
                "disentangled scores: q {:?} and k {:?} do not fit positions of {} queries and {} keys",
                q.dims(),
                k.dims(),
                index.queries,
                index.keys
            );
        }
        for (name, table) in ["pos_k", "pos_q"].iter().zip(tables) {
            let expected = [2 * index.span, heads, dim];
            if let Some(found) = table.map(Tensor::dims).filter(|dims| *dims != expected) {
                candle_core::bail!("disentangled scores: expected {name} {expected:?}, found {found:?}");
            }
        }
        if tables.iter().all(Option::is_none) {
            candle_core::bail!("disentangled scores need a table of positions for queries or for keys, found neither");
        }
        Ok(Self { batch, heads, dim, index: index.clone(), scale })
    }

    fn kernel(&self) -> Disentangled<'_> {
        Disentangled {
            batch: self.batch,
            time_q: self.index.queries,
            keys: self.index.keys,
            heads: self.heads,
            dim: self.dim,
            index: &self.index.rows,
            rows: 2 * self.index.span,
            scale: self.scale,
        }
    }
}

/// Of one side or two, content and positions each; the queries' first where `of_queries`.
fn reference(x: &[Data], of_queries: bool, call: &Call) -> Result<Data> {
    let (queries, keys) = (call.index.queries, call.index.keys);
    let side = |content: &Data, positions: &Data, of_queries: bool| {
        let (time, other) = if of_queries { (queries, keys) } else { (keys, queries) };
        // [heads, batch · time, dim] · [heads, dim, rows]
        let content =
            content.permute((2, 0, 1, 3))?.contiguous()?.reshape((call.heads, call.batch * time, call.dim))?;
        let product = content.matmul(&positions.permute((1, 2, 0))?.contiguous()?)?;
        let mut rows = Vec::with_capacity(time * other);
        for x in 0..time {
            rows.extend((0..other).map(|y| {
                let (i, j) = if of_queries { (x, y) } else { (y, x) };
                call.index.row(i, j) as u32
            }));
        }
        let rows = Data::from_vec(rows, (1, 1, time, other), product.device())?;
        let rows = rows.broadcast_as((call.heads, call.batch, time, other))?.contiguous()?;
        let product = product.reshape((call.heads, call.batch, time, 2 * call.index.span))?;
        let picked = product.gather(&rows, 3)?.transpose(0, 1)?;
        (if of_queries { picked } else { picked.transpose(2, 3)? }).contiguous()
    };
    let first = side(&x[0], &x[1], of_queries)?;
    let sum = if x.len() > 2 { (first + side(&x[2], &x[3], false)?)? } else { first };
    sum * f64::from(call.scale)
}
