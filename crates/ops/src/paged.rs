//! Attention over the pages of a cache: keys, values or latent vectors that are read where and as they are kept.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::attention::{self as kernels, AttentionShape, Paged};
use phyla_kernels::memory::alloc;
use phyla_kernels::page::{POSITIONS, Page};
use phyla_kernels::product::MatRef;

use crate::attention::Call;
use crate::{AttentionArgs, Data, Tensor, Visibility, cpu};

/// What a cache keeps of some sequences, `[batch, keys, heads, dim]`.
#[derive(Clone, Debug)]
pub struct Pages {
    pages: Vec<Option<Arc<Page>>>,
    each: usize,
    keys: usize,
    heads: usize,
    /// Numbers of a head as it is kept, and of them as it is seen.
    head: usize,
    dim: usize,
}

impl Pages {
    /// Of sequences of up to `keys` positions, whose pages follow one another, equally many of each, `heads` heads of `dim`;
    /// pages that no query will see may be absent.
    ///
    /// # Errors
    /// If a page has another size, or there are too few.
    pub fn new(pages: Vec<Option<Arc<Page>>>, batch: usize, keys: usize, [heads, dim]: [usize; 2]) -> Result<Self> {
        let each = pages.len() / batch.max(1);
        if pages.len() != batch * each || keys > each * POSITIONS {
            candle_core::bail!("{} pages do not hold {batch} sequences of {keys} positions", pages.len());
        }
        if let Some(page) = pages.iter().flatten().find(|page| page.row() != heads * dim) {
            candle_core::bail!("a page of {} numbers a position does not hold {heads} heads of {dim}", page.row());
        }
        Ok(Self { pages, each, keys, heads, head: dim, dim })
    }

    /// `[batch, keys, heads, dim]`.
    pub fn dims(&self) -> [usize; 4] {
        [self.pages.len().checked_div(self.each).unwrap_or(0), self.keys, self.heads, self.dim]
    }

    /// Of each head the first `dim` numbers.
    ///
    /// # Errors
    /// If a head has fewer.
    pub fn narrowed(&self, dim: usize) -> Result<Self> {
        if dim > self.dim {
            candle_core::bail!("a head of {} numbers has no first {dim}", self.dim);
        }
        Ok(Self { dim, ..self.clone() })
    }

    /// All of it in f32 and in one piece; zeros where a page is absent.
    ///
    /// # Errors
    /// Out of memory.
    pub fn gather(&self) -> Result<Data> {
        let ([batch, keys, heads, dim], row) = (self.dims(), self.heads * self.head);
        let (mut all, mut numbers) =
            (Vec::<f32>::with_capacity(batch * keys * heads * dim), vec![0f32; POSITIONS * row]);
        for sequence in self.pages.chunks_exact(self.each.max(1)) {
            for (i, page) in sequence.iter().enumerate().take(keys.div_ceil(POSITIONS)) {
                match page {
                    Some(page) => page.read(0, &mut numbers),
                    None => numbers.fill(0.0),
                }
                let here = POSITIONS.min(keys - i * POSITIONS);
                all.extend(numbers[..here * row].chunks_exact(self.head.max(1)).flat_map(|head| &head[..dim]));
            }
        }
        cpu::tensor(all, (batch, keys, heads, dim))
    }

    fn views(&self) -> Vec<MatRef<'_>> {
        self.pages.iter().map(|page| page.as_ref().map_or(MatRef::F32(&[]), |page| page.view())).collect()
    }

    fn paged<'a>(&self, pages: &'a [MatRef<'a>]) -> Paged<'a> {
        Paged { pages, each: self.each, time: self.heads * self.head, head: self.head }
    }
}

/// As [`crate::attention`], with keys and values in pages; `q` is in f32 on the CPU. There is no gradient.
///
/// # Errors
/// If sizes do not fit together, or a gradient is asked for.
pub fn attention_paged(q: &Tensor, k: &Pages, v: &Pages, visible: &Visibility, args: &AttentionArgs) -> Result<Tensor> {
    if crate::recording() && q.tracked() {
        candle_core::bail!("attention over a cache has no gradient");
    }
    let ([batch, keys, kv_heads, dim], v_dims) = (k.dims(), v.dims());
    let shape = match *q.dims() {
        [queries, time_q, heads, q_dim]
            if [queries, q_dim] == [batch, dim]
                && v_dims[..3] == [batch, keys, kv_heads]
                && kv_heads > 0
                && heads.is_multiple_of(kv_heads)
                && visible.ranges.len() == batch * time_q =>
        {
            AttentionShape { batch, time_q, keys, heads, kv_heads, dim, v_dim: v_dims[3] }
        }
        _ => candle_core::bail!(
            "attention: q {:?}, k {:?}, v {v_dims:?} and a mask of {} queries do not fit together",
            q.dims(),
            k.dims(),
            visible.ranges.len()
        ),
    };
    crate::attention::check(shape, visible, args.bias.as_ref())?;
    let (qd, bias) = (q.data().contiguous()?, args.bias.as_ref().map(|bias| bias.data().contiguous()).transpose()?);
    let call = Call::new(shape, [shape.k_contiguous(), shape.v_contiguous()], visible, args);
    let (k_views, v_views) = (k.views(), v.views());
    let mut out = alloc(shape.out_len());
    kernels::forward_paged(
        &mut out,
        &cpu::view(&qd)?,
        k.paged(&k_views),
        v.paged(&v_views),
        &call.attention(bias.as_ref().map(cpu::view).transpose()?.as_deref()),
    );
    Ok(cpu::tensor(out, (shape.batch, shape.time_q, shape.heads, shape.v_dim))?.into())
}
