//! Stop strings and streamed text, over a tokenizer in which every token is a byte.
#![expect(clippy::unwrap_used, reason = "tests")]

use phyla_data::tokenizer::{BpeSettings, train_bpe};

use super::*;

fn bytes() -> Tokenizer {
    let settings = BpeSettings { vocab_size: 257, ..BpeSettings::default() };
    train_bpe([Ok("a")], &settings, &mut |_| {}).unwrap()
}

fn stops(stops: &[&str]) -> StopStrings {
    StopStrings::new(stops.iter().map(|stop| stop.to_string()))
}

/// Streams `text` byte by byte: the pieces given out, the rest at the end, and whether a stop string ended it.
fn stream(text: &str, stops: &StopStrings) -> (Vec<String>, String, bool) {
    let tokenizer = bytes();
    let mut stream = Text::after(&[], &tokenizer, stops).unwrap();
    let mut pieces = vec![];
    for id in tokenizer.encode(text, false).unwrap() {
        pieces.push(stream.push(id).unwrap().to_string());
        if stream.stopped() {
            break;
        }
    }
    stream.finish().unwrap();
    let rest = stream.rest().to_string();
    let (stopped, all) = (stream.stopped(), stream.into_string());
    assert_eq!(pieces.concat() + &rest, all);
    (pieces, rest, stopped)
}

#[test]
fn characters_come_out_whole() {
    let (pieces, rest, stopped) = stream("né 🦀!", &StopStrings::default());
    assert_eq!(pieces, ["n", "", "é", " ", "", "", "", "🦀", "!"]);
    assert_eq!((rest.as_str(), stopped), ("", false));
}

#[test]
fn half_a_character_at_the_end_is_shown_as_such() {
    let tokenizer = bytes();
    let none = StopStrings::default();
    let mut text = Text::after(&[], &tokenizer, &none).unwrap();
    for &id in &tokenizer.encode("🦀", false).unwrap()[..2] {
        assert_eq!(text.push(id).unwrap(), "");
    }
    text.finish().unwrap();
    assert!(text.rest().chars().all(|c| c == '\u{FFFD}'));
}

#[test]
fn a_prompt_may_end_within_a_character() {
    let tokenizer = bytes();
    let ids = tokenizer.encode("é", false).unwrap();
    let none = StopStrings::default();
    let mut text = Text::after(&ids[..1], &tokenizer, &none).unwrap();
    assert_eq!(text.push(ids[1]).unwrap(), "é");
}

#[test]
fn what_may_begin_a_stop_string_is_held_back() {
    let (pieces, rest, stopped) = stream("ab END of EN", &stops(&["END OF"]));
    assert_eq!(pieces, ["a", "b", " ", "", "", "", "", "END o", "f", " ", "", ""]);
    assert_eq!((rest.as_str(), stopped), ("EN", false));
}

#[test]
fn a_stop_string_ends_the_text_and_is_no_part_of_it() {
    let (pieces, rest, stopped) = stream("one\n\ntwo", &stops(&["\n\n", "zzz"]));
    assert_eq!((pieces.concat().as_str(), rest.as_str(), stopped), ("one", "", true));
    // A false start within the real one.
    let (pieces, _, stopped) = stream("aaab!", &stops(&["aab"]));
    assert_eq!((pieces.concat().as_str(), stopped), ("a", true));
    // Characters of several bytes.
    let (pieces, _, stopped) = stream("né🦀ü", &stops(&["é🦀"]));
    assert_eq!((pieces.concat().as_str(), stopped), ("n", true));
    // At once.
    let (pieces, rest, stopped) = stream("stop", &stops(&["stop"]));
    assert_eq!((pieces.concat().as_str(), rest.as_str(), stopped), ("", "", true));
}

#[test]
fn cutting_into_tokens_does_not_matter() {
    // Every text over {a, b} of length 7, as one token and as seven.
    let stops = stops(&["abba", "bb", "aaa"]);
    for bits in 0..128u32 {
        let text: String = (0..7).map(|i| if bits >> i & 1 == 0 { 'a' } else { 'b' }).collect();
        let (pieces, rest, stopped) = stream(&text, &stops);
        let whole = stops.find(&text, 0);
        assert_eq!(stopped, whole.is_some(), "{text}");
        assert_eq!(pieces.concat() + &rest, text[..whole.unwrap_or(7)], "{text}");
    }
}
