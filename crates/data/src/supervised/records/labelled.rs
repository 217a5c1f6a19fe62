//! One text or a pair of texts, and what is to be said of it: a class, several, or a number.

use serde_json::{Map, Value};

use super::{Fields, Origin, Record, Role, Set, fields};

/// A text, or two, with a label.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// The text, or the first of two.
    pub text: String,
    /// The second text.
    pub text_b: Option<String>,
    /// As the file has it: a string, a number, a list of these, or an object with a number for each class; null for none.
    pub label: Value,
    /// Under which name the label stands in the file, since some names have customs (`gold_label`: `-` is no label).
    pub gold: bool,
    /// Where it comes from.
    pub origin: Origin,
}

impl Labelled {
    /// A text and its class.
    pub fn new(text: impl Into<String>, label: &str) -> Self {
        Self { text: text.into(), text_b: None, label: label.into(), gold: false, origin: Origin::default() }
    }
}

impl Record for Labelled {
    const ROLES: &'static [Role] = &[
        Role {
            name: "text",
            aliases: &[
                "text",
                "sentence",
                "review",
                "content",
                "comment_text",
                "tweet",
                "document",
                "query",
                "utterance",
            ],
            needed: true,
        },
        Role { name: "text_b", aliases: &["text_b", "text_pair"], needed: false },
        Role {
            name: "label",
            aliases: &[
                "label",
                "labels",
                "gold_label",
                "class",
                "category",
                "sentiment",
                "intent",
                "quality",
                "is_duplicate",
                "score",
                "similarity_score",
                "relatedness_score",
                "entailment_judgment",
                "similarity",
                "stars",
                "rating",
            ],
            needed: false,
        },
    ];
    const SETS: &'static [Set] = &[
        &[("text", "text_a"), ("text_b", "text_b")],
        &[("text", "text"), ("text_b", "text_b")],
        &[("text", "sentence1"), ("text_b", "sentence2")],
        &[("text", "sentence_a"), ("text_b", "sentence_b")],
        &[("text", "premise"), ("text_b", "hypothesis")],
        &[("text", "question1"), ("text_b", "question2")],
        &[("text", "question"), ("text_b", "sentence")],
        &[("text", "query"), ("text_b", "passage")],
        &[("text", "#1 string"), ("text_b", "#2 string")],
        &[("text", "text1"), ("text_b", "text2")],
    ];

    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        let text = fields.needed("text")?;
        let text_b = match fields.columns("text_b") {
            [] => None,
            _ => Some(fields.needed("text_b")?),
        };
        let gold = fields.columns("label").first().is_some_and(|column| column == "gold_label");
        Ok(Self { text, text_b, label: fields.take("label").unwrap_or_default(), gold, origin: fields.origin.clone() })
    }

    fn numbered(first: &[&str]) -> Option<Vec<&'static str>> {
        // The label is at one end, and is the short one of the two.
        let (start, end) = (first.first()?, first.last()?);
        let short = |cell: &str| cell.len() <= 32 && !cell.trim().contains(' ') && !cell.is_empty();
        let last = match (short(start), short(end)) {
            (false, true) => true,
            (true, false) => false,
            (true, true) if start.parse::<f64>().is_ok() != end.parse::<f64>().is_ok() => end.parse::<f64>().is_ok(),
            _ => return None,
        };
        match (first.len(), last) {
            (2, true) => Some(vec!["text", "label"]),
            (2, false) => Some(vec!["label", "text"]),
            (3, true) => Some(vec!["text", "text_b", "label"]),
            (3, false) => Some(vec!["label", "text", "text_b"]),
            _ => None,
        }
    }

    fn write(&self) -> Map<String, Value> {
        let text = self.text.clone().into();
        let mut object = match &self.text_b {
            None => fields([("text", text)]),
            Some(second) => fields([("text_a", text), ("text_b", second.clone().into())]),
        };
        object.insert("label".to_owned(), self.label.clone());
        object
    }
}
