//! Python methods that templates call and the engine's own set lacks, and filters that differ from Python's.

use minijinja::value::{Kwargs, from_args};
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

/// The filter `indent(width=4, first=false, blank=false)`: unlike the engine's own, it keeps a line end at the end.
pub(super) fn indent(
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    /// Far beyond any text; more is an attempt to fill the memory.
    const WIDEST: usize = 1024;
    let width = width.map_or_else(|| options.get::<Option<Value>>("width"), |width| Ok(Some(width)))?;
    let first = first.map_or_else(|| options.get::<Option<bool>>("first"), |first| Ok(Some(first)))?.unwrap_or(false);
    let blank = blank.map_or_else(|| options.get::<Option<bool>>("blank"), |blank| Ok(Some(blank)))?.unwrap_or(false);
    options.assert_all_used()?;
    let space = match &width {
        None => " ".repeat(4),
        Some(width) => match (width.as_str(), width.as_usize()) {
            (Some(space), _) if space.len() <= WIDEST => space.to_owned(),
            (None, Some(count)) if count <= WIDEST => " ".repeat(count),
            _ => {
                let message = format!("indent: the width should be at most {WIDEST}, found {width}");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        },
    };
    let mut out = String::with_capacity(text.len());
    for (at, line) in text.split('\n').enumerate() {
        out.push_str(if at == 0 { "" } else { "\n" });
        if if at == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&space);
        }
        out.push_str(line);
    }
    Ok(out)
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use minijinja::Environment;

    #[test]
    fn text_is_indented_as_python_indents_it() {
        let mut environment = Environment::new();
        environment.add_filter("indent", super::indent);
        // Right-hand sides from Jinja 3.1.
        for (call, python) in [
            (r"'{\n'|indent(4, first=true)", "    {\n"),
            (r"'a\n\nb'|indent(2)", "a\n\n  b"),
            (r"'a\n\nb'|indent(width=2, blank=true)", "a\n  \n  b"),
            (r"''|indent(3, true)", "   "),
            (r"'a\nb\n'|indent('> ', true, true)", "> a\n> b\n> "),
            (r"'\n'|indent(2)", "\n"),
        ] {
            assert_eq!(
                environment.render_str(&format!("[{{{{ {call} }}}}]"), ()).unwrap(),
                format!("[{python}]"),
                "{call}"
            );
        }
        assert!(environment.render_str("{{ 'x'|indent(99999999) }}", ()).is_err());
    }
}
