//! How codes of a few bits lie in the bytes of a block: as halves of bytes, as pairs of bits, as planes of single bits.

/// Codes of 4 bits: of every `2 * HALF` codes, the first half fills the low halves of `HALF` bytes, the second the
/// high ones.
#[inline(always)]
pub(super) fn nibbles<const HALF: usize>(codes: &mut [u8], bytes: &[u8]) {
    for (codes, bytes) in codes.chunks_exact_mut(2 * HALF).zip(bytes.chunks_exact(HALF)) {
        let (low, high) = codes.split_at_mut(HALF);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }
}

/// The reverse of [`nibbles`], from the low 4 bits of every code.
#[inline(always)]
pub(super) fn put_nibbles<const HALF: usize>(bytes: &mut [u8], codes: &[u8]) {
    for (bytes, codes) in bytes.chunks_exact_mut(HALF).zip(codes.chunks_exact(2 * HALF)) {
        let (low, high) = codes.split_at(HALF);
        for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
            *byte = low & 15 | high << 4;
        }
    }
}

/// Adds 2 bits to every code, at `shift`: of every 128 codes, four runs of 32 share 32 bytes, the first in the lowest
/// bits.
#[inline(always)]
pub(super) fn add_pairs(codes: &mut [u8; 256], bytes: &[u8], shift: u32) {
    for (codes, bytes) in codes.chunks_exact_mut(128).zip(bytes.chunks_exact(32)) {
        for (run, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code |= (byte >> (2 * run) & 3) << shift;
            }
        }
    }
}

/// The reverse of [`add_pairs`]: takes the 2 bits from `shift` on.
#[inline(always)]
pub(super) fn put_pairs(bytes: &mut [u8], codes: &[u8; 256], shift: u32) {
    for (bytes, codes) in bytes.chunks_exact_mut(32).zip(codes.chunks_exact(128)) {
        bytes.fill(0);
        for (run, codes) in codes.chunks_exact(32).enumerate() {
            for (byte, code) in bytes.iter_mut().zip(codes) {
                *byte |= (code >> shift & 3) << (2 * run);
            }
        }
    }
}

/// Adds the bit `1 << shift` to every code: eight runs of 32 share 32 bytes, the first in the lowest bits.
#[inline(always)]
pub(super) fn add_plane(codes: &mut [u8; 256], bytes: &[u8], shift: u32) {
    for (run, codes) in codes.chunks_exact_mut(32).enumerate() {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code |= (byte >> run & 1) << shift;
        }
    }
}

/// The reverse of [`add_plane`].
#[inline(always)]
pub(super) fn put_plane(bytes: &mut [u8], codes: &[u8; 256], shift: u32) {
    bytes.fill(0);
    for (run, codes) in codes.chunks_exact(32).enumerate() {
        for (byte, code) in bytes.iter_mut().zip(codes) {
            *byte |= (code >> shift & 1) << run;
        }
    }
}
