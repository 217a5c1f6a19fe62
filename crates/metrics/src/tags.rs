//! Entities from tags such as `B-PER I-PER O`, leniently or by the rules of a scheme.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A run of tokens that the tags name as one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Entity<'a> {
    /// What follows the prefix: `PER` of `B-PER`; `_` where nothing does.
    pub kind: &'a str,
    /// Its first token.
    pub start: usize,
    /// One past its last token.
    pub end: usize,
}

/// How tags spell entities, and what becomes of tags that break the rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// What conlleval and seqeval do by default: prefixes B I E S O in any mixture, and an entity also begins where
    /// an I or E does not continue one. `I-PER` alone is an entity.
    #[default]
    Lenient,
    /// seqeval's strict mode with IOB2: B begins, I of the same kind continues; any other I is no entity.
    Iob2,
    /// seqeval's strict mode with IOBES: S alone, or B, then I, up to an E of the same kind; an entity without its E
    /// is none.
    Iobes,
    /// IOBES with other letters: U for S, L for E.
    Bilou,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Outside,
    Begin,
    Inside,
    End,
    Single,
}

#[derive(Clone, Copy)]
struct Tag<'a> {
    prefix: Prefix,
    kind: &'a str,
}

/// The entities of a sentence's tags, from left to right.
///
/// # Errors
/// A tag that is neither `O` nor a prefix of the scheme, alone or with `-` and a kind. (seqeval warns of some of these
/// and makes up an entity.)
pub fn entities<T: AsRef<str>>(tags: &[T], scheme: Scheme) -> Result<Vec<Entity<'_>>> {
    let mut found = Vec::new();
    let mut open: Option<(Tag, usize)> = None;
    let mut last = Prefix::Outside;
    for (at, text) in tags.iter().enumerate() {
        let tag = scheme.parse(text.as_ref(), at)?;
        if let Some((first, start)) = open
            && !scheme.continues(last, first.kind, tag)
        {
            open = None;
            if scheme.is_whole(last) {
                found.push(Entity { kind: first.kind, start, end: at });
            }
        }
        if open.is_none() && scheme.begins(tag.prefix) {
            open = Some((tag, at));
        }
        last = tag.prefix;
    }
    if let Some((first, start)) = open
        && scheme.is_whole(last)
    {
        found.push(Entity { kind: first.kind, start, end: tags.len() });
    }
    Ok(found)
}

impl Scheme {
    fn prefixes(self) -> &'static [(char, Prefix)] {
        use Prefix::{Begin, End, Inside, Outside, Single};
        match self {
            Self::Lenient | Self::Iobes => &[('O', Outside), ('B', Begin), ('I', Inside), ('E', End), ('S', Single)],
            Self::Iob2 => &[('O', Outside), ('B', Begin), ('I', Inside)],
            Self::Bilou => &[('O', Outside), ('B', Begin), ('I', Inside), ('L', End), ('U', Single)],
        }
    }

    fn parse(self, text: &str, at: usize) -> Result<Tag<'_>> {
        let mut chars = text.chars();
        let letter = chars.next();
        let known = self.prefixes().iter().find(|(known, _)| Some(*known) == letter);
        let rest = chars.as_str();
        let (Some(&(_, prefix)), true) = (known, rest.is_empty() || rest.starts_with('-')) else {
            let known: String = self.prefixes().iter().map(|(letter, _)| format!(" {letter}")).collect();
            let message = format!("tag {at}: expected one of{known} with or without `-` and a kind, found `{text}`");
            return Err(Error::Input(message));
        };
        if prefix == Prefix::Outside && !rest.is_empty() {
            return Err(Error::Input(format!("tag {at}: expected `O` to stand alone, found `{text}`")));
        }
        // seqeval's two modes differ in hyphens at the edges of a kind.
        let kind = if self == Self::Lenient { rest.strip_prefix('-').unwrap_or(rest) } else { rest.trim_matches('-') };
        Ok(Tag { prefix, kind: if kind.is_empty() { "_" } else { kind } })
    }

    /// Whether `tag` belongs to the open entity whose latest prefix is `last`.
    fn continues(self, last: Prefix, kind: &str, tag: Tag) -> bool {
        matches!(last, Prefix::Begin | Prefix::Inside)
            && matches!(tag.prefix, Prefix::Inside | Prefix::End)
            && tag.kind == kind
    }

    fn begins(self, prefix: Prefix) -> bool {
        match self {
            Self::Lenient => prefix != Prefix::Outside,
            _ => matches!(prefix, Prefix::Begin | Prefix::Single),
        }
    }

    /// Whether an entity may end after this prefix.
    fn is_whole(self, last: Prefix) -> bool {
        match self {
            Self::Lenient | Self::Iob2 => true,
            Self::Iobes | Self::Bilou => matches!(last, Prefix::End | Prefix::Single),
        }
    }
}
