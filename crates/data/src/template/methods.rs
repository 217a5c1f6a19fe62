//! Python methods that templates call and the engine's own set lacks.

use minijinja::value::from_args;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// The engine's Python methods, then these.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match unknown_method_callback(state, value, method, args) {
        Err(error) if error.kind() == ErrorKind::UnknownMethod => match value.as_str() {
            Some(text) => string(text, method, args),
            None => Err(error),
        },
        outcome => outcome,
    }
}

fn string(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let places = |at: Option<usize>, part: &str| {
        at.map(|at| Value::from(text[..at].chars().count()))
            .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("`{part}` does not occur in the text")))
    };
    match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "index" => {
            let (part,): (&str,) = from_args(args)?;
            places(text.find(part), part)
        }
        "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            places(text.rfind(part), part)
        }
        "partition" => {
            let (by,): (&str,) = from_args(args)?;
            let (before, found, after) =
                text.split_once(by).map_or((text, "", ""), |(before, after)| (before, by, after));
            Ok(list([before, found, after]))
        }
        "rpartition" => {
            let (by,): (&str,) = from_args(args)?;
            let (before, found, after) =
                text.rsplit_once(by).map_or(("", "", text), |(before, after)| (before, by, after));
            Ok(list([before, found, after]))
        }
        "rsplit" => {
            let (by, most): (&str, Option<usize>) = from_args(args)?;
            let mut parts: Vec<&str> = match most {
                Some(most) => text.rsplitn(most.saturating_add(1), by).collect(),
                None => text.rsplit(by).collect(),
            };
            parts.reverse();
            Ok(list(parts))
        }
        "casefold" => {
            let () = from_args(args)?;
            Ok(text.to_lowercase().into())
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn list<'a>(parts: impl IntoIterator<Item = &'a str>) -> Value {
    parts.into_iter().map(Value::from).collect()
}
