//! Files made to mislead: each gets one clear line, no panic, and no memory that its length does not justify.

use std::fs;
use std::process::Command;

use super::super::{find, header};
use super::{raw_file, refusal};

const GOOD: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b.weight":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"c":{"dtype":"I64","shape":[],"data_offsets":[32,40]}}"#;
const INDEX: &str = r#"{"metadata":{"total_size":40},"weight_map":{"a":"model-00001-of-00002.safetensors","b.weight":"model-00002-of-00002.safetensors"}}"#;

#[test]
fn each_lie_of_a_header_is_named() {
    let tensor = |text: &str| format!(r#"{{"a":{{{text}}}}}"#);
    let cases = [
        (tensor(r#""dtype":"F32","shape":[1],"data_offsets":[4,8]"#), 8, "bytes 0 to 4 of the data"),
        (tensor(r#""dtype":"F32","shape":[1],"data_offsets":[0,4]"#), 8, "take 4 bytes of data, and 8 are there"),
        (tensor(r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#), 4, "is the file cut short?"),
        (tensor(r#""dtype":"F32","shape":[3],"data_offsets":[0,8]"#), 8, "takes 12 bytes, and its range has 8"),
        (tensor(r#""dtype":"F32","shape":[1],"data_offsets":[8,4]"#), 8, "before its start"),
        (tensor(r#""dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]"#), 8, "than can be addressed"),
        (tensor(r#""dtype":"F32","shape":[-1],"data_offsets":[0,8]"#), 8, "invalid value"),
        (tensor(r#""dtype":"F32","shape":[1.5],"data_offsets":[0,8]"#), 8, "invalid type"),
        (tensor(r#""dtype":"F4","shape":[2],"data_offsets":[0,1]"#), 1, "unknown dtype `F4`"),
        (tensor(r#""dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]"#), 4, "more than 16 axes"),
        (tensor(r#""dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]"#), 4, "unknown field `strides`"),
        (tensor(r#""dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]"#), 4, "duplicate field `shape`"),
        (r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.into(), 1, "tensor `a` stands twice"),
        (r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#.into(), 3, "`a` and `b` overlap at byte 1"),
        (r#"{"__metadata__":{"a":"1","a":"2"}}"#.into(), 0, "`a` stands twice"),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, "invalid type"),
        (r#"{"a\u001b[2J":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.into(), 1, "control characters"),
        ("[]".into(), 0, "does not start with `{`"),
        (format!("{{\"a\":{}", "[".repeat(100_000)), 0, "its header:"),
        ("".into(), 0, "does not start with `{`"),
    ];
    for (json, data, expected) in cases {
        let error = header::parse(&raw_file(&json, &vec![0; data])).unwrap_err();
        assert!(error.contains(expected), "{error}\n is not about: {expected}");
        assert!(error.len() < 400 && !error.contains('\n') && !error.contains('\u{1b}'), "{error}");
    }
    // The length field alone.
    for (bytes, expected) in [
        (vec![], "has 0 bytes"),
        (vec![1, 2, 3], "has 3 bytes"),
        (u64::MAX.to_le_bytes().to_vec(), "claims 18446744073709551615 bytes"),
        (99_999_999u64.to_le_bytes().to_vec(), "and 0 follow; is the file cut short?"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
    ] {
        let error = header::parse(&bytes).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_index_stays_in_its_folder() {
    for file in
        ["../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "", "c:x.safetensors", "a\\\\x.safetensors"]
    {
        let error = find::parse_index(format!(r#"{{"weight_map":{{"a":"{file}"}}}}"#).as_bytes()).unwrap_err();
        assert!(error.contains("no path below the folder"), "{file}: {error}");
    }
    for (json, expected) in [
        (r#"{"weight_map":{"a":"pytorch_model.bin"}}"#, "no safetensors file"),
        (r#"{"weight_map":{}}"#, "is empty"),
        (r#"{}"#, "missing field `weight_map`"),
        (r#"{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}"#, "`a` stands twice"),
    ] {
        let error = find::parse_index(json.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn other_formats_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let empty = refusal(folder.path());
    assert!(empty.contains("looked for `model.safetensors`") && empty.contains("the folder is empty"), "{empty}");
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert!(refusal(folder.path()).contains("it holds: `config.json`"));
    for name in ["pytorch_model.bin", "model.pt", "last.ckpt", "weights.pth", "pytorch_model.bin.index.json"] {
        let path = folder.path().join(name);
        fs::write(&path, b"x").unwrap();
        for message in [refusal(folder.path()), refusal(&path)] {
            assert!(message.contains("pickle") && message.contains("safe_serialization=True"), "{message}");
        }
        fs::remove_file(path).unwrap();
    }
    let gguf = folder.path().join("model.gguf");
    fs::write(&gguf, b"GGUF").unwrap();
    assert!(refusal(folder.path()).contains("by their own names") && refusal(&gguf).contains("cut short"));
    for name in ["a.safetensors", "b.safetensors"] {
        fs::write(folder.path().join(name), b"").unwrap();
    }
    assert!(refusal(folder.path()).contains("several candidates"));
    assert!(refusal(folder.path().join("a.safetensors")).contains("has 0 bytes"));
    assert!(refusal(folder.path().join("none.safetensors")).contains("none.safetensors"));
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

/// A few changes of the kinds that find bugs: bits, cuts, repeats, big numbers, structure.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    const PIECES: [&str; 12] = [
        "18446744073709551615",
        "-1",
        "1e308",
        "\"",
        "{",
        "}",
        "[",
        ",\"a\":",
        "null",
        "\\u0000",
        "9999999999",
        "\u{fffd}",
    ];
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len());
        match rng.below(7) {
            _ if bytes.is_empty() => bytes.push(b'{'),
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
                let piece = PIECES[rng.below(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
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
    let mut line = |result: Result<(), String>| match result {
        Ok(()) => read += 1,
        Err(error) => {
            assert!(!error.is_empty() && error.len() < 1000 && !error.contains('\n'), "{error}");
            refused += 1;
        }
    };
    for round in 0..30_000 {
        // Half of the mutants keep a true length, so that the mutation reaches the JSON.
        let file = if round % 2 == 0 {
            let mut json = GOOD.as_bytes().to_vec();
            mutate(&mut json, &mut rng);
            [&(json.len() as u64).to_le_bytes(), json.as_slice(), &[0; 40]].concat()
        } else {
            let mut file = raw_file(GOOD, &[0; 40]);
            mutate(&mut file, &mut rng);
            file
        };
        line(header::parse(&file).map(|header| {
            for entry in header.entries {
                assert!(entry.begin <= entry.end && entry.end <= file.len());
                assert_eq!(entry.shape.iter().product::<usize>() * entry.dtype.bytes(), entry.end - entry.begin);
            }
        }));
        let mut index = INDEX.as_bytes().to_vec();
        mutate(&mut index, &mut rng);
        line(find::parse_index(&index).map(|shards| {
            assert!(shards.keys().all(|file| !file.starts_with('/') && !file.split('/').any(|part| part == "..")));
        }));
    }
    // Whole files through the public door, memory map and all.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for _ in 0..300 {
        let mut file = raw_file(GOOD, &[0; 40]);
        mutate(&mut file, &mut rng);
        fs::write(&path, &file).unwrap();
        line(super::Checkpoint::open(folder.path()).map(|_| ()).map_err(|error| error.to_string()));
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
            "ulimit -v 1000000 && exec \"$0\" --exact checkpoint::tests::hostile::mutants --ignored --test-threads=1",
        ])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&run.stderr));
}
