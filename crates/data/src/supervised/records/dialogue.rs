//! What an assistant is taught by: a text, a prompt and its completion, an instruction and its answer, or a conversation;
//! in the spellings of trl, Alpaca and ShareGPT, told apart by their keys.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Fields, Origin, Record, Role, Roles, Set, fields, lookup_mut};
use crate::error::{Error, Result};
use crate::supervised::table::{Column, Row};
use crate::tokenizer::kind;

/// One example, and what its template may want to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Dialogue {
    /// What is written.
    pub content: Content,
    /// JSON schemas of functions that the assistant may call.
    pub tools: Option<Vec<Value>>,
    /// Further variables for the template (`chat_template_kwargs`).
    pub variables: Map<String, Value>,
    /// Where it comes from.
    pub origin: Origin,
}

/// What an example consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A text and what follows it.
    Completion {
        /// What is given.
        prompt: String,
        /// What is to be written.
        completion: String,
    },
    /// A task as in Alpaca, without a conversation before it.
    Instruction {
        /// What to do.
        instruction: String,
        /// What to do it with; may be empty.
        input: String,
        /// What is to be written.
        output: String,
    },
    /// A conversation, each message with `role` and `content`.
    Messages(Vec<Value>),
    /// A conversation, and the messages that follow it.
    Reply {
        /// What is given.
        prompt: Vec<Value>,
        /// What is to be written.
        completion: Vec<Value>,
    },
}

impl Dialogue {
    /// An example without tools.
    pub fn new(content: Content) -> Self {
        Self { content, tools: None, variables: Map::new(), origin: Origin::default() }
    }

    /// Every text in it, for a tokenizer to be trained on.
    pub fn texts(self) -> Vec<String> {
        let said = |message: Value| message["content"].as_str().map(str::to_owned);
        match self.content {
            Content::Text(text) => vec![text],
            Content::Completion { prompt, completion } => vec![prompt, completion],
            Content::Instruction { instruction, input, output } => vec![instruction, input, output],
            Content::Messages(messages) => messages.into_iter().filter_map(said).collect(),
            Content::Reply { prompt, completion } => prompt.into_iter().chain(completion).filter_map(said).collect(),
        }
    }
}

const EXPECTED: &str =
    "`messages` or `conversations`; `prompt` and `completion`; `instruction` and `output`; or `text`";

impl Record for Dialogue {
    const ROLES: &'static [Role] = &[
        role("messages"),
        role("conversations"),
        role("conversation"),
        role("prompt"),
        role("completion"),
        role("instruction"),
        role("input"),
        role("output"),
        role("response"),
        role("text"),
        role("tools"),
        role("system"),
        role("history"),
        role("chat_template_kwargs"),
    ];
    const SETS: &'static [Set] = &[];

    fn from_row(mut row: Row, columns: &BTreeMap<String, Column>, _: &mut Roles) -> Result<Self> {
        if !columns.is_empty() {
            row.fields = renamed::<Self>(&row, columns)?;
        }
        let position = row.position.clone();
        let origin = Origin(Some(position.clone()));
        let read = recognise(&mut row.fields, origin);
        read.map_err(|message| Error::Record { position, message })
    }

    fn read(fields: &mut Fields<'_>) -> std::result::Result<Self, String> {
        recognise(fields.fields, fields.origin.clone())
    }

    fn write(&self) -> Map<String, Value> {
        let mut object = match self.content.clone() {
            Content::Text(text) => fields([("text", text.into())]),
            Content::Completion { prompt, completion } => {
                fields([("prompt", prompt.into()), ("completion", completion.into())])
            }
            Content::Instruction { instruction, input, output } => {
                fields([("instruction", instruction.into()), ("input", input.into()), ("output", output.into())])
            }
            Content::Messages(messages) => fields([("messages", messages.into())]),
            Content::Reply { prompt, completion } => {
                fields([("prompt", prompt.into()), ("completion", completion.into())])
            }
        };
        if let Some(tools) = &self.tools {
            object.insert("tools".into(), tools.clone().into());
        }
        if !self.variables.is_empty() {
            object.insert("chat_template_kwargs".into(), self.variables.clone().into());
        }
        object
    }
}

const fn role(name: &'static str) -> Role {
    Role { name, aliases: &[], needed: false }
}

/// The fields that the user named, under the names that they play; others do not count.
pub(super) fn renamed<R: Record>(row: &Row, columns: &BTreeMap<String, Column>) -> Result<Map<String, Value>> {
    let mut taken = Map::new();
    let mut fields = row.fields.clone();
    for (name, column) in columns {
        if !R::ROLES.iter().any(|role| role.name == name) {
            let roles: Vec<_> = R::ROLES.iter().map(|role| role.name).collect();
            return Err(Error::Settings(format!("`columns` names `{name}`; expected one of {}", roles.join(", "))));
        }
        let column = match column {
            Column::Name(column) => column.clone(),
            Column::Number(number) => fields.keys().nth(*number).cloned().unwrap_or_else(|| number.to_string()),
            Column::Several(_) => {
                return Err(Error::Settings(format!("`columns.{name}` should be one column, found several")));
            }
        };
        match lookup_mut(&mut fields, &column) {
            Some(value) => taken.insert(name.clone(), value.clone()),
            None => {
                let message = format!("no column `{column}` for {name}; this row has {}", listed(&row.fields));
                return Err(Error::Record { position: row.position.clone(), message });
            }
        };
    }
    Ok(taken)
}

fn listed(fields: &Map<String, Value>) -> String {
    let names: Vec<String> = fields.keys().take(20).map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Tells by the keys what a row is.
pub(super) fn recognise(fields: &mut Map<String, Value>, origin: Origin) -> std::result::Result<Dialogue, String> {
    let found = listed(fields);
    let mut take = |name: &str| fields.get_mut(name).map(Value::take).filter(|value| !value.is_null());
    let mut tools = tools(take("tools"))?;
    let variables = match take("chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(variables)) => variables,
        Some(other) => return Err(format!("`chat_template_kwargs` should be an object, found {}", kind(&other))),
    };
    let system = text_of("system", take("system"))?.filter(|system| !system.is_empty());
    let content = if let Some((name, value)) =
        ["messages", "conversations", "conversation"].into_iter().find_map(|name| Some((name, take(name)?)))
    {
        let (mut said, from) = messages(name, value)?;
        if let Some(system) = system {
            said.insert(0, message("system", system.into()));
        }
        if from && let Some(tools) = &mut tools {
            tools.iter_mut().for_each(wrap);
        }
        Content::Messages(said)
    } else if let Some(instruction) = take("instruction") {
        let output = take("output").or_else(|| take("response")).or_else(|| take("completion"));
        let Some(output) = output else {
            return Err(format!("`instruction` without `output` (or `response`); this row has {found}"));
        };
        let instruction = text_of("instruction", Some(instruction))?.unwrap_or_default();
        let input = text_of("input", take("input"))?.unwrap_or_default();
        let output = text_of("output", Some(output))?.unwrap_or_default();
        alpaca(instruction, input, output, system, take("history"))?
    } else if let Some(prompt) = take("prompt") {
        let Some(completion) = take("completion").or_else(|| take("response")) else {
            return Err(format!("`prompt` without `completion` (or `response`); this row has {found}"));
        };
        match (prompt, completion) {
            (Value::String(prompt), Value::String(completion)) => Content::Completion { prompt, completion },
            (prompt @ Value::Array(_), completion @ Value::Array(_)) => Content::Reply {
                prompt: messages("prompt", prompt)?.0,
                completion: messages("completion", completion)?.0,
            },
            (prompt, completion) => {
                return Err(format!(
                    "`prompt` and `completion` should be two strings or two lists of messages, found {} and {}",
                    kind(&prompt),
                    kind(&completion)
                ));
            }
        }
    } else if let Some(text) = take("text") {
        let text = text_of("text", Some(text))?.unwrap_or_default();
        if text.trim().is_empty() {
            return Err("`text` is blank".into());
        }
        Content::Text(text)
    } else {
        return Err(format!("not a known kind of example: expected {EXPECTED}; this row has {found}"));
    };
    Ok(Dialogue { content, tools, variables, origin })
}

pub(super) fn text_of(name: &str, value: Option<Value>) -> std::result::Result<Option<String>, String> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{name}` should be a string, found {}", kind(&other))),
    }
}

/// A list of schemas, or the same as a string of JSON.
pub(super) fn tools(value: Option<Value>) -> std::result::Result<Option<Vec<Value>>, String> {
    let value = match value {
        Some(Value::String(text)) if text.trim().is_empty() => None,
        Some(Value::String(text)) => {
            Some(serde_json::from_str(&text).map_err(|error| format!("`tools` is not valid JSON: {error}"))?)
        }
        other => other,
    };
    match value {
        None => Ok(None),
        Some(Value::Array(tools)) => Ok((!tools.is_empty()).then_some(tools)),
        Some(other) => Err(format!("`tools` should be a list of functions, found {}", kind(&other))),
    }
}

/// ShareGPT lists bare functions; templates expect them as OpenAI wraps them.
pub(super) fn wrap(tool: &mut Value) {
    if tool.get("function").is_none() && tool.get("name").is_some() {
        *tool = json!({"type": "function", "function": tool.take()});
    }
}

pub(super) fn message(role: &str, content: Value) -> Value {
    json!({"role": role, "content": content})
}

/// An Alpaca row; with turns before it, a conversation.
fn alpaca(
    instruction: String,
    input: String,
    output: String,
    system: Option<String>,
    history: Option<Value>,
) -> std::result::Result<Content, String> {
    let earlier = match history {
        None => vec![],
        Some(Value::Array(turns)) => turns,
        Some(other) => return Err(format!("`history` should be a list of pairs, found {}", kind(&other))),
    };
    if earlier.is_empty() && system.is_none() {
        return Ok(Content::Instruction { instruction, input, output });
    }
    let mut prompt: Vec<Value> = system.map(|system| message("system", system.into())).into_iter().collect();
    for turn in earlier {
        match turn.as_array().map(Vec::as_slice) {
            Some([Value::String(asked), Value::String(answered)]) => {
                prompt.push(message("user", asked.clone().into()));
                prompt.push(message("assistant", answered.clone().into()));
            }
            _ => return Err("`history` should be a list of pairs of strings".into()),
        }
    }
    prompt.push(message("user", asked(&instruction, &input).into()));
    Ok(Content::Reply { prompt, completion: vec![message("assistant", output.into())] })
}

/// An instruction and its input as one message.
pub(in crate::supervised) fn asked(instruction: &str, input: &str) -> String {
    if input.trim().is_empty() { instruction.to_owned() } else { format!("{instruction}\n{input}") }
}

/// The messages of a list, and whether they are spelled as in ShareGPT.
pub(super) fn messages(name: &str, value: Value) -> std::result::Result<(Vec<Value>, bool), String> {
    let value = match value {
        // Tables of strings keep lists as JSON.
        Value::String(text) => serde_json::from_str(&text).map_err(|error| format!("`{name}` is not JSON: {error}"))?,
        other => other,
    };
    let Value::Array(list) = value else {
        return Err(format!("`{name}` should be a list of messages, found {}", kind(&value)));
    };
    if list.is_empty() {
        return Err(format!("`{name}` is empty"));
    }
    let mut from = false;
    let each = list.into_iter().enumerate().map(|(index, value)| {
        let place = |message: String| format!("`{name}`, message {}: {message}", index + 1);
        let Value::Object(mut value) = value else {
            return Err(place(format!("expected an object with `role` and `content`, found {}", kind(&value))));
        };
        // Columns of Parquet are there in every message; templates ask whether a key is.
        value.retain(|key, value| key == "content" || !value.is_null());
        if value.get("role").is_some_and(Value::is_string) {
            return Ok(Value::Object(value));
        }
        from = true;
        match (value.get("from"), value.get("value")) {
            (Some(Value::String(from)), Some(Value::String(said))) => share_gpt(from, said).map_err(place),
            _ => Err(place(format!("expected `role` and `content`, or `from` and `value`, found {}", listed(&value)))),
        }
    });
    let messages = each.collect::<std::result::Result<Vec<_>, String>>()?;
    Ok((messages, from))
}

fn share_gpt(from: &str, said: &str) -> std::result::Result<Value, String> {
    Ok(match from {
        "human" | "user" => message("user", said.into()),
        "gpt" | "assistant" | "chatgpt" | "bing" | "bard" => message("assistant", said.into()),
        "system" => message("system", said.into()),
        "observation" | "tool" | "function_response" => message("tool", said.into()),
        "function_call" => {
            let calls: Value = serde_json::from_str(said)
                .map_err(|error| format!("a `function_call` should be JSON with `name` and `arguments`: {error}"))?;
            let calls = match calls {
                Value::Array(calls) => calls,
                one => vec![one],
            };
            if let Some(wrong) = calls.iter().find(|call| !call["name"].is_string()) {
                return Err(format!("a `function_call` should have a `name`, found {}", kind(wrong)));
            }
            let wrapped: Vec<Value> =
                calls.into_iter().map(|call| json!({"type": "function", "function": call})).collect();
            json!({"role": "assistant", "content": "", "tool_calls": wrapped})
        }
        other => {
            return Err(format!("`from` is \"{other}\"; expected human, gpt, system, function_call or observation"));
        }
    })
}
