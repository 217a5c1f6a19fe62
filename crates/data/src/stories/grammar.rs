//! The template language of the stories: `{key}` is a word of the scene, `[a|b|c]` a fair choice.
//!
//! Both nest. A key written with a capital (`{He}`) gives its word with one. The article is always
//! written `a`: [`articles`] turns it into `an` once the next word is known.

use super::dice::Dice;

/// The words fixed so far (names, pronouns, the wanted thing) and the paragraphs told with them.
pub(super) struct Scene<'a> {
    pub(super) dice: &'a mut Dice,
    words: Vec<(&'static str, String)>,
    paragraphs: Vec<String>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(dice: &'a mut Dice) -> Self {
        Self { dice, words: Vec::new(), paragraphs: Vec::new() }
    }

    /// Fixes a word for the rest of the story; the template's own choices are made now, once, so
    /// that the red ball of the first paragraph is still red in the last.
    pub(super) fn set(&mut self, key: &'static str, template: &str) {
        let word = self.expand(template);
        self.words.retain(|(known, _)| *known != key);
        self.words.push((key, word));
    }

    /// The word under `key`, empty when none was set.
    pub(super) fn word(&self, key: &str) -> &str {
        self.words.iter().find(|(known, _)| *known == key).map_or("", |(_, word)| word)
    }

    /// Tells one paragraph.
    pub(super) fn tell(&mut self, template: &str) {
        let paragraph = self.expand(template);
        self.paragraphs.push(paragraph);
    }

    /// The story told so far: paragraphs apart by an empty line.
    pub(super) fn text(&self) -> String {
        articles(&self.paragraphs.join("\n\n"))
    }

    /// Expands choices and keys. An unknown key stays visible with its braces, where the
    /// well-formedness check finds it, rather than vanish into a sentence with a hole.
    pub(super) fn expand(&mut self, template: &str) -> String {
        let mut out = String::with_capacity(template.len() * 2);
        let mut rest = template;
        while let Some(at) = rest.find(['[', '{']) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(inner) = rest.strip_prefix('{') {
                let end = inner.find('}').unwrap_or(inner.len());
                out.push_str(&self.key(&inner[..end]));
                rest = inner.get(end + 1..).unwrap_or("");
            } else {
                let (options, after) = options(&rest[1..]);
                let chosen = options[self.dice.below(options.len())];
                out.push_str(&self.expand(chosen));
                rest = after;
            }
        }
        out.push_str(rest);
        out
    }

    fn key(&self, key: &str) -> String {
        if let Some((_, word)) = self.words.iter().find(|(known, _)| *known == key) {
            return word.clone();
        }
        let lower = key.to_lowercase();
        match self.words.iter().find(|(known, _)| *known == lower) {
            Some((_, word)) => capital(word),
            None => format!("{{{key}}}"),
        }
    }
}

/// Splits `a|[b|c]|d] rest` into the options of the outermost bracket and what follows it.
fn options(body: &str) -> (Vec<&str>, &str) {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in body.char_indices() {
        match c {
            '[' => depth += 1,
            ']' if depth == 0 => {
                found.push(&body[start..at]);
                return (found, &body[at + 1..]);
            }
            ']' => depth -= 1,
            '|' if depth == 0 => {
                found.push(&body[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&body[start..]);
    (found, "")
}

/// `word` with its first letter as a capital.
pub(super) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Writes `an` for `a` before a vowel. By letter, not by sound: the vocabulary has no "hour" and no
/// "unicorn", and the tests keep it so.
fn articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        out.push_str(word);
        let bare = word.rsplit(['"', '\n']).next().unwrap_or(word);
        if let Some(next) = words.peek() {
            if matches!(bare, "a" | "A") && next.starts_with(super::check::VOWELS) {
                out.push('n');
            }
            out.push(' ');
        }
    }
    out
}
