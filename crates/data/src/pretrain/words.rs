//! Which tokens begin a word, told from their spelling alone, since token files keep nothing but ids.

use crate::tokenizer::{Spelling, Tokenizer};

/// For every id, what its spelling says about word borders.
#[derive(Debug, Clone)]
pub struct WordTable {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    begins: Begins,
    first: Class,
    /// `None` of bytes inside a character, which leave it as it was.
    last: Option<Class>,
}

/// Where a walk over tokens stands: what the last character was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place(Option<Class>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    Always,
    Never,
    /// When the character before is of another class.
    Depends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    /// Chinese characters and kana, written without spaces: each is a word, as BERT has it.
    Ideograph,
    Space,
    Other,
}

impl WordTable {
    /// Reads the whole vocabulary once.
    ///
    /// In WordPiece a word begins with every token without `##`. In byte-level and SentencePiece vocabularies it begins
    /// with a space (`Ġ`, `▁`), and where letters, digits and other signs meet, which is about where their
    /// pre-tokenizers cut: the full stop after a word is not part of it.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let none = Token { begins: Begins::Always, first: Class::Other, last: Some(Class::Other) };
        let mut tokens = vec![none; tokenizer.vocab_size()];
        let spelling = tokenizer.spelling();
        for (piece, id) in tokenizer.vocabulary() {
            if tokenizer.is_special(id) {
                continue;
            }
            if let Some(token) = tokens.get_mut(id as usize) {
                *token = match &spelling {
                    Spelling::Inside(mark) => {
                        let inside = piece.len() > mark.len() && piece.starts_with(mark.as_str());
                        Token { begins: if inside { Begins::Never } else { Begins::Always }, ..none }
                    }
                    Spelling::Bytes(bytes) => {
                        Token::of_bytes(&piece.chars().filter_map(|c| bytes.get(&c).copied()).collect::<Vec<_>>())
                    }
                    Spelling::Plain => Token::of_bytes(piece.replace('▁', " ").as_bytes()),
                };
            }
        }
        Self { tokens }
    }

    /// True when `id` begins a word at this place of a text; the place moves on. A text, and what follows a special
    /// token, begins at `Place::default()`.
    pub fn begins(&self, place: &mut Place, id: u32) -> bool {
        let before = place.0;
        let Some(token) = self.tokens.get(id as usize) else { return true };
        place.0 = token.last.or(before);
        match token.begins {
            Begins::Always => true,
            Begins::Never => before.is_none(),
            Begins::Depends => before != Some(token.first),
        }
    }
}

impl Token {
    /// The bytes may begin or end inside a character.
    fn of_bytes(bytes: &[u8]) -> Self {
        let (first, last) = match std::str::from_utf8(bytes) {
            Ok(text) => (text.chars().next().map(class), text.chars().next_back().map(class)),
            Err(_) => {
                let mut leads = bytes.iter().copied().filter(|byte| !is_inside(*byte)).map(class_of_lead);
                (bytes.first().copied().map(class_of_lead), leads.next_back())
            }
        };
        let begins = match first {
            _ if bytes.first().copied().is_some_and(is_inside) => Begins::Never,
            Some(Class::Ideograph | Class::Space) => Begins::Always,
            _ => Begins::Depends,
        };
        Self { begins, first: first.unwrap_or(Class::Other), last }
    }
}

/// The second byte of a character or a later one.
fn is_inside(byte: u8) -> bool {
    (0x80..0xC0).contains(&byte)
}

fn class(c: char) -> Class {
    match c {
        _ if c.is_whitespace() => Class::Space,
        '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' => {
            Class::Ideograph
        }
        '\u{20000}'..='\u{3FFFF}' => Class::Ideograph,
        _ if c.is_alphabetic() => Class::Letter,
        _ if c.is_numeric() => Class::Digit,
        _ => Class::Other,
    }
}

/// The class of most characters that begin with this byte, when the others are in the next token.
fn class_of_lead(byte: u8) -> Class {
    match byte {
        0..0x80 => class(char::from(byte)),
        // U+2000 to U+2FFF, punctuation and symbols; private and full-width forms; emoji.
        0xE2 | 0xEE.. => Class::Other,
        // U+3000 to U+9FFF.
        0xE3..=0xE9 => Class::Ideograph,
        _ => Class::Letter,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tokenizer::{
        BpeSettings, UnigramSettings, WordPieceSettings, train_bpe, train_unigram, train_wordpiece,
    };

    const TEXT: &str =
        "The unbelievable dog didn't bark; it's 12345 o'clock, (really!) naïve Überall\n敏捷的狐狸 a👍b x_y";

    /// The text cut where the table says a word begins.
    fn cut(tokenizer: &Tokenizer) -> Vec<String> {
        let table = WordTable::new(tokenizer);
        let detailed = tokenizer.encode_detailed(TEXT, false).unwrap();
        let (mut words, mut place) = (Vec::<String>::new(), Place::default());
        let mut covered = 0;
        for (&id, offsets) in detailed.ids.iter().zip(&detailed.offsets) {
            if table.begins(&mut place, id) {
                words.push(String::new());
            }
            // Tokens inside a character all cover it.
            words.last_mut().unwrap().push_str(TEXT.get(covered.max(offsets.start)..offsets.end).unwrap_or_default());
            covered = covered.max(offsets.end);
        }
        words.into_iter().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
    }

    #[test]
    fn words_are_what_a_reader_would_call_words() {
        let stories: Vec<String> = crate::stories::generate(3, 30_000).map(|story| story.text).collect();
        let texts = || stories.iter().map(String::as_str).chain([TEXT]).map(Ok);
        let bpe = BpeSettings { vocab_size: 500, ..BpeSettings::default() };
        let unigram = UnigramSettings { vocab_size: 400, character_coverage: 1.0, ..UnigramSettings::default() };
        let piece = WordPieceSettings { vocab_size: 400, ..WordPieceSettings::default() };
        let expected = [
            "The",
            "unbelievable",
            "dog",
            "didn",
            "'",
            "t",
            "bark",
            ";",
            "it",
            "'",
            "s",
            "12345",
            "o",
            "'",
            "clock",
            ",",
            "(",
            "really",
            "!)",
            "naïve",
            "Überall",
            "敏",
            "捷",
            "的",
            "狐",
            "狸",
            "a",
            "👍",
            "b",
            "x",
            "_",
            "y",
        ];
        // A byte-level token may join a sign to the letters after it (`'t`), as its pre-tokenizer does.
        let joined = ["'t", "'s", "'clock", "(really", "_y"];
        let bytes = cut(&train_bpe(texts(), &bpe, &mut |_| {}).unwrap());
        let flat = bytes.iter().flat_map(|word| {
            let split = joined.contains(&word.as_str());
            if split { vec![word[..1].to_owned(), word[1..].to_owned()] } else { vec![word.clone()] }
        });
        assert_eq!(flat.collect::<Vec<_>>(), expected);
        assert_eq!(cut(&train_unigram(texts(), &unigram, &mut |_| {}).unwrap()), expected);
        let words = cut(&train_wordpiece(texts(), &piece, &mut |_| {}).unwrap());
        // BERT takes signs one by one, and emoji for letters.
        let single = expected.join(" ").replace("!)", "! )").replace("a 👍 b", "a👍b");
        assert_eq!(words.join(" "), single);
    }

    #[test]
    fn bytes_inside_a_character_begin_no_word() {
        let settings = BpeSettings { vocab_size: 257, ..BpeSettings::default() };
        let tokenizer = train_bpe([Ok("")], &settings, &mut |_| {}).unwrap();
        let table = WordTable::new(&tokenizer);
        let ids = tokenizer.encode("aé你b", false).unwrap();
        let mut place = Place::default();
        let begins: Vec<bool> = ids.iter().map(|&id| table.begins(&mut place, id)).collect();
        assert_eq!(begins, [true, false, false, true, false, false, true]);
    }
}
