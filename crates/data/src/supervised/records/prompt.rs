//! What a model is asked, without what it should say: for models that learn from what they write, and for those who judge
//! it the other columns of the row.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::dialogue::{asked, message, messages, renamed, text_of, tools, wrap};
use super::{Fields, Origin, Record, Role, Roles, Set};
use crate::error::{Error, Result};
use crate::supervised::table::{Column, Row};
use crate::tokenizer::kind;

/// A prompt, and what the row says besides.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// What is asked.
    pub asked: Asked,
    /// JSON schemas of functions that the assistant may call.
    pub tools: Option<Vec<Value>>,
    /// Every other column, for rewards to look at: a right answer, …
    pub columns: Map<String, Value>,
    /// Where it comes from.
    pub origin: Origin,
}

/// What a prompt consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// A text to continue.
    Text(String),
    /// A conversation to answer, each message with `role` and `content`.
    Messages(Vec<Value>),
}

impl Prompt {
    /// A text with nothing besides.
    pub fn new(text: impl Into<String>) -> Self {
        Self { asked: Asked::Text(text.into()), tools: None, columns: Map::new(), origin: Origin::default() }
    }

    /// With a column.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.columns.insert(name.into(), value.into());
        self
    }

    /// Every text in it, for a tokenizer to be trained on.
    pub fn texts(self) -> Vec<String> {
        match self.asked {
            Asked::Text(text) => vec![text],
            Asked::Messages(messages) => {
                messages.iter().filter_map(|message| message["content"].as_str().map(str::to_owned)).collect()
            }
        }
    }
}

const EXPECTED: &str =
    "`prompt` (a text, or messages), `messages` or `conversations`, `instruction`, `question`, or `text`";

const fn role(name: &'static str) -> Role {
    Role { name, aliases: &[], needed: false }
}

impl Record for Prompt {
    const ROLES: &'static [Role] = &[
        role("prompt"),
        role("messages"),
        role("conversations"),
        role("instruction"),
        role("input"),
        role("question"),
        role("text"),
        role("system"),
        role("tools"),
    ];
    const SETS: &'static [Set] = &[];

    fn from_row(mut row: Row, columns: &BTreeMap<String, Column>, _: &mut Roles) -> Result<Self> {
        if !columns.is_empty() {
            // What was not renamed is still there for the rewards.
            let named = renamed::<Self>(&row, columns)?;
            row.fields.extend(named);
        }
        let position = row.position.clone();
        let origin = Origin(Some(position.clone()));
        recognise(row.fields, origin).map_err(|message| Error::Record { position, message })
    }

    fn read(fields: &mut Fields<'_>) -> std::result::Result<Self, String> {
        recognise(std::mem::take(fields.fields), fields.origin.clone())
    }

    fn numbered(_: &[&str]) -> Option<Vec<&'static str>> {
        Some(vec!["prompt"])
    }

    fn write(&self) -> Map<String, Value> {
        let mut object = Map::new();
        let asked = match &self.asked {
            Asked::Text(text) => text.clone().into(),
            Asked::Messages(messages) => messages.clone().into(),
        };
        object.insert("prompt".into(), asked);
        if let Some(tools) = &self.tools {
            object.insert("tools".into(), tools.clone().into());
        }
        object.extend(self.columns.clone());
        object
    }
}

/// Tells by the keys what is asked.
fn recognise(mut columns: Map<String, Value>, origin: Origin) -> std::result::Result<Prompt, String> {
    let names: Vec<String> = columns.keys().take(20).map(|name| format!("`{name}`")).collect();
    let mut take = |name: &str| columns.shift_remove(name).filter(|value| !value.is_null());
    let mut tools = tools(take("tools"))?;
    let system = text_of("system", take("system"))?.filter(|system| !system.is_empty());
    let named = |names: &[&'static str], take: &mut dyn FnMut(&str) -> Option<Value>| {
        names.iter().find_map(|&name| Some((name, take(name)?)))
    };
    let mut asked = if let Some((name, value)) = named(&["messages", "conversations", "conversation"], &mut take) {
        spoken(name, value, &mut tools)?
    } else if let Some(instruction) = text_of("instruction", take("instruction"))? {
        let input = text_of("input", take("input"))?.unwrap_or_default();
        Asked::Messages(vec![message("user", self::asked(&instruction, &input).into())])
    } else if let Some((name, value)) = named(&["prompt", "question", "text"], &mut take) {
        match value {
            Value::String(text) => Asked::Text(text),
            value @ Value::Array(_) => spoken(name, value, &mut tools)?,
            other => {
                return Err(format!("`{name}` should be a text or a list of messages, found {}", kind(&other)));
            }
        }
    } else {
        return Err(format!("expected {EXPECTED}; this row has {}", names.join(", ")));
    };
    if let Some(system) = system {
        match &mut asked {
            Asked::Messages(messages) => messages.insert(0, message("system", system.into())),
            Asked::Text(_) => return Err("`system` belongs to a conversation, and the prompt is a text".into()),
        }
    }
    Ok(Prompt { asked, tools, columns, origin })
}

/// A conversation without the answer at its end.
fn spoken(name: &str, value: Value, tools: &mut Option<Vec<Value>>) -> std::result::Result<Asked, String> {
    let (mut messages, from) = messages(name, value)?;
    if from && let Some(tools) = tools {
        tools.iter_mut().for_each(wrap);
    }
    while messages.last().is_some_and(|last| last["role"] == "assistant") {
        messages.pop();
    }
    if messages.is_empty() {
        return Err(format!("`{name}` has no message to be answered"));
    }
    Ok(Asked::Messages(messages))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn read(row: Value) -> std::result::Result<Prompt, String> {
        recognise(row.as_object().unwrap().clone(), Origin::default())
    }

    #[test]
    fn the_rest_of_a_row_is_kept_for_the_rewards() {
        let prompt = read(json!({"prompt": "2+2=", "answer": 4, "level": "easy"})).unwrap();
        assert_eq!(prompt, Prompt::new("2+2=").with("answer", 4).with("level", "easy"));
        assert_eq!(read(Value::Object(prompt.write())).unwrap(), prompt);
    }

    #[test]
    fn conversations_end_with_what_is_to_be_answered() {
        let user = json!({"role": "user", "content": "Hi"});
        for row in [
            json!({"messages": [user, {"role": "assistant", "content": "Hello"}]}),
            json!({"prompt": [user]}),
            json!({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}),
            json!({"instruction": "Hi", "output": "Hello"}),
        ] {
            assert_eq!(read(row).unwrap().asked, Asked::Messages(vec![user.clone()]));
        }
        let with_system = read(json!({"prompt": [user], "system": "Be kind."})).unwrap();
        let Asked::Messages(messages) = with_system.asked else { unreachable!() };
        assert_eq!(messages[0]["role"], "system");
    }

    #[test]
    fn rows_without_a_prompt_say_what_they_have() {
        assert!(read(json!({"answer": 1})).unwrap_err().contains("this row has `answer`"));
        assert!(read(json!({"prompt": 3})).unwrap_err().contains("a text or a list of messages, found a number"));
        assert!(read(json!({"messages": []})).unwrap_err().contains("is empty"));
        assert!(read(json!({"prompt": "a", "system": "b"})).unwrap_err().contains("belongs to a conversation"));
    }
}
