//! Regular expressions of users and of schemas: parsed here as well, since errors should say where.

/// Whether the syntax is that of the `regex` crate.
///
/// # Errors
/// What is wrong and where, counted in characters from 1.
pub(super) fn parse(text: &str) -> Result<(), String> {
    use regex_syntax::Error;
    let (kind, at) = match regex_syntax::parse(text) {
        Ok(_) => return Ok(()),
        Err(Error::Parse(error)) => (error.kind().to_string(), error.span().start.offset),
        Err(Error::Translate(error)) => (error.kind().to_string(), error.span().start.offset),
        Err(error) => return Err(error.to_string()),
    };
    let character = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
    Err(format!("the expression {text:?} is wrong at character {character}: {kind}"))
}

/// An expression for these texts and no others.
pub(super) fn one_of(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| regex_syntax::escape(text)).collect();
    format!("(?:{})", texts.join("|"))
}
