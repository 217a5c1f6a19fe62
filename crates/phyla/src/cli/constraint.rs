//! The options of `generate` and `chat` that say what an answer has to be; the other settings of decoding are in `sampling`.

use std::path::Path;

use phyla_generate::{CONSTRAINTS, Sequence};
use serde_json::{Map, Value};

use super::error::usage;

#[derive(clap::Args, Clone, Debug)]
#[group(id = "constraint", multiple = false)]
pub struct ConstraintArgs {
    /// Write JSON that this schema allows
    #[arg(long, value_name = "FILE|SCHEMA")]
    json_schema: Option<String>,

    /// Write a JSON object
    #[arg(long)]
    json_object: bool,

    /// Write what this regular expression matches from end to end
    #[arg(long, value_name = "EXPRESSION")]
    regex: Option<String>,

    /// Write a text of a context-free grammar in Lark's language, which a file holds
    #[arg(long, value_name = "FILE")]
    grammar: Option<String>,

    /// Write this text or another choice; repeatable
    #[arg(long, value_name = "TEXT")]
    choice: Vec<String>,
}

impl ConstraintArgs {
    /// Puts what was said into the settings, where it goes before what a file says.
    pub fn extend(&self, settings: &mut Map<String, Value>) -> anyhow::Result<()> {
        let schema = self.json_schema.as_deref().map(|text| match text.trim_start().starts_with('{') {
            true => Ok(text.to_owned()),
            false => read("json_schema", text),
        });
        let grammar = self.grammar.as_deref().map(|path| read("grammar", path));
        let given: Vec<(&str, Value)> = [
            schema.transpose()?.map(|text| ("json_schema", text.into())),
            self.json_object.then(|| ("json_object", true.into())),
            self.regex.as_deref().map(|text| ("regex", text.into())),
            grammar.transpose()?.map(|text| ("grammar", text.into())),
            (!self.choice.is_empty()).then(|| ("choice", self.choice.clone().into())),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !given.is_empty() {
            settings.retain(|key, _| !CONSTRAINTS.contains(&key.as_str()));
            settings.extend(given.into_iter().map(|(key, value)| (key.to_owned(), value)));
        }
        Ok(())
    }
}

fn read(option: &str, path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(Path::new(path)).map_err(|error| {
        let option = option.replace('_', "-");
        let help =
            if option == "json-schema" { "give a file, or a schema that begins with {" } else { "give a text file" };
        usage(format!("--{option}: cannot read `{path}`: {error}"), help)
    })
}

/// Says which answers are but the beginning of what was asked for.
pub fn warn(sequences: &[Sequence]) {
    let cut: Vec<&Sequence> = sequences.iter().filter(|sequence| sequence.complete == Some(false)).collect();
    if let Some(first) = cut.first() {
        tracing::warn!(
            "{} of {} answers are cut off ({}) and only the beginning of what the constraint asks for: raise \
             --max-new-tokens, or ask for less",
            cut.len(),
            sequences.len(),
            first.finish_reason
        );
    }
}
