//! Renders a chat template as transformers does: Jinja with Python's methods, and what transformers adds to it.

use std::ops::Range;

use chrono::{Local, NaiveDateTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, State, Value as Jinja};
use serde_json::{Map, Value, json};

use super::{Templates, json as python, methods, tags};
use crate::error::{Error, Result};
use crate::guard::quietly;

/// Steps and 64-byte pieces of text a template may use: about a second, and 256 MB. A conversation of a thousand messages
/// takes some hundred thousand.
const FUEL: u64 = 4_000_000;

/// Marks in the output; Unicode reserves them for a program's own use, so no honest text holds one.
const MARKS: [char; 3] = [tags::BEGIN, tags::END, CONTINUE];
const CONTINUE: char = '\u{FDD2}';

/// A conversation, and how it is to be written down.
#[derive(Debug, Clone, Default)]
pub struct Chat<'a> {
    /// Objects with `role`, `content`, and whatever else the template reads (`tool_calls` …).
    pub messages: &'a [Value],
    /// JSON schemas of functions the model may call.
    pub tools: Option<&'a [Value]>,
    /// Objects with `title` and `text`, for templates that cite.
    pub documents: Option<&'a [Value]>,
    /// End with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// End inside the last message, without closing it, so that the model continues it. The field to be continued:
    /// `content`, or `reasoning_content`.
    pub continue_final: Option<&'a str>,
    /// Further variables (`enable_thinking` …); they win over those above and over special tokens.
    pub variables: Map<String, Value>,
    /// What `strftime_now` takes for now; else the clock.
    pub now: Option<NaiveDateTime>,
}

/// A conversation as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text to be encoded (without adding special tokens: the template writes its own).
    pub text: String,
    /// The bytes of `text` inside `{% generation %}` blocks, which the assistant wrote.
    pub generated: Vec<Range<usize>>,
}

impl Templates {
    /// The template to use: the one asked for; else `tool_use` where there are tools and such a template; else
    /// `default`.
    ///
    /// # Errors
    /// When there is none of that name; names those there are.
    pub fn select(&self, name: Option<&str>, tools: bool) -> Result<(&str, &str)> {
        let name = match name {
            Some(name) => name,
            None if tools && self.source("tool_use").is_some() => "tool_use",
            None => super::DEFAULT,
        };
        self.sources.get_key_value(name).map(|(name, source)| (name.as_str(), source.as_str())).ok_or_else(|| {
            let message = if self.is_empty() {
                "this tokenizer came without a chat template: expected chat_template.jinja, or `chat_template` in \
                 tokenizer_config.json"
                    .to_owned()
            } else {
                format!("no template of this name; there are: {}", self.names().collect::<Vec<_>>().join(", "))
            };
            Error::Template { name: name.to_owned(), message }
        })
    }

    /// Writes a conversation down.
    ///
    /// # Errors
    /// A template that is missing or does not parse, that refuses the conversation (`raise_exception`), or that
    /// does not end.
    pub fn render(&self, name: Option<&str>, chat: &Chat) -> Result<Rendered> {
        let (name, source) = self.select(name, chat.tools.is_some())?;
        let wrong = |message: String| Error::Template { name: name.to_owned(), message };
        let messages = messages(chat, source).map_err(wrong)?;
        let context = self.context(chat, &messages);
        let marked = serde_json::to_string(&(chat.messages, chat.tools, chat.documents, &chat.variables))
            .map_err(|error| wrong(error.to_string()))?;
        if let Some(mark) = MARKS.into_iter().find(|mark| marked.contains(*mark)) {
            return Err(wrong(format!("the conversation holds U+{:04X}, which is not a character", u32::from(mark))));
        }
        let source = tags::mark_generation(source);
        let text = quietly(|| {
            let environment = environment(chat.now);
            let template = environment.template_from_named_str(name, &source)?;
            template.render(Jinja::from(minijinja::value::Serde(&context)))
        })
        .map_err(|panic| wrong(format!("the template engine failed ({panic})")))?
        .map_err(|error| wrong(explain(&error)))?;
        let text = match chat.continue_final {
            None => text,
            Some(field) => cut(text).ok_or_else(|| {
                wrong(format!(
                    "the last message's `{field}` is to be continued, but the template leaves it out or changes it"
                ))
            })?,
        };
        Ok(unmark(&text))
    }

    fn context(&self, chat: &Chat, messages: &[Value]) -> Map<String, Value> {
        let mut context = self.special.clone();
        context.insert("messages".to_owned(), json!(messages));
        // Present and null when not given, as transformers passes them.
        context.insert("tools".to_owned(), json!(chat.tools));
        context.insert("documents".to_owned(), json!(chat.documents));
        context.insert("add_generation_prompt".to_owned(), json!(chat.add_generation_prompt));
        context.extend(chat.variables.clone());
        context
    }
}

/// Names under which templates look for a message's reasoning; the first is the standard one.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The messages as the template sees them: reasoning under every usual name, and the end marked where it is to be
/// continued.
fn messages(chat: &Chat, source: &str) -> std::result::Result<Vec<Value>, String> {
    let mut messages = chat.messages.to_vec();
    for (index, message) in messages.iter_mut().enumerate() {
        let kind = crate::tokenizer::kind(message);
        let Value::Object(message) = message else {
            return Err(format!("message {} should be an object with `role` and `content`, found {kind}", index + 1));
        };
        let reasoning = REASONING.into_iter().find_map(|name| message.get(name).filter(|value| !value.is_null()));
        if let Some(reasoning) = reasoning.cloned() {
            message.entry("thinking").or_insert_with(|| reasoning.clone());
            message.insert("reasoning_content".to_owned(), reasoning);
        }
    }
    let Some(field) = chat.continue_final else {
        return Ok(messages);
    };
    if chat.add_generation_prompt {
        return Err("either a new turn is opened or the last one is continued, not both".to_owned());
    }
    let last = messages.last_mut().and_then(Value::as_object_mut).ok_or("there is no message to be continued")?;
    let original = last.get(field).cloned();
    let same = |name: &&str| *name == field || REASONING.contains(&field) && last.get(*name) == original.as_ref();
    let fields: Vec<&str> = std::iter::once(field).chain(REASONING).filter(same).collect();
    if !fields.iter().any(|field| source.contains(*field)) {
        return Err(format!("the last message's `{field}` is to be continued, but the template does not read it"));
    }
    for name in fields {
        let text = match last.get_mut(name) {
            Some(Value::String(text)) => Some(text),
            // The last text among parts of several kinds.
            Some(Value::Array(parts)) => parts.iter_mut().rev().find_map(|part| match part.get_mut("text") {
                Some(Value::String(text)) => Some(text),
                _ => None,
            }),
            _ => None,
        };
        // A space at the end shows whether the template trims the message.
        match text {
            Some(text) => text.extend([CONTINUE, ' ']),
            None if name == field => {
                return Err(format!("the last message has no text in `{field}` that could be continued"));
            }
            None => {}
        }
    }
    Ok(messages)
}

/// The text up to the mark; a template that trims has trimmed the mark's space, so ours goes too.
fn cut(mut text: String) -> Option<String> {
    let at = text.rfind(CONTINUE)?;
    let trimmed = !text[at + CONTINUE.len_utf8()..].starts_with(' ');
    text.truncate(at);
    if trimmed {
        text.truncate(text.trim_end().len());
    }
    Some(text)
}

/// Takes the marks out and remembers where they were.
fn unmark(marked: &str) -> Rendered {
    let mut text = String::with_capacity(marked.len());
    let (mut generated, mut open) = (Vec::new(), None);
    for part in marked.split_inclusive(MARKS) {
        let mark = part.chars().next_back().filter(|last| MARKS.contains(last));
        text.push_str(part.strip_suffix(MARKS).unwrap_or(part));
        match mark {
            Some(tags::BEGIN) => open = Some(text.len()),
            Some(tags::END) => generated.extend(open.take().map(|start: usize| start..text.len())),
            _ => {}
        }
    }
    // Continued inside a block.
    generated.extend(open.map(|start| start..text.len()));
    Rendered { text, generated }
}

pub(super) fn environment(now: Option<NaiveDateTime>) -> Environment<'static> {
    let mut environment = Environment::new();
    if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(FUEL));
    // The template's name must not switch on escaping.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.add_filter("tojson", python::filter);
    environment.add_filter("indent", methods::indent);
    environment.add_function("raise_exception", |message: String| -> std::result::Result<Jinja, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{message}")))
    });
    environment.add_function("strftime_now", move |_: &State, format: &str| {
        use std::fmt::Write;
        let mut text = String::new();
        let now = now.unwrap_or_else(|| Local::now().naive_local());
        // An unknown directive shows only on writing.
        match write!(text, "{}", now.format(format)) {
            Ok(()) => Ok(text),
            Err(_) => {
                let message = format!("strftime_now: `{format}` is not a date format");
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            }
        }
    });
    environment
}

const REFUSED: &str = "the template refuses the conversation: ";

/// An engine's error in one line: the template's own words, or what is wrong and where.
pub(super) fn explain(error: &minijinja::Error) -> String {
    if let Some(detail) = error.detail().filter(|detail| detail.starts_with(REFUSED)) {
        return detail.to_owned();
    }
    let place = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
    format!("{place}{}{detail}", error.kind())
}
