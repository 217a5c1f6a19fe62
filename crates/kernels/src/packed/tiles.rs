//! A block of results by AMX: up to 2 x 2 tiles of 16 x 16.

use super::{Block, SIDE, Start};
use crate::amx::{self, Factors, From};
use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};

/// # Safety
/// The thread holds tiles, the factors are packed over the block, and nobody else touches its elements.
pub(super) unsafe fn run(block: &Block) {
    let (tall, wide) = (block.rows > SIDE, block.columns > SIDE);
    let whole = block.rows.is_multiple_of(SIDE) && block.columns.is_multiple_of(SIDE);
    // SAFETY: the caller's promise.
    unsafe {
        match (tall, wide) {
            (true, true) => one::<2, 2>(block, whole),
            (true, false) => one::<2, 1>(block, whole),
            (false, true) => one::<1, 2>(block, whole),
            (false, false) => one::<1, 1>(block, whole),
        }
    }
}

#[inline(always)]
unsafe fn one<const R: usize, const C: usize>(block: &Block, whole: bool) {
    const WIDTH: usize = 2 * SIDE;
    let below = |p: *const u32, apart: usize| [p.cast::<u8>(), p.wrapping_add(apart).cast()];
    let (a, b) = (below(block.left, block.left_row), below(block.right, block.right_column));
    let factors = Factors { a, a_apart: amx::PACKED, b, steps: block.steps };
    if block.cold {
        for row in block.rows..2 * block.rows {
            for column in (0..block.columns).step_by(SIDE) {
                // SAFETY: any address will do.
                unsafe { _mm_prefetch::<_MM_HINT_ET0>(block.c.wrapping_add(row * block.c_row + column).cast()) };
            }
        }
    }
    // SAFETY: whole blocks lie inside `c`; others are worked on in a copy that is as large as a whole one.
    unsafe {
        if whole {
            amx::start::<R, C>(match block.start {
                Start::Zero => From::Zero,
                Start::Add => From::Rows(block.c, block.c_row * 4),
                Start::Row(row) => From::Rows(row.as_ptr(), 0),
            });
            amx::add_bf16::<R, C>(factors);
            amx::finish::<R, C>(block.c, block.c_row * 4);
            return;
        }
        let mut copy = [0f32; WIDTH * WIDTH];
        for i in 0..block.rows {
            let to = copy[i * WIDTH..].as_mut_ptr();
            match block.start {
                Start::Zero => {}
                Start::Add => to.copy_from_nonoverlapping(block.c.add(i * block.c_row), block.columns),
                Start::Row(row) => to.copy_from_nonoverlapping(row.as_ptr(), block.columns),
            }
        }
        amx::start::<R, C>(From::Rows(copy.as_ptr(), WIDTH * 4));
        amx::add_bf16::<R, C>(factors);
        amx::finish::<R, C>(copy.as_mut_ptr(), WIDTH * 4);
        for i in 0..block.rows {
            block.c.add(i * block.c_row).copy_from_nonoverlapping(copy[i * WIDTH..].as_ptr(), block.columns);
        }
    }
}
