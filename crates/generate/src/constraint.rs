//! Constraints: what an answer has to be (JSON of a schema, a text that an expression or a grammar matches, one of some texts),
//! held by leaving in each step only the ids that may go on. The grammars are those of llguidance; which ids these leave in a
//! step depends on the ids before alone, so that every way of decoding holds a constraint as it holds any other setting.

mod format;
mod guide;
mod regex;
mod schema;
mod vocabulary;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use phyla_data::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::{Error, Result};
pub(crate) use guide::Guide;
use vocabulary::Vocabulary;

/// What an answer has to be.
///
/// A document ends where its grammar says that it may, and nowhere else; one that the limit of tokens cuts off is the
/// beginning of a valid one, and its sequence says so ([`crate::Sequence::complete`]).
#[derive(Clone)]
pub struct Constraint {
    rule: Rule,
    /// What the last call compiled, for the next one with the same tokenizer.
    compiled: Arc<Mutex<Option<Known>>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    JsonSchema(Value),
    JsonObject,
    Regex(String),
    Grammar(String),
    Choice(Vec<String>),
}

/// A tokenizer's digest, the ids of a model's table, and those that end a sequence.
type Key = ([u8; 32], usize, Vec<u32>);

/// What was compiled for a key.
type Known = (Key, Arc<Compiled>);

/// A constraint over a vocabulary.
pub(crate) struct Compiled {
    vocabulary: Vocabulary,
    /// The beginning of a document.
    begin: Mutex<Matcher>,
}

/// The settings that constrain, of which one is given.
pub const CONSTRAINTS: [&str; 5] = ["json_schema", "json_object", "regex", "grammar", "choice"];

impl Constraint {
    /// JSON that `schema` allows. Formats are held, additional names are allowed unless the schema says otherwise.
    ///
    /// # Errors
    /// Names each keyword that a grammar cannot hold, and where it stands as a JSON pointer.
    pub fn json_schema(schema: Value) -> Result<Self> {
        schema::checked(&schema)?;
        Ok(Self::of(Rule::JsonSchema(schema)))
    }

    /// Any JSON object.
    pub fn json_object() -> Self {
        Self::of(Rule::JsonObject)
    }

    /// A text that the expression matches from end to end, in the syntax of the `regex` crate, without anchors and borders of
    /// words.
    ///
    /// # Errors
    /// Where the expression is wrong.
    pub fn regex(expression: &str) -> Result<Self> {
        regex::parse(expression).map_err(|error| Error::Settings(format!("regex: {error}")))?;
        Ok(Self::of(Rule::Regex(expression.to_owned())))
    }

    /// A text of a context-free grammar, in llguidance's variant of Lark's language; it begins with the rule `start`.
    ///
    /// # Errors
    /// A schema in the grammar (`%json`) that cannot be held. The rest is found out when it is compiled.
    pub fn grammar(grammar: &str) -> Result<Self> {
        Ok(Self::of(Rule::Grammar(with_schemas(grammar)?)))
    }

    /// One of these texts.
    ///
    /// # Errors
    /// If there is none, or one is empty.
    pub fn choice(texts: Vec<String>) -> Result<Self> {
        if texts.is_empty() || texts.iter().any(String::is_empty) {
            return Err(Error::Settings("choice: expected texts that are not empty".into()));
        }
        Ok(Self::of(Rule::Choice(texts)))
    }

    fn of(rule: Rule) -> Self {
        Self { rule, compiled: Arc::default() }
    }

    /// The setting's name.
    pub fn name(&self) -> &'static str {
        match &self.rule {
            Rule::JsonSchema(_) => "json_schema",
            Rule::JsonObject => "json_object",
            Rule::Regex(_) => "regex",
            Rule::Grammar(_) => "grammar",
            Rule::Choice(_) => "choice",
        }
    }

    /// Compiles it for a model with `table` ids, unless the last call did.
    ///
    /// # Errors
    /// What is wrong with it, or with the tokenizer.
    pub(crate) fn compile(&self, tokenizer: &Tokenizer, table: usize, eos: &[u32]) -> Result<Arc<Compiled>> {
        let key = (tokenizer.fingerprint(), table, eos.to_vec());
        let mut memory = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, compiled)) = memory.as_ref().filter(|(known, _)| *known == key) {
            return Ok(compiled.clone());
        }
        let vocabulary = Vocabulary::new(tokenizer, table, eos)?;
        let begin = vocabulary.begin(self.as_grammar()?).map_err(|error| self.blame(&error))?;
        let compiled = Arc::new(Compiled { vocabulary, begin: Mutex::new(begin) });
        *memory = Some((key, compiled.clone()));
        Ok(compiled)
    }

    fn as_grammar(&self) -> Result<TopLevelGrammar> {
        Ok(match &self.rule {
            Rule::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema::checked(schema)?),
            Rule::JsonObject => TopLevelGrammar::from_json_schema(schema::checked(&json!({ "type": "object" }))?),
            Rule::Regex(expression) => TopLevelGrammar::from_regex(expression),
            Rule::Grammar(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
            Rule::Choice(texts) => TopLevelGrammar::from_regex(&regex::one_of(texts)),
        })
    }

    /// The compiler's error with what it does not know: the setting, and places in a schema.
    fn blame(&self, error: &str) -> Error {
        let name = self.name();
        let Rule::JsonSchema(schema) = &self.rule else { return Error::Settings(format!("{name}: {error}")) };
        let about: [(&str, &[&str], &str); 4] = [
            (
                "oneOf",
                &["oneOf"],
                "options that can hold at once are not supported: a grammar cannot exclude the others; take anyOf",
            ),
            (
                "maxProperties",
                &["minProperties", "maxProperties"],
                "these are supported where all of `properties` are required, or 1 where additionalProperties is false",
            ),
            ("patternProperty", &["patternProperties"], "expressions that may match the same name are not supported"),
            ("nsatisfiable", &[], "no document is valid"),
        ];
        let known = about.iter().find(|(word, ..)| error.contains(word));
        let (places, said) = match known {
            Some((_, keywords, said)) => (schema::places(schema, keywords), format!("{said} ({error})")),
            None => (vec![], error.to_owned()),
        };
        let places = if places.is_empty() { String::new() } else { format!("at {}: ", places.join(" or ")) };
        Error::Settings(format!("{name}: {places}{said}"))
    }
}

impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        self.rule == other.rule
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rule.fmt(f)
    }
}

/// A grammar whose schemas are checked as any other.
fn with_schemas(grammar: &str) -> Result<String> {
    const MARK: &str = "%json";
    let (mut checked, mut rest) = (String::new(), grammar);
    while let Some(at) = rest.find(MARK) {
        let (before, behind) = rest.split_at(at + MARK.len());
        checked += before;
        let mut values = serde_json::Deserializer::from_str(behind).into_iter::<Value>();
        // What is no JSON is for the compiler, which knows lines.
        rest = match values.next() {
            Some(Ok(schema @ Value::Object(_))) => {
                let schema =
                    schema::checked(&schema).map_err(|error| Error::Settings(format!("grammar: in %json: {error}")))?;
                checked += &format!(" {schema}");
                &behind[values.byte_offset()..]
            }
            _ => behind,
        };
    }
    Ok(checked + rest)
}
