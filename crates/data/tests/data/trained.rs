//! WordPiece, unigram and byte-pair vocabularies made here, and where their tokens come from.

use phyla_data::tokenizer::{
    BpeSettings, Tokenizer, UnigramSettings, WordPieceSettings, train_bpe, train_unigram, train_wordpiece,
};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainerBuilder};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, TokenizerBuilder};

use crate::{TEXT, small};

/// Stories of our own: English of which a vocabulary can be learnt.
pub fn stories(bytes: usize) -> Vec<String> {
    phyla_data::stories::generate(3, bytes).map(|story| story.text).collect()
}

pub fn wordpiece(settings: &WordPieceSettings) -> Tokenizer {
    let texts = stories(100_000).into_iter().chain([TEXT.to_owned()]);
    train_wordpiece(texts.map(Ok), settings, &mut |_| {}).unwrap()
}

pub fn unigram(settings: &UnigramSettings) -> Tokenizer {
    let texts = stories(100_000).into_iter().chain([TEXT.to_owned()]);
    train_unigram(texts.map(Ok), settings, &mut |_| {}).unwrap()
}

/// Runs on pools of one and of five threads and gives both results.
fn on_threads<T: Send>(work: impl Fn() -> T + Sync) -> [T; 2] {
    [1, 5].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&work))
}

#[test]
fn wordpiece_stands_between_its_tokens() {
    let settings = WordPieceSettings { vocab_size: 700, character_coverage: 1.0, ..WordPieceSettings::default() };
    let tokenizer = wordpiece(&settings);
    assert_eq!(tokenizer.vocab_size(), 700);
    let ids = (tokenizer.pad(), tokenizer.unk(), tokenizer.cls(), tokenizer.sep(), tokenizer.mask());
    assert_eq!(ids, (Some(0), Some(1), Some(2), Some(3), Some(4)));
    let ids = tokenizer.encode("The DOG, naïve!", true).unwrap();
    assert_eq!((ids[0], *ids.last().unwrap()), (2, 3));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "the dog, naive!");
    let (ids, types) = tokenizer.encode_pair("the dog", "a cat sat", true).unwrap();
    let second = ids.iter().position(|&id| id == 3).unwrap() + 1;
    assert_eq!((ids[0], *ids.last().unwrap()), (2, 3));
    assert!(types.iter().enumerate().all(|(at, &kind)| kind == u32::from(at >= second)));
    // Frequent words are whole, and the Chinese characters stand alone.
    for word in ["the", "little", "she", "敏"] {
        assert!(tokenizer.token_to_id(word).is_some(), "{word}");
    }
    assert!(tokenizer.vocabulary().iter().any(|(token, _)| token.starts_with("##") && token.chars().count() > 3));
    assert!(tokenizer.vocabulary().iter().all(|(token, _)| *token == token.to_lowercase() || token.starts_with('[')));
    let cased = wordpiece(&WordPieceSettings { lowercase: false, ..settings });
    let ids = cased.encode("The naïve DOG", false).unwrap();
    assert_eq!(cased.decode(&ids, true).unwrap(), "The naïve DOG");
}

#[test]
fn wordpiece_learns_what_the_reference_trainer_learns() {
    let settings = WordPieceSettings { vocab_size: 500, character_coverage: 1.0, ..WordPieceSettings::default() };
    let ours = wordpiece(&settings);
    let mut reference = TokenizerBuilder::<
        WordPiece,
        BertNormalizer,
        _,
        tokenizers::PostProcessorWrapper,
        tokenizers::DecoderWrapper,
    >::new()
    .with_model(WordPiece::default())
    .with_normalizer(Some(BertNormalizer::default()))
    .with_pre_tokenizer(Some(BertPreTokenizer))
    .with_post_processor(None)
    .with_decoder(None)
    .build()
    .unwrap();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(|token| AddedToken::from(token, true));
    let mut trainer = WordPieceTrainerBuilder::new()
        .vocab_size(500)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .build();
    reference.train(&mut trainer, stories(100_000).into_iter().chain([TEXT.to_owned()])).unwrap();
    // The reference breaks ties by an order that changes from run to run, and numbers `##` characters as it meets
    // them; so the last few joins may differ, the rest may not.
    let theirs = reference.get_vocab(true);
    let shared = ours.vocabulary().iter().filter(|(token, _)| theirs.contains_key(token)).count();
    assert!(shared >= 490, "{shared} of 500 tokens are the reference's");
}

#[test]
fn wordpiece_says_what_it_has_no_room_for() {
    let settings = WordPieceSettings { vocab_size: 30, ..WordPieceSettings::default() };
    let error = train_wordpiece([Ok(TEXT)], &settings, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("no room for") && error.contains("`character_coverage`"), "{error}");
    // With few characters, words with others are unknown, and nothing else is lost; ASCII is always known.
    let few = WordPieceSettings { vocab_size: 200, character_coverage: 0.5, ..WordPieceSettings::default() };
    let tokenizer = wordpiece(&few);
    assert_eq!(tokenizer.encode("敏", false).unwrap(), [1]);
    let ids = tokenizer.encode("the 12345", false).unwrap();
    assert!(!ids.contains(&1));
    let none = WordPieceSettings { character_coverage: 0.0, ..few };
    assert!(train_wordpiece([Ok(TEXT)], &none, &mut |_| {}).unwrap_err().to_string().contains("above 0"));
}

#[test]
fn unigram_ends_texts_and_has_sentinels() {
    let settings = UnigramSettings { vocab_size: 600, extra_ids: 20, ..UnigramSettings::default() };
    let tokenizer = unigram(&settings);
    assert_eq!(tokenizer.vocab_size(), 600);
    assert_eq!((tokenizer.pad(), tokenizer.eos(), tokenizer.unk()), (Some(0), Some(1), Some(2)));
    for index in 0..20 {
        assert_eq!(tokenizer.token_to_id(&format!("<extra_id_{index}>")), Some(599 - index));
    }
    let text = "Once upon a time, there was a little fox.";
    let ids = tokenizer.encode(text, true).unwrap();
    assert_eq!(ids.last(), Some(&1));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    // White space of any kind is one space.
    assert_eq!(tokenizer.encode(" Once  upon\na\ttime, there was\r\na little fox.\n", true).unwrap(), ids);
    let (pair, _) = tokenizer.encode_pair("a", "b", true).unwrap();
    assert_eq!(pair.iter().filter(|&&id| id == 1).count(), 2);
    assert_eq!(tokenizer.encode("a<extra_id_0> b", false).unwrap()[1], 599);
    assert!(tokenizer.token_to_id("▁the").is_some() && tokenizer.token_to_id("▁little").is_some());
    // A piece does not run across letters and other signs, and a space only begins one.
    for (piece, _) in tokenizer.vocabulary().iter().filter(|(piece, id)| *id > 2 && !piece.starts_with("<extra")) {
        let rest = piece.strip_prefix('▁').unwrap_or(piece);
        assert!(rest.chars().all(char::is_alphabetic) || !rest.chars().any(char::is_alphabetic), "{piece}");
        assert!(!rest.contains('▁'), "{piece}");
    }
}

/// Unigram pieces are chosen by likelihood, byte pairs by frequency: on the text they were learnt from neither may
/// need many more tokens than the other.
#[test]
fn unigram_spells_texts_about_as_shortly_as_byte_pairs() {
    let settings =
        UnigramSettings { vocab_size: 800, extra_ids: 0, character_coverage: 1.0, ..UnigramSettings::default() };
    let (texts, unigram) = (stories(100_000), unigram(&settings));
    let pairs = BpeSettings { vocab_size: 800, ..BpeSettings::default() };
    let pairs = train_bpe(texts.iter().map(Ok), &pairs, &mut |_| {}).unwrap();
    let length =
        |tokenizer: &Tokenizer| texts.iter().map(|text| tokenizer.encode(text, false).unwrap().len()).sum::<usize>();
    let (unigram, pairs) = (length(&unigram), length(&pairs));
    assert!(unigram < pairs * 11 / 10, "{unigram} against {pairs}");
}

#[test]
fn what_is_learnt_does_not_depend_on_threads_or_the_order_of_texts() {
    let word = WordPieceSettings { vocab_size: 600, ..WordPieceSettings::default() };
    let [one, five] = on_threads(|| wordpiece(&word).fingerprint());
    assert_eq!(one, five);
    let settings = UnigramSettings { vocab_size: 600, ..UnigramSettings::default() };
    let [one, five] = on_threads(|| unigram(&settings).fingerprint());
    assert_eq!(one, five);
    let backwards = [TEXT.to_owned()].into_iter().chain(stories(100_000).into_iter().rev());
    let backwards = train_unigram(backwards.map(Ok), &settings, &mut |_| {}).unwrap();
    assert_eq!(backwards.fingerprint(), one);
}

#[test]
fn impossible_unigram_settings_are_refused() {
    let error = |settings| train_unigram([Ok(TEXT)], &settings, &mut |_| {}).unwrap_err().to_string();
    let none = UnigramSettings { character_coverage: f64::NAN, ..UnigramSettings::default() };
    assert!(error(none).contains("`character_coverage`"));
    let many = UnigramSettings { extra_ids: usize::MAX, ..UnigramSettings::default() };
    assert!(error(many).contains("`extra_ids`"));
    let long = UnigramSettings { max_piece_length: usize::MAX, ..UnigramSettings::default() };
    assert!(error(long).contains("`max_piece_length`"));
    let small = UnigramSettings { vocab_size: 110, ..UnigramSettings::default() };
    assert!(error(small).contains("no room for 103 special tokens"));
}

#[test]
fn byte_pairs_end_or_surround_texts_on_demand() {
    let translation = small(BpeSettings::translation(400));
    assert_eq!(
        (translation.pad(), translation.bos(), translation.eos(), translation.unk()),
        (Some(0), Some(1), Some(2), Some(3))
    );
    let plain = translation.encode("The dog", false).unwrap();
    let ended = translation.encode("The dog", true).unwrap();
    assert_eq!((&ended[..plain.len()], &ended[plain.len()..]), (&plain[..], &[2][..]));
    assert_eq!(translation.decode(&ended, true).unwrap(), "The dog");
    let roberta = small(BpeSettings::masked(400));
    assert_eq!((roberta.cls(), roberta.sep(), roberta.mask()), (Some(0), Some(2), Some(4)));
    // `<mask>` stands for the word with the space before it.
    assert_eq!(roberta.encode("a <mask>", false).unwrap().len(), 2);
    let (pair, types) = roberta.encode_pair("a", "b", true).unwrap();
    assert_eq!([pair[0], pair[2], pair[3], pair[5]], [0, 2, 2, 2]);
    assert_eq!((pair.len(), types), (6, vec![0; 6]));
    let nothing = BpeSettings { eos_token: None, ..BpeSettings::translation(400) };
    let error = train_bpe([Ok("a")], &nothing, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("set `eos_token`"), "{error}");
}

/// Every token of a text points to bytes that spell it, to its word, and to its text.
#[test]
fn pairs_and_words_lead_back_to_the_text() {
    let tokenizer = wordpiece(&WordPieceSettings { vocab_size: 300, ..WordPieceSettings::default() });
    let (first, second) = ("The quick brown fox", "jumps überall");
    let pair = tokenizer.encode_pair_detailed(first, second, true).unwrap();
    assert_eq!(pair.ids, tokenizer.encode_pair(first, second, true).unwrap().0);
    assert_eq!(pair.types, tokenizer.encode_pair(first, second, true).unwrap().1);
    for at in 0..pair.len() {
        let (Some(text), Some(_)) = (pair.texts[at], pair.words[at]) else {
            assert!(pair.special[at] && pair.offsets[at].is_empty());
            continue;
        };
        let text = [first, second][usize::from(text)];
        let covered = text[pair.offsets[at].clone()].to_lowercase().replace('ü', "u");
        assert_eq!(pair.pieces[at].trim_start_matches("##"), covered);
    }
    assert_eq!(pair.words.iter().flatten().max(), Some(&3));
    let single = tokenizer.encode_detailed("brown fox", true).unwrap();
    assert_eq!(single.special.iter().filter(|&&special| special).count(), 2);
}

#[test]
fn given_words_keep_their_numbers() {
    let words = ["The", "unbelievable", "dog", ",", "x"];
    let byte_level = small(BpeSettings::masked(400));
    let word_piece = wordpiece(&WordPieceSettings { vocab_size: 300, ..WordPieceSettings::default() });
    let unigram = unigram(&UnigramSettings { vocab_size: 400, extra_ids: 0, ..UnigramSettings::default() });
    for tokenizer in [&byte_level, &word_piece, &unigram] {
        let detailed = tokenizer.encode_words(&words, true).unwrap();
        assert_eq!(detailed.ids, tokenizer.encode(&words.join(" "), true).unwrap());
        let mut seen: Vec<u32> = detailed.words.iter().flatten().copied().collect();
        assert!(seen.is_sorted());
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        for (at, word) in detailed.words.iter().enumerate() {
            if let Some(word) = word {
                let word = words[*word as usize];
                let covered = &word[detailed.offsets[at].clone()];
                let piece = detailed.pieces[at].trim_start_matches(['Ġ', '▁', '#']);
                // A `▁` of its own is said to cover the letter after it.
                assert!(piece.is_empty() || covered.to_lowercase() == piece.to_lowercase(), "{detailed:?}");
            }
        }
        assert!(tokenizer.encode_words(&[], false).unwrap().is_empty());
    }
}
