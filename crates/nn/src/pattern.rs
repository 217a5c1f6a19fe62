//! The one language that addresses parameters by path: `decoder.layers.*.attn.{q,v}`.
//!
//! Freezing, learning-rate groups, adapter targets, quantisation and sharding all name parameters
//! with it, so that a user learns it once:
//!
//! - a path is split at dots; every part of the pattern must match one part of the path;
//! - `*` matches any run of characters within one part (`layers.*`, `norm*`);
//! - `**` as a whole part matches any number of parts, also none;
//! - `{a,b}` tries each alternative, which may hold dots, stars and further braces.
//!
//! A pattern addresses a *module or a parameter*: [`Pattern::covers`] says whether a parameter lies
//! at or below the addressed place, so `**.attn.q` covers `decoder.layers.0.attn.q.weight`.

use std::fmt;

/// Alternatives multiply; beyond this many the pattern is a mistake or an attack.
const MAX_ALTERNATIVES: usize = 1024;

/// Longest accepted pattern, in bytes; it bounds the work of parsing a hostile recipe.
const MAX_LEN: usize = 4096;

/// A parsed path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    source: String,
    /// Braces are expanded on parsing: a path matches when it matches any of these lists of parts.
    alternatives: Vec<Vec<String>>,
}

/// Why a pattern could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl PatternError {
    /// An error with its complete message.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self(message)
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// An empty pattern or part, unbalanced braces, `**` glued to other characters, and a pattern
    /// whose alternatives multiply beyond 1024.
    pub fn parse(source: &str) -> Result<Self, PatternError> {
        let fail = |why: String| Err(PatternError(format!("pattern `{source}`: {why}")));
        if source.len() > MAX_LEN {
            return Err(PatternError(format!(
                "a pattern of {} bytes; the longest accepted is {MAX_LEN}",
                source.len()
            )));
        }
        let expanded = match expand(source) {
            Ok(expanded) => expanded,
            Err(why) => return fail(why),
        };
        let mut alternatives = Vec::with_capacity(expanded.len());
        for text in expanded {
            let parts: Vec<String> = text.split('.').map(str::to_owned).collect();
            for part in &parts {
                if part.is_empty() {
                    return fail(
                        "an empty part; parts are separated by single dots, as in `decoder.layers.*.attn.q`".into(),
                    );
                }
                if part.contains("**") && part != "**" {
                    return fail(format!(
                        "`**` stands for whole parts, yet found it inside `{part}`; write `**.` or a single `*`"
                    ));
                }
            }
            alternatives.push(parts);
        }
        Ok(Self { source: source.to_owned(), alternatives })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the pattern matches exactly this path.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('.').collect();
        self.alternatives.iter().any(|parts| matched_prefixes(parts, &path)[path.len()])
    }

    /// Whether the pattern matches this path or any module above it.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('.').collect();
        // Prefix 0 is the empty path, which only `**` reaches; it is no module.
        self.alternatives.iter().any(|parts| matched_prefixes(parts, &path)[1..].contains(&true))
    }

    /// Checks that the pattern covers at least one of `paths`.
    ///
    /// A pattern that matches nothing is always a mistake: a freeze that freezes nothing would train
    /// silently, so callers treat it as an error.
    ///
    /// # Errors
    /// Names the pattern, and either the same pattern with `**.` in front, if that would match, or the
    /// nearest paths.
    pub fn require_match<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<(), PatternError> {
        let paths: Vec<&str> = paths.into_iter().collect();
        if paths.iter().any(|path| self.covers(path)) {
            return Ok(());
        }
        let hint = self.hint(&paths);
        Err(PatternError(format!("pattern `{}` matches none of the {} parameters{hint}", self.source, paths.len())))
    }

    fn hint(&self, paths: &[&str]) -> String {
        let anchored = self.source.strip_prefix("*.").unwrap_or(&self.source);
        if let Ok(deeper) = Self::parse(&format!("**.{anchored}")) {
            let count = paths.iter().filter(|path| deeper.covers(path)).count();
            if count > 0 {
                return format!(" (`*` stands for one part); `{}` matches {count}", deeper.source);
            }
        }
        let mut near: Vec<(usize, &str)> = paths.iter().map(|path| (distance(&self.source, path), *path)).collect();
        near.sort_unstable();
        let near: Vec<String> = near.iter().take(3).map(|(_, path)| format!("`{path}`")).collect();
        if near.is_empty() { String::new() } else { format!("; the nearest are {}", near.join(", ")) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl serde::Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

impl<'de> serde::Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Writes out every choice of the braces: `a.{b,c}` becomes `a.b` and `a.c`.
///
/// Works on the leftmost innermost group each time, so nesting needs no recursion.
fn expand(source: &str) -> Result<Vec<String>, String> {
    let mut done = Vec::new();
    let mut open = vec![source.to_owned()];
    while let Some(text) = open.pop() {
        let Some(close) = text.find('}') else {
            if text.contains('{') {
                return Err("a `{` without its `}`".into());
            }
            done.push(text);
            continue;
        };
        let Some(start) = text[..close].rfind('{') else {
            return Err("a `}` without its `{`".into());
        };
        let (before, choices, after) = (&text[..start], &text[start + 1..close], &text[close + 1..]);
        // Reversed, because `open` is a stack and the order as written is kinder in messages.
        for choice in choices.split(',').rev() {
            open.push(format!("{before}{}{after}", choice.trim()));
        }
        if open.len() + done.len() > MAX_ALTERNATIVES {
            return Err(format!("its braces stand for more than {MAX_ALTERNATIVES} alternatives"));
        }
    }
    Ok(done)
}

/// Entry `n` says whether the whole pattern matches the first `n` parts of the path.
///
/// One row per pattern part instead of backtracking: the cost is the product of the lengths, also for
/// patterns such as `**.**.**.x`.
fn matched_prefixes(pattern: &[String], path: &[&str]) -> Vec<bool> {
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for part in pattern {
        if part == "**" {
            let first = reached.iter().position(|r| *r).unwrap_or(reached.len());
            reached[first..].fill(true);
        } else {
            // Backwards, so that each entry still reads its left neighbour from the previous row.
            for n in (1..reached.len()).rev() {
                reached[n] = reached[n - 1] && part_matches(part, path[n - 1]);
            }
            reached[0] = false;
        }
    }
    reached
}

/// Whether a part with `*` wildcards matches a whole part of a path.
fn part_matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    // Leftmost matches of the middle pieces leave the most room for the last one.
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Edit distance, for naming the nearest path.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn stars_stay_within_a_part_and_double_stars_cross() {
        assert!(matches("decoder.layers.*.attn.{q,v}", "decoder.layers.11.attn.v"));
        assert!(!matches("decoder.layers.*.attn.{q,v}", "decoder.layers.11.attn.k"));
        assert!(!matches("*.attn.q", "decoder.layers.0.attn.q"));
        assert!(matches("**.attn.q", "decoder.layers.0.attn.q"));
        assert!(matches("**.attn.q", "attn.q"));
        assert!(matches("**", "tokens"));
        assert!(matches("decoder.**.weight", "decoder.weight"));
        assert!(!matches("decoder.**.weight", "decoder.weight.scale"));
        assert!(matches("**.**.**.w", "w"));
    }

    #[test]
    fn a_star_matches_part_of_a_name() {
        assert!(matches("norm*", "norm_out"));
        assert!(matches("*norm", "attn_norm"));
        assert!(matches("a*b*c", "aXbYbZc"));
        assert!(!matches("a*b*c", "aXc"));
        // The two halves may not share the same character.
        assert!(!matches("ab*ba", "aba"));
        assert!(matches("ab*ba", "abba"));
        assert!(!matches("q", "q_proj"));
    }

    #[test]
    fn alternatives_nest_and_may_hold_dots() {
        for path in ["x.a.b", "x.c", "x.d1", "x.d2"] {
            assert!(matches("x.{a.b,c,d{1,2}}", path), "{path}");
        }
        assert!(!matches("x.{a.b,c,d{1,2}}", "x.d"));
        assert!(matches("norm{,_final}", "norm"));
    }

    #[test]
    fn covering_includes_what_lies_below() {
        let pattern = Pattern::parse("**.attn.q").unwrap();
        assert!(pattern.covers("decoder.layers.0.attn.q.weight"));
        assert!(!pattern.covers("decoder.layers.0.attn.qkv.weight"));
        assert!(!pattern.matches("decoder.layers.0.attn.q.weight"));
        assert!(!Pattern::parse("tokens").unwrap().covers("decoder.tokens"));
    }

    #[test]
    fn mistakes_are_named() {
        for (pattern, expected) in [
            ("", "empty part"),
            ("a..b", "empty part"),
            ("a.{b", "without its `}`"),
            ("a.b}", "without its `{`"),
            ("a**.b", "whole parts"),
        ] {
            let message = Pattern::parse(pattern).unwrap_err().to_string();
            assert!(message.contains(expected), "{pattern}: {message}");
        }
        assert!(Pattern::parse(&"{a,b}".repeat(40)).is_err());
        assert!(Pattern::parse(&"a".repeat(10_000)).is_err());
        assert!(Pattern::parse("{}{}{}").is_err());
    }

    #[test]
    fn a_pattern_that_matches_nothing_says_what_would() {
        let paths = ["tokens.weight", "decoder.layers.0.attn.q.weight", "decoder.layers.1.attn.q.weight"];
        Pattern::parse("tokens").unwrap().require_match(paths).unwrap();
        let message = Pattern::parse("*.attn.q").unwrap().require_match(paths).unwrap_err().to_string();
        assert_eq!(
            message,
            "pattern `*.attn.q` matches none of the 3 parameters (`*` stands for one part); `**.attn.q` matches 2"
        );
        let message = Pattern::parse("token.weight").unwrap().require_match(paths).unwrap_err().to_string();
        assert!(message.contains("the nearest are `tokens.weight`"), "{message}");
    }
}
