//! Where sentences end: plain rules for text that does not say, enough for next-sentence prediction.

use serde::{Deserialize, Serialize};

/// How a document divides into sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentenceSplit {
    /// At full stops and their like; see [`sentences`].
    #[default]
    Rules,
    /// Each line is one sentence, as in the files BERT's own tools read.
    Lines,
}

impl SentenceSplit {
    /// The sentences of a text, without the white space around them.
    pub fn split(self, text: &str) -> Vec<&str> {
        match self {
            Self::Rules => sentences(text),
            Self::Lines => text.lines().map(str::trim).filter(|line| !line.is_empty()).collect(),
        }
    }
}

/// Words with a full stop that seldom end a sentence.
const ABBREVIATIONS: [&str; 44] = [
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "rev", "gen", "col", "capt", "lt", "sgt", "hon", "gov", "sen",
    "rep", "vs", "cf", "fig", "eq", "no", "vol", "pp", "ch", "sec", "approx", "e.g", "i.e", "al", "ca", "bzw", "z.b",
    "d.h", "u.a", "hr", "fr", "nr", "inc", "ltd", "co", "corp", "mt",
];

/// The sentences of a text, without the white space around them; together they hold every other character of it.
///
/// A sentence ends at a blank line; at Chinese and Japanese `。！？`; and at `.`, `!`, `?` or `…` (with the quotes and
/// brackets that close there) before white space, unless a small letter follows, or the full stop belongs to an
/// abbreviation or an initial. Without an exception list for every language, some are cut too early or too late.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let wide = matches!(c, '。' | '！' | '？' | '｡');
        let narrow = matches!(c, '.' | '!' | '?' | '…');
        let end = if wide || narrow {
            let mut end = at + c.len_utf8();
            // "?!", "...", and the quotes and brackets that close with the sentence.
            // German closes with what others open with; Chinese may open a quote right there.
            while let Some((at, c)) = characters.next_if(|(_, c)| closes(*c) || (narrow && matches!(c, '“' | '«'))) {
                end = at + c.len_utf8();
            }
            (wide || (ends_here(&text[end..]) && !(c == '.' && abbreviated(&text[start..at])))).then_some(end)
        } else {
            (c == '\n' && blank_line_follows(&text[at + 1..])).then_some(at)
        };
        if let Some(end) = end {
            found.push(&text[start..end]);
            start = end;
        }
    }
    found.push(&text[start..]);
    found.into_iter().map(str::trim).filter(|sentence| !sentence.is_empty()).collect()
}

fn closes(c: char) -> bool {
    matches!(
        c,
        '.' | '!' | '?' | '…' | '。' | '！' | '？' | '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '」' | '』' | '）'
    )
}

/// White space and then no small letter; or the end of the text.
fn ends_here(after: &str) -> bool {
    let rest = after.trim_start();
    rest.is_empty() || (rest.len() < after.len() && !rest.chars().find(|c| !closes(*c)).is_some_and(char::is_lowercase))
}

/// Is the last word of a sentence so far one that takes a full stop, or a single capital letter?
fn abbreviated(before: &str) -> bool {
    let word =
        before.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '"' | '“')).next().unwrap_or(before);
    let mut letters = word.chars();
    let initial = letters.next().is_some_and(char::is_uppercase) && letters.next().is_none() && word != "I";
    initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

fn blank_line_follows(after: &str) -> bool {
    after.trim_start_matches([' ', '\t', '\r']).starts_with('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_a_reader_would_end_them() {
        let cases: [(&str, &[&str]); 14] = [
            ("One. Two! Three? Four", &["One.", "Two!", "Three?", "Four"]),
            ("Mr. Smith met Dr. J. Doe. They spoke.", &["Mr. Smith met Dr. J. Doe.", "They spoke."]),
            ("\"Stop!\" he said. \"Why?\" She left.", &["\"Stop!\" he said.", "\"Why?\"", "She left."]),
            ("It costs 3.50 today. See e.g. Fig. 2.", &["It costs 3.50 today.", "See e.g. Fig. 2."]),
            ("Really?! (Yes.) Well... Fine.", &["Really?!", "(Yes.)", "Well...", "Fine."]),
            ("well... not so. Ok", &["well... not so.", "Ok"]),
            ("a\nline goes on. \n\nA title\n\nText", &["a\nline goes on.", "A title", "Text"]),
            ("你好。你去哪儿？“回家！”他说。", &["你好。", "你去哪儿？", "“回家！”", "他说。"]),
            ("So did I. Then we left.", &["So did I.", "Then we left."]),
            ("see www.example.com/a.b now. 42 follow.", &["see www.example.com/a.b now.", "42 follow."]),
            ("Das ist gut. Überall!", &["Das ist gut.", "Überall!"]),
            ("", &[]),
            (" \n\n . \n", &["."]),
            ("»So?« Ja.", &["»So?«", "Ja."]),
        ];
        for (text, expected) in cases {
            assert_eq!(sentences(text), expected, "{text:?}");
        }
        assert_eq!(SentenceSplit::Lines.split("A. B.\n\n c \r\n"), ["A. B.", "c"]);
    }

    #[test]
    fn nothing_but_white_space_is_lost() {
        let text = crate::stories::generate(1, 20_000).map(|story| story.text).collect::<Vec<_>>().join("\n\n");
        let squeeze = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(squeeze(&sentences(&text).concat()), squeeze(&text));
        assert!(sentences(&text).len() > 300);
    }
}
