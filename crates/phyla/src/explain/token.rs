//! What tokens say, one by one: for programs as it is, for people with everything visible that has no shape of its own.

use phyla_data::tokenizer::Tokenizer;

use super::Token;

/// The tokens of a model.
pub(super) struct Tokens<'a> {
    tokenizer: Option<&'a Tokenizer>,
    /// What each adds to a text; `None` where that depends on its neighbours.
    bytes: Option<Vec<Vec<u8>>>,
}

impl<'a> Tokens<'a> {
    pub fn new(tokenizer: Option<&'a Tokenizer>) -> Self {
        Self { tokenizer, bytes: tokenizer.and_then(|tokenizer| tokenizer.token_bytes().ok()) }
    }

    pub fn token(&self, id: u32) -> Token {
        let bytes = self.bytes.as_ref().and_then(|all| all.get(id as usize)).filter(|bytes| !bytes.is_empty());
        let text = match (bytes, self.tokenizer) {
            (Some(bytes), _) => String::from_utf8_lossy(bytes).into_owned(),
            (None, Some(tokenizer)) => tokenizer.id_to_token(id).unwrap_or_default(),
            (None, None) => String::new(),
        };
        Token { id, text }
    }
}

/// A token's text as one sees it: spaces, ends of lines and characters without a shape or with power over others
/// (controls, changes of direction) as signs; an id where there is no text.
pub fn visible(token: &Token) -> String {
    if token.text.is_empty() {
        return format!("#{}", token.id);
    }
    token.text.chars().map(|c| if c == ' ' { "␣".to_owned() } else { shape(c) }).collect()
}

/// A character as one sees it, if it has a shape.
pub(super) fn shape(character: char) -> String {
    match character {
        '\n' => "⏎".to_owned(),
        '\t' => "⇥".to_owned(),
        c @ '\0'..'\u{20}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(c).to_string(),
        c if c.is_control() || formats(c) => format!("⟨U+{:04X}⟩", u32::from(c)),
        c => c.to_string(),
    }
}

/// Characters that change how others look, end lines, or are not seen: of Unicode's classes Cf, Zl and Zp those that
/// matter, and spaces other than the common one.
fn formats(c: char) -> bool {
    matches!(c,
        '\u{a0}' | '\u{ad}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{180e}' | '\u{2000}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffc}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_shape_or_too_much_power_is_a_sign() {
        let show = |text: &str| visible(&Token { id: 7, text: text.into() });
        assert_eq!(show(" a\n\tb\0\u{1b}"), "␣a⏎⇥b␀␛");
        assert_eq!(show("\u{202e}\u{2028}\u{feff}\u{7f}é漢"), "⟨U+202E⟩⟨U+2028⟩⟨U+FEFF⟩⟨U+007F⟩é漢");
        assert_eq!((show(""), show("</script>")), ("#7".into(), "</script>".into()));
    }
}
