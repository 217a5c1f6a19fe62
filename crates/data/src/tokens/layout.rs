//! The bytes of a token file: a header, the ids, the document offsets; and the checks on opening it.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic, written as a number, so that another byte order is a mismatch |
//! | 8..16 | bytes per id: 2 or 4 |
//! | 16..24, 24..32 | documents, tokens |
//! | 32..64 | key: what the file was made from |
//! | 64..72 | checksum of everything from byte 128 on |
//! | 128.. | ids, filled with zeros to a multiple of 8, then documents + 1 offsets of 8 bytes |

use std::ops::Range;

use phyla_kernels::map::view;

/// "PHYTOK" and the version of this layout.
const MAGIC: u64 = u64::from_le_bytes(*b"PHYTOK\0\x01");

/// Bytes before the ids.
pub(super) const HEADER: usize = 128;

/// What a sound file says about itself, as ranges of its bytes.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) wide: bool,
    pub(super) documents: usize,
    pub(super) tokens: usize,
    pub(super) ids: Range<usize>,
    pub(super) offsets: Range<usize>,
    pub(super) checksum: u64,
}

/// The header's bytes.
pub(super) fn header(wide: bool, documents: usize, tokens: usize, key: &[u8; 32], checksum: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    let width: u64 = if wide { 4 } else { 2 };
    let numbers = [MAGIC, width, documents as u64, tokens as u64];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    bytes[32..64].copy_from_slice(key);
    bytes[64..72].copy_from_slice(&checksum.to_ne_bytes());
    bytes
}

/// Zero bytes between `ids` bytes of ids and the offsets.
pub(super) fn gap(ids: usize) -> usize {
    ids.next_multiple_of(8) - ids
}

/// Reads the header and checks every number in it against the file, then the offsets and the checksum.
pub(super) fn check(bytes: &[u8], key: Option<&[u8; 32]>) -> Result<Header, String> {
    let head = bytes
        .get(..HEADER)
        .ok_or_else(|| format!("truncated: {} bytes, where the header alone has {HEADER}", bytes.len()))?;
    let number = |index: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&head[8 * index..8 * index + 8]);
        u64::from_ne_bytes(number)
    };
    if number(0) != MAGIC {
        return Err("not a token file of this version".to_owned());
    }
    if let Some(key) = key
        && head[32..64] != key[..]
    {
        return Err("made from other data, another tokenizer or other settings".to_owned());
    }
    let width = number(1);
    if width != 2 && width != 4 {
        return Err(format!("{width} bytes an id, where 2 or 4 were expected"));
    }
    let (documents, tokens) = (number(2), number(3));
    let lengths = || {
        let ids = usize::try_from(tokens).ok()?.checked_mul(width as usize)?;
        let offsets = usize::try_from(documents).ok()?.checked_add(1)?.checked_mul(8)?;
        let start = HEADER.checked_add(ids)?.checked_next_multiple_of(8)?;
        Some((HEADER..HEADER + ids, start..start.checked_add(offsets)?))
    };
    let (ids, offsets) = lengths().filter(|(_, offsets)| offsets.end == bytes.len()).ok_or_else(|| {
        format!(
            "truncated or overwritten: {} bytes do not hold the {tokens} tokens and {documents} documents announced",
            bytes.len()
        )
    })?;
    let table: &[u64] = view(&bytes[offsets.clone()]).ok_or("the offsets are not aligned")?;
    let checksum = checksum(&bytes[HEADER..]);
    if checksum != number(8) {
        return Err("corrupt: the checksum does not match".to_owned());
    }
    let ordered = table.first() == Some(&0) && table.last() == Some(&tokens) && table.is_sorted();
    if !ordered {
        return Err("corrupt: the documents' offsets are not in order".to_owned());
    }
    Ok(Header { wide: width == 4, documents: documents as usize, tokens: tokens as usize, ids, offsets, checksum })
}

/// A 64-bit checksum against bit rot and half-written pages, not against forgery.
///
/// Eight lanes, so that the multiplications overlap and the speed is the memory's.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |lane: u64, word: u64| (lane ^ word).wrapping_mul(PRIME).rotate_left(29);
    let mut lanes: [u64; 8] = std::array::from_fn(|lane| (lane as u64 + 1).wrapping_mul(PRIME));
    let mut blocks = bytes.chunks_exact(64);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            let mut number = [0; 8];
            number.copy_from_slice(word);
            *lane = mix(*lane, u64::from_le_bytes(number));
        }
    }
    let tail = blocks.remainder().iter().fold(bytes.len() as u64, |sum, &byte| mix(sum, u64::from(byte)));
    lanes.iter().fold(tail, |sum, &lane| mix(sum, lane))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn sound() -> Vec<u64> {
        // u64 storage keeps the bytes aligned as a mapping would.
        let ids: [u16; 5] = [1, 2, 3, 4, 5];
        let mut body: Vec<u8> = ids.iter().flat_map(|id| id.to_ne_bytes()).collect();
        body.resize(body.len() + gap(body.len()), 0);
        body.extend([0u64, 2, 5].iter().flat_map(|offset| offset.to_ne_bytes()));
        let mut bytes = header(false, 2, 5, &[7; 32], checksum(&body)).to_vec();
        bytes.extend(body);
        bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
    }

    fn bytes(words: &[u64]) -> &[u8] {
        phyla_kernels::map::bytes_of(words)
    }

    #[test]
    fn a_sound_file_passes_and_every_flipped_bit_is_found() {
        let words = sound();
        let header = check(bytes(&words), Some(&[7; 32])).unwrap();
        assert_eq!((header.documents, header.tokens, header.wide), (2, 5, false));
        assert!(check(bytes(&words), Some(&[8; 32])).is_err());
        for word in 0..words.len() {
            for bit in 0..64 {
                let mut broken = words.clone();
                broken[word] ^= 1 << bit;
                // Bytes 72..128 are not used, and the key is compared only when asked for.
                let unused = (9..16).contains(&word);
                assert_eq!(check(bytes(&broken), Some(&[7; 32])).is_ok(), unused, "word {word} bit {bit}");
            }
        }
    }

    #[test]
    fn every_shorter_file_is_refused() {
        let words = sound();
        for length in 0..words.len() * 8 {
            assert!(check(&bytes(&words)[..length], None).is_err(), "{length}");
        }
    }
}
