//! Overrides from the command line: `--set optim.lr=1e-4`, applied to the parsed TOML before the
//! tables are read, so that they pass through the same checks as the file.

use super::RecipeError;
use toml::Value;

/// Deepest key accepted; recipes have three levels and inline configs few more. Dropping a table of
/// unbounded depth would exhaust the stack.
const MAX_DEPTH: usize = 16;

/// Applies one `key.path=value` to the table and returns the path it wrote.
///
/// The value is TOML (`1e-4`, `true`, `[0.9, 0.95]`, `"text"`); anything that is not, and does not
/// begin like a quoted or bracketed value, is taken as a bare string, so that
/// `--set data.train=corpus.txt` needs no quotes inside quotes.
pub(super) fn apply(table: &mut toml::Table, assignment: &str) -> Result<Vec<String>, RecipeError> {
    let fail = |message: String| RecipeError::Set { assignment: assignment.into(), message };
    let Some((key, value)) = assignment.split_once('=') else {
        return Err(fail("expected key=value, for example optim.lr=1e-4".into()));
    };
    let path: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
    if path.iter().any(String::is_empty) {
        return Err(fail(format!("the key `{key}` has an empty part")));
    }
    if path.len() > MAX_DEPTH {
        return Err(fail(format!("the key has {} parts; at most {MAX_DEPTH} are accepted", path.len())));
    }
    let value = parse_value(value.trim()).map_err(&fail)?;

    let (last, parents) = path.split_last().ok_or_else(|| fail("the key is empty".into()))?;
    let mut place: &mut toml::Table = table;
    let mut parents = parents.iter().peekable();
    while let Some(part) = parents.next() {
        let entry = place.entry(part.clone()).or_insert_with(|| Value::Table(toml::Table::new()));
        // `optim.groups.0.lr_scale`: a number after an array picks one of its tables.
        let entry = match entry {
            Value::Array(items) => {
                let index = parents.next().cloned().unwrap_or_default();
                let count = items.len();
                index.parse::<usize>().ok().and_then(|index| items.get_mut(index)).ok_or_else(|| {
                    fail(format!(
                        "`{part}` is a list of {count}; expected an index below {count} after it, found `{index}`"
                    ))
                })?
            }
            other => other,
        };
        let kind = entry.type_str();
        place = match entry {
            Value::Table(inner) => inner,
            _ => {
                return Err(fail(format!("`{part}` is a {kind} in the recipe, not a table")));
            }
        };
    }
    place.insert(last.clone(), value);
    Ok(path)
}

fn parse_value(text: &str) -> Result<Value, String> {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}\n"));
    match parsed {
        // A line break inside the text could smuggle in further keys: only one may result.
        Ok(mut table) if table.len() == 1 => Ok(table.remove("value").unwrap_or(Value::String(text.into()))),
        Err(error) if text.starts_with(['[', '{', '"', '\'']) => Err(format!("not a TOML value: {}", error.message())),
        _ => Ok(Value::String(text.into())),
    }
}
