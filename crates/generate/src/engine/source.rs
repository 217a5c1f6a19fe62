//! What the encoder of an encoder-decoder makes of prompts: read together, and each as if it were alone.

use phyla_models::{Input, Model};
use phyla_nn::Memory;

use crate::outputs::Seen;
use crate::{Result, Wanted};

/// Below so many tokens a text's attention takes the path of decoding, whose sums come in another order.
const LONG: usize = 9;

/// The encoder's states of texts, `[texts, time, hidden]`, padded on the right.
///
/// A text's numbers do not depend on the others. Products of few rows sum in another order than those of many, so the
/// encoder, and the decoder's layers that map its states, always see many: few short texts have more padding.
pub(super) fn encode(model: &Model, texts: &[&[u32]], wanted: Wanted) -> Result<(Memory, Option<Seen>)> {
    let (batch, longest) = (texts.len(), texts.iter().map(|text| text.len()).max().unwrap_or(0));
    let time = longest.max(LONG).max(model.invariant_rows() / batch.max(1) + 1);
    let (mut ids, mut valid) = (vec![0; batch * time], vec![0u8; batch * time]);
    for (row, text) in texts.iter().enumerate() {
        ids[row * time..][..text.len()].copy_from_slice(text);
        valid[row * time..][..text.len()].fill(1);
    }
    // Padding may reach beyond the positions that a model has learned, and stands at the last of them then.
    let first = model.arch.position_ids.first();
    let last = if model.arch.context_is_hard { model.arch.context.saturating_sub(1) } else { time };
    let positions = (0..batch).flat_map(|_| (0..time).map(|t| first + t.min(last) as u32)).collect();
    let (attention_mask, positions) = (Some(valid), Some(positions));
    let input = Input { ids, batch, time, attention_mask, positions, ..Input::default() };
    let mut pass = input.source_pass(&model.arch)?;
    Seen::ask(&mut pass, wanted);
    let memory = model.encode(&input, &mut pass)?;
    Ok((memory, Seen::take(&mut pass)))
}
