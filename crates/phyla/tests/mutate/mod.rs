//! Mutations of files: of their bytes, and of what they mean.

use serde_json::Value;

/// A small seeded generator (splitmix64).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// JSON that stands where something else is expected.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "2",
    "3",
    "0.5",
    "-0.0",
    "1e-320",
    "1e308",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "1000000",
    "4194304",
    "4294967295",
    "4294967296",
    "100000000000",
    "1000000000000",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e12",
    "\"\"",
    "\"NaN\"",
    "\"12\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"gelu\"",
    "\"yarn\"",
    "\"dynamic\"",
    "\"../../etc/passwd\"",
    "\"((((a+)+)+)+)+$\"",
    "\"a{1000}{1000}{1000}\"",
    "[]",
    "[0]",
    "[[]]",
    "[1000000000000]",
    "[null, {}]",
    "{}",
    "{\"a\": 1}",
    "{\"type\": \"Sequence\"}",
    "{\"rope_type\": \"longrope\"}",
];

const MARK: char = '\u{1}';

/// One to three changes of meaning, then in one case of five a change of bytes.
pub fn json(rng: &mut Rng, original: &Value) -> Vec<u8> {
    let mut value = original.clone();
    for _ in 0..1 + rng.below(3) {
        change(rng, &mut value);
    }
    // Marked strings stand for JSON that a `Value` cannot hold.
    let mut text = value.to_string();
    while let Some(start) = text.find("\"\\u0001") {
        let end = text[start + 7..].find("\\u0001\"").map_or(text.len(), |end| start + 7 + end);
        let index: usize = text[start + 7..end].parse().unwrap_or(0);
        text.replace_range(start..(end + 7).min(text.len()), &raw(index));
    }
    if rng.below(5) == 0 { bytes(rng, text.as_bytes()) } else { text.into_bytes() }
}

fn raw(index: usize) -> String {
    match VALUES.get(index) {
        Some(value) => (*value).to_owned(),
        None if index == VALUES.len() => format!("{}{}", "[".repeat(300), "]".repeat(300)),
        None if index == VALUES.len() + 1 => "{\"a\":".repeat(100_000),
        None => format!("\"{}\"", "long ".repeat(20_000)),
    }
}

fn hostile(rng: &mut Rng) -> Value {
    // The last three are large: rarely.
    let index = if rng.below(20) == 0 { VALUES.len() + rng.below(3) } else { rng.below(VALUES.len()) };
    Value::String(format!("{MARK}{index}{MARK}"))
}

fn change(rng: &mut Rng, value: &mut Value) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = rng.pick(&keys).clone();
            match rng.below(8) {
                0 => {
                    map.remove(&key);
                }
                1 => {
                    let moved = map.remove(&key).unwrap_or_default();
                    map.insert(format!("{key}s"), moved);
                }
                2 => {
                    let other = map[rng.pick(&keys)].clone();
                    map.insert(key, other);
                }
                // Deeper where there is a deeper.
                _ if map[&key].is_object() || map[&key].is_array() => {
                    if let Some(inner) = map.get_mut(&key) {
                        change(rng, inner);
                    }
                }
                _ => {
                    map.insert(key, hostile(rng));
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let index = rng.below(items.len());
            match rng.below(6) {
                0 => {
                    items.remove(index);
                }
                1 => items.push(items[index].clone()),
                2 => items[index] = hostile(rng),
                _ => change(rng, &mut items[index]),
            }
        }
        other => *other = hostile(rng),
    }
}

/// One to four changes of bytes.
pub fn bytes(rng: &mut Rng, original: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 if at < bytes.len() => bytes[at] = rng.below(256) as u8,
            3 => bytes.insert(at, *rng.pick(b"{}[]\",:0-9eE.\\\n\x00\xff%#'")),
            4 if at < bytes.len() => {
                let end = (at + 1 + rng.below(12)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + rng.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = rng.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
        }
    }
    bytes
}

/// Bytes, or a piece of another text in the middle of this one.
pub fn text(rng: &mut Rng, one: &str, other: &str) -> Vec<u8> {
    if rng.below(3) > 0 {
        return bytes(rng, one.as_bytes());
    }
    let cut = |rng: &mut Rng, text: &str| {
        let at = rng.below(text.len() + 1);
        (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
    };
    let (a, b) = (cut(rng, one), cut(rng, other));
    format!("{}{}", &one[..a], &other[b..]).into_bytes()
}

/// A line of a recipe replaced, doubled, moved or with another value; or bytes.
pub fn toml(rng: &mut Rng, one: &str, other: &str) -> Vec<u8> {
    const VALUES: &[&str] = &[
        "nan",
        "inf",
        "-inf",
        "-1",
        "0",
        "1e400",
        "9223372036854775807",
        "9223372036854775808",
        "1000000000000",
        "\"\"",
        "[]",
        "{}",
        "true",
        "\"cosine\"",
        "[[[[[[]]]]]]",
        "1979-05-27",
        "'''",
        "\"\\u0000\"",
        "[1, \"a\"]",
        "0x7fffffff",
        "1e-400",
    ];
    let mut lines: Vec<String> = one.lines().map(str::to_owned).collect();
    for _ in 0..1 + rng.below(2) {
        let at = rng.below(lines.len());
        match rng.below(6) {
            0 => {
                lines.remove(at);
            }
            1 => lines.insert(at, lines[at].clone()),
            2 => lines.insert(at, (*rng.pick(&other.lines().collect::<Vec<_>>())).to_owned()),
            3 => return bytes(rng, lines.join("\n").as_bytes()),
            _ => {
                let settings: Vec<usize> = (0..lines.len()).filter(|&i| lines[i].contains(" = ")).collect();
                let line = &mut lines[*rng.pick(&settings)];
                let key = line.split(" = ").next().unwrap_or_default().to_owned();
                *line = format!("{key} = {}", rng.pick(VALUES));
            }
        }
    }
    lines.join("\n").into_bytes()
}

/// Half of the mutants keep a true length of the header, so that the mutation reaches its JSON.
pub fn safetensors(rng: &mut Rng, original: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(original[..8].try_into().unwrap_or_default()) as usize;
    let (header, data) = original[8..].split_at(length);
    let header = match rng.below(4) {
        0 => return bytes(rng, original),
        1 => bytes(rng, header),
        _ => json(rng, &serde_json::from_slice(header).unwrap_or_default()),
    };
    let mut length = header.len() as u64;
    if rng.below(20) == 0 {
        length = *rng.pick(&[0, 1, u64::MAX, u64::MAX / 2, 1 << 40, 100_000_001]);
    }
    [&length.to_le_bytes()[..], &header, data].concat()
}
