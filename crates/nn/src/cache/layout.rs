//! What a prefix consists of, as plain data: what a file says of the pages that it holds. Nothing in it is believed before it
//! has been checked.

use candle_core::Result;
use phyla_kernels::page::{Kept, POSITIONS, Page};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::form::{Form, Span};
use super::paged::Row;
use super::prefix::Part;
use super::{CacheSpec, Prefix, SinkSpec};

/// The outline of a [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixLayout {
    /// Tokens.
    pub length: usize,
    /// As what the cache was asked to keep numbers; `None` as exactly as attention multiplies.
    pub kept: Option<String>,
    /// See [`CacheSpec::residual`].
    pub residual: usize,
    /// See [`CacheSpec::whole`].
    pub whole: bool,
    /// Window and sinks of a cache that has such.
    pub sink: Option<[usize; 2]>,
    /// Of each layer its parts: keys and values, say.
    pub layers: Vec<Vec<PartLayout>>,
}

/// The outline of keys, values or latent vectors of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartLayout {
    heads: usize,
    dim: usize,
    kept: String,
    exact: String,
    residual: usize,
    /// First and last positions that are kept, where not all are.
    span: Option<[usize; 2]>,
    gone: usize,
    rounded: usize,
}

impl PrefixLayout {
    /// The outline of one.
    pub fn of(prefix: &Prefix) -> Self {
        let part = |part: &Part| PartLayout {
            heads: part.form.heads,
            dim: part.form.dim,
            kept: part.form.kept.name().into(),
            exact: part.form.exact.name().into(),
            residual: part.form.residual,
            span: part.form.span.map(|span| [span.first, span.last]),
            gone: part.row.gone,
            rounded: part.row.rounded,
        };
        Self {
            length: prefix.length,
            kept: prefix.spec.kept.map(|kept| kept.name().into()),
            residual: prefix.spec.residual,
            whole: prefix.spec.whole,
            sink: prefix.spec.sink.map(|sink| [sink.window, sink.first]),
            layers: prefix.layers.iter().map(|parts| parts.iter().map(part).collect()).collect(),
        }
    }

    /// How the cache was that it comes from.
    ///
    /// # Errors
    /// If no cache is so.
    pub fn spec(&self) -> Result<CacheSpec> {
        let kept = self.kept.as_deref().map(named).transpose()?;
        let sink = self.sink.map(|[window, first]| SinkSpec { window, first });
        if let Some(sink) = sink.filter(|sink| sink.window <= sink.first) {
            candle_core::bail!("a window of {} has no room behind {} sinks", sink.window, sink.first);
        }
        let (residual, whole) = (self.residual, self.whole);
        Ok(CacheSpec { kept, residual, whole, sink, ..CacheSpec::default() })
    }

    /// Whether its layers are like another's, which holds other tokens.
    pub fn is_like(&self, other: &Self) -> bool {
        let blank = |layout: &Self| {
            let parts = |parts: &Vec<PartLayout>| {
                parts.iter().map(|part| PartLayout { gone: 0, rounded: 0, ..part.clone() }).collect()
            };
            Self { length: 0, layers: layout.layers.iter().map(parts).collect(), ..layout.clone() }
        };
        blank(self) == blank(other)
    }

    /// Makes a prefix of pages that `page` gives one after the other: as what it keeps its numbers, how many of a position, and
    /// whether it is the last.
    ///
    /// # Errors
    /// If the outline contradicts itself; those of `page`.
    pub fn fill(&self, mut page: impl FnMut(Kept, usize) -> Result<Page>) -> Result<Prefix> {
        let part = |part: &PartLayout| {
            let form = part.form()?;
            let (count, kept_first) = (self.length.div_ceil(POSITIONS), form.span.map_or(0, |span| span.first));
            if part.gone > count || part.rounded > count || form.span.is_none() && part.gone > 0 {
                candle_core::bail!("of {count} pages {} are gone and {} rounded", part.gone, part.rounded);
            }
            let row = |index: usize| -> Result<Option<Arc<Page>>> {
                if index < part.gone && index >= kept_first.div_ceil(POSITIONS) {
                    return Ok(None);
                }
                let kept = if index < part.rounded { form.kept } else { form.newest() };
                Ok(Some(Arc::new(page(kept, form.numbers())?)))
            };
            let pages = (0..count).map(row).collect::<Result<_>>()?;
            Ok(Part { form, row: Row { pages, gone: part.gone, rounded: part.rounded } })
        };
        // Closures that borrow one another cannot be nested: layer by layer.
        let mut part = part;
        let mut layers = vec![];
        for parts in &self.layers {
            layers.push(parts.iter().map(&mut part).collect::<Result<Vec<_>>>()?);
        }
        Ok(Prefix { spec: self.spec()?, length: self.length, layers })
    }
}

impl PartLayout {
    fn form(&self) -> Result<Form> {
        let (kept, exact) = (named(&self.kept)?, named(&self.exact)?);
        // Numbers of a position that any machine could hold a page of.
        if self.heads == 0 || self.dim == 0 || self.heads.checked_mul(self.dim).is_none_or(|numbers| numbers > 1 << 24)
        {
            candle_core::bail!("{} heads of {} numbers", self.heads, self.dim);
        }
        let span = self.span.map(|[first, last]| Span { first, last });
        let form = Form { heads: self.heads, dim: self.dim, kept, exact, residual: self.residual, span };
        form.check()?;
        Ok(form)
    }
}

fn named(name: &str) -> Result<Kept> {
    match Kept::from_name(name) {
        Some(kept) => Ok(kept),
        None => candle_core::bail!("{name:?} is no kind of numbers that a cache keeps"),
    }
}
