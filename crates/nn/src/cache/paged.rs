//! Pages of one thing that a layer keeps (its keys, say), a list of them for each row. Rows that began alike have pages in
//! common; whoever writes into one that others read, too, gets a copy of it first. So rows grow, are repeated and take over
//! from one another without anything being copied but the page that is written.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::page::{Kept, POSITIONS, Page};
use phyla_ops::{Data, Pages, cpu};

use super::Takeover;

/// The pages.
#[derive(Debug)]
pub(super) struct Paged {
    heads: usize,
    dim: usize,
    kept: Kept,
    rows: Vec<Vec<Arc<Page>>>,
    /// Pages that no row has, if such are kept: those of a cache whose size is fixed.
    spare: Option<Vec<Page>>,
}

impl Paged {
    /// Nothing of so many rows; where a row's `positions` are fixed, with all the pages they need.
    pub fn new(rows: usize, [heads, dim]: [usize; 2], kept: Kept, positions: Option<usize>) -> Result<Self> {
        if !dim.is_multiple_of(kept.block()) {
            candle_core::bail!(
                "a cache keeps {} in blocks of {}, and heads of {dim} numbers are not whole blocks; f16 fits any",
                kept.name(),
                kept.block()
            );
        }
        let mut new = Self { heads, dim, kept, rows: vec![vec![]; rows], spare: positions.map(|_| vec![]) };
        new.fill(positions);
        Ok(new)
    }

    /// Makes spare pages, so that there are enough for `positions` of each row.
    fn fill(&mut self, positions: Option<usize>) {
        let (row, kept, there) = (self.heads * self.dim, self.kept, self.pages().len());
        if let (Some(spare), Some(positions)) = (&mut self.spare, positions) {
            let pages = (self.rows.len() * positions.div_ceil(POSITIONS)).saturating_sub(there);
            spare.resize_with(pages.max(spare.len()), || Page::new(kept, row));
        }
    }

    /// Each page once.
    fn pages(&self) -> HashSet<*const Page> {
        self.rows.iter().flatten().map(Arc::as_ptr).collect()
    }

    /// Bytes of all pages, spare ones too.
    pub fn bytes(&self) -> usize {
        let pages = self.pages().len() + self.spare.as_ref().map_or(0, Vec::len);
        pages * self.kept.bytes(POSITIONS * self.heads * self.dim)
    }

    fn page(&mut self) -> Page {
        let spare = self.spare.as_mut().and_then(Vec::pop);
        spare.unwrap_or_else(|| Page::new(self.kept, self.heads * self.dim))
    }

    fn give_back(&mut self, page: Arc<Page>) {
        if let (Some(spare), Ok(page)) = (&mut self.spare, Arc::try_unwrap(page)) {
            spare.push(page);
        }
    }

    /// Writes `new[rows, time, heads, dim]` behind the first `lengths` positions of these rows.
    pub fn append(&mut self, new: &Data, rows: Range<usize>, lengths: &[usize]) -> Result<()> {
        let (_, time, heads, dim) = new.dims4()?;
        if [heads, dim] != [self.heads, self.dim] {
            candle_core::bail!("a cache of {} heads of {} was given {heads} of {dim}", self.heads, self.dim);
        }
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

    /// A row's page for writing: its own, copied if others have it, too.
    fn own(&mut self, row: usize, index: usize) -> Result<&mut Page> {
        while self.rows[row].len() <= index {
            let page = self.page();
            self.rows[row].push(Arc::new(page));
        }
        if Arc::get_mut(&mut self.rows[row][index]).is_none() {
            let mut page = self.page();
            page.clone_from(&self.rows[row][index]);
            self.rows[row][index] = Arc::new(page);
        }
        match Arc::get_mut(&mut self.rows[row][index]) {
            Some(page) => Ok(page),
            None => candle_core::bail!("a page of the cache is read while it is written"),
        }
    }

    /// The first `longest` positions of these rows.
    pub fn view(&self, rows: Range<usize>, longest: usize) -> Result<Pages> {
        let (batch, each) = (rows.len(), longest.div_ceil(POSITIONS));
        let of = |row: &Vec<Arc<Page>>| (0..each).map(|i| row.get(i).cloned()).collect::<Vec<_>>();
        Pages::new(self.rows[rows].iter().flat_map(of).collect(), batch, longest, [self.heads, self.dim])
    }

    /// Gives back the pages of a row behind its first `length` positions.
    pub fn truncate(&mut self, row: usize, length: usize) {
        let keep = length.div_ceil(POSITIONS).min(self.rows[row].len());
        for page in self.rows[row].split_off(keep) {
            self.give_back(page);
        }
    }

    /// Lets the rows be copies of these.
    pub fn select(&mut self, rows: &[usize], positions: Option<usize>) {
        let new = rows.iter().map(|&row| self.rows[row].clone()).collect();
        for page in std::mem::replace(&mut self.rows, new).into_iter().flatten() {
            self.give_back(page);
        }
        self.fill(positions);
    }

    /// Lets rows go on where others stand.
    pub fn take_over(&mut self, moves: &[Takeover]) {
        for m in moves {
            let new = self.rows[m.from].clone();
            for page in std::mem::replace(&mut self.rows[m.to], new) {
                self.give_back(page);
            }
        }
    }
}
