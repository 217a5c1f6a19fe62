//! How BLEU cuts texts into words: by the rules of NIST's scripts, so that scores of different systems compare.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::text::{is_space, words};
use crate::{Error, Result};

/// A tokenisation of sacrebleu, by its name there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokenizer {
    /// mteval-v13a: ASCII punctuation stands alone, but for points and commas within numbers. For Western languages.
    #[default]
    #[serde(rename = "13a")]
    Mteval13a,
    /// Every Chinese character stands alone, the rest as in `13a`.
    Zh,
    /// Every character stands alone.
    Char,
    /// mteval-v14: as `13a` with all of Unicode's punctuation and symbols.
    Intl,
    /// White space only, for texts that are tokenised already.
    None,
}

const ALL: [(Tokenizer, &str); 5] = [
    (Tokenizer::Mteval13a, "13a"),
    (Tokenizer::Zh, "zh"),
    (Tokenizer::Char, "char"),
    (Tokenizer::Intl, "intl"),
    (Tokenizer::None, "none"),
];

impl Tokenizer {
    /// The text with white space between its words.
    pub fn tokenize(self, text: &str) -> String {
        match self {
            Self::Mteval13a => mteval_13a(text),
            Self::Zh => chinese(text),
            Self::Char => joined(text.chars().filter(|c| !is_space(*c)).map(|c| c.to_string())),
            Self::Intl => international(text),
            Self::None => text.to_owned(),
        }
    }
}

impl Display for Tokenizer {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let name = ALL.iter().find(|(tokenizer, _)| tokenizer == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Tokenizer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = ALL.iter().find(|(_, name)| *name == text).map(|(tokenizer, _)| *tokenizer);
        found.ok_or_else(|| {
            let known = ALL.map(|(_, name)| name).join(", ");
            Error::Settings(format!("BLEU: expected a tokenizer out of {known}; found `{text}`"))
        })
    }
}

fn mteval_13a(text: &str) -> String {
    let mut text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if text.contains('&') {
        // In this order: `&amp;lt;` ends as `<`.
        for (entity, meant) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
            text = text.replace(entity, meant);
        }
    }
    // The spaces count as what is not a digit: a point at the end stands alone even after a number.
    western(&format!(" {text} "))
}

/// The rules that `13a` and `zh` have in common.
fn western(text: &str) -> String {
    let digit = |c: char| c.is_ascii_digit();
    let point = |c: char| c == '.' || c == ',';
    let text = apart(text, |c| c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.'));
    let text = pairs(&text, |c| !digit(c), point, Spaces::AroundSecond);
    let text = pairs(&text, point, |c| !digit(c), Spaces::AroundFirst);
    let text = pairs(&text, digit, |c| c == '-', Spaces::AroundSecond);
    joined(words(&text))
}

fn international(text: &str) -> String {
    let is = |group| move |c: char| c.general_category_group() == group;
    let number = is(GeneralCategoryGroup::Number);
    let punctuation = is(GeneralCategoryGroup::Punctuation);
    let text = pairs(text, |c| !number(c), punctuation, Spaces::AroundSecond);
    let text = pairs(&text, punctuation, |c| !number(c), Spaces::AroundFirst);
    joined(words(&apart(&text, is(GeneralCategoryGroup::Symbol))))
}

fn chinese(text: &str) -> String {
    western(&apart(text.trim_matches(is_space), is_chinese))
}

/// The characters that sacrebleu's `zh` sets apart.
///
/// U+2001 to U+2A6D and U+2F81 to U+2FA1 are what two misspelt bounds of its table for the supplementary planes
/// amount to. They set apart dashes, quotation marks and arrows, and scores are published with them; Han characters
/// beyond U+FFFF are not set apart.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{2001}'..='\u{2a6d}'
        | '\u{2e80}'..='\u{2eff}'
        | '\u{2f00}'..='\u{2fdf}'
        | '\u{2ff0}'..='\u{303f}'
        | '\u{3100}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}'
        | '\u{31c0}'..='\u{31ef}'
        | '\u{3200}'..='\u{33ff}'
        | '\u{3400}'..='\u{4db5}'
        | '\u{4e00}'..='\u{9fbb}'
        | '\u{f900}'..='\u{fa2d}'
        | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}'
        | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{ff00}'..='\u{ffef}'
    )
}

/// Puts spaces around every character of a kind.
fn apart(text: &str, kind: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for c in text.chars() {
        if kind(c) {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
    }
    out
}

#[derive(Clone, Copy)]
enum Spaces {
    AroundFirst,
    AroundSecond,
}

/// Puts spaces around one of two neighbours, for every pair of the given kinds.
///
/// Pairs do not overlap, and are sought from the left: of `...` only the first two points are one. Scores depend on it.
fn pairs(text: &str, first: impl Fn(char) -> bool, second: impl Fn(char) -> bool, spaces: Spaces) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut chars = text.chars().peekable();
    while let Some(a) = chars.next() {
        let pair = if first(a) { chars.next_if(|&b| second(b)) } else { None };
        match (pair, spaces) {
            (None, _) => out.push(a),
            (Some(b), Spaces::AroundFirst) => out.extend([' ', a, ' ', b]),
            (Some(b), Spaces::AroundSecond) => out.extend([a, ' ', b, ' ']),
        }
    }
    out
}

fn joined<T: AsRef<str>>(words: impl Iterator<Item = T>) -> String {
    let mut out = String::new();
    for word in words {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word.as_ref());
    }
    out
}
