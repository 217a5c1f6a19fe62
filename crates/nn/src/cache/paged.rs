//! Pages of one thing that a layer keeps (its keys, say), a list of them for each row. Rows that began alike have pages in
//! common; whoever writes into one that others read, too, gets a copy of it first. So rows grow, are repeated and take over
//! from one another without anything being copied but the page that is written.
//!
//! What no later token sees is given back a page at a time, and where the newest positions are kept more exactly than the
//! others, a page is rounded once it is not among them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::page::{Kept, POSITIONS, Page};
use phyla_kernels::spool::Spool;
use phyla_ops::{Data, Pages, cpu};

use super::form::Form;
use super::{SinkSpec, Takeover};

/// The pages.
#[derive(Debug)]
pub(super) struct Paged {
    pub form: Form,
    rows: Vec<Row>,
    /// Pages that no row has, if such are kept: those of a cache whose size is fixed.
    spare: Option<Vec<Page>>,
    /// Where pages lie that are not in memory.
    spool: Option<Arc<Spool>>,
    /// Bytes of pages that were copied, since those who share them went different ways.
    pub copied: usize,
}

/// The pages of a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// Those that have been given back are absent.
    pub pages: Vec<Option<Arc<Page>>>,
    /// Before this page all are absent but those of the first positions, if such are kept.
    pub gone: usize,
    /// Before this page all are as rounded as older ones are.
    pub rounded: usize,
}

impl Paged {
    /// Nothing of so many rows; where a row's `positions` are fixed, with all the pages they need.
    pub fn new(rows: usize, form: Form, positions: Option<usize>, spool: Option<Arc<Spool>>) -> Result<Self> {
        form.check()?;
        let rows = vec![Row::default(); rows];
        let mut new = Self { form, rows, spare: positions.map(|_| vec![]), spool, copied: 0 };
        new.fill(positions)?;
        Ok(new)
    }

    /// Makes spare pages, so that there are enough for `positions` of each row.
    fn fill(&mut self, positions: Option<usize>) -> Result<()> {
        let Some(positions) = positions else { return Ok(()) };
        for (kept, each) in self.form.reserve(positions) {
            let spare = self.spare.iter().flatten().filter(|page| page.kept() == kept).count();
            let there = self.pages().values().filter(|page| page.kept() == kept).count();
            for _ in there + spare..self.rows.len() * each {
                let page = self.fresh(kept)?;
                self.spare.get_or_insert_default().push(page);
            }
        }
        Ok(())
    }

    /// Each page once.
    fn pages(&self) -> HashMap<*const Page, &Page> {
        self.rows.iter().flat_map(|row| row.pages.iter().flatten()).map(|page| (Arc::as_ptr(page), &**page)).collect()
    }

    /// Bytes of all pages, spare ones too.
    pub fn bytes(&self) -> usize {
        let rows = self.pages().values().map(|page| page.bytes()).sum::<usize>();
        rows + self.spare.iter().flatten().map(Page::bytes).sum::<usize>()
    }

    fn fresh(&self, kept: Kept) -> Result<Page> {
        match &self.spool {
            Some(spool) => Ok(Page::spooled(kept, self.form.numbers(), spool)?),
            None => Ok(Page::new(kept, self.form.numbers())),
        }
    }

    fn page(&mut self, kept: Kept) -> Result<Page> {
        let spare = self.spare.as_mut().and_then(|spare| {
            let at = spare.iter().rposition(|page| page.kept() == kept)?;
            Some(spare.swap_remove(at))
        });
        spare.map_or_else(|| self.fresh(kept), Ok)
    }

    fn give_back(&mut self, page: Arc<Page>) {
        if let (Some(spare), Ok(page)) = (&mut self.spare, Arc::try_unwrap(page)) {
            spare.push(page);
        }
    }

    /// Writes `new[rows, time, heads, dim]` behind the first `lengths` positions of these rows.
    pub fn append(&mut self, new: &Data, rows: Range<usize>, lengths: &[usize]) -> Result<()> {
        let (_, time, heads, dim) = new.dims4()?;
        if [heads, dim] != [self.form.heads, self.form.dim] {
            candle_core::bail!("a cache of {} heads of {} was given {heads} of {dim}", self.form.heads, self.form.dim);
        }
        self.round(rows.clone(), lengths)?;
        let (new, token) = (cpu::view::<f32>(new)?, heads * dim);
        for (i, (row, &length)) in rows.zip(lengths).enumerate() {
            let mut at = length;
            while at < length + time {
                let end = ((at / POSITIONS + 1) * POSITIONS).min(length + time);
                let numbers = &new[(i * time + at - length) * token..(i * time + end - length) * token];
                self.own(row, at / POSITIONS)?.write(at % POSITIONS, numbers);
                at = end;
            }
        }
        Ok(())
    }

    /// Rounds the pages of rows of these lengths that are not among the newest any more; those that rows share once.
    fn round(&mut self, rows: Range<usize>, lengths: &[usize]) -> Result<()> {
        if self.form.residual == 0 {
            return Ok(());
        }
        let mut made: Vec<(Arc<Page>, Arc<Page>)> = vec![];
        for (row, length) in rows.zip(lengths) {
            let end = (length.saturating_sub(self.form.residual) / POSITIONS).min(self.rows[row].pages.len());
            for index in self.rows[row].rounded..end {
                let Some(old) = self.rows[row].pages[index].clone() else { continue };
                let known = made.iter().find(|(exact, _)| Arc::ptr_eq(exact, &old)).map(|(_, new)| new.clone());
                let new = match known {
                    Some(new) => new,
                    None => {
                        let mut page = self.page(self.form.kept)?;
                        page.copy_from(&old);
                        made.push((old, Arc::new(page)));
                        made[made.len() - 1].1.clone()
                    }
                };
                self.rows[row].pages[index] = Some(new);
            }
            self.rows[row].rounded = self.rows[row].rounded.max(end);
        }
        made.into_iter().for_each(|(old, _)| self.give_back(old));
        Ok(())
    }

    /// A row's page for writing: its own, as exact as new positions are kept; copied if others have it, too.
    fn own(&mut self, row: usize, index: usize) -> Result<&mut Page> {
        let kept = self.form.newest();
        let pages = &mut self.rows[row].pages;
        if pages.len() <= index {
            pages.resize(index + 1, None);
        }
        let usable = |page: &mut Arc<Page>| page.kept() == kept && page.is_writable() && Arc::get_mut(page).is_some();
        if !pages[index].as_mut().is_some_and(usable) {
            let mut page = self.page(kept)?;
            if let Some(old) = self.rows[row].pages[index].take() {
                page.copy_from(&old);
                self.copied += page.bytes();
                self.give_back(old);
            }
            self.rows[row].pages[index] = Some(Arc::new(page));
            self.rows[row].rounded = self.rows[row].rounded.min(index);
        }
        match self.rows[row].pages[index].as_mut().and_then(Arc::get_mut) {
            Some(page) => Ok(page),
            None => candle_core::bail!("a page of the cache is read while it is written"),
        }
    }

    /// The first `longest` positions of these rows.
    pub fn view(&self, rows: Range<usize>, longest: usize) -> Result<Pages> {
        let (batch, each) = (rows.len(), longest.div_ceil(POSITIONS));
        let of = |row: &Row| (0..each).map(|i| row.pages.get(i).cloned().flatten()).collect::<Vec<_>>();
        let pages = self.rows[rows].iter().flat_map(of).collect();
        Pages::new(pages, batch, longest, [self.form.heads, self.form.dim])
    }

    /// What `time` new tokens see of these rows, whose lengths were these before: one after the other and in f32,
    /// `[rows, longest, heads, dim]`.
    pub fn gather(&self, rows: Range<usize>, lengths: &[usize], time: usize, sink: SinkSpec) -> Result<Data> {
        let (token, batch) = (self.form.numbers(), rows.len());
        let longest = lengths.iter().map(|&past| sink.seen(past, time) + time).max().unwrap_or(0);
        let mut all = vec![0f32; batch * longest * token];
        for ((row, &past), all) in
            self.rows[rows].iter().zip(lengths).zip(all.chunks_exact_mut((longest * token).max(1)))
        {
            let (seen, end) = (sink.seen(past, time), past + time);
            let first = if seen == past { 0 } else { sink.first };
            let mut to = all;
            for range in [0..first, end - (seen + time - first)..end] {
                let mut at = range.start;
                while at < range.end {
                    let until = ((at / POSITIONS + 1) * POSITIONS).min(range.end);
                    let (here, rest) = to.split_at_mut((until - at) * token);
                    let Some(Some(page)) = row.pages.get(at / POSITIONS) else {
                        candle_core::bail!("position {at} of a cache has been given back, and is asked for")
                    };
                    page.read(at % POSITIONS, here);
                    (to, at) = (rest, until);
                }
            }
        }
        cpu::tensor(all, (batch, longest, self.form.heads, self.form.dim))
    }

    /// Gives back the pages that no token behind the first `length` positions of a row sees.
    pub fn let_go(&mut self, row: usize, length: usize) {
        let Some(span) = self.form.span else { return };
        let end = span.unseen(length).min(self.rows[row].pages.len());
        for index in self.rows[row].gone.max(span.first.div_ceil(POSITIONS))..end {
            if let Some(page) = self.rows[row].pages[index].take() {
                self.give_back(page);
            }
        }
        self.rows[row].gone = self.rows[row].gone.max(end);
    }

    /// Whether all is there that tokens see behind the first `length` positions of a row.
    pub fn reaches(&self, row: usize, length: usize) -> bool {
        self.rows[row].reaches(&self.form, length)
    }

    /// Gives back the pages of a row behind its first `length` positions.
    pub fn truncate(&mut self, row: usize, length: usize) {
        for page in self.rows[row].truncate(length) {
            self.give_back(page);
        }
    }

    /// Lets the rows be copies of these.
    pub fn select(&mut self, rows: &[usize], positions: Option<usize>) -> Result<()> {
        let new = rows.iter().map(|&row| self.rows[row].clone()).collect();
        for page in std::mem::replace(&mut self.rows, new).into_iter().flat_map(|row| row.pages).flatten() {
            self.give_back(page);
        }
        self.fill(positions)
    }

    /// A page of a row, as others may have it, too.
    pub fn shared(&self, row: usize, index: usize) -> Option<Arc<Page>> {
        self.rows[row].pages.get(index).cloned().flatten()
    }

    /// One row more, which begins with these pages.
    pub fn add(&mut self, pages: Vec<Arc<Page>>) {
        self.rows.push(Row { pages: pages.into_iter().map(Some).collect(), ..Row::default() });
    }

    /// Lets rows go on where others stand.
    pub fn take_over(&mut self, moves: &[Takeover]) {
        for m in moves {
            self.replace(m.to, self.rows[m.from].clone());
        }
    }

    /// A row's pages, as others may have them, too.
    pub fn row(&self, row: usize) -> &Row {
        &self.rows[row]
    }

    /// Lets an empty row begin with pages that others have, of which the first `full` will not be written: in a cache of
    /// fixed size they stand for as many of its own.
    pub fn begin(&mut self, row: usize, new: Row, full: usize) {
        let mut shared = new.pages.iter().take(full).flatten().map(|page| page.kept()).collect::<Vec<_>>();
        self.replace(row, new);
        if let Some(spare) = &mut self.spare {
            spare.retain(|page| match shared.iter().position(|kept| *kept == page.kept()) {
                Some(at) => {
                    shared.swap_remove(at);
                    false
                }
                None => true,
            });
        }
    }

    /// Puts other pages in the place of a row's.
    pub fn replace(&mut self, row: usize, new: Row) {
        for page in std::mem::replace(&mut self.rows[row], new).pages.into_iter().flatten() {
            self.give_back(page);
        }
    }
}

impl Row {
    /// See [`Paged::reaches`].
    pub fn reaches(&self, form: &Form, length: usize) -> bool {
        form.span.is_none_or(|span| length == 0 || self.gone <= span.oldest(length))
    }

    /// Takes away the pages behind its first `length` positions.
    pub fn truncate(&mut self, length: usize) -> impl Iterator<Item = Arc<Page>> + use<> {
        let keep = length.div_ceil(POSITIONS).min(self.pages.len());
        (self.gone, self.rounded) = (self.gone.min(keep), self.rounded.min(keep));
        self.pages.split_off(keep).into_iter().flatten()
    }
}
