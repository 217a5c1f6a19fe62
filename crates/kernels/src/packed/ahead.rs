//! Memory that is asked for while something else is computed.

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Equally long pieces of memory, equally far apart.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    pub first: *const u8,
    /// How many pieces, and bytes from one to the next.
    pub pieces: usize,
    pub apart: usize,
    /// Bytes of a piece.
    pub bytes: usize,
}

impl Lines {
    /// Nothing.
    pub const NONE: Lines = Lines { first: std::ptr::null(), pieces: 0, apart: 0, bytes: 0 };

    /// To be asked for in so many parts.
    pub fn cut(self, parts: usize) -> Ahead {
        let pieces = if self.bytes == 0 { 0 } else { self.pieces };
        let share = (pieces * self.bytes.div_ceil(LINE)).div_ceil(parts.max(1));
        Ahead { lines: Lines { pieces, ..self }, share, at: 0 }
    }
}

/// What is left to ask for.
pub(crate) struct Ahead {
    lines: Lines,
    /// Lines of a part.
    share: usize,
    /// Where the next one is in the piece.
    at: usize,
}

impl Ahead {
    /// Asks for the next part.
    #[inline(always)]
    pub fn ask(&mut self) {
        let lines = &mut self.lines;
        for _ in 0..self.share {
            if lines.pieces == 0 {
                return;
            }
            // SAFETY: any address will do.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(lines.first.wrapping_add(self.at).cast()) };
            self.at += LINE;
            if self.at >= lines.bytes {
                (lines.first, lines.pieces, self.at) = (lines.first.wrapping_add(lines.apart), lines.pieces - 1, 0);
            }
        }
    }
}
