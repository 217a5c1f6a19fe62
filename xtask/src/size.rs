//! `cargo xtask size`: how much there is to read, by crate and by kind of line.

use crate::lex::Kind;
use crate::source::Source;
use crate::tidy::shape::is_forward;
use crate::tree::Tree;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::AddAssign;
use std::path::Path;

/// Files and forwards shown by name.
const SHOWN: usize = 10;

/// Lines by what they hold. A line of code with a comment behind it is code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    files: usize,
    code: usize,
    comments: usize,
    docs: usize,
    tests: usize,
    blank: usize,
}

/// Prints the sizes of the tree below `root`.
pub fn run(root: &Path) -> Result<()> {
    print!("{}", report(&Tree::read(root)?));
    Ok(())
}

fn report(tree: &Tree) -> String {
    let mut crates: BTreeMap<&str, Lines> = BTreeMap::new();
    let mut total = Lines::default();
    for source in &tree.sources {
        let lines = count(source);
        *crates.entry(crate_of(&source.path)).or_default() += lines;
        total += lines;
    }
    let mut text = String::from("crate        files     code  comment     docs    tests    blank  explained\n");
    for (name, lines) in crates.iter().map(|(name, lines)| (*name, lines)).chain([("total", &total)]) {
        let Lines { files, code, comments, docs, tests, blank } = *lines;
        let explained = 100 * (comments + docs) / (code + comments + docs).max(1);
        let _ =
            writeln!(text, "{name:<12}{files:>6}{code:>9}{comments:>9}{docs:>9}{tests:>9}{blank:>9}{explained:>9} %");
    }
    let pages: usize = tree.texts.iter().filter(|f| f.path.ends_with(".md")).map(|f| f.text.lines().count()).sum();
    let _ = writeln!(text, "pages (.md)  {pages} lines\n");

    let mut files: Vec<(usize, &str)> =
        tree.sources.iter().map(|source| (source.lines_without_tests(), source.path.as_str())).collect();
    files.retain(|(lines, _)| *lines > 0);
    files.sort_by(|a, b| b.cmp(a));
    if let Some((median, _)) = files.get(files.len() / 2) {
        let _ = writeln!(text, "median file: {median} lines without tests; the largest:");
    }
    list(&mut text, files.iter().map(|(lines, path)| (*lines, (*path).to_owned())));

    let mut forwards: Vec<(usize, String)> = Vec::new();
    for source in tree.sources_of("nn") {
        for function in source.functions(is_forward).iter().filter(|function| !source.is_test(function.first_line)) {
            let lines = function.last_line + 1 - function.first_line;
            forwards.push((lines, format!("{}:{} {}", source.path, function.first_line, function.name)));
        }
    }
    forwards.sort_by(|a, b| b.cmp(a));
    text += "\nthe longest forwards of blocks:\n";
    list(&mut text, forwards.into_iter());
    text
}

fn list(text: &mut String, entries: impl Iterator<Item = (usize, String)>) {
    for (lines, name) in entries.take(SHOWN) {
        let _ = writeln!(text, "{lines:>6}  {name}");
    }
}

/// `nn` for `crates/nn/src/mlp.rs`; for what lies elsewhere, its first folder.
fn crate_of(path: &str) -> &str {
    let path = path.strip_prefix("crates/").unwrap_or(path);
    path.split('/').next().unwrap_or(path)
}

fn count(source: &Source) -> Lines {
    #[derive(Clone, Copy)]
    enum Holds {
        Nothing,
        Comment,
        Docs,
        Code,
    }
    let mut holds = vec![Holds::Nothing; source.text.lines().count()];
    for token in source.comments.iter().chain(&source.tokens) {
        let height = source.text[token.start..token.end].matches('\n').count();
        let kind = match token.kind {
            Kind::Comment => Holds::Comment,
            Kind::Doc => Holds::Docs,
            // Code comes last and so wins its line.
            _ => Holds::Code,
        };
        let last = (token.line + height).min(holds.len());
        holds[token.line - 1..last].fill(kind);
    }
    let mut lines = Lines { files: 1, ..Lines::default() };
    for (index, holds) in holds.into_iter().enumerate() {
        match holds {
            Holds::Nothing => lines.blank += 1,
            _ if source.is_test(index + 1) => lines.tests += 1,
            Holds::Comment => lines.comments += 1,
            Holds::Docs => lines.docs += 1,
            Holds::Code => lines.code += 1,
        }
    }
    lines
}

impl AddAssign for Lines {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.code += other.code;
        self.comments += other.comments;
        self.docs += other.docs;
        self.tests += other.tests;
        self.blank += other.blank;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::TextFile;

    const TEXT: &str = "//! Docs.\n\n// Why.\n/* and\nwhy */\nfn a() { // code\n    \"x\n\ny\"\n}\n\n#[cfg(test)]\nmod tests {\n// t\n}\n";

    #[test]
    fn every_line_is_counted_once() {
        let lines = count(&Source::new("crates/nn/src/a.rs", TEXT));
        assert_eq!(lines, Lines { files: 1, code: 5, comments: 3, docs: 1, tests: 4, blank: 2 });
    }

    #[test]
    fn the_report_names_crates_files_and_forwards() {
        let file = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let tree = Tree::new(vec![
            file("crates/nn/src/a.rs", TEXT),
            file("crates/nn/src/b.rs", "fn forward() {\n}\n"),
            file("xtask/src/main.rs", "fn main() {}\n"),
            file("README.md", "a\nb\n"),
        ]);
        let text = report(&tree);
        for expected in [
            "nn               2",
            "xtask            1",
            "2 lines",
            "crates/nn/src/b.rs:1 forward",
            "11  crates/nn/src/a.rs",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
