//! `cargo xtask check`: everything that a change must pass, cheapest first, up to the first failure.

use crate::{cargo, test, tidy};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Instant;

/// What the first step does with files that are not formatted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Verify,
    Apply,
}

type Step<'a> = (&'static str, Box<dyn Fn() -> Result<()> + 'a>);

/// Runs the steps and prints each with its time.
pub fn run(root: &Path, format: Format) -> Result<()> {
    let fmt: &[&str] = match format {
        Format::Verify => &["fmt", "--all", "--", "--check"],
        Format::Apply => &["fmt", "--all"],
    };
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    let steps: [Step; 4] = [
        ("format", Box::new(|| call(root, fmt))),
        ("tidy", Box::new(|| tidy::run(root))),
        ("clippy", Box::new(move || call(root, &clippy))),
        ("test", Box::new(|| test::run(root, None))),
    ];
    run_steps(&steps, &mut |line| println!("{line}"))
}

fn run_steps(steps: &[Step], print: &mut dyn FnMut(&str)) -> Result<()> {
    let mut report = Vec::new();
    for (name, step) in steps {
        print(&format!("-- {name}"));
        let start = Instant::now();
        let result = step();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        report.push(format!("{name:<8}{:>9.1} s  {verdict}", start.elapsed().as_secs_f64()));
        if result.is_err() || report.len() == steps.len() {
            print(&format!("\n{}", report.join("\n")));
        }
        result.with_context(|| format!("{name} failed"))?;
    }
    Ok(())
}

fn call(root: &Path, arguments: &[&str]) -> Result<()> {
    let status = cargo(root, arguments).status().context("cannot start cargo")?;
    if !status.success() {
        // Cargo has said why; the component that a bare toolchain lacks it names too.
        bail!("`cargo {}` did not pass", arguments.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn the_first_failure_ends_the_check() {
        let ran = RefCell::new(Vec::new());
        let step = |name: &'static str, passes: bool| -> Step {
            let ran = &ran;
            let step = move || {
                ran.borrow_mut().push(name);
                if passes { Ok(()) } else { bail!("broken") }
            };
            (name, Box::new(step))
        };
        let mut lines = Vec::new();
        let result =
            run_steps(&[step("a", true), step("b", false), step("c", true)], &mut |line| lines.push(line.to_owned()));
        assert_eq!(*ran.borrow(), ["a", "b"]);
        assert_eq!(result.err().map(|error| format!("{error:#}")).as_deref(), Some("b failed: broken"));
        let report = lines.last().map(String::as_str).unwrap_or_default();
        assert!(report.contains("ok") && report.contains("FAILED"), "{report}");
    }
}
