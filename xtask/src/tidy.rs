//! `cargo xtask tidy`: the invariants of the project that neither rustc nor clippy knows.
//!
//! A rule is a name, the reason for it, what to do about a breach, and a function over the tree. Each
//! is broken once in `tidy/tests.rs`; a rule without such a test fails the suite.

mod families;
mod layers;
mod pages;
pub mod shape;
mod style;
#[cfg(test)]
mod tests;
mod weights;

use crate::tree::Tree;
use anyhow::{Result, bail};
use std::path::Path;

/// One place where a rule is broken.
#[derive(Debug)]
pub struct Finding {
    pub path: String,
    /// From 1; 0 where the whole file is meant.
    pub line: usize,
    pub what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

pub struct Rule {
    pub name: &'static str,
    /// Why the rule is worth its cost.
    pub why: &'static str,
    /// What to do about a finding.
    pub instead: &'static str,
    pub check: fn(&Tree) -> Vec<Finding>,
}

/// Every rule, in the order of the report.
pub const RULES: &[Rule] = &[
    layers::DIRECTION,
    layers::FORBIDDEN_CRATES,
    layers::LINTS,
    layers::UNSAFE,
    layers::NO_FILES,
    weights::ONE_PRODUCT,
    families::NO_ARITHMETIC,
    families::REGISTERED,
    families::NO_NAMES_ABOVE,
    shape::FILE_LENGTH,
    shape::FORWARD_LENGTH,
    style::EXPECT_NOT_ALLOW,
    style::NO_STUBS,
    style::HEADER,
    style::PRIVATE_WORDS,
    pages::TRUE_PAGES,
];

/// Checks every rule over the tree below `root`; an error says how many findings there were.
pub fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut count = 0;
    for rule in RULES {
        let findings = (rule.check)(&tree);
        count += findings.len();
        print!("{}", report(rule, &findings));
    }
    if count > 0 {
        bail!("tidy found {count} breach{} of the project's rules", if count == 1 { "" } else { "es" });
    }
    println!("tidy: {} rules hold over {} Rust files", RULES.len(), tree.sources.len());
    Ok(())
}

/// Prints the rules and their reasons.
pub fn list() {
    for rule in RULES {
        println!("{}\n    why      {}\n    instead  {}", rule.name, rule.why, rule.instead);
    }
}

/// The findings of one rule as text, reason and advice once below them; nothing where there are none.
fn report(rule: &Rule, findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { path, line, what } in findings {
        let place = if *line == 0 { path.clone() } else { format!("{path}:{line}") };
        text += &format!("{place}: {}: {what}\n", rule.name);
    }
    if !findings.is_empty() {
        text += &format!("    why      {}\n    instead  {}\n\n", rule.why, rule.instead);
    }
    text
}
