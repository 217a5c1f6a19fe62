//! The passes of a step: one id more for every line that writes, and pieces of what others have to read.

use phyla_nn::Block;
use phyla_ops::{Data, cpu};

use super::Engine;
use super::line::Line;
use super::request::RequestId;
use crate::{Error, Result};

impl<'a> Engine<'a> {
    /// One id more for every line that writes; returns how many.
    pub(super) fn write(&mut self) -> Result<usize> {
        self.make_room()?;
        self.sort_by_adapter()?;
        let rows = self.writing;
        let Self { batch, lines, calls, row, totals, adapters, .. } = self;
        let mut failed: Vec<(RequestId, Error)> = vec![];
        let worn = |line: &Line| calls.get(&line.request).map(|call| call.job.adapters.clone());
        let groups = batch.groups_of(rows).into_iter().flat_map(|group| adapters.cut(group, |row| worn(&lines[row])));
        for (group, runs) in groups.collect::<Vec<_>>() {
            adapters.hang(runs);
            let settings = |line: &Line| calls.get(&line.request).map(|call| &call.job.settings);
            let settings: Vec<_> = lines[group.clone()].iter().filter_map(settings).collect();
            // Where one is to be alike in any company, all are.
            let strict = settings.iter().find(|settings| settings.deterministic).or(settings.first());
            let last = |row: usize| lines[row].active.history.last().unwrap_or(0);
            let Some(passed) = strict.map(|settings| settings.running(|| batch.step(group.clone(), last))) else {
                continue;
            };
            let logits = match passed {
                Ok((_, logits)) => logits,
                Err(error) => {
                    let error = error.to_string();
                    failed.extend(lines[group].iter().map(|line| (line.request, Error::Engine(error.clone()))));
                    continue;
                }
            };
            let logits = cpu::view::<f32>(&logits)?;
            for (line, logits) in lines[group].iter_mut().zip(logits.chunks_exact(batch.vocab())) {
                line.read += 1;
                totals.new_tokens += 1;
                let Some(call) = calls.get_mut(&line.request) else { continue };
                if let Err(error) = call.extend(&mut line.active, logits, row) {
                    failed.push((line.request, error));
                }
            }
        }
        self.retire(failed)?;
        Ok(rows)
    }

    /// Reads pieces of what lines have to read, one line after the other, within the budget of ids; one piece in any case.
    pub(super) fn read(&mut self, mut budget: usize) -> Result<()> {
        let mut first = true;
        while self.writing < self.lines.len() {
            let line = &self.lines[self.writing];
            let (reading, at) = (line.reading(self.piece), line.read);
            let end = reading.next(at, budget);
            let cost = reading.cost(at, end);
            if !first && cost > budget {
                break;
            }
            (first, budget) = (false, budget.saturating_sub(cost));
            self.read_piece(end, end == reading.all)?;
        }
        Ok(())
    }

    /// Reads the first reading line up to `end`; behind the last id of its prompt it begins to write.
    fn read_piece(&mut self, end: usize, last: bool) -> Result<()> {
        let row = self.writing;
        let (line, batch) = (&mut self.lines[row], &mut self.batch);
        let (request, wanted) = (line.request, last && line.is_fresh());
        let Some(call) = self.calls.get_mut(&request) else { return Ok(()) };
        self.adapters.hang(vec![(1, call.job.adapters.clone())]);
        let ids = &line.active.history.ids()[line.read..end];
        let passed = call.job.settings.running(|| batch.read_piece(row, ids, wanted));
        call.has_read(ids.len());
        self.totals.prompt_tokens += ids.len();
        line.read = end;
        let full = end.min(line.written().prompt) / Block::POSITIONS;
        match passed {
            Err(error) => self.fail(request, error),
            Ok(logits) => {
                self.keep(row, full);
                match logits {
                    Some(logits) => self.begin(row, &logits),
                    None => {
                        self.writing += usize::from(last);
                        Ok(())
                    }
                }
            }
        }
    }

    /// The first ids of the sequences that begin with a prompt, from the logits behind it.
    fn begin(&mut self, row: usize, logits: &Data) -> Result<()> {
        let (request, forks) = (self.lines[row].request, std::mem::take(&mut self.lines[row].forks));
        if let Err(error) = self.fork(row, forks) {
            return self.fail(request, error);
        }
        self.writing += 1 + forks;
        let logits = cpu::view::<f32>(logits)?;
        let Some(call) = self.calls.get_mut(&request) else { return Ok(()) };
        let mut failed = vec![];
        for line in &mut self.lines[row..=row + forks] {
            self.totals.new_tokens += 1;
            if let Err(error) = call.extend(&mut line.active, &logits, &mut self.row) {
                failed.push((request, error));
            }
        }
        self.retire(failed)
    }

    /// Lets other sequences of a request begin where the first one stands.
    fn fork(&mut self, row: usize, forks: usize) -> Result<()> {
        let (line, Some(call)) = (&self.lines[row], self.calls.get(&self.lines[row].request)) else { return Ok(()) };
        if forks == 0 {
            return Ok(());
        }
        let (job, request) = (&call.job, line.request);
        let (read, kept, place, blocks) = (line.read, line.kept, line.place, line.blocks.clone());
        let mut new = Vec::with_capacity(forks);
        for number in 1..=forks {
            let active = self.generator.sequence(&job.prompt, number, &job.settings, &job.stops)?;
            new.push(Line { read, kept, place, blocks: blocks.clone(), ..Line::new(request, number, active, 0) });
        }
        let mut rows: Vec<usize> = (0..self.lines.len()).collect();
        rows.splice(row..row, std::iter::repeat_n(row, forks));
        self.batch.arrange(&rows)?;
        new.iter().flat_map(|line| &line.blocks).for_each(|&id| self.blocks.share(id));
        self.lines.splice(row + 1..row + 1, new);
        Ok(())
    }

    /// Ends requests that failed, and takes out what has ended.
    fn retire(&mut self, failed: Vec<(RequestId, Error)>) -> Result<()> {
        for (request, error) in failed {
            self.fail(request, error)?;
        }
        let gone: Vec<bool> = self.lines.iter().map(|line| line.active.finish.is_some()).collect();
        let ended = self.leave(&gone)?;
        self.close_all(ended, None)
    }
}
