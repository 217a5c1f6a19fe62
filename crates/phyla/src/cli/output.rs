//! Data for standard output: buffered, with every failed write reported, never a panic as `println!` has.

use std::io::{self, Write};

use anyhow::Context;
use serde_json::Value;

/// Lets `write` fill standard output.
pub fn stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes one value as indented JSON and ends the line.
pub fn json(value: &Value) -> anyhow::Result<()> {
    stdout(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}

/// A count in three digits: `999`, `1.23 M`.
pub fn count(n: u64) -> String {
    let (digits, letter) = short(n);
    if letter.is_empty() { digits } else { format!("{digits} {letter}") }
}

/// Bytes in three digits and powers of ten: `999 B`, `1.23 MB`.
pub fn bytes(n: u64) -> String {
    let (digits, letter) = short(n);
    format!("{digits} {letter}B")
}

fn short(n: u64) -> (String, &'static str) {
    const STEPS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let exact = n as f64;
    // A half more than fits three digits goes to the next letter: 999 999 is 1.00 M, not 1000 k.
    let Some((size, letter)) = STEPS.iter().find(|(size, _)| exact >= size * 0.9995) else {
        return (n.to_string(), "");
    };
    let scaled = exact / size;
    let places = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    (format!("{scaled:.places$}"), letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.00 k"),
            (9_999, "10.0 k"),
            (25_649_000, "25.6 M"),
            (99_960_000, "100 M"),
            (124_439_808, "124 M"),
            (999_999, "1.00 M"),
        ] {
            assert_eq!(count(n), text);
        }
        assert_eq!((bytes(17), bytes(4_000_000)), ("17 B".into(), "4.00 MB".into()));
    }
}
