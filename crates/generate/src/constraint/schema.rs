//! What of JSON Schema a grammar can hold: every keyword is known, held exactly or refused by name and place, and what the
//! grammar's compiler would hold loosely is said in other words.

use std::collections::BTreeSet;

use serde_json::{Map, Number, Value, json};

use super::format::{FORMATS, format};
use crate::{Error, Result};

/// Keywords that say nothing about which documents are valid.
const ANNOTATIONS: &[&str] = &[
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
    "contentEncoding",
    "discriminator",
];

/// Keywords of JSON Schema that no grammar holds, or ours does not.
const REFUSED: &[&str] = &[
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contentSchema",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$vocabulary",
];

/// All that is held, for whoever has misspelt it.
const HELD: &[&str] = &[
    "type",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "$defs",
    "definitions",
    "$anchor",
    "$schema",
    "$id",
    "id",
    "properties",
    "patternProperties",
    "additionalProperties",
    "required",
    "minProperties",
    "maxProperties",
    "items",
    "prefixItems",
    "additionalItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/// Schemas within schemas, at most; deeper ones would exhaust the stack of what compiles them.
const DEEPEST: usize = 64;

/// The largest whole number that every reader of JSON gives back as it is: 2^53 - 1.
const LARGEST: f64 = 9_007_199_254_740_991.;

/// Escapes that strings may have. Of each character one spelling is left, so that a name cannot come back in another one.
const ESCAPES: &str = "nrbtf\\\"";

/// Between two signs of a document: nothing, a space, or a line end and an indentation. Bounded, since weak models love spaces.
const WHITESPACE: &str = r"\x20|\r?\n[\x20\t]{0,40}";

/// The schema as the grammar's compiler takes it.
///
/// # Errors
/// Names the keyword and where it stands, as a JSON pointer.
pub(super) fn checked(schema: &Value) -> Result<Value> {
    let mut walk = Walk { old: false, draft_4: false, seen: BTreeSet::new(), refs: vec![], anchors: BTreeSet::new() };
    let mut checked = match walk.schema(schema, "#", 0)? {
        Value::Object(map) => map,
        Value::Bool(true) => Map::new(),
        _ => return Err(wrong("#", "`false` allows no document")),
    };
    walk.resolve()?;
    let way = json!({ "whitespace_pattern": WHITESPACE, "json_allowed_escapes": ESCAPES });
    checked.insert("x-guidance".into(), way);
    Ok(Value::Object(checked))
}

/// Where in a schema these keywords stand, for errors of the compiler, which knows no places.
pub(super) fn places(schema: &Value, keywords: &[&str]) -> Vec<String> {
    fn look(value: &Value, at: &str, keywords: &[&str], found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                let at = below(at, key);
                if keywords.contains(&key.as_str()) {
                    found.push(at.clone());
                }
                look(value, &at, keywords, found);
            }),
            Value::Array(values) => {
                values
                    .iter()
                    .enumerate()
                    .for_each(|(i, value)| look(value, &below(at, &i.to_string()), keywords, found));
            }
            _ => {}
        }
    }
    let mut found = vec![];
    look(schema, "#", keywords, &mut found);
    found
}

struct Walk {
    /// Whether the schema says that it is older than 2020-12.
    old: bool,
    draft_4: bool,
    /// Where schemas stand.
    seen: BTreeSet<String>,
    /// References, and where they stand.
    refs: Vec<(String, String)>,
    anchors: BTreeSet<String>,
}

impl Walk {
    fn schema(&mut self, schema: &Value, at: &str, depth: usize) -> Result<Value> {
        if depth > DEEPEST {
            return Err(wrong(at, &format!("schemas are nested deeper than {DEEPEST}")));
        }
        self.seen.insert(at.to_owned());
        let map = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(map) => map,
            other => return Err(expected(at, "a schema (an object, true or false)", other)),
        };
        if depth == 0 {
            self.draft(map)?;
        }
        let mut checked = Map::new();
        for (key, value) in map {
            let place = below(at, key);
            if let Some(value) = self.keyword(map, key, value, &place, depth)? {
                checked.insert(key.clone(), value);
            }
        }
        bounded(&mut checked);
        if let Some(Value::String(name)) = map.get("format") {
            exact_format(&mut checked, name, &below(at, "format"))?;
        }
        Ok(Value::Object(checked))
    }

    fn draft(&mut self, map: &Map<String, Value>) -> Result<()> {
        let Some(draft) = map.get("$schema") else { return Ok(()) };
        let draft = draft.as_str().unwrap_or_default();
        let known = ["2020-12", "2019-09", "draft-07", "draft-06", "draft-04"];
        match known.iter().position(|name| draft.contains(name)) {
            Some(number) => (self.old, self.draft_4) = (number > 0, number == 4),
            None => return Err(wrong("#/$schema", &format!("expected a draft from 4 to 2020-12, found {draft:?}"))),
        }
        Ok(())
    }

    /// What becomes of a keyword; `None` if it says nothing.
    fn keyword(
        &mut self,
        map: &Map<String, Value>,
        key: &str,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<Option<Value>> {
        match key {
            "type" => types(value, at)?,
            "const" => literal(value, at)?,
            "enum" => list(value, at)?.iter().try_for_each(|value| literal(value, at))?,
            "anyOf" | "oneOf" | "allOf" => return self.several(value, at, depth).map(Some),
            "properties" | "$defs" | "definitions" => return self.named(value, at, depth).map(Some),
            "patternProperties" => {
                for name in object(value, at)?.keys() {
                    pattern(name, &below(at, name))?;
                }
                return self.named(value, at, depth).map(Some);
            }
            "additionalProperties" => return self.schema(value, at, depth + 1).map(Some),
            "items" if value.is_array() && map.contains_key("prefixItems") => {
                return Err(wrong(at, "a list here and `prefixItems` are two ways of the same; keep one"));
            }
            "items" if value.is_array() => return self.several(value, at, depth).map(Some),
            "items" => return self.schema(value, at, depth + 1).map(Some),
            "prefixItems" if self.old => {
                return Err(wrong(at, "`prefixItems` came with 2020-12, and $schema names an older draft"));
            }
            "prefixItems" => return self.several(value, at, depth).map(Some),
            "additionalItems" if map.get("items").is_some_and(Value::is_array) => {
                return self.schema(value, at, depth + 1).map(Some);
            }
            "additionalItems" => return Err(wrong(at, "it says nothing unless `items` is a list; take `items`")),
            "required" => strings(value, at)?,
            "minItems" | "maxItems" | "minLength" | "maxLength" | "maxProperties" => return count(value, at).map(Some),
            "minProperties" => return least(map, value, at).map(Some),
            "uniqueItems" => return unique(map, value, at).map(|()| None),
            "minimum" | "maximum" => bound(value, at)?,
            "exclusiveMinimum" | "exclusiveMaximum" if value.is_boolean() && self.draft_4 => {}
            "exclusiveMinimum" | "exclusiveMaximum" => bound(value, at)?,
            "multipleOf" if value.as_f64().is_some_and(|x| x > 0. && x <= LARGEST) => {}
            "multipleOf" => return Err(expected(at, "a number above 0", value)),
            "pattern" => pattern(string(value, at)?, at)?,
            // Said as a pattern.
            "format" => return string(value, at).map(|_| None),
            "$ref" => self.refs.push((string(value, at)?.to_owned(), at.to_owned())),
            "$anchor" => {
                self.anchors.insert(string(value, at)?.to_owned());
            }
            "$schema" | "$id" | "id" if depth == 0 => {
                string(value, at)?;
            }
            "$schema" | "$id" | "id" => return Err(wrong(at, &format!("`{key}` is held at the top alone"))),
            key if ANNOTATIONS.contains(&key) => return Ok(None),
            key if REFUSED.contains(&key) => {
                return Err(wrong(
                    at,
                    &format!("`{key}` is not supported: no document is better than one that may be invalid"),
                ));
            }
            key => return Err(unknown(key, at)),
        }
        Ok(Some(value.clone()))
    }

    fn several(&mut self, value: &Value, at: &str, depth: usize) -> Result<Value> {
        let schemas = list(value, at)?.iter().enumerate();
        schemas.map(|(i, schema)| self.schema(schema, &below(at, &i.to_string()), depth + 1)).collect()
    }

    fn named(&mut self, value: &Value, at: &str, depth: usize) -> Result<Value> {
        let mut checked = Map::new();
        for (name, schema) in object(value, at)? {
            checked.insert(name.clone(), self.schema(schema, &below(at, name), depth + 1)?);
        }
        Ok(Value::Object(checked))
    }

    /// References lead to schemas that have been looked at.
    fn resolve(&self) -> Result<()> {
        for (target, at) in &self.refs {
            let known = match target.strip_prefix('#') {
                None => return Err(wrong(at, &format!("`{target}` stands in another document; put it under $defs"))),
                Some(anchor) if !anchor.is_empty() && !anchor.starts_with('/') => self.anchors.contains(anchor),
                Some(_) => self.seen.contains(&plain(target)),
            };
            if !known {
                return Err(wrong(at, &format!("there is no schema at `{target}`")));
            }
        }
        Ok(())
    }
}

/// A pointer in a reference, without the escapes of addresses.
fn plain(target: &str) -> String {
    let mut bytes = vec![];
    let mut rest = target.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => (rest, _) = (&behind[2..], bytes.push(byte)),
            None => (rest, _) = (behind, bytes.push(first)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A keyword or an index below a pointer.
fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn wrong(at: &str, what: &str) -> Error {
    Error::Settings(format!("json_schema: at {at}: {what}"))
}

fn expected(at: &str, what: &str, found: &Value) -> Error {
    let found = found.to_string();
    let found = match found.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &found[..end]),
        None => found,
    };
    wrong(at, &format!("expected {what}, found {found}"))
}

fn unknown(key: &str, at: &str) -> Error {
    let near = HELD.iter().filter(|held| strsim::damerau_levenshtein(held, key) <= 2);
    let near = near.min_by_key(|held| strsim::damerau_levenshtein(held, key));
    let help = near.map_or("remove it, or put schemas that are referred to under $defs".to_owned(), |held| {
        format!("did you mean `{held}`?")
    });
    wrong(at, &format!("`{key}` is no keyword of JSON Schema; {help}"))
}

fn list<'v>(value: &'v Value, at: &str) -> Result<&'v [Value]> {
    match value.as_array() {
        Some(list) if !list.is_empty() => Ok(list),
        _ => Err(expected(at, "a list that is not empty", value)),
    }
}

fn object<'v>(value: &'v Value, at: &str) -> Result<&'v Map<String, Value>> {
    value.as_object().ok_or_else(|| expected(at, "an object", value))
}

fn string<'v>(value: &'v Value, at: &str) -> Result<&'v str> {
    value.as_str().ok_or_else(|| expected(at, "a string", value))
}

fn strings(value: &Value, at: &str) -> Result<()> {
    let strings = value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    if strings { Ok(()) } else { Err(expected(at, "a list of strings", value)) }
}

fn types(value: &Value, at: &str) -> Result<()> {
    let known = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
    let fine = match value {
        Value::Array(names) => !names.is_empty() && names.iter().all(known),
        name => known(name),
    };
    if fine { Ok(()) } else { Err(expected(at, &format!("one or some of {}", TYPES.join(", ")), value)) }
}

/// A whole number; some write 3.0.
fn count(value: &Value, at: &str) -> Result<Value> {
    let whole = value.as_f64().filter(|x| x.fract() == 0. && (0. ..=1e9).contains(x));
    whole.map(|x| Value::from(x as u64)).ok_or_else(|| expected(at, "a whole number from 0", value))
}

/// Bounds are compared as 64-bit numbers.
fn bound(value: &Value, at: &str) -> Result<()> {
    match value.as_f64() {
        Some(x) if x.abs() <= LARGEST => Ok(()),
        _ => Err(expected(at, &format!("a number of at most {LARGEST}, whatever its sign"), value)),
    }
}

/// Names that are free may be written twice, and count once then: only one of them is certain.
fn least(map: &Map<String, Value>, value: &Value, at: &str) -> Result<Value> {
    let least = count(value, at)?;
    let required = map
        .get("required")
        .and_then(Value::as_array)
        .map_or(0, |names| names.iter().map(Value::to_string).collect::<BTreeSet<_>>().len());
    if least.as_u64().unwrap_or(0) > required as u64 + 1 {
        return Err(wrong(at, "a grammar cannot tell names apart: at most one more than `required` names is certain"));
    }
    Ok(least)
}

fn unique(map: &Map<String, Value>, value: &Value, at: &str) -> Result<()> {
    match value {
        Value::Bool(false) => Ok(()),
        Value::Bool(true) if map.get("maxItems").and_then(Value::as_u64).is_some_and(|most| most <= 1) => Ok(()),
        Value::Bool(true) => Err(wrong(at, "`uniqueItems` is not supported: a grammar cannot compare items")),
        other => Err(expected(at, "true or false", other)),
    }
}

/// What is to be written as it stands.
fn literal(value: &Value, at: &str) -> Result<()> {
    // Of what cannot be written in a string there is but the escape by number, which names and strings do not have.
    let odd = |text: &str| text.chars().find(|c| matches!(c, '\0'..='\x1f' | '\x7f') && !"\n\r\t\x08\x0c".contains(*c));
    match value {
        Value::Number(number) => exact(number).ok_or_else(|| expected(at, "a number that has a 64-bit equal", value)),
        Value::String(text) => match odd(text) {
            Some(c) => Err(wrong(at, &format!("the character U+{:04X} is not written in strings", u32::from(c)))),
            None => Ok(()),
        },
        Value::Array(values) => values.iter().try_for_each(|value| literal(value, at)),
        Value::Object(map) => map.values().try_for_each(|value| literal(value, at)),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn exact(number: &Number) -> Option<()> {
    let x = number.as_f64()?;
    (number.is_f64() && x.is_finite() || x.abs() <= LARGEST).then_some(())
}

fn pattern(text: &str, at: &str) -> Result<()> {
    super::regex::parse(text).map_err(|error| wrong(at, &error))
}

/// Whole numbers and multiples stay where 64-bit numbers are exact: beyond, many readers see others than were written.
fn bounded(schema: &mut Map<String, Value>) {
    let whole = match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(|name| name == "integer"),
        Some(name) => name == "integer",
        None => false,
    };
    if whole || schema.contains_key("multipleOf") {
        for (bound, exclusive, sign) in [("minimum", "exclusiveMinimum", -1), ("maximum", "exclusiveMaximum", 1)] {
            if !schema.contains_key(exclusive) {
                schema.entry(bound).or_insert_with(|| (sign * LARGEST as i64).into());
            }
        }
    }
}

/// Says a format as a pattern: the compiler's own are looser than their standards.
fn exact_format(schema: &mut Map<String, Value>, name: &str, at: &str) -> Result<()> {
    let Some(exact) = format(name) else {
        let known: Vec<&str> = FORMATS.iter().map(|(name, _)| *name).collect();
        return Err(wrong(at, &format!("the format {name:?} is not supported; these are: {}", known.join(", "))));
    };
    let exact = format!("^(?:{exact})$");
    if !schema.contains_key("pattern") {
        schema.insert("pattern".into(), exact.into());
        return Ok(());
    }
    match schema.entry("allOf").or_insert_with(|| json!([])) {
        Value::Array(all) => all.push(json!({ "pattern": exact })),
        other => return Err(expected(at, "a list in allOf", other)),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
