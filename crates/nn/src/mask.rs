//! Who may see whom: causality, padding, documents packed into one row, and sliding windows, all as a range of
//! key slots for each query.

use std::sync::Arc;

use phyla_ops::Visibility;

/// A mask without windows, which differ from layer to layer: see [`Mask::window`].
#[derive(Clone, Debug)]
pub struct Mask {
    /// `[batch, queries]`: visible key slots before any window.
    ranges: Vec<(u32, u32)>,
    /// `[batch, queries]`: each query's own slot.
    slots: Vec<u32>,
    key_valid: Option<Arc<Vec<u8>>>,
}

impl Mask {
    /// Every token sees itself and, if `causal`, only what came before it.
    ///
    /// `valid` (`[batch, time]`, 0 = padding) hides tokens; `segments` (`[batch, time]`) are the documents of
    /// packed rows: a token sees its own only, and equal neighbours form one document.
    pub fn new(batch: usize, time: usize, causal: bool, valid: Option<&[u8]>, segments: Option<&[u32]>) -> Self {
        let mut ranges = Vec::with_capacity(batch * time);
        for row in 0..batch {
            let segment = |t: usize| segments.map_or(0, |s| s[row * time + t]);
            let mut start = 0;
            for t in 0..time {
                if t > 0 && segment(t) != segment(t - 1) {
                    start = t;
                }
                let end = if causal { t + 1 } else { (t..time).find(|&u| segment(u) != segment(t)).unwrap_or(time) };
                ranges.push((start as u32, end as u32));
            }
        }
        let mut mask = Self { ranges, slots: (0..batch).flat_map(|_| 0..time as u32).collect(), key_valid: None };
        if let Some(valid) = valid {
            mask.hide(batch, time, valid);
        }
        mask
    }

    /// `time` new tokens after `lengths[row]` cached ones: causal, nothing hidden.
    pub fn cached(lengths: &[usize], time: usize) -> Self {
        let slots: Vec<u32> = lengths.iter().flat_map(|&past| past as u32..(past + time) as u32).collect();
        Self { ranges: slots.iter().map(|&slot| (0, slot + 1)).collect(), slots, key_valid: None }
    }

    /// Padding at either end shortens the ranges; holes in between need the list of valid slots.
    fn hide(&mut self, batch: usize, time: usize, valid: &[u8]) {
        let mut holes = false;
        for row in 0..batch {
            let valid = &valid[row * time..][..time];
            let first = valid.iter().position(|&v| v != 0).unwrap_or(time);
            let end = valid.iter().rposition(|&v| v != 0).map_or(first, |last| last + 1);
            holes |= valid[first..end].contains(&0);
            for range in &mut self.ranges[row * time..][..time] {
                range.0 = range.0.max(first as u32);
                range.1 = range.1.min(end as u32).max(range.0);
            }
        }
        self.key_valid = holes.then(|| Arc::new(valid.to_vec()));
    }

    /// Whether all tokens of each row belong to one text.
    #[must_use]
    pub fn is_one_text(&self, time: usize) -> bool {
        let begins = |row: &[(u32, u32)]| row.windows(2).all(|pair| pair[0].0 == pair[1].0);
        self.ranges.chunks(time.max(1)).all(begins)
    }

    /// The same mask behind `count` more slots at the beginning of each row, which all see and whose tokens see one another as
    /// `causal` says.
    #[must_use]
    pub fn behind(&self, batch: usize, time: usize, count: usize, causal: bool) -> Self {
        let more = count as u32;
        let (mut ranges, mut slots) = (vec![], vec![]);
        for row in 0..batch {
            let own = &self.ranges[row * time..][..time];
            let last = own.iter().map(|range| range.1 + more).max().unwrap_or(more);
            ranges.extend((0..more).map(|at| (0, if causal { at + 1 } else { last })));
            ranges.extend(own.iter().map(|&(_, end)| (0, end + more)));
            slots.extend(0..more + time as u32);
        }
        // What is hidden before or within a text was outside its ranges, and now lies inside.
        let hidden = |row: usize, at: usize| {
            let first = self.ranges[row * time..][..time].iter().map(|range| range.0).min().unwrap_or(0);
            let valid = self.key_valid.as_ref().is_none_or(|valid| valid[row * time + at] != 0);
            u8::from(valid && at >= first as usize)
        };
        let rows = (0..batch).flat_map(|row| {
            std::iter::repeat_n(1, count).chain((0..time).map(move |at| hidden(row, at))).collect::<Vec<u8>>()
        });
        let valid: Vec<u8> = rows.collect();
        let key_valid = valid.contains(&0).then(|| Arc::new(valid));
        Self { ranges, slots, key_valid }
    }

    /// The mask of a layer that looks back over `window` tokens, itself counted; `None` looks back all the way.
    pub fn window(&self, window: Option<usize>) -> Visibility {
        let ranges = match window {
            None => self.ranges.clone(),
            Some(window) => (self.ranges.iter().zip(&self.slots))
                .map(|(&(start, end), &slot)| {
                    let start = start.max((slot + 1).saturating_sub(window as u32));
                    (start, end.max(start))
                })
                .collect(),
        };
        Visibility { ranges: Arc::new(ranges), key_valid: self.key_valid.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_documents_and_windows_are_ranges() {
        let left = Mask::new(1, 4, true, Some(&[0, 1, 1, 1]), None);
        assert_eq!(*left.window(None).ranges, [(1, 1), (1, 2), (1, 3), (1, 4)]);
        assert!(left.key_valid.is_none());
        assert_eq!(*left.window(Some(2)).ranges, [(1, 1), (1, 2), (1, 3), (2, 4)]);
        let right = Mask::new(1, 3, true, Some(&[1, 1, 0]), None);
        assert_eq!(*right.window(None).ranges, [(0, 1), (0, 2), (0, 2)]);
        let packed = Mask::new(1, 4, false, None, Some(&[3, 3, 5, 5]));
        assert_eq!(*packed.window(None).ranges, [(0, 2), (0, 2), (2, 4), (2, 4)]);
        assert!(Mask::new(1, 3, true, Some(&[1, 0, 1]), None).key_valid.is_some());
        let cached = Mask::cached(&[3, 0], 2);
        assert_eq!(*cached.window(Some(3)).ranges, [(1, 4), (2, 5), (0, 1), (0, 2)]);
        let led = right.behind(1, 3, 2, true);
        assert_eq!(*led.window(None).ranges, [(0, 1), (0, 2), (0, 3), (0, 4), (0, 4)]);
        assert!(led.key_valid.is_none());
        let led = left.behind(1, 4, 1, true);
        assert_eq!(*led.window(None).ranges, [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
        assert_eq!(led.key_valid.as_deref(), Some(&vec![1, 0, 1, 1, 1]));
    }
}
