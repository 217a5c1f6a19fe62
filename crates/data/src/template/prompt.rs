//! Templates of prompts: by the engine of conversations and within its bounds, but with variables of the caller's own, each
//! of which has to be there.

use minijinja::{Environment, UndefinedBehavior, Value as Jinja};
use serde_json::{Map, Value};

use super::render::{environment, explain};
use crate::error::{Error, Result};
use crate::guard::quietly;

/// A template that parses.
#[derive(Debug)]
pub struct PromptTemplate {
    name: String,
    source: String,
}

impl PromptTemplate {
    /// Reads a template; `name` is for messages.
    ///
    /// # Errors
    /// Where it does not parse: the line, and what was expected.
    pub fn new(name: &str, source: &str) -> Result<Self> {
        let made = Self { name: name.to_owned(), source: source.to_owned() };
        made.with(|environment| environment.template_from_named_str(name, source).map(drop))?;
        Ok(made)
    }

    /// Writes a prompt.
    ///
    /// # Errors
    /// A variable that is not among these, whatever else a template can do wrong, and one that does not end.
    pub fn render(&self, variables: &Map<String, Value>) -> Result<String> {
        self.with(|environment| {
            let template = environment.template_from_named_str(&self.name, &self.source)?;
            template.render(Jinja::from(minijinja::value::Serde(variables)))
        })
    }

    /// The line of an error, as it stands; the engine does not say which variable it missed.
    fn line(&self, error: &minijinja::Error) -> String {
        let line = error.line().and_then(|number| self.source.lines().nth(number.checked_sub(1)?));
        line.map(|line| format!(", in `{}`", line.trim())).unwrap_or_default()
    }

    fn with<R>(&self, work: impl FnOnce(&Environment) -> std::result::Result<R, minijinja::Error>) -> Result<R> {
        let wrong = |message: String| Error::Prompt { name: self.name.clone(), message };
        quietly(|| {
            let mut environment = environment(None);
            // A misspelt variable is a mistake, and not an empty text.
            environment.set_undefined_behavior(UndefinedBehavior::Strict);
            work(&environment)
        })
        .map_err(|panic| wrong(format!("the template engine failed ({panic})")))?
        .map_err(|error| wrong(format!("{}{}", explain(&error), self.line(&error))))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use serde_json::json;

    fn variables(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn variables_are_written_and_a_misspelt_one_is_named() {
        let template = PromptTemplate::new("mine", "{% for x in list %}\n{{ x.a }} <&>\n{% endfor %}\n{{ end }}\n");
        let filled = template.unwrap().render(&variables(json!({ "list": [{ "a": 1 }, { "a": "b" }], "end": "E" })));
        assert_eq!(filled.unwrap(), "1 <&>\nb <&>\nE");
        let error = |source: &str| {
            let made = PromptTemplate::new("mine.jinja", source);
            made.and_then(|made| made.render(&variables(json!({ "question": "x" })))).unwrap_err().to_string()
        };
        let misspelt = error("ok\n{{ qestion }}");
        assert!(misspelt.contains("`mine.jinja`: line 2: undefined value, in `{{ qestion }}`"), "{misspelt}");
        let open = error("{% if question %}");
        assert!(open.contains("`mine.jinja`: line 1: syntax error"), "{open}");
        let endless = error("{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}");
        assert!(endless.contains("fuel"), "{endless}");
    }
}
