//! Words, each with a tag.

use serde_json::{Map, Value};

use super::{Fields, Origin, Record, Role, Set, fields};

/// A sentence of words and their tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The words.
    pub tokens: Vec<String>,
    /// One tag for each word; empty when the data has none.
    pub tags: Vec<String>,
    /// Where it comes from.
    pub origin: Origin,
}

impl Record for Tagged {
    const ROLES: &'static [Role] = &[
        Role { name: "tokens", aliases: &["tokens", "words"], needed: true },
        Role { name: "tags", aliases: &["tags", "ner_tags", "labels", "pos_tags", "ner", "upos"], needed: false },
    ];
    const SETS: &'static [Set] = &[&[("tokens", "tokens"), ("tags", "ner_tags")]];

    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        let Some(tokens) = fields.words("tokens")? else {
            return Err(format!("{} is missing or null", fields.called("tokens")));
        };
        if tokens.is_empty() {
            return Err("a sentence without words".to_owned());
        }
        let tags = match fields.columns("tags") {
            [] => Vec::new(),
            _ => fields.words("tags")?.unwrap_or_default(),
        };
        if !tags.is_empty() && tags.len() != tokens.len() {
            return Err(format!("expected a tag for each of {} words, found {} tags", tokens.len(), tags.len()));
        }
        Ok(Self { tokens, tags, origin: fields.origin.clone() })
    }

    fn numbered(first: &[&str]) -> Option<Vec<&'static str>> {
        (first.len() == 2).then(|| vec!["tokens", "tags"])
    }

    fn write(&self) -> Map<String, Value> {
        fields([("tokens", self.tokens.clone().into()), ("tags", self.tags.clone().into())])
    }
}
