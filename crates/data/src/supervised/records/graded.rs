//! A text, a completion of a prompt or a conversation with a grade: one to five stars, how helpful from 0 to 4, bad or good.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::dialogue::recognise;
use super::preference::from_row;
use super::{Content, Dialogue, Fields, Origin, Record, Role, Roles, Set};
use crate::error::Result;
use crate::supervised::table::{Column, Row};

/// Something written, and how good it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Graded {
    /// What is graded; of a prompt with its completion both are read.
    pub dialogue: Dialogue,
    /// Its grade; a number as JSON writes it.
    pub grade: String,
}

impl Graded {
    /// A text with its grade.
    pub fn new(text: impl Into<String>, grade: impl ToString) -> Self {
        Self { dialogue: Dialogue::new(Content::Text(text.into())), grade: grade.to_string() }
    }
}

/// What the grade may be called; the first is also its name in `columns`.
const GRADES: [&str; 5] = ["label", "grade", "stars", "rating", "score"];

impl Record for Graded {
    const ROLES: &'static [Role] = &{
        let mut roles = [Role { name: GRADES[0], aliases: &[], needed: false }; Dialogue::ROLES.len() + 1];
        roles.split_at_mut(1).1.copy_from_slice(Dialogue::ROLES);
        roles
    };
    const SETS: &'static [Set] = &[];

    fn from_row(row: Row, columns: &BTreeMap<String, Column>, _: &mut Roles) -> Result<Self> {
        from_row::<Self, _>(row, columns, graded)
    }

    fn read(fields: &mut Fields<'_>) -> std::result::Result<Self, String> {
        graded(fields.fields, fields.origin.clone())
    }

    fn knows(name: &str) -> bool {
        GRADES.contains(&name) || Self::ROLES.iter().any(|role| role.name == name)
    }

    fn write(&self) -> Map<String, Value> {
        let mut object = self.dialogue.write();
        let number = serde_json::from_str(&self.grade).ok().filter(Value::is_number);
        object.insert(GRADES[0].to_owned(), number.unwrap_or_else(|| self.grade.clone().into()));
        object
    }
}

fn graded(fields: &mut Map<String, Value>, origin: Origin) -> std::result::Result<Graded, String> {
    let names: Vec<String> = fields.keys().take(20).map(|name| format!("`{name}`")).collect();
    let found = GRADES.iter().find_map(|name| fields.shift_remove(*name).filter(|value| !value.is_null()));
    let Some(found) = found else {
        let known = GRADES.map(|name| format!("`{name}`")).join(", ");
        return Err(format!("no grade: expected one of {known}; this row has {}", names.join(", ")));
    };
    let grade = match found {
        Value::Number(number) => number.as_f64().map(written),
        // A cell of a delimited file is a string.
        Value::String(text) => match text.trim().parse::<f64>().ok().filter(|number| number.is_finite()) {
            Some(number) => Some(written(number)),
            None => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        },
        other => return Err(format!("a grade should be a number or a word, found {other}")),
    };
    let grade = grade.ok_or("a grade is blank")?;
    Ok(Graded { dialogue: recognise(fields, origin)?, grade })
}

/// 4 and 4.0 are one grade.
fn written(number: f64) -> String {
    format!("{number}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(row: Value) -> std::result::Result<Graded, String> {
        graded(&mut serde_json::from_value(row).unwrap(), Origin::default())
    }

    #[test]
    fn grades_go_by_several_names_and_spellings() {
        for row in [
            json!({"text": "a", "label": 4}),
            json!({"text": "a", "stars": 4.0}),
            json!({"text": "a", "rating": " 4 "}),
            json!({"text": "a", "score": "4.0", "id": 7}),
        ] {
            assert_eq!(read(row).unwrap(), Graded::new("a", 4));
        }
        let graded = read(json!({"prompt": "a", "response": "b", "label": "good"})).unwrap();
        assert_eq!(graded.grade, "good");
        assert_eq!(read(Value::Object(graded.write())).unwrap(), graded);
        assert_eq!(Value::Object(Graded::new("a", 2.5).write()), json!({"text": "a", "label": 2.5}));
    }

    #[test]
    fn what_is_no_grade_is_told() {
        for (row, expected) in [
            (json!({"text": "a"}), "this row has `text`"),
            (json!({"text": "a", "label": null}), "no grade"),
            (json!({"text": "a", "label": [1]}), "a number or a word"),
            (json!({"text": "a", "label": " "}), "blank"),
            (json!({"label": 1}), "not a known kind of example"),
        ] {
            let error = read(row.clone()).unwrap_err();
            assert!(error.contains(expected), "{row}: {error}");
        }
    }
}
