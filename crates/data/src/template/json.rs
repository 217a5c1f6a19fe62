//! `tojson` as Python's `json.dumps` writes it: spaces after separators, non-ASCII text kept, Python's floats.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// Nesting beyond which a value is refused, well before the stack ends.
const DEEPEST: usize = 256;

/// The filter: `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn filter(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    // Positional in the engine's own filter; transformers has `ensure_ascii` first, which nobody passes by place.
    let indent = match options.get::<Option<Value>>("indent")? {
        Some(indent) => Some(indent),
        None => indent,
    };
    let indent =
        indent.filter(|indent| !indent.is_none() && !indent.is_undefined()).map(|indent| match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(indent.as_i64().unwrap_or(0).clamp(0, 64) as usize),
        });
    let separators = options.get::<Option<Value>>("separators")?.filter(|given| !given.is_none());
    let (item, key) = match &separators {
        Some(pair) => {
            let part = |index| Ok::<_, Error>(pair.get_item_by_index(index)?.to_string());
            (part(0)?, part(1)?)
        }
        // With an indent, the line end follows the comma.
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let mut writer = Writer {
        out: String::new(),
        indent,
        item,
        key,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        depth: 0,
    };
    options.assert_all_used()?;
    writer.value(value)?;
    Ok(Value::from(writer.out))
}

struct Writer {
    out: String,
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sort: bool,
    depth: usize,
}

impl Writer {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => write!(self.out, "{value}").map_err(|_| failed())?,
            ValueKind::Number => {
                let number = f64::try_from(value.clone())?;
                self.out.push_str(&float(number));
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.block('[', ']', items, |writer, item| writer.value(&item))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                self.block('{', '}', keys, |writer, key| {
                    match key.as_str() {
                        Some(text) => writer.string(text),
                        // Python writes the key 1 as "1" and true as "true".
                        None => {
                            let mut inner = Writer {
                                out: String::new(),
                                indent: None,
                                item: ", ".to_owned(),
                                key: ": ".to_owned(),
                                ..*writer
                            };
                            inner.value(&key)?;
                            writer.string(&inner.out);
                        }
                    }
                    writer.out.push_str(&writer.key.clone());
                    writer.value(&value.get_item(&key)?)
                })?;
            }
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("tojson: {other} cannot be written as JSON"),
                ));
            }
        }
        Ok(())
    }

    fn block(
        &mut self,
        open: char,
        close: char,
        items: Vec<Value>,
        mut each: impl FnMut(&mut Self, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        if items.is_empty() {
            self.out.push(close);
            return Ok(());
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deeply"));
        }
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push_str(&self.item.clone());
            }
            self.line();
            each(self, item)?;
        }
        self.depth -= 1;
        self.line();
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..self.depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{C}' => self.out.push_str("\\f"),
                c if c < ' ' || self.ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::InvalidOperation, "tojson: writing failed")
}

/// A float as Python's `repr` has it: the shortest digits that read back the same, plain from 1e-4 up to 1e16.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // Right-hand sides from CPython's repr.
        for (number, python) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e22, "1.5e+22"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (1e100, "1e+100"),
            (-0.0, "-0.0"),
        ] {
            assert_eq!(float(number), python);
        }
    }
}
