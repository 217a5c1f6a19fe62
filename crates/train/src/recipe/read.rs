//! Turns TOML tables into the recipe's structs, and serde's errors into sentences with a place.
//!
//! A table with `kind` is one struct of common keys plus one of an enum of structs. serde's own
//! internally tagged enums and `flatten` would do that too, but they buffer the table and so lose which
//! key was wrong, and `flatten` switches `deny_unknown_fields` off. Here the table is divided first.

use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::fields;
use super::{RecipeError, set};

/// A table of common keys and the keys of one `kind`.
pub(super) trait Kinded: DeserializeOwned + Serialize {
    /// An externally tagged enum of structs, one per kind.
    type Kind: DeserializeOwned + Serialize;
    /// The kind when the table does not say; `None` makes it required.
    const DEFAULT: Option<&'static str>;
    fn kind(&self) -> &Self::Kind;
    fn set_kind(&mut self, kind: Self::Kind);
}

/// Knows where each key came from.
pub(super) struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    spans: toml::de::DeTable<'a>,
    /// Overrides as given, each with the path it wrote.
    sets: Vec<(&'a str, Vec<String>)>,
}

impl<'a> Reader<'a> {
    /// Parses the text and applies the overrides.
    pub(super) fn new(name: &'a str, text: &'a str, overrides: &'a [String]) -> Result<(Self, Table), RecipeError> {
        let syntax = |error: toml::de::Error| RecipeError::Syntax {
            at: place(name, text, error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', ", "),
        };
        let spans = toml::de::DeTable::parse(text).map_err(syntax)?.into_inner();
        let mut values: Table = toml::from_str(text).map_err(syntax)?;
        let mut sets = Vec::new();
        for assignment in overrides {
            sets.push((assignment.as_str(), set::apply(&mut values, assignment)?));
        }
        Ok((Self { name, text, spans, sets }, values))
    }

    /// An error about the key at `path`.
    pub(super) fn at(&self, path: &[&str], message: String) -> RecipeError {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        RecipeError::Key { at: self.locate(&path), message }
    }

    /// Reads a table without `kind`.
    pub(super) fn plain<T: DeserializeOwned>(&self, at: &[&str], table: Table) -> Result<T, RecipeError> {
        self.deserialize(at, Value::Table(table), &[], None)
    }

    /// Reads a table whose keys all belong to its `kind`.
    pub(super) fn tagged<K: DeserializeOwned>(
        &self,
        at: &str,
        mut table: Table,
        default: Option<&str>,
    ) -> Result<K, RecipeError> {
        let kind = self.take_kind::<K>(at, &mut table, default)?;
        self.deserialize(&[at], tag(kind.clone(), table), &["kind"], Some(&kind))
    }

    /// Reads a table of common keys and keys of its `kind`.
    pub(super) fn kinded<T: Kinded>(&self, at: &str, mut table: Table) -> Result<T, RecipeError> {
        let kind = self.take_kind::<T::Kind>(at, &mut table, T::DEFAULT)?;
        let common = fields::names::<T>();
        let (shared, own): (Table, Table) = table.into_iter().partition(|(key, _)| common.contains(&key.as_str()));
        // The kind's keys first: an unknown key lands there, and is a likelier mistake than a missing one.
        let own = self.deserialize(&[at], tag(kind.clone(), own), &[&["kind"], common].concat(), Some(&kind))?;
        let mut whole: T = self.deserialize(&[at], Value::Table(shared), &[], Some(&kind))?;
        whole.set_kind(own);
        Ok(whole)
    }

    fn take_kind<K: DeserializeOwned>(
        &self,
        at: &str,
        table: &mut Table,
        default: Option<&str>,
    ) -> Result<String, RecipeError> {
        let valid = fields::names::<K>();
        match table.remove("kind") {
            Some(Value::String(kind)) if valid.contains(&kind.as_str()) => Ok(kind),
            Some(Value::String(kind)) => {
                let message = format!("unknown kind \"{kind}\" in [{at}]{}", suggest(&kind, valid));
                Err(self.at(&[at, "kind"], message))
            }
            Some(other) => {
                let message =
                    format!("`{at}.kind` must be a string, found a {}; one of {}", other.type_str(), list(valid));
                Err(self.at(&[at, "kind"], message))
            }
            None => match default {
                Some(kind) => Ok(kind.to_owned()),
                None => Err(self.at(&[at], format!("[{at}] needs a `kind`: one of {}", list(valid)))),
            },
        }
    }

    fn deserialize<T: DeserializeOwned>(
        &self,
        at: &[&str],
        value: Value,
        also: &[&str],
        kind: Option<&str>,
    ) -> Result<T, RecipeError> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            use serde_path_to_error::Segment;
            let mut path: Vec<String> = at.iter().map(|part| (*part).to_owned()).collect();
            for segment in error.path() {
                match segment {
                    Segment::Map { key } => path.push(key.clone()),
                    Segment::Seq { index } => path.push(index.to_string()),
                    // The variant is our own wrapping of `kind`, not a key of the file.
                    Segment::Enum { .. } | Segment::Unknown => {}
                }
            }
            // The wrapping also shows up as one map segment when serde sees the enum as a map. A key may have the name of
            // its kind: it then stands there alone.
            let own =
                error.path().iter().filter(|part| matches!(part, Segment::Map { key } if Some(key.as_str()) == kind));
            let named = error.path().iter().any(|part| matches!(part, Segment::Enum { .. }));
            if let Some(kind) = kind
                && !(named && own.count() == 1)
                && path.get(at.len()).map(String::as_str) == Some(kind)
            {
                path.remove(at.len());
            }
            self.explain(path, error.inner().message(), also, kind)
        })
    }

    /// Rewrites serde's message: it knows neither tables nor places.
    fn explain(&self, mut path: Vec<String>, message: &str, also: &[&str], kind: Option<&str>) -> RecipeError {
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let in_table = |path: &[String]| {
            let kind = kind.filter(|_| path.len() == 1).map_or(String::new(), |kind| format!(" of kind \"{kind}\""));
            if path.is_empty() { "at the top level".to_owned() } else { format!("in [{}]{kind}", path.join(".")) }
        };
        if message.starts_with("unknown field") && !quoted.is_empty() {
            let key = quoted[0];
            if path.last().map(String::as_str) != Some(key) {
                path.push(key.to_owned());
            }
            let table = &path[..path.len() - 1];
            let valid = [also, &quoted[1..]].concat();
            let message = format!("unknown key `{key}` {}{}", in_table(table), suggest(key, &valid));
            RecipeError::Key { at: self.locate(&path), message }
        } else if message.starts_with("missing field") && !quoted.is_empty() {
            let message = format!("missing key `{}` {}", quoted[0], in_table(&path));
            RecipeError::Key { at: self.locate(&path), message }
        } else {
            let message = format!("`{}`: {}", path.join("."), message.replace('\n', ", "));
            RecipeError::Key { at: self.locate(&path), message }
        }
    }

    /// File, line and column of the key, or of the nearest table above it; or the override that set it.
    fn locate(&self, path: &[String]) -> String {
        if let Some((assignment, _)) = self.sets.iter().rev().find(|(_, set)| path.starts_with(set)) {
            return format!("--set {assignment}");
        }
        let mut offset = None;
        let mut table = Some(&self.spans);
        let mut item = None;
        let mut depth = 0;
        for part in path {
            if let Some(array) = item.and_then(toml::de::DeValue::as_array) {
                let Some(value) = part.parse::<usize>().ok().and_then(|index| array.get(index)) else {
                    break;
                };
                offset = Some(value.span().start);
                item = Some(value.get_ref());
            } else {
                let found = table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == part));
                let Some((key, value)) = found else { break };
                offset = Some(key.span().start);
                item = Some(value.get_ref());
            }
            table = item.and_then(toml::de::DeValue::as_table);
            depth += 1;
        }
        // A table that an override alone made, such as a misspelt `optin.lr`.
        let made = self.sets.iter().rev().find(|(_, set)| !path.is_empty() && set.starts_with(path));
        match (made, offset) {
            (Some((assignment, _)), _) if depth < path.len() => format!("--set {assignment}"),
            (_, Some(offset)) => place(self.name, self.text, offset),
            _ => self.name.to_owned(),
        }
    }
}

/// `{lr = 1}` of kind adamw becomes `{adamw = {lr = 1}}`, serde's external tagging.
fn tag(kind: String, table: Table) -> Value {
    let mut outer = Table::new();
    outer.insert(kind, Value::Table(table));
    Value::Table(outer)
}

/// A struct as a TOML table.
pub(super) fn to_table<T: Serialize>(value: &T) -> Result<Table, toml::ser::Error> {
    Table::try_from(value)
}

/// The inverse of [`Reader::tagged`].
pub(super) fn tagged_to_table<K: Serialize>(value: &K) -> Result<Table, toml::ser::Error> {
    let mut flat = Table::new();
    for (kind, inner) in to_table(value)? {
        flat.insert("kind".into(), Value::String(kind));
        if let Value::Table(inner) = inner {
            flat.extend(inner);
        }
    }
    Ok(flat)
}

/// The inverse of [`Reader::kinded`]. Plain values stand before nested tables, as TOML requires.
pub(super) fn kinded_to_table<T: Kinded>(value: &T) -> Result<Table, toml::ser::Error> {
    let mut flat = tagged_to_table(value.kind())?;
    flat.extend(to_table(value)?);
    Ok(flat)
}

/// `file:line:column`, counted from one, columns in characters.
fn place(name: &str, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{name}:{line}:{column}")
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

/// `; did you mean …? Valid are …`
fn suggest(found: &str, valid: &[&str]) -> String {
    let mut text = String::new();
    let near = valid.iter().map(|name| (strsim::jaro_winkler(found, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((score, name)) = near
        && score > 0.7
    {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "; did you mean `{name}`?");
    }
    let _ = write!(text, " (valid: {})", list(valid));
    text
}
