//! What a row means: which columns play which role, found by their names, and the typed records made of them.

mod choice;
pub(super) mod dialogue;
mod graded;
mod labelled;
mod parallel;
mod preference;
mod prompt;
mod question;
mod tagged;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use choice::Choice;
pub use dialogue::{Content, Dialogue};
pub use graded::Graded;
pub use labelled::Labelled;
pub use parallel::Parallel;
pub use preference::{Judgement, Preference};
pub use prompt::{Asked, Prompt};
pub use question::{Answer, Question};
pub use tagged::Tagged;

use super::table::{Column, Row};
use crate::dataset::Position;
use crate::error::{Error, Result};
use crate::tokenizer::kind;

/// A part that a column can play.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Its name in `columns`.
    pub name: &'static str,
    /// Column names, in small letters, that tell it; the first is as good as being told, of the rest there may be one.
    pub aliases: &'static [&'static str],
    /// A row without it is no record.
    pub needed: bool,
}

/// Roles and columns that, found together, belong together.
pub type Set = &'static [(&'static str, &'static str)];

/// Where a record comes from, for messages; it plays no part in comparing records.
#[derive(Debug, Clone, Default)]
pub struct Origin(pub Option<Position>);

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl Origin {
    /// An error about the record that comes from here.
    pub(super) fn error(&self, message: String) -> Error {
        match &self.0 {
            Some(position) => Error::Record { position: position.clone(), message },
            None => Error::Settings(message),
        }
    }
}

/// A row with its parts known.
pub trait Record: Sized + Send + Sync {
    /// The parts of a row.
    const ROLES: &'static [Role];
    /// Columns known to come together, tried before single names.
    const SETS: &'static [Set];

    /// The record made of a row's fields.
    ///
    /// # Errors
    /// Which field is wrong, what was expected and what was found.
    fn read(fields: &mut Fields<'_>) -> std::result::Result<Self, String>;

    /// The roles of columns without names, by their number, or `None` when it cannot be told. `first` is the first row.
    fn numbered(first: &[&str]) -> Option<Vec<&'static str>> {
        _ = first;
        None
    }

    /// The record as an object whose names are found again without being told.
    fn write(&self) -> Map<String, Value>;

    /// True for names, in small letters, that a header of such records may hold.
    fn knows(name: &str) -> bool {
        Self::ROLES.iter().any(|role| role.aliases.contains(&name))
            || Self::SETS.iter().any(|set| set.iter().any(|(_, column)| *column == name))
    }

    /// The records of a row: one, unless a kind has rows that say several things.
    ///
    /// # Errors
    /// As [`Record::from_row`].
    fn all_of_row(row: Row, columns: &BTreeMap<String, Column>, roles: &mut Roles) -> Result<Vec<Self>> {
        Ok(vec![Self::from_row(row, columns, roles)?])
    }

    /// A row as a record; `columns` are the user's, `roles` keeps what was found in the file's first row.
    ///
    /// # Errors
    /// The row's place, what was expected and what was found.
    fn from_row(mut row: Row, columns: &BTreeMap<String, Column>, roles: &mut Roles) -> Result<Self> {
        let position = row.position.clone();
        if roles.file.as_ref() != Some(&position.file) {
            *roles = Roles { file: Some(position.file.clone()), found: bind::<Self>(&row, columns)? };
        }
        let numbered = row.numbered;
        let read = |row: &mut Row| {
            let origin = Origin(Some(row.position.clone()));
            Self::read(&mut Fields { fields: &mut row.fields, found: &roles.found, numbered, origin })
        };
        read(&mut row).map_err(|message| Error::Record { position, message })
    }
}

/// Which columns play which role in the file being read.
#[derive(Debug, Default)]
pub struct Roles {
    file: Option<Arc<Path>>,
    found: Vec<(&'static str, Vec<String>)>,
}

/// Decides on the roles of a file's columns.
fn bind<R: Record>(row: &Row, columns: &BTreeMap<String, Column>) -> Result<Vec<(&'static str, Vec<String>)>> {
    let whole = |message: String| Error::format(&row.position.file, message);
    let mut found = Vec::new();
    for (name, column) in columns {
        let Some(role) = R::ROLES.iter().find(|role| role.name == name) else {
            let roles: Vec<_> = R::ROLES.iter().map(|role| role.name).collect();
            return Err(Error::Settings(format!("`columns` names `{name}`; expected one of {}", roles.join(", "))));
        };
        let names = match column {
            Column::Number(number) if !row.numbered => match row.fields.keys().nth(*number) {
                Some(name) => vec![name.clone()],
                None => {
                    return Err(whole(format!("no column {number} for {}; this file has {}", role.name, listed(row))));
                }
            },
            Column::Number(number) => vec![number.to_string()],
            Column::Name(name) => vec![name.clone()],
            Column::Several(names) => names.clone(),
        };
        if let Some(missing) = names.iter().find(|name| role.needed && lookup(&row.fields, name).is_none()) {
            return Err(whole(format!("no column `{missing}` for {}; this file has {}", role.name, listed(row))));
        }
        found.push((role.name, names));
    }
    if row.numbered {
        let first: Vec<&str> = row.fields.values().map(|value| value.as_str().unwrap_or_default()).collect();
        let needed = R::ROLES.iter().any(|role| role.needed && !found.iter().any(|(name, _)| *name == role.name));
        match R::numbered(&first) {
            Some(roles) if found.is_empty() => {
                found.extend(roles.into_iter().enumerate().map(|(number, role)| (role, vec![number.to_string()])));
                found.retain(|(role, _)| !role.is_empty());
            }
            _ if needed => {
                return Err(whole(format!(
                    "no header, and {} columns whose roles do not show; give them by number, such as `columns = {{ {} = \
                     0 }}`; the first row is {}",
                    first.len(),
                    R::ROLES.first().map_or("text", |role| role.name),
                    listed(row)
                )));
            }
            _ => {}
        }
        return Ok(found);
    }
    let names: Vec<(&String, String)> = row.fields.keys().map(|name| (name, name.to_lowercase())).collect();
    let actual = |alias: &str| match names.iter().find(|(_, lower)| lower == alias) {
        Some((name, _)) => Some((*name).clone()),
        None => (alias.contains('.') && lookup(&row.fields, alias).is_some()).then(|| alias.to_owned()),
    };
    let free = |found: &[(&str, Vec<String>)], role: &str| !found.iter().any(|(name, _)| *name == role);
    let whole_set = |set: &&Set| set.iter().all(|(role, column)| free(&found, role) && actual(column).is_some());
    if let Some(set) = R::SETS.iter().find(whole_set) {
        for (role, column) in set.iter() {
            let column = actual(column).unwrap_or_default();
            match found.iter_mut().find(|(name, _)| name == role) {
                Some((_, columns)) => columns.push(column),
                None => found.push((role, vec![column])),
            }
        }
    }
    for role in R::ROLES {
        if !free(&found, role.name) {
            continue;
        }
        let mut matches: Vec<String> = role.aliases.iter().filter_map(|alias| actual(alias)).collect();
        if matches.first().is_some_and(|first| Some(&&*first.to_lowercase()) == role.aliases.first()) {
            matches.truncate(1);
        }
        match matches.len() {
            0 if role.needed => {
                return Err(whole(format!(
                    "no column for {}: expected {}; this file has {}; set `columns.{}`",
                    role.name,
                    role.aliases.iter().take(4).map(|alias| format!("`{alias}`")).collect::<Vec<_>>().join(", "),
                    listed(row),
                    role.name
                )));
            }
            0 => {}
            1 => found.push((role.name, matches)),
            _ => {
                let names: Vec<_> = matches.iter().map(|name| format!("`{name}`")).collect();
                return Err(whole(format!(
                    "each of {} could be the {}; set `columns.{}`",
                    names.join(", "),
                    role.name,
                    role.name
                )));
            }
        }
    }
    Ok(found)
}

/// The field of that name, or `b` in the object `a` for `a.b`.
fn lookup<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = fields.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    lookup(fields.get(outer)?.as_object()?, inner)
}

fn lookup_mut<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Value> {
    if fields.contains_key(name) {
        return fields.get_mut(name);
    }
    let (outer, inner) = name.split_once('.')?;
    lookup_mut(fields.get_mut(outer)?.as_object_mut()?, inner)
}

/// The columns of a row, for messages; those without names with what is in them.
fn listed(row: &Row) -> String {
    let name = |(name, value): (&String, &Value)| match value {
        Value::String(text) if row.numbered => format!("{name}: {:?}", text.chars().take(30).collect::<String>()),
        _ => format!("`{name}`"),
    };
    row.fields.iter().take(20).map(name).collect::<Vec<_>>().join(", ")
}

/// The fields of one row, by role.
#[derive(Debug)]
pub struct Fields<'a> {
    fields: &'a mut Map<String, Value>,
    found: &'a [(&'static str, Vec<String>)],
    numbered: bool,
    origin: Origin,
}

impl Fields<'_> {
    fn columns(&self, role: &str) -> &[String] {
        self.found.iter().find(|(name, _)| *name == role).map_or(&[], |(_, columns)| columns)
    }

    /// How a message calls the field that plays `role`.
    fn called(&self, role: &str) -> String {
        match self.columns(role) {
            [] => format!("`{role}`"),
            [one] if self.numbered => format!("column {one} ({role})"),
            [one] if one == role => format!("`{role}`"),
            [one] => format!("`{one}` ({role})"),
            more => format!("`{}` … ({role})", more[0]),
        }
    }

    /// The value that plays `role`; several columns come as an object. Null counts as not there.
    pub fn take(&mut self, role: &str) -> Option<Value> {
        let columns = self.found.iter().find(|(name, _)| *name == role).map_or(&[][..], |(_, columns)| columns);
        match columns {
            [] => None,
            [one] => lookup_mut(self.fields, one).map(Value::take).filter(|value| !value.is_null()),
            more => {
                let mut object = Map::new();
                for name in more {
                    let value = lookup_mut(self.fields, name).map_or(Value::Null, Value::take);
                    object.insert(name.clone(), value);
                }
                Some(Value::Object(object))
            }
        }
    }

    /// The text that plays `role`, if the row has one.
    ///
    /// # Errors
    /// When it is no string.
    pub fn text(&mut self, role: &str) -> std::result::Result<Option<String>, String> {
        match self.take(role) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{} should be a string, found {}", self.called(role), kind(&other))),
        }
    }

    /// The text that plays `role`, which the row must have and which must not be blank.
    ///
    /// # Errors
    /// When it is missing, blank, or no string.
    pub fn needed(&mut self, role: &str) -> std::result::Result<String, String> {
        match self.text(role)? {
            Some(text) if text.trim().is_empty() => Err(format!("{} is blank", self.called(role))),
            Some(text) => Ok(text),
            None => {
                let names: Vec<_> = self.fields.keys().take(20).map(|name| format!("`{name}`")).collect();
                Err(format!("{} is missing or null; this row has {}", self.called(role), names.join(", ")))
            }
        }
    }

    /// The words that play `role`: a list of strings (or numbers, which become strings), or one string divided at spaces.
    ///
    /// # Errors
    /// When it is neither.
    pub fn words(&mut self, role: &str) -> std::result::Result<Option<Vec<String>>, String> {
        let called = self.called(role);
        match self.take(role) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.split_whitespace().map(str::to_owned).collect())),
            Some(Value::Array(values)) => {
                let word = |(index, value): (usize, Value)| match value {
                    Value::String(text) => Ok(text),
                    Value::Number(number) => Ok(number.to_string()),
                    other => Err(format!("{called}: element {index} should be a string, found {}", kind(&other))),
                };
                values.into_iter().enumerate().map(word).collect::<std::result::Result<_, _>>().map(Some)
            }
            Some(other) => Err(format!("{called} should be a list of strings, found {}", kind(&other))),
        }
    }
}

/// Writes records as JSON lines that [`Table`](super::table::Table) reads back without being told anything.
///
/// # Errors
/// When the file cannot be written.
pub fn write_jsonl<R: Record>(path: impl AsRef<Path>, records: impl IntoIterator<Item = R>) -> Result<()> {
    let path = path.as_ref();
    let file = std::fs::File::create(path).map_err(Error::io(path))?;
    let mut out = std::io::BufWriter::new(file);
    let write = || {
        for record in records {
            serde_json::to_writer(&mut out, &record.write())?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().map_err(Error::io(path))
}

/// An object of these fields.
fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
