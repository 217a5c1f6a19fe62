//! Files made to mislead: each gets one clear line, no panic, and no memory that its length does not justify.

use std::process::Command;

use super::*;

#[test]
fn each_lie_of_a_header_is_named() {
    let one = |tensors: &[Vec<u8>], data| file(&[], tensors, 32, data);
    let pairs = |pairs: &[Vec<u8>]| file(pairs, &[], 32, 0);
    let counts = |version: u32, tensors: u64, pairs: u64| {
        [MAGIC.as_slice(), &version.to_le_bytes(), &tensors.to_le_bytes(), &pairs.to_le_bytes()].concat()
    };
    let cases = [
        (vec![], "the magic: expected 4 bytes, found 0"),
        (b"PK\x03\x04".to_vec(), "is it a GGUF file?"),
        (b"ggjt\x01\0\0\0".to_vec(), "an older format"),
        (b"version https://git-lfs".to_vec(), "git lfs pull"),
        (MAGIC.to_vec(), "the version: expected 4 bytes"),
        (counts(1, 0, 0), "the version: expected 2 or 3, found 1; convert"),
        (counts(3u32.swap_bytes(), 0, 0), "3, big-endian"),
        (counts(9, 0, 0), "expected 2 or 3, found 9"),
        (counts(3, u64::MAX, 0), "the number of tensors: expected at most 0, for 8 bytes follow, found 1844674407"),
        (counts(3, 0, 1 << 60), "the number of metadata pairs: expected at most 0"),
        (file(&[text("a long key")], &[], 1, 0), "the value of a long key: expected 4 bytes, found 0"),
        (pairs(&[pair("k", Kind::Text, &u64::MAX.to_le_bytes())]), "the length of a string of k"),
        (pairs(&[list("k", Kind::U64, 1 << 61, &[0; 64])]), "the length of k: expected at most"),
        (pairs(&[list("k", Kind::Text, 2, &[text("a"), vec![255; 8]].concat())]), "the length of a string of k"),
        (pairs(&[list("k", Kind::List, 1, &[0; 64])]), "found a list of lists"),
        (pairs(&[pair("k", Kind::Bool, &[2])]), "the value of k: expected 0 or 1, found 2"),
        (pairs(&[[text("k"), 13u32.to_le_bytes().to_vec()].concat()]), "expected a type from 0 to 12, found 13"),
        (pairs(&[pair("k", Kind::U8, &[1]), pair("k", Kind::U8, &[1])]), "the key k: expected a key of its own"),
        (pairs(&[pair("k\u{1b}[2J", Kind::U8, &[1])]), "no control characters"),
        (
            pairs(&[[3u64.to_le_bytes().as_slice(), &[255, 255, 255]].concat()]),
            "expected UTF-8, found other bytes from 0",
        ),
        (pairs(&[pair("general.alignment", Kind::U32, &24u32.to_le_bytes())]), "expected a power of 2"),
        (pairs(&[pair("general.alignment", Kind::U64, &32u64.to_le_bytes())]), "expected a power of 2"),
        (one(&[tensor("a", &[1; 5], 0, 0)], 64), "tensor `a`: expected at most 4 axes, found 5"),
        (one(&[tensor("a", &[4], 16, 0)], 64), "found IQ2_XXS (type 16); quantise"),
        (one(&[tensor("a", &[4], 99, 0)], 64), "F32, F16, "),
        (one(&[tensor("a", &[33], 2, 0)], 64), "expected rows of whole blocks of 32 (Q4_0), found 33"),
        (one(&[tensor("a", &[1 << 40, 1 << 40], 0, 0)], 64), "as many elements as can be addressed"),
        (one(&[tensor("a", &[4], 0, 8)], 64), "a multiple of 32, found 8"),
        (one(&[tensor("a", &[17], 0, 0)], 64), "expected data up to byte 68, found 64 bytes of data; is the file cut"),
        (one(&[tensor("a", &[4], 0, u64::MAX - 31)], 64), "tensor `a`: expected"),
        (one(&[tensor("a", &[9], 0, 0), tensor("b", &[4], 0, 32)], 64), "tensor `b`: expected bytes of its own"),
        (one(&[tensor("a", &[4], 0, 0), tensor("a", &[4], 0, 32)], 64), "tensor `a`: expected a name of its own"),
    ];
    for (bytes, expected) in cases {
        let error = header::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n is not about: {expected}");
        assert!(error.len() < 400 && !error.contains('\n') && !error.contains('\u{1b}'), "{error}");
    }
}

/// A small generator of our own, so that a failure repeats.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// A few changes of the kinds that find bugs: bits, cuts, repeats, and numbers of eight bytes.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    const NUMBERS: [u64; 8] = [0, 1, 31, 255, 1 << 32, 1 << 60, i64::MAX as u64, u64::MAX];
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len());
        match rng.below(7) {
            _ if bytes.is_empty() => bytes.push(b'G'),
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.below(256) as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = (at + rng.below(40)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let end = (at + rng.below(20)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + 8).min(bytes.len());
                bytes.splice(at..end, NUMBERS[rng.below(NUMBERS.len())].to_le_bytes());
            }
        }
    }
}

/// Every mutant either parses into ranges that lie in the file, or gets one short line.
#[test]
#[ignore = "run by `mutants_are_refused_or_read`, under a memory limit"]
fn mutants() {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let (mut read, mut refused) = (0, 0);
    let mut line = |result: std::result::Result<(), String>| match result {
        Ok(()) => read += 1,
        Err(error) => {
            assert!(!error.is_empty() && error.len() < 1000 && !error.contains('\n'), "{error}");
            refused += 1;
        }
    };
    let good = good();
    for _ in 0..40_000 {
        let mut bytes = good.clone();
        mutate(&mut bytes, &mut rng);
        line(header::parse(&bytes).map_err(|fault| fault.to_string()).map(|header| {
            for entry in header.entries {
                assert!(entry.begin <= entry.end && entry.end <= bytes.len());
                let elements = entry.shape.iter().product::<usize>();
                assert_eq!(elements / entry.dtype.block() * entry.dtype.bytes(), entry.end - entry.begin);
            }
        }));
    }
    // Whole files through the public door, memory map and all; what can be read is.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for _ in 0..300 {
        let mut bytes = good.clone();
        mutate(&mut bytes, &mut rng);
        std::fs::write(&path, &bytes).unwrap();
        line(Gguf::open(&path).map_err(|error| error.to_string()).map(|gguf| {
            let _ = gguf.json("");
            assert!(gguf.names().all(|name| gguf.tensor(name).is_some()));
        }));
    }
    // Both outcomes must occur often, or the mutations are too wild or too tame to mean anything.
    assert!(read > 500 && refused > 10_000, "{read} read, {refused} refused");
}

/// The mutants, in a process whose address space cannot hold what a lying header claims.
#[cfg(unix)]
#[test]
fn mutants_are_refused_or_read() {
    let run = Command::new("sh")
        .args([
            "-c",
            "ulimit -v 1000000 && exec \"$0\" --exact gguf::tests::hostile::mutants --ignored --test-threads=1",
        ])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&run.stderr));
}
