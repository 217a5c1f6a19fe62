//! Cutting mixed text into Chinese characters and words of other languages.

use std::sync::LazyLock;

use fancy_regex::Regex;

use crate::text::{is_space, words};
use crate::{Error, Result};

/// What the task takes for punctuation: the rest (`.`, `,`, `"`, `(` …) is kept.
const PUNCTUATION: &str = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』";

/// The lower-cased text without white space around it and without punctuation.
pub(super) fn plain(text: &str) -> String {
    text.to_lowercase().trim_matches(is_space).chars().filter(|&c| !PUNCTUATION.contains(c)).collect()
}

/// The segments of a text: each Chinese character, and the words between them.
///
/// Words are cut as the Penn Treebank does in NLTK's reading (`don't` is `do`, `n't`; `$3.5` is `$`, `3.5`). The
/// official script first cuts English into sentences with a trained model, which is left out: it matters only where a
/// point that ends a sentence stands within an answer.
///
/// # Errors
/// A text so long and strange that a pattern gives up on it.
pub fn segments(text: &str) -> Result<Vec<String>> {
    let plain = plain(text);
    let mut found = Vec::new();
    let mut rest = plain.as_str();
    while let Some(first) = rest.chars().next() {
        if is_chinese(first) {
            found.push(first.to_string());
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (run, after) = rest.split_at(rest.find(is_chinese).unwrap_or(rest.len()));
        treebank(run, &mut found)?;
        rest = after;
    }
    Ok(found)
}

fn is_chinese(c: char) -> bool {
    ('\u{4e00}'..='\u{9fa5}').contains(&c)
}

/// Rules in the order in which they apply, for text in lower case without [`PUNCTUATION`].
///
/// `W`, `B` and `S` stand for Python's `\w`, `\b` and `\s`, which differ from those of the engine in combining marks
/// and control characters.
const RULES: &[(&str, &str)] = &[
    // Opening quotes become two backticks.
    ("[«‘„]", " $0 "),
    ("^\"", " `` "),
    (r#"([ (\[{<])("|'')"#, "$1 `` "),
    (r"(?<!W)'(?=W)(?!(?:re|ve|ll|m|t|s|d|n)B)", "$0 "),
    // A point stands alone at the end only, also within quotes and brackets.
    (r#"([^.])\.([\])}>"' »]*)S*$"#, "$1 . $2 "),
    (r",([^\d])", " , $1"),
    (",$", " , "),
    (r"\.{2,}", " $0 "),
    ("[;@#$%&]", " $0 "),
    ("[\u{2012}-\u{2015}]", " $0 "),
    (r#"([^.])\.([\])}>"']*)S*$"#, "$1 .$2 "),
    ("[?!]", " $0 "),
    ("([^'])' ", "$1 ' "),
    (r"[\[\](){}<>]", " $0 "),
    ("^|$", " "),
    // What is left of quotes closes.
    ("»", " $0 "),
    ("''|\"", " '' "),
    ("S+", " "),
    // Clitics, then words that have grown together.
    ("([^' ])('[smd]|') ", "$1 $2 "),
    ("([^' ])('ll|'re|'ve|n't) ", "$1 $2 "),
    (r"B(can(?=not)|d(?='ye)|gim(?=me)|gon(?=na)|got(?=ta)|lem(?=me)|more(?='n))(not|'ye|me|na|ta|'n)B", " $1 $2 "),
    (r"B(wan)(na)(?=S)", " $1 $2 "),
    (r" ('t)(is|was)B", " $1 $2 "),
];

/// The rules compiled, once.
static COMPILED: LazyLock<std::result::Result<Vec<(Regex, &str)>, fancy_regex::Error>> = LazyLock::new(|| {
    let compile = |&(pattern, replacement): &(&str, &'static str)| {
        let pattern = pattern.replace('B', r"(?:(?<=W)(?!W)|(?<!W)(?=W))");
        let pattern = pattern.replace('W', r"[\p{L}\p{N}_]").replace('S', r"[\s\x1c-\x1f]");
        Ok((Regex::new(&pattern)?, replacement))
    };
    RULES.iter().map(compile).collect()
});

/// The words of a run without Chinese characters.
fn treebank(run: &str, found: &mut Vec<String>) -> Result<()> {
    let broken = |error: &dyn std::fmt::Display| Error::Input(format!("CMRC: cannot cut a text into words: {error}"));
    let rules = COMPILED.as_ref().map_err(|error| broken(error))?;
    let mut text = run.to_owned();
    for (pattern, replacement) in rules {
        text = pattern.try_replacen(&text, 0, *replacement).map_err(|error| broken(&error))?.into_owned();
    }
    found.extend(words(&text).map(str::to_owned));
    Ok(())
}
