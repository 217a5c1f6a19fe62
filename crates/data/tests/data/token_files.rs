//! Token files: the right ids, found again in the cache, and rebuilt when damaged.

use std::path::{Path, PathBuf};

use phyla_data::dataset::{Corpus, TextSettings};
use phyla_data::tokenizer::{BpeSettings, Tokenizer};
use phyla_data::tokens::{Ids, Made, TokenFile, TokenSettings};

use crate::{TEXT, small, streams};

const PLAIN: TokenSettings = TokenSettings { add_special: false, append_eos: false };

fn build(cache: &Path, corpus: &Corpus, tokenizer: &Tokenizer, settings: &TokenSettings) -> (TokenFile, Made) {
    TokenFile::cached(cache, corpus, tokenizer, settings, &mut |_| {}).unwrap()
}

fn only_file(cache: &Path) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn lines(folder: &Path, count: usize) -> (Corpus, Vec<String>) {
    let texts: Vec<String> = (0..count).map(|line| format!("{line}: {}", &TEXT[..line % 40])).collect();
    let body: String = texts.iter().map(|text| serde_json::json!({"text": text}).to_string() + "\n").collect();
    std::fs::write(folder.join("a.jsonl"), body).unwrap();
    (Corpus::new(TextSettings::new(folder.join("a.jsonl"))).unwrap(), texts)
}

#[test]
fn documents_are_encoded_in_order_and_end_with_eos() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, texts) = lines(folder.path(), 3000);
    let tokenizer = small(BpeSettings { vocab_size: 300, ..BpeSettings::default() });
    let (file, made) = build(&folder.path().join("cache"), &corpus, &tokenizer, &TokenSettings::default());
    assert_eq!((made, file.documents()), (Made::New, 3000));
    assert!(matches!(file.all(), Ids::Narrow(_)));
    for (index, text) in texts.iter().enumerate() {
        let mut expected = tokenizer.encode(text, false).unwrap();
        expected.push(0);
        assert_eq!(file.document(index).to_vec(), expected);
        assert_eq!(file.slice(file.range(index)), file.document(index));
    }
    assert_eq!(file.tokens(), file.all().len());
    assert!(
        file.document(3000).is_empty() && file.document(usize::MAX).is_empty() && file.slice(5..usize::MAX).is_empty()
    );
}

#[test]
fn the_file_is_reused_until_something_it_depends_on_changes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let (corpus, _) = lines(folder.path(), 10);
    let tokenizer = small(BpeSettings { vocab_size: 300, ..BpeSettings::default() });
    let settings = TokenSettings::default();
    assert_eq!(build(&cache, &corpus, &tokenizer, &settings).1, Made::New);
    assert_eq!(build(&cache, &corpus, &tokenizer, &settings).1, Made::Reused);
    assert_eq!(build(&cache, &corpus, &tokenizer, &PLAIN).1, Made::New);
    let other = small(BpeSettings { vocab_size: 301, ..BpeSettings::default() });
    assert_eq!(build(&cache, &corpus, &other, &settings).1, Made::New);
    let (corpus, _) = lines(folder.path(), 11);
    assert_eq!(build(&cache, &corpus, &tokenizer, &settings).1, Made::New);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 4, "no temporary file is left behind");
}

#[test]
fn a_damaged_file_is_found_and_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let (corpus, _) = lines(folder.path(), 50);
    let tokenizer = small(BpeSettings { vocab_size: 300, ..BpeSettings::default() });
    let (sound, _) = build(&cache, &corpus, &tokenizer, &PLAIN);
    let path = only_file(&cache);
    let bytes = std::fs::read(&path).unwrap();
    let mut flipped = bytes.clone();
    flipped[200] ^= 1;
    for (damaged, reason) in [
        (&flipped[..], "checksum"),
        (&bytes[..bytes.len() - 1], "truncated"),
        (&bytes[..60], "truncated"),
        (&[], "truncated"),
        (&[7; 300], "not a token file"),
    ] {
        // Written beside and renamed, since the sound one is still mapped.
        std::fs::write(cache.join("new"), damaged).unwrap();
        std::fs::rename(cache.join("new"), &path).unwrap();
        assert!(TokenFile::open(&path).unwrap_err().to_string().contains(reason));
        let (file, made) = build(&cache, &corpus, &tokenizer, &PLAIN);
        assert!(matches!(&made, Made::Rebuilt(why) if why.contains(reason)), "{made:?}");
        assert_eq!(file.all(), sound.all());
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the same bytes each time");
    }
}

#[test]
fn long_documents_give_the_same_ids_in_pieces_as_whole() {
    let folder = tempfile::tempdir().unwrap();
    let line = "The quick brown fox, 你好 über.\nNext line's 12 words  and\n\n  more.\n";
    let text = line.repeat(2_500_000 / line.len());
    std::fs::write(folder.path().join("a.txt"), &text).unwrap();
    let corpus = Corpus::new(TextSettings::new(folder.path().join("a.txt"))).unwrap();
    assert!(corpus.documents().unwrap().count() > 1);
    let byte_level = small(BpeSettings { vocab_size: 320, ..BpeSettings::default() });
    let characters = Tokenizer::characters(&text).unwrap();
    for tokenizer in [&byte_level, &characters] {
        let (file, _) = build(&folder.path().join("cache"), &corpus, tokenizer, &PLAIN);
        assert_eq!(file.documents(), 1);
        assert!(file.all().to_vec() == tokenizer.encode(&text, false).unwrap());
    }
    // SentencePiece begins every text with a space, so here the pieces must be joined first.
    let text = "ab a\nb ab b\n".repeat(120_000);
    std::fs::write(folder.path().join("a.txt"), &text).unwrap();
    let tokenizer = streams::sentence_piece();
    let settings = TokenSettings { add_special: true, append_eos: true };
    let (file, _) = build(&folder.path().join("cache"), &corpus, &tokenizer, &settings);
    let mut expected = tokenizer.encode(&text, true).unwrap();
    expected.push(2);
    assert_eq!(file.documents(), 1);
    assert!(file.all().to_vec() == expected);
}

#[test]
fn a_tokenizer_without_an_end_is_refused_where_one_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, _) = lines(folder.path(), 3);
    let tokenizer = Tokenizer::characters(TEXT).unwrap();
    let cached = TokenFile::cached(folder.path(), &corpus, &tokenizer, &TokenSettings::default(), &mut |_| {});
    assert!(cached.unwrap_err().to_string().contains("append_eos = false"));
    let digits = Tokenizer::characters("0123").unwrap();
    let error = TokenFile::cached(folder.path(), &corpus, &digits, &PLAIN, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("a.jsonl, line 1: ") && error.contains("is not among the"), "{error}");
}

#[test]
fn documents_in_memory_look_the_same() {
    let file = TokenFile::from_documents([vec![1, 2], vec![], vec![3]]);
    assert_eq!((file.documents(), file.tokens()), (3, 3));
    assert_eq!(file.document(0).to_vec(), [1, 2]);
    assert_eq!((file.range(1), file.range(2)), (2..2, 2..3));
    assert_eq!((file.all().get(2), file.all().get(3)), (Some(3), None));
}
