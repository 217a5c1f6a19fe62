//! Who has which blocks: requests are let in as there are enough, sequences grow, and the youngest gives its blocks back when
//! there are none left.

use phyla_nn::Block;

use super::Engine;
use super::blocks::BlockId;
use super::line::Line;
use super::prefixes::Found;
use super::request::count;
use crate::Result;

impl<'a> Engine<'a> {
    /// Lets in what waits, in its order, as far as there is room.
    pub(super) fn admit(&mut self) -> Result<()> {
        while let Some(line) = self.waiting.front() {
            let alone = self.calls.get(&line.request).is_some_and(|call| call.job.alone.is_some());
            if alone {
                if self.lines.is_empty() {
                    self.run_alone()?;
                }
                break;
            }
            let running: usize = self.lines.iter().map(|line| 1 + line.forks).sum();
            if running + 1 + line.forks > self.config.max_num_seqs || !self.seat()? {
                break;
            }
        }
        Ok(())
    }

    /// Gives the first line of the queue a row and the blocks of what it has to read, of which those that others have read are
    /// shared; `false` if there are too few.
    fn seat(&mut self) -> Result<bool> {
        let Some(mut line) = self.waiting.pop_front() else { return Ok(false) };
        let Some(call) = self.calls.get(&line.request) else { return Ok(true) };
        let root = self.prefixes.root(&call.job.adapters, call.job.settings.deterministic);
        let reading = line.reading(self.piece);
        let mut found: Vec<Found> =
            if self.config.share_prefixes { self.prefixes.find(root, line.written()) } else { vec![] };
        let begin = reading.begin(found.len() * Block::POSITIONS);
        found.truncate(begin / Block::POSITIONS);
        for Found { id, .. } in &found {
            self.blocks.share(*id);
            line.blocks.push(*id);
        }
        // Who comes in should be able to go on, and so should all others for a while: else one of them is out again at once.
        let wanted = count((reading.all + 1).min(line.most())) - found.len() + self.lines.len();
        let free = self.blocks.free();
        let fits = free >= wanted || free + self.prefixes.unused(&self.blocks) >= wanted;
        while fits && line.blocks.len() < count(reading.all) {
            let Some(id) = self.block() else { break };
            line.blocks.push(id);
        }
        if line.blocks.len() < count(reading.all) || !fits {
            line.release(&mut self.blocks);
            self.waiting.push_front(line);
            return Ok(false);
        }
        (line.read, line.kept) = (begin, found.len());
        line.place = Some(found.last().map_or(root, |found| found.place));
        let blocks: Vec<Block> = found.into_iter().map(|found| found.block).collect();
        self.batch.add(&blocks)?;
        self.totals.shared_tokens += begin;
        if let Some(call) = self.calls.get_mut(&line.request) {
            call.start(begin);
        }
        self.lines.push(line);
        Ok(true)
    }

    /// Has the first line's request answered while nothing else runs.
    fn run_alone(&mut self) -> Result<()> {
        let Some(line) = self.waiting.pop_front() else { return Ok(()) };
        let Some(mut call) = self.calls.remove(&line.request) else { return Ok(()) };
        // Its memory is its own, and as large as the blocks that are free.
        while self.blocks.free() < call.job.blocks && self.prefixes.give_up(&mut self.blocks) {}
        self.adapters.hang(vec![(1, call.job.adapters.clone())]);
        let ended = call.run_alone(&self.generator);
        self.totals.new_tokens += call.written();
        let counted = match &ended {
            Err(_) => &mut self.totals.failed,
            Ok(()) if call.is_cancelled() => &mut self.totals.cancelled,
            Ok(()) => &mut self.totals.finished,
        };
        *counted += 1;
        call.finish(ended);
        Ok(())
    }

    /// A block that nobody has; what is only kept for others to begin with goes where there is none.
    fn block(&mut self) -> Option<BlockId> {
        if self.blocks.free() == 0 {
            self.prefixes.give_up(&mut self.blocks);
        }
        self.blocks.take()
    }

    /// Gives every line that writes a block for its next id, the oldest first; where there is none, the youngest of all goes
    /// back into the queue.
    pub(super) fn make_room(&mut self) -> Result<()> {
        let mut order: Vec<usize> = (0..self.writing).collect();
        order.sort_by_key(|&row| self.lines[row].rank());
        let mut gone = vec![false; self.lines.len()];
        for row in order {
            while !gone[row] && self.lines[row].wants_block(&self.blocks) {
                if let Some(id) = self.block() {
                    self.lines[row].grow(id, &mut self.blocks);
                    continue;
                }
                let running = (0..gone.len()).filter(|&row| !gone[row]);
                let Some(youngest) = running.max_by_key(|&row| self.lines[row].rank()) else { break };
                self.preempt(youngest);
                gone[youngest] = true;
            }
        }
        for line in self.leave(&gone)? {
            let at = self.waiting.partition_point(|other: &Line| other.rank() < line.rank());
            self.waiting.insert(at, line);
        }
        Ok(())
    }

    /// Takes a line's blocks away. As long as nobody needs them it finds them again.
    fn preempt(&mut self, row: usize) {
        self.keep(row, self.lines[row].read / Block::POSITIONS);
        self.lines[row].release(&mut self.blocks);
        self.totals.preemptions += 1;
        if let Some(call) = self.calls.get_mut(&self.lines[row].request) {
            call.preempted();
        }
    }

    /// Keeps a line's first `full` blocks for those that begin alike.
    pub(super) fn keep(&mut self, row: usize, full: usize) {
        if !self.config.share_prefixes || self.piece.is_none() {
            return;
        }
        while let (Some(before), index) = (self.lines[row].place, self.lines[row].kept)
            && index < full
        {
            let (line, block) = (&self.lines[row], self.batch.held(row, index));
            let place = block.and_then(|block| {
                self.prefixes.keep(before, line.written(), index, (line.blocks[index], block), &mut self.blocks)
            });
            (self.lines[row].place, self.lines[row].kept) = (place, index + 1);
        }
    }
}
