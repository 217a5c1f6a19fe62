//! What a well-formed story keeps to, as a check for generated text of any origin.

/// Letters before which the article is `an`.
pub(super) const VOWELS: [char; 5] = ['a', 'e', 'i', 'o', 'u'];

/// The first thing wrong with the form of `text`, or `None`: spacing, sentence ends, capitals,
/// balanced quotes, `a` and `an`, and template marks left over. Meaning is not judged.
pub fn fault(text: &str) -> Option<String> {
    if text.contains("  ") || text.trim() != text {
        return Some("a double space, or space around the text".into());
    }
    if let Some(mark) = text.chars().find(|c| "{}[]|".contains(*c)) {
        return Some(format!("a template mark `{mark}` is left"));
    }
    text.split("\n\n").find_map(paragraph)
}

fn paragraph(text: &str) -> Option<String> {
    let shown: String = text.chars().take(60).collect();
    if text.contains('\n') {
        return Some(format!("a line break inside the paragraph \"{shown}\""));
    }
    if text.matches('"').count() % 2 == 1 {
        return Some(format!("an open quote in the paragraph \"{shown}\""));
    }
    if !text.trim_end_matches('"').ends_with(['.', '!', '?']) {
        return Some(format!("no end mark after the paragraph \"{shown}\""));
    }
    if !text.trim_start_matches('"').starts_with(char::is_uppercase) {
        return Some(format!("no capital at the start of \"{shown}\""));
    }
    let words: Vec<&str> = text.split(' ').collect();
    words.windows(2).find_map(|pair| neighbours(pair[0], pair[1]))
}

fn neighbours(word: &str, next: &str) -> Option<String> {
    let here = || format!("at \"{word} {next}\"");
    // After `?"` and `!"` the sentence may go on (`"Why?" asked Tom.`); after `.`, and after an end
    // mark inside a quotation, a new one begins.
    let ends = word.ends_with(['.', '!', '?']) || word.ends_with(".\"");
    if ends && !next.trim_start_matches('"').starts_with(char::is_uppercase) {
        return Some(format!("a sentence without a capital {}", here()));
    }
    match word.trim_start_matches('"') {
        "a" | "A" if next.starts_with(VOWELS) => Some(format!("`a` before a vowel {}", here())),
        "an" | "An" if !next.starts_with(VOWELS) => Some(format!("`an` before a consonant {}", here())),
        _ if word == next => Some(format!("a word twice {}", here())),
        _ => None,
    }
}
