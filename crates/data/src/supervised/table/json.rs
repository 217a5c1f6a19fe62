//! JSON: one object a line, or objects in a list; nested question sets (SQuAD) become one row a question.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Lines, Row, Rows, fatal, reader};
use crate::dataset::{Part, Position};
use crate::error::{Error, Result};
use crate::tokenizer::kind;

/// Bytes of a JSON file at most; larger sets are kept as JSON lines, which are read in constant memory.
const LARGEST: u64 = 1 << 32;

/// One object a line.
pub(super) fn lines<'a>(path: &Arc<Path>) -> Result<Rows<'a>> {
    let mut lines = Lines::open(path)?;
    let mut ready = VecDeque::new();
    let mut done = false;
    Ok(Box::new(std::iter::from_fn(move || {
        while !done {
            if let Some(row) = ready.pop_front() {
                return Some(row);
            }
            let Some(line) = lines.next() else { break };
            let item = line.map(|line| (!line.trim_ascii().is_empty()).then(|| serde_json::from_str::<Value>(line)));
            done = fatal(&item);
            match item {
                Err(error) => return Some(Err(error)),
                Ok(None) => {}
                Ok(Some(value)) => {
                    let value = value.map_err(|error| format!("not valid JSON: {error}"));
                    expand(value, lines.position(), &mut ready);
                }
            }
        }
        None
    })))
}

/// Objects in a list, one after the other, or in the list under `data`.
pub(super) fn elements<'a>(path: &Arc<Path>) -> Result<Rows<'a>> {
    let mut bytes = Vec::new();
    reader(path)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(Error::io(&**path))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::format(path, "more than 4 GiB of JSON; convert it to JSON lines: jq -c '.[]' FILE"));
    }
    let mut scan = Scan::new(path.clone(), bytes);
    let mut ready = VecDeque::new();
    Ok(Box::new(std::iter::from_fn(move || {
        loop {
            if let Some(row) = ready.pop_front() {
                return Some(row);
            }
            let range = match scan.next()? {
                Ok(range) => range,
                Err(error) => return Some(Err(error)),
            };
            let line = scan.line_of(range.start);
            let value = serde_json::from_slice::<Value>(&scan.bytes[range]).map_err(|error| {
                let at = line + (error.line() as u64).saturating_sub(1);
                format!("not valid JSON at line {at}: {error}")
            });
            expand(value, Position::at(&scan.path, Part::Line, line), &mut ready);
        }
    })))
}

/// Cuts a file into its elements without building them, so that a broken one is named and the others are read.
struct Scan {
    path: Arc<Path>,
    bytes: Vec<u8>,
    at: usize,
    listed: bool,
    done: bool,
    /// Lines are counted only as far as somebody asked.
    counted: (usize, u64),
}

impl Scan {
    fn new(path: Arc<Path>, bytes: Vec<u8>) -> Self {
        let at = if bytes.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        let mut scan = Self { path, bytes, at, listed: false, done: false, counted: (0, 1) };
        let start = scan.blank(scan.at);
        match scan.bytes.get(start) {
            Some(b'[') => (scan.at, scan.listed) = (start + 1, true),
            Some(b'{') => {
                if let Some(list) = scan.list_of_data(start) {
                    (scan.at, scan.listed) = (list + 1, true);
                }
            }
            _ => {}
        }
        scan
    }

    /// The next element; after an error of form there is no telling where the following one begins.
    fn next(&mut self) -> Option<Result<Range<usize>>> {
        if self.done {
            return None;
        }
        let start = self.blank(self.at);
        match self.bytes.get(start) {
            None if !self.listed => return None,
            None => return self.fail(start, "the file ends inside the list"),
            Some(b']') if self.listed => {
                self.done = true;
                return None;
            }
            Some(_) => {}
        }
        let Some(end) = self.value(start) else { return self.fail(start, "the file ends inside this element") };
        if end == start {
            return self.fail(start, "expected a JSON object");
        }
        self.at = self.blank(end);
        if self.listed {
            match self.bytes.get(self.at) {
                Some(b',') => self.at += 1,
                Some(b']') | None => {}
                Some(_) => return self.fail(self.at, "expected `,` or `]` after an element of the list"),
            }
        }
        Some(Ok(start..end))
    }

    fn fail(&mut self, at: usize, message: &str) -> Option<Result<Range<usize>>> {
        self.done = true;
        let line = self.line_of(at);
        let position = Position::at(&self.path, Part::Line, line);
        Some(Err(Error::Record { position, message: format!("not valid JSON: {message}") }))
    }

    fn blank(&self, at: usize) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        at + rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len())
    }

    /// Past the string that begins at `at`.
    fn string(&self, at: usize) -> Option<usize> {
        let mut at = at + 1;
        loop {
            match self.bytes.get(at)? {
                b'"' => return Some(at + 1),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }

    /// Past the value that begins at `at`; `None` when the file ends before it does.
    fn value(&self, at: usize) -> Option<usize> {
        match self.bytes.get(at)? {
            b'"' => return self.string(at),
            b'{' | b'[' => {}
            _ => {
                let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}');
                let rest = &self.bytes[at..];
                return Some(at + rest.iter().position(ends).unwrap_or(rest.len()));
            }
        }
        let (mut at, mut depth) = (at, 0_usize);
        loop {
            match self.bytes.get(at)? {
                b'"' => {
                    at = self.string(at)?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Where the list under the key `data` begins in the object at `at`.
    fn list_of_data(&self, at: usize) -> Option<usize> {
        let mut at = self.blank(at + 1);
        while self.bytes.get(at) == Some(&b'"') {
            let key = at;
            at = self.string(at)?;
            let is_data = &self.bytes[key..at] == b"\"data\"";
            at = self.blank(at);
            if self.bytes.get(at) != Some(&b':') {
                return None;
            }
            at = self.blank(at + 1);
            if is_data && self.bytes.get(at) == Some(&b'[') {
                return Some(at);
            }
            at = self.blank(self.value(at)?);
            if self.bytes.get(at) != Some(&b',') {
                return None;
            }
            at = self.blank(at + 1);
        }
        None
    }

    fn line_of(&mut self, at: usize) -> u64 {
        let (from, line) = if at < self.counted.0 { (0, 1) } else { self.counted };
        let ends = self.bytes[from..at.min(self.bytes.len())].iter().filter(|byte| **byte == b'\n').count();
        self.counted = (at.min(self.bytes.len()), line + ends as u64);
        self.counted.1
    }
}

/// A value as a row, or as the rows of the questions in it.
fn expand(value: std::result::Result<Value, String>, position: Position, rows: &mut VecDeque<Result<Row>>) {
    let mut wrong = |message: String| {
        rows.push_back(Err(Error::Record { position: position.clone(), message }));
    };
    let mut object = match value {
        Ok(Value::Object(object)) => object,
        Ok(Value::Array(_)) => return wrong("expected a JSON object, found a list; name the file `.json`".to_owned()),
        Ok(other) => return wrong(format!("expected a JSON object, found {}", kind(&other))),
        Err(message) => return wrong(message),
    };
    match object.shift_remove("paragraphs") {
        Some(Value::Array(paragraphs)) => {
            for paragraph in paragraphs {
                match paragraph {
                    Value::Object(paragraph) => questions(paragraph, &position, rows),
                    other => rows.push_back(Err(Error::Record {
                        position: position.clone(),
                        message: format!("a paragraph should be an object, found {}", kind(&other)),
                    })),
                }
            }
        }
        Some(other) => wrong(format!("`paragraphs` should be a list, found {}", kind(&other))),
        None => questions(object, &position, rows),
    }
}

/// One row for each question of a paragraph, with the paragraph's own fields; any other object is one row.
fn questions(mut paragraph: Map<String, Value>, position: &Position, rows: &mut VecDeque<Result<Row>>) {
    let row = |fields| Ok(Row { fields, position: position.clone(), numbered: false });
    let list = match paragraph.shift_remove("qas") {
        Some(Value::Array(list)) => list,
        Some(other) => {
            rows.push_back(Err(Error::Record {
                position: position.clone(),
                message: format!("`qas` should be a list, found {}", kind(&other)),
            }));
            return;
        }
        None => return rows.push_back(row(paragraph)),
    };
    for question in list {
        rows.push_back(match question {
            Value::Object(question) => {
                let mut fields = paragraph.clone();
                // The question's own `id` wins over its paragraph's.
                fields.extend(question);
                row(fields)
            }
            other => Err(Error::Record {
                position: position.clone(),
                message: format!("a question should be an object, found {}", kind(&other)),
            }),
        });
    }
}
