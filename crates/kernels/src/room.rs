//! Room for packed factors and tiles, kept by a thread from call to call, that begins with a line of the cache.

/// A line of the cache. Tiles whose rows are lines are loaded in half the time of others.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Room that grows as needed; what it holds is left over.
#[derive(Default)]
pub(crate) struct Room(Vec<Line>);

impl Room {
    /// No room yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Room for `len` pairs of bf16, the first at the start of a line.
    pub fn pairs(&mut self, len: usize) -> &mut [u32] {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 16]));
        }
        // SAFETY: lines are nothing but 16 pairs each.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }

    /// As [`Room::pairs`], for floats.
    pub fn floats(&mut self, len: usize) -> &mut [f32] {
        let pairs = self.pairs(len);
        // SAFETY: any 32 bits are a float.
        unsafe { std::slice::from_raw_parts_mut(pairs.as_mut_ptr().cast(), len) }
    }
}
