//! `cargo xtask test`: the whole suite in release mode, with one closing line over all of its binaries.

use crate::cargo;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

/// What the lines `test result: …` of several test binaries add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    measured: usize,
    filtered_out: usize,
}

/// Runs every test whose name holds `filter`, or all. An error if one fails, or if there was none to run.
pub fn run(root: &Path, filter: Option<&str>) -> Result<()> {
    let start = Instant::now();
    // Release: the numerics run at full speed on the very code that ships. A failure does not hide the next one.
    let mut arguments = vec!["test", "--release", "--workspace", "--no-fail-fast"];
    arguments.extend(filter);
    let mut child = cargo(root, &arguments)
        // Tests need no network; whatever reaches for the hub is told so at once.
        .env("HF_HUB_OFFLINE", "1")
        // Whoever reads what nobody wrote reads NaN.
        .env("PHYLA_POISON", "1")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let tally = copy_and_count(BufReader::new(stdout), &mut std::io::stdout().lock())?;
    let success = child.wait().context("cannot wait for cargo")?.success();

    let seconds = start.elapsed().as_secs_f64();
    println!("{}", tally.line(success, seconds));
    match filter {
        _ if !success => bail!("the tests did not pass"),
        Some(filter) if tally.passed == 0 => bail!("no test has `{filter}` in its name"),
        None if tally.passed == 0 => bail!("no test ran"),
        _ => Ok(()),
    }
}

/// Passes everything on, line by line, and adds up what the test binaries report.
fn copy_and_count(mut from: impl BufRead, to: &mut impl Write) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).context("cannot read the output of cargo")? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        tally.add(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(tally)
}

impl Tally {
    /// Adds a line `test result: ok. 3 passed; 0 failed; …`; other lines change nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.trim().strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split(';') {
            let Some((number, name)) = count.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            match name {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                "measured" => self.measured += number,
                "filtered out" => self.filtered_out += number,
                _ => {}
            }
        }
    }

    /// The closing line, in the words of a test binary's own.
    fn line(self, success: bool, seconds: f64) -> String {
        let Self { passed, failed, ignored, measured, filtered_out } = self;
        let verdict = if success { "ok" } else { "FAILED" };
        format!(
            "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; {measured} measured; \
             {filtered_out} filtered out; finished in {seconds:.2}s"
        )
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const OUTPUT: &str = "running 2 tests\ntest a ... ok\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n\
        test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    #[test]
    fn results_of_all_binaries_add_up() {
        let mut copy = Vec::new();
        let tally = copy_and_count(OUTPUT.as_bytes(), &mut copy).unwrap();
        assert_eq!(tally, Tally { passed: 5, failed: 1, ignored: 1, measured: 0, filtered_out: 4 });
        assert_eq!(String::from_utf8(copy).unwrap(), OUTPUT);
    }

    #[test]
    fn the_closing_line_reads_as_a_test_binarys_own() {
        let tally = Tally { passed: 5, ..Tally::default() };
        let line = tally.line(true, 1.5);
        assert!(line.ends_with(
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s"
        ));
        let mut again = Tally::default();
        again.add(&line);
        assert_eq!(again, tally);
        assert!(tally.line(false, 0.0).contains("FAILED"));
    }
}
