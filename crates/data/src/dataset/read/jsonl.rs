//! JSON lines: one object a line, one of whose fields is the text.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::super::{Document, Part, Position, TextSettings};
use super::{Records, filled, reader};
use crate::error::{Error, Result};

pub(super) fn open<'a>(path: &Arc<Path>, settings: &'a TextSettings) -> Result<Records<'a>> {
    Ok(Box::new(Lines {
        input: reader(path)?,
        path: path.clone(),
        field: &settings.field,
        line: Vec::new(),
        number: 0,
        done: false,
    }))
}

struct Lines<'a> {
    input: Box<dyn BufRead>,
    path: Arc<Path>,
    field: &'a str,
    line: Vec<u8>,
    number: u64,
    done: bool,
}

impl Iterator for Lines<'_> {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            self.line.clear();
            match self.input.read_until(b'\n', &mut self.line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    self.done = true;
                    return Some(Err(Error::io(&*self.path)(error)));
                }
            }
            self.number += 1;
            let line = self.line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.line);
            if line.trim_ascii().is_empty() {
                continue;
            }
            let position = Position::at(&self.path, Part::Line, self.number);
            return Some(match text(line, self.field) {
                Ok(text) => filled(Document { text, position, more: false }),
                Err(message) => Err(Error::Record { position, message }),
            });
        }
        self.done = true;
        None
    }
}

/// The field's text, or what is wrong with the line.
fn text(line: &[u8], field: &str) -> std::result::Result<String, String> {
    let mut parser = serde_json::Deserializer::from_slice(line);
    let found = Field(field).deserialize(&mut parser).and_then(|found| parser.end().map(|()| found));
    match found {
        Ok(Some(text)) => Ok(text),
        // The line is read a second time only to say what is wrong with it.
        Ok(None) | Err(_) => Err(complaint(line, field)),
    }
}

fn complaint(line: &[u8], field: &str) -> String {
    match serde_json::from_slice::<Value>(line) {
        Err(error) => match line.trim_ascii().first() {
            Some(b'[') => "expected one JSON object a line, found the start of a list; \
                           convert it with: jq -c '.[]' FILE"
                .to_owned(),
            _ => format!("not valid JSON: {error}"),
        },
        Ok(Value::Object(map)) => match map.get(field) {
            Some(other) => format!("field `{field}` should be a string, found {}", crate::tokenizer::kind(other)),
            None => {
                let keys: Vec<String> = map.keys().take(20).map(|key| format!("`{key}`")).collect();
                format!("no field `{field}`; this line has {}", keys.join(", "))
            }
        },
        Ok(other) => format!("expected a JSON object, found {}", crate::tokenizer::kind(&other)),
    }
}

/// Reads one string field of an object and steps over the others without building them.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
