//! Tags on first pieces, on all pieces, and words that are lost.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::records::Origin;
use super::super::testing::{bert, row, whole};
use super::*;

fn tagged(text: &str) -> Tagged {
    let (tokens, tags) =
        text.split(' ').map(|pair| pair.split_once('/').unwrap()).unzip::<&str, &str, Vec<_>, Vec<_>>();
    let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect();
    Tagged { tokens: owned(tokens), tags: owned(tags), origin: Origin::default() }
}

fn made(texts: &[&str], settings: &TokenClassifySettings) -> Result<TokenClassify> {
    TokenClassify::new(texts.iter().map(|text| Ok(tagged(text))), &bert(), settings, None)
}

const TEXTS: [&str; 2] = ["the/O bads/B-X ab/I-X .../O", "ab/B-X"];

#[test]
fn a_tag_stands_on_the_first_piece_of_its_word() {
    let made = made(&TEXTS, &TokenClassifySettings::default()).unwrap();
    assert_eq!(made.labels().names(), ["B-X", "I-X", "O"]);
    assert_eq!(made.first_tokens(0), [1, 2, 4, 6]);
    assert_eq!(made.notes(), ["tags: B-X 2, I-X 1, O 2"]);
    let batch = whole(made);
    // [CLS] the bad ##s a ##b . . . [SEP], and [CLS] a ##b [SEP].
    assert_eq!((batch.time, &*batch.lengths, batch.tokens), (10, &[10, 4][..], 5));
    const I: i32 = IGNORE;
    assert_eq!(batch.targets[..10], [I, 2, 0, I, 1, I, 2, I, I, I]);
    assert_eq!(batch.targets[10..], [I, 0, I, I, I, I, I, I, I, I]);
}

#[test]
fn all_pieces_can_have_their_tag() {
    let settings = TokenClassifySettings { label_all: true, ..TokenClassifySettings::default() };
    let batch = whole(made(&TEXTS, &settings).unwrap());
    assert_eq!(batch.targets[..10], [IGNORE, 2, 0, 1, 1, 1, 2, 2, 2, IGNORE]);
}

#[test]
fn words_lost_are_counted() {
    let settings = TokenClassifySettings { max_len: 5, ..TokenClassifySettings::default() };
    let made = made(&TEXTS, &settings).unwrap();
    assert_eq!(made.notes()[0], "1 of 2 sentences were cut at 5 tokens: 2 of 5 words lost");
    assert_eq!(made.first_tokens(0), [1, 2, NO_TOKEN, NO_TOKEN]);
    let batch = whole(made);
    assert_eq!(row(&batch, 0).len(), 5);
    assert_eq!(*row(&batch, 0).last().unwrap(), 3);
    assert_eq!(batch.targets[..5], [IGNORE, 2, 0, IGNORE, IGNORE]);
}

#[test]
fn words_without_a_token_are_counted_and_keep_the_others_aligned() {
    let made = made(&["the/O \u{200b}/X bad/Y"], &TokenClassifySettings::default()).unwrap();
    assert_eq!(made.first_tokens(0), [1, NO_TOKEN, 2]);
    assert_eq!(made.notes()[0], "1 of 3 words have no token of their own and cannot be tagged");
    assert_eq!(whole(made).targets, [IGNORE, 0, 2, IGNORE]);
}

#[test]
fn known_tags_keep_their_ids_and_others_are_refused() {
    let first = made(&TEXTS, &TokenClassifySettings::default()).unwrap();
    let set = first.labels().clone();
    let encode = |text: &str| {
        TokenClassify::new([Ok(tagged(text))].into_iter(), &bert(), &TokenClassifySettings::default(), Some(&set))
    };
    assert_eq!(whole(encode("the/O").unwrap()).targets, [IGNORE, 2, IGNORE]);
    // As numbers, where the data has its tags so.
    assert_eq!(whole(encode("the/1").unwrap()).targets, [IGNORE, 1, IGNORE]);
    let message = encode("the/B-Z").unwrap_err().to_string();
    assert!(message.contains("`B-Z` is none of the 3 labels"), "{message}");
    let untagged = Tagged { tags: Vec::new(), ..tagged("the/O") };
    let batch = whole(
        TokenClassify::new([Ok(untagged)].into_iter(), &bert(), &TokenClassifySettings::default(), None).unwrap(),
    );
    assert_eq!((batch.tokens, batch.targets.len()), (0, 0));
}
