//! A text and what it becomes: its translation, its summary.

use serde_json::{Map, Value};

use super::{Fields, Record, Role, Set, fields};

/// A source text and its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parallel {
    /// What the encoder reads.
    pub source: String,
    /// What the decoder writes; `None` when only sources are given.
    pub target: Option<String>,
}

impl Parallel {
    /// A pair.
    pub fn new(source: impl Into<String>, target: impl Into<String>) -> Self {
        Self { source: source.into(), target: Some(target.into()) }
    }
}

impl Record for Parallel {
    const ROLES: &'static [Role] = &[
        Role { name: "source", aliases: &["source", "src", "source_text", "input"], needed: true },
        Role { name: "target", aliases: &["target", "tgt", "target_text", "output"], needed: false },
    ];
    const SETS: &'static [Set] = &[
        &[("source", "article"), ("target", "highlights")],
        &[("source", "document"), ("target", "summary")],
        &[("source", "dialogue"), ("target", "summary")],
        &[("source", "text"), ("target", "summary")],
    ];

    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        let source = fields.needed("source")?;
        let target = match fields.columns("target") {
            [] => None,
            _ => Some(fields.needed("target")?),
        };
        Ok(Self { source, target })
    }

    fn numbered(first: &[&str]) -> Option<Vec<&'static str>> {
        match first.len() {
            1 => Some(vec!["source"]),
            2 => Some(vec!["source", "target"]),
            _ => None,
        }
    }

    fn write(&self) -> Map<String, Value> {
        fields([("source", self.source.clone().into()), ("target", self.target.clone().into())])
    }
}
