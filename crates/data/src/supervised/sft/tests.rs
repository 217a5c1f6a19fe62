//! Cutting, packing, and what is refused.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::records::Content;
use super::super::testing::{bpe, chatml, whole};
use super::*;
use serde_json::json;

fn made(contents: Vec<Content>, settings: &SftSettings) -> Result<Sft> {
    Sft::new(contents.into_iter().map(|content| Ok(Dialogue::new(content))), &bpe(), settings)
}

fn pair(prompt: &str, completion: &str) -> Content {
    Content::Completion { prompt: prompt.into(), completion: completion.into() }
}

#[test]
fn a_token_predicts_the_next_one_if_that_is_learned() {
    let made = made(vec![pair("1 2", " 3"), pair("1", "")], &SftSettings::default()).unwrap();
    let batch = whole(made);
    // "1", " ", "2", " ", "3", end: of a vocabulary of bytes.
    assert_eq!((batch.batch, batch.time, &*batch.lengths), (2, 6, &[6, 2][..]));
    let ids: Vec<i32> = batch.ids.iter().map(|&id| id as i32).collect();
    assert_eq!(batch.targets[..6], [IGNORE, IGNORE, ids[3], ids[4], ids[5], IGNORE]);
    assert_eq!(batch.targets[6..], [ids[5], IGNORE, IGNORE, IGNORE, IGNORE, IGNORE]);
    assert_eq!((batch.tokens, batch.segments), (4, None));
}

#[test]
fn packed_examples_keep_their_targets_and_positions_to_themselves() {
    let contents = vec![pair("1 2", " 3"), pair("1", "2"), pair("7", "8 9")];
    let apart = whole(made(contents.clone(), &SftSettings::default()).unwrap());
    let settings = SftSettings { packing: true, max_len: 11, ..SftSettings::default() };
    let packed = whole(made(contents, &settings).unwrap());
    assert_eq!((packed.batch, packed.time, &*packed.lengths), (2, 11, &[11, 3][..]));
    assert_eq!(packed.segments.as_ref().unwrap()[..12], [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0]);
    assert_eq!(packed.positions[..11], [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4]);
    assert_eq!(packed.tokens, apart.tokens);
    // Rows 0 and 2 of those that stand apart, one after the other.
    let rows = [&apart.targets[..6], &apart.targets[12..17]].concat();
    assert_eq!(packed.targets[..11], rows);
    assert_eq!(packed.segments.unwrap()[14..], [1; 8]);
}

#[test]
fn cutting_never_leaves_an_empty_mask() {
    let contents = || vec![pair("1 2 3 4", "5 6"), pair("1", "2 3 4 5 6"), pair("", "1")];
    let cut =
        |truncate, max_len| made(contents(), &SftSettings { truncate, max_len, ..SftSettings::default() }).unwrap();
    let end = cut(Truncate::End, 5);
    assert_eq!(end.count(), 2);
    assert_eq!(
        end.notes()[..2],
        [
            "1 of 3 examples were cut at 5 tokens",
            "1 of 3 examples were left out: what would be learned of them lies beyond 5 tokens",
        ]
    );
    let start = cut(Truncate::Start, 5);
    assert_eq!((start.count(), &*start.notes()[0]), (3, "2 of 3 examples were cut at 5 tokens"));
    let batch = whole(start);
    assert_eq!(bpe().decode(&batch.ids[..5], false).unwrap(), "45 6<|endoftext|>");
    assert_eq!(cut(Truncate::Drop, 5).count(), 1);
}

#[test]
fn data_of_which_nothing_is_learned_is_refused_and_the_error_says_why() {
    let long = "1 2 3 4 5 6";
    let error = made(vec![pair(long, "7")], &SftSettings { max_len: 8, ..SftSettings::default() }).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("1 of 1 have it beyond `max_len` = 8 tokens"), "{error}");
    let user = json!({"role": "user", "content": "a"});
    let silent = Dialogue::new(Content::Messages(vec![user]));
    let error = Sft::new([Ok(silent)].into_iter(), &chatml(), &SftSettings::default()).unwrap_err().to_string();
    assert!(error.contains("1 of 1 have nothing to learn") && error.contains("phyla data inspect"), "{error}");
}

#[test]
fn the_token_that_ends_turns_is_known() {
    let said = |role: &str| json!({"role": role, "content": "a"});
    let chat = Dialogue::new(Content::Messages(vec![said("user"), said("assistant")]));
    let tokenizer = chatml();
    let made = Sft::new([Ok(chat)].into_iter(), &tokenizer, &SftSettings::default()).unwrap();
    assert_eq!(made.end(), tokenizer.token_to_id("<|im_end|>"));
}
