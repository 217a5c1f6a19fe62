//! What a user gives a model: ids, masks and positions of a batch, checked, and the pass they make.

use candle_core::Result;
use phyla_nn::{Mask, Pass};

use crate::Arch;
use crate::arch::{PositionIds, Shift};

/// A batch of token ids, rows of equal length.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// `[batch, time]`.
    pub ids: Vec<u32>,
    /// Rows.
    pub batch: usize,
    /// Tokens of a row.
    pub time: usize,
    /// `[batch, time]`: 0 is padding.
    pub attention_mask: Option<Vec<u8>>,
    /// `[batch, time]`; 0, 1, 2, … in each row if absent.
    pub positions: Option<Vec<u32>>,
    /// `[batch, time]`: the documents of packed rows.
    pub segments: Option<Vec<u32>>,
    /// `[batch, time]`.
    pub token_types: Option<Vec<u32>>,
    /// So many neighbouring rows are the choices of one question; 0 and 1 mean that rows stand alone.
    pub choices: usize,
    /// What the decoder of an encoder-decoder reads; the rest is then the encoder's.
    pub decoder: Option<Box<Input>>,
}

impl Input {
    /// One row without padding.
    pub fn row(ids: &[u32]) -> Self {
        Self { ids: ids.to_vec(), batch: 1, time: ids.len(), ..Self::default() }
    }

    /// The pass over this batch, without a cache, through the main tower.
    pub fn pass(&self, arch: &Arch) -> Result<Pass<'static>> {
        self.pass_through(arch, arch.main().causal)
    }

    /// The pass over this batch through the encoder of an encoder-decoder.
    pub fn source_pass(&self, arch: &Arch) -> Result<Pass<'static>> {
        self.pass_through(arch, false)
    }

    fn pass_through(&self, arch: &Arch, causal: bool) -> Result<Pass<'static>> {
        let (batch, time) = (self.batch, self.time);
        let check = |name: &str, len: Option<usize>| match len {
            Some(len) if len != batch * time => {
                candle_core::bail!("{name}: expected {batch} x {time} values, found {len}")
            }
            _ => Ok(()),
        };
        check("input_ids", Some(self.ids.len()))?;
        check("attention_mask", self.attention_mask.as_ref().map(Vec::len))?;
        check("position_ids", self.positions.as_ref().map(Vec::len))?;
        check("segments", self.segments.as_ref().map(Vec::len))?;
        check("token_type_ids", self.token_types.as_ref().map(Vec::len))?;
        if self.choices > 1 && !batch.is_multiple_of(self.choices) {
            candle_core::bail!("{batch} rows are no whole number of questions with {} choices each", self.choices);
        }
        let positions = match &self.positions {
            Some(positions) => positions.clone(),
            None => self.usual_positions(arch.position_ids),
        };
        let mask = Mask::new(batch, time, causal, self.attention_mask.as_deref(), self.segments.as_deref());
        Ok(Pass::hiding(batch, time, positions, mask, self.attention_mask.clone()))
    }

    /// What a decoder reads that is to write this text.
    ///
    /// # Errors
    /// When a row has no token to put first.
    pub fn shifted(&self, shift: Shift) -> Result<Input> {
        let mut ids = Vec::with_capacity(self.ids.len());
        for row in self.ids.chunks(self.time.max(1)) {
            let first = match shift {
                Shift::Start(start) => start,
                // The reference counts the tokens, and so expects padding behind them.
                Shift::Last { pad } => match row.iter().filter(|&&id| id != pad).count() {
                    0 => candle_core::bail!("a row of padding alone has no last token to begin with"),
                    tokens => row[tokens - 1],
                },
            };
            ids.push(first);
            ids.extend_from_slice(&row[..row.len() - 1]);
        }
        Ok(Input { ids, batch: self.batch, time: self.time, ..Input::default() })
    }

    fn usual_positions(&self, rule: PositionIds) -> Vec<u32> {
        match rule {
            PositionIds::Counted => (0..self.batch).flat_map(|_| 0..self.time as u32).collect(),
            PositionIds::AfterPadding { pad } => {
                let mut positions = Vec::with_capacity(self.ids.len());
                for row in self.ids.chunks(self.time.max(1)) {
                    let mut next = pad;
                    positions.extend(row.iter().map(|&id| {
                        next += u32::from(id != pad);
                        if id == pad { pad } else { next }
                    }));
                }
                positions
            }
        }
    }

    /// For each row, the number of its first token.
    pub(crate) fn first(&self) -> Vec<u32> {
        (0..self.batch).map(|row| (row * self.time) as u32).collect()
    }

    /// For each row, the number of its last token that is not `pad`; without one, the row's last.
    pub(crate) fn last(&self, pad: Option<u32>) -> Vec<u32> {
        let end = |row: &[u32]| match pad {
            Some(pad) => row.iter().rposition(|&id| id != pad).unwrap_or(0),
            None => row.len().saturating_sub(1),
        };
        let rows = self.ids.chunks(self.time.max(1)).enumerate();
        rows.map(|(i, row)| (i * self.time + end(row)) as u32).collect()
    }

    /// For each row, the number of its last `eos`.
    pub(crate) fn end(&self, eos: u32) -> Result<Vec<u32>> {
        let rows = self.ids.chunks(self.time.max(1)).enumerate();
        rows.map(|(i, row)| match row.iter().rposition(|&id| id == eos) {
            Some(last) => Ok((i * self.time + last) as u32),
            None => candle_core::bail!("row {i} has no end-of-sequence token {eos}, whose state is to be classified"),
        })
        .collect()
    }
}
