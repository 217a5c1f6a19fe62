//! A lexer of Rust, exact about where comments, strings and lifetimes end and about nothing more.
//!
//! The rules of `tidy` ask which names stand in the code; a comment or a string that mentions one must
//! not count. They need no syntax tree, so a parser would only make `xtask` slow to build.

/// What a token is. White space is not kept; comments come in a list of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name or keyword; raw identifiers keep their `r#`.
    Ident,
    /// A number with its suffix.
    Number,
    /// One character of punctuation: `::` is two tokens.
    Punct,
    /// A string literal of any prefix, quotes included.
    Str,
    /// A character literal.
    Char,
    /// A lifetime or a loop label.
    Lifetime,
    /// A comment for the reader of the code: `//` or `/* */`.
    Comment,
    /// A comment for the reader of the documentation: `///`, `//!`, `/**`, `/*!`.
    Doc,
}

/// A token as a range of bytes in its file.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// The line it starts on, from 1.
    pub line: usize,
}

/// Splits `text` into its code tokens and its comments. Never fails: what is left open ends with the file.
pub fn lex(text: &str) -> (Vec<Token>, Vec<Token>) {
    let (mut code, mut comments) = (Vec::new(), Vec::new());
    let (mut at, mut line) = (0, 1);
    while let Some(&byte) = text.as_bytes().get(at) {
        if byte.is_ascii_whitespace() {
            line += usize::from(byte == b'\n');
            at += 1;
            continue;
        }
        let (kind, len) = token(&text[at..]);
        let token = Token { kind, start: at, end: at + len, line };
        match kind {
            Kind::Comment | Kind::Doc => comments.push(token),
            _ => code.push(token),
        }
        line += text[at..at + len].matches('\n').count();
        at += len;
    }
    (code, comments)
}

/// The kind and the length in bytes of the token `rest` starts with; `rest` is not empty.
fn token(rest: &str) -> (Kind, usize) {
    let bytes = rest.as_bytes();
    match bytes[0] {
        b'/' if rest.starts_with("//") => {
            let len = rest.find('\n').unwrap_or(rest.len());
            let doc = rest.starts_with("//!") || (rest.starts_with("///") && !rest.starts_with("////"));
            (if doc { Kind::Doc } else { Kind::Comment }, len)
        }
        b'/' if rest.starts_with("/*") => {
            let doc = rest.starts_with("/*!") || (rest.starts_with("/**") && !rest.starts_with("/**/"));
            (if doc { Kind::Doc } else { Kind::Comment }, block_comment(rest))
        }
        b'"' => (Kind::Str, quoted(rest, '"')),
        b'\'' => {
            let mut following = rest.chars().skip(1);
            match (following.next(), following.next()) {
                (Some('\\'), _) | (Some(_), Some('\'')) => (Kind::Char, quoted(rest, '\'')),
                _ => (Kind::Lifetime, 1 + name(&rest[1..])),
            }
        }
        b'0'..=b'9' => (Kind::Number, number(bytes)),
        byte if is_name(byte) => {
            let len = name(rest);
            prefixed(rest, len).unwrap_or((Kind::Ident, len))
        }
        _ => (Kind::Punct, 1),
    }
}

/// What follows a string prefix (`b"`, `r#"`, `br"` …) or opens a raw identifier (`r#type`).
fn prefixed(rest: &str, len: usize) -> Option<(Kind, usize)> {
    let prefix = &rest[..len];
    if !matches!(prefix, "r" | "b" | "c" | "br" | "cr") {
        return None;
    }
    let after = &rest[len..];
    if !prefix.ends_with('r') {
        return after.starts_with('"').then(|| (Kind::Str, len + quoted(after, '"')));
    }
    let hashes = after.bytes().take_while(|&byte| byte == b'#').count();
    if after[hashes..].starts_with('"') {
        let close = format!("\"{}", "#".repeat(hashes));
        let body = &after[hashes + 1..];
        let end = body.find(&close).map_or(body.len(), |found| found + close.len());
        return Some((Kind::Str, len + hashes + 1 + end));
    }
    (prefix == "r" && hashes == 1).then(|| (Kind::Ident, len + 1 + name(&after[1..])))
}

fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    let bytes = rest.as_bytes();
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a literal that opens and closes with `quote`, in which a backslash escapes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn number(bytes: &[u8]) -> usize {
    let mut at = 0;
    let hex = bytes.starts_with(b"0x");
    while let Some(&byte) = bytes.get(at) {
        let next_is_digit = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        let exponent = at > 0 && !hex && matches!(bytes[at - 1], b'e' | b'E');
        match byte {
            byte if is_name(byte) => at += 1,
            b'.' if next_is_digit => at += 1,
            b'+' | b'-' if exponent && next_is_digit => at += 1,
            _ => break,
        }
    }
    at
}

fn name(rest: &str) -> usize {
    rest.bytes().take_while(|&byte| is_name(byte)).count()
}

/// Every byte above ASCII counts as part of a name, which keeps cuts on character boundaries.
fn is_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        lex(text).0.iter().map(|token| &text[token.start..token.end]).collect()
    }

    #[test]
    fn comments_are_not_code() {
        let text = "a // b\n/* c /* d */ e */ f /// g";
        assert_eq!(words(text), ["a", "f"]);
        let comments = lex(text).1;
        assert_eq!(comments.iter().map(|c| c.kind).collect::<Vec<_>>(), [Kind::Comment, Kind::Comment, Kind::Doc]);
    }

    #[test]
    fn strings_are_one_token_whatever_they_hold() {
        assert_eq!(words(r#"x("a // \" b", 'c')"#), ["x", "(", r#""a // \" b""#, ",", "'c'", ")"]);
        assert_eq!(words("r#\"a \" b\"# br\"\\\" c"), ["r#\"a \" b\"#", "br\"\\\"", "c"]);
        assert_eq!(words("b\"x\\\"y\" z"), ["b\"x\\\"y\"", "z"]);
    }

    #[test]
    fn a_lifetime_is_not_an_open_character() {
        assert_eq!(
            words("&'a str, '\\'', 'é', 'x: loop"),
            ["&", "'a", "str", ",", "'\\''", ",", "'é'", ",", "'x", ":", "loop"]
        );
    }

    #[test]
    fn numbers_end_where_ranges_and_methods_start() {
        assert_eq!(
            words("0..n 1.5e-3f32 2.max(3) 0xe+1"),
            ["0", ".", ".", "n", "1.5e-3f32", "2", ".", "max", "(", "3", ")", "0xe", "+", "1"]
        );
    }

    #[test]
    fn raw_identifiers_are_names() {
        assert_eq!(words("r#type r"), ["r#type", "r"]);
    }

    #[test]
    fn lines_count_through_comments_and_strings() {
        let lines: Vec<usize> = lex("a\n/*\n*/ b \"\n\n\" c").0.iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 3, 5]);
    }

    #[test]
    fn what_is_left_open_ends_with_the_file() {
        for text in ["\"abc", "/* abc", "r#\"abc", "'\\", "'", "b\"", "é'"] {
            let (code, comments) = lex(text);
            assert_eq!(code.iter().chain(&comments).map(|token| token.end).max(), Some(text.len()), "{text}");
        }
    }
}
