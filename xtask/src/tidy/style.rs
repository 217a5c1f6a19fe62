//! Rules about how a file is written: its header, the lints it switches off, what it leaves undone.

use super::{Finding, Rule};
use crate::source::Source;

/// One word a line; `#` opens a comment.
const PRIVATE_WORDS_FILE: &str = "xtask/private-words.txt";

/// Shorter headers do not say how a file differs from its neighbour; "Layers in a row." does.
const SHORTEST_HEADER: usize = 16;

pub const EXPECT_NOT_ALLOW: Rule = Rule {
    name: "expect-not-allow",
    why: "`#[expect]` with a reason disappears when its cause does, `#[allow]` stays for ever; and outside tests a \
          panic is never the answer to bad input",
    instead: "write `#[expect(lint, reason = \"…\")]`; where it is unwrap, expect or panic, return an error instead",
    check: |tree| {
        let mut found = Vec::new();
        for source in &tree.sources {
            for range in source.attributes() {
                let line = source.tokens[range.start.min(source.tokens.len() - 1)].line;
                if let Some(what) = lint_breach(source, range, line) {
                    found.push(Finding::new(&source.path, line, what));
                }
            }
        }
        found
    },
};

pub const NO_STUBS: Rule = Rule {
    name: "no-stubs",
    why: "what is there works; half a feature is worse than none, since somebody will call it",
    instead: "finish it, or leave it out",
    check: |tree| {
        let mut found = Vec::new();
        for source in &tree.sources {
            for i in source.outside_tests() {
                if matches!(source.word(i), "todo" | "unimplemented" | "dbg") && source.word(i + 1) == "!" {
                    found.push(Finding::new(&source.path, source.tokens[i].line, format!("`{}!`", source.word(i))));
                }
            }
        }
        found
    },
};

pub const HEADER: Rule = Rule {
    name: "file-header",
    why: "a reader who opens a file learns from its first line what it is and how it differs from its neighbour",
    instead: "start the file with `//!` and one sentence",
    check: |tree| {
        let mut found = Vec::new();
        for source in &tree.sources {
            let header = source.text.lines().next().and_then(|line| line.strip_prefix("//!"));
            let what = match header.map(str::trim) {
                None => "the first line is not a `//!` header",
                Some(header) if header.chars().count() < SHORTEST_HEADER => "the `//!` header is no sentence",
                Some(_) => continue,
            };
            found.push(Finding::new(&source.path, 1, what));
        }
        found
    },
};

pub const PRIVATE_WORDS: Rule = Rule {
    name: "no-private-words",
    why: "a path or host of the machine that something was written on means nothing on any other",
    instead: "name a path relative to the workspace, an environment variable, or the public address; the words stand \
              in xtask/private-words.txt",
    check: |tree| {
        let list = tree.text(PRIVATE_WORDS_FILE).unwrap_or_default();
        let words: Vec<&str> =
            list.lines().map(str::trim).filter(|word| !word.is_empty() && !word.starts_with('#')).collect();
        let mut found = Vec::new();
        let texts = tree.texts.iter().map(|file| (&file.path, &file.text));
        for (path, text) in texts.chain(tree.sources.iter().map(|source| (&source.path, &source.text))) {
            if path == PRIVATE_WORDS_FILE {
                continue;
            }
            for (index, line) in text.lines().enumerate() {
                for word in words.iter().filter(|word| stands_in(line, word)) {
                    found.push(Finding::new(path, index + 1, format!("`{word}`")));
                }
            }
        }
        found
    },
};

/// What is wrong with the attribute whose inside is `range`, if anything.
fn lint_breach(source: &Source, range: std::ops::Range<usize>, line: usize) -> Option<&'static str> {
    let words: Vec<&str> = range.map(|i| source.word(i)).collect();
    let holds = |word: &str| words.contains(&word);
    let only_tests = words.starts_with(&["cfg_attr", "(", "test", ","]);
    let switches = |name: &str| words.windows(2).any(|pair| pair == [name, "("]);
    if words.first() == Some(&"doc") {
        return None;
    }
    if switches("allow") {
        return Some("`#[allow]`");
    }
    if !switches("expect") {
        return None;
    }
    if !holds("reason") {
        return Some("`#[expect]` without a reason");
    }
    let panics = ["unwrap_used", "expect_used", "panic", "restriction", "all"].into_iter().any(holds);
    (panics && !only_tests && !source.is_test(line)).then_some("a lint against panics is switched off outside tests")
}

/// Does `word` stand in `line`? One that starts with `/` only at the start of a path.
fn stands_in(line: &str, word: &str) -> bool {
    let lower = line.to_lowercase();
    lower.match_indices(word).any(|(at, _)| {
        let before = lower[..at].chars().next_back();
        let inside_path = before.is_some_and(|c| c.is_alphanumeric() || "._-~/}>*$".contains(c));
        !word.starts_with('/') || !inside_path
    })
}
