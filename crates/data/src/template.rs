//! Chat templates: a conversation to the text a model was trained on, by the template that came with it.
//!
//! Two things differ from Python, both seldom met: `"%s" % x` is refused (write `"%s" | format(x)`), and
//! `"a" | safe + b` joins the two as they are, where Python's `Markup` escapes `b` for HTML.

mod json;
mod methods;
mod prompt;
mod render;
mod tags;
mod turns;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use prompt::PromptTemplate;
pub use render::{Chat, Rendered};
pub use turns::Turns;

use crate::error::{Error, Result};
use crate::tokenizer::{Files, MORE_TEMPLATES, SpecialTokens, kind};

/// The name of the template used when none is asked for.
pub const DEFAULT: &str = "default";

/// Templates that come with the program, for tokenizers without one: name and source.
///
/// `chatml` writes `<|im_start|>role` … `<|im_end|>`, which should be tokens of the vocabulary. `alpaca` writes
/// `### Instruction:` and `### Response:`, and ends an answer with the tokenizer's end of a sequence.
pub const BUILT_IN: [(&str, &str); 2] = [
    ("chatml", include_str!("template/builtin/chatml.jinja")),
    ("alpaca", include_str!("template/builtin/alpaca.jinja")),
];

/// The templates of one tokenizer, by name.
#[derive(Debug, Clone, Default)]
pub struct Templates {
    sources: BTreeMap<String, String>,
    special: Map<String, Value>,
}

impl Templates {
    /// Gathers templates; a file of its own wins over the configuration, as in transformers.
    pub(crate) fn read(files: &Files, config: &Map<String, Value>, special: &SpecialTokens) -> Result<Self> {
        let mut sources = BTreeMap::new();
        let from = "tokenizer_config.json";
        if let Some(value) = config.get("chat_template") {
            add(&mut sources, value).map_err(|message| Error::format(&files.path(from), message))?;
        }
        let from = "chat_template.json";
        if let Some(value) = files.object(from)?.as_ref().and_then(|map| map.get("chat_template")) {
            add(&mut sources, value).map_err(|message| Error::format(&files.path(from), message))?;
        }
        if let Some(text) = files.text("chat_template.jinja")? {
            sources.insert(DEFAULT.to_owned(), text.into_owned());
        }
        for (name, _) in files.iter() {
            let short =
                name.strip_prefix(MORE_TEMPLATES).and_then(|name| name.strip_prefix('/')?.strip_suffix(".jinja"));
            if let Some(short) = short
                && let Some(text) = files.text(name)?
            {
                sources.insert(short.to_owned(), text.into_owned());
            }
        }
        Ok(Self::new(sources, special))
    }

    /// Templates from their sources, with the special tokens they may name (`bos_token` …).
    pub fn new(sources: BTreeMap<String, String>, special: &SpecialTokens) -> Self {
        let special = special
            .roles()
            .into_iter()
            .filter_map(|(role, token)| Some((role.to_owned(), Value::from(token?.text.clone()))))
            .collect();
        Self { sources, special }
    }

    /// The names of all templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// True when there is no template.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The source that a name or a path stands for: one of these templates, one of [`BUILT_IN`], or a file.
    ///
    /// # Errors
    /// When it is none of these; names those there are.
    pub fn find(&self, name: &str) -> Result<String> {
        if let Some(source) = self.source(name) {
            return Ok(source.to_owned());
        }
        if let Some((_, source)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Ok((*source).to_owned());
        }
        let path = std::path::Path::new(name);
        if path.is_file() {
            return std::fs::read_to_string(path).map_err(Error::io(path));
        }
        let known: Vec<&str> = self.names().chain(BUILT_IN.iter().map(|(known, _)| *known)).collect();
        let message = format!("no file, and no template of this name; there are: {}", known.join(", "));
        Err(Error::Template { name: name.to_owned(), message })
    }

    pub(crate) fn set_default(&mut self, source: String) {
        self.sources.insert(DEFAULT.to_owned(), source);
    }

    /// The source of a template.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.sources.get(name).map(String::as_str)
    }
}

/// A template as a string, or several as a list of objects with `name` and `template`, or as an object.
fn add(sources: &mut BTreeMap<String, String>, value: &Value) -> std::result::Result<(), String> {
    match value {
        Value::Null => {}
        Value::String(text) => {
            sources.insert(DEFAULT.to_owned(), text.clone());
        }
        Value::Array(list) => {
            for entry in list {
                match (entry.get("name"), entry.get("template")) {
                    (Some(Value::String(name)), Some(Value::String(text))) => {
                        sources.insert(name.clone(), text.clone());
                    }
                    _ => {
                        return Err(
                            "each entry of `chat_template` should have a string `name` and a string `template`"
                                .to_owned(),
                        );
                    }
                }
            }
        }
        Value::Object(map) => {
            for (name, text) in map {
                let text = text
                    .as_str()
                    .ok_or_else(|| format!("chat template `{name}` should be a string, found {}", kind(text)))?;
                sources.insert(name.clone(), text.to_owned());
            }
        }
        other => {
            return Err(format!(
                "`chat_template` should be a string or a list of named templates, found {}",
                kind(other)
            ));
        }
    }
    Ok(())
}
