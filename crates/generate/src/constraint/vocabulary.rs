//! A tokenizer as grammars see it: the bytes of every id of a model's table in one tree, in which all ids that may go on are
//! found in one walk.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar};
use phyla_data::tokenizer::Tokenizer;

use crate::{Error, Result};

/// The tree holds no longer tokens. Real ones have up to a thousand spaces.
const LONGEST: usize = 1000;

/// The tree counts ids in 24 bits.
const MOST: usize = (1 << 24) - 1;

/// All ids, and what ends a sequence.
pub(super) struct Vocabulary {
    factory: ParserFactory,
    /// Ids that begin with a space, if the tokenizer drops that at the beginning of a text.
    dropping: Vec<u32>,
    /// Ids that have text.
    visible: Vec<bool>,
}

impl Vocabulary {
    /// The vocabulary of a model with `table` ids, of which `eos` end a sequence.
    ///
    /// # Errors
    /// If no id ends a sequence, or tokens have no bytes of their own.
    pub fn new(tokenizer: &Tokenizer, table: usize, eos: &[u32]) -> Result<Self> {
        let eos: Vec<u32> = eos.iter().copied().filter(|&id| (id as usize) < table).collect();
        let Some(&end) = eos.first() else {
            return Err(Error::Settings(
                "a constraint needs an id that ends a document, and there is no eos_token_id; give one".into(),
            ));
        };
        let mut words =
            tokenizer.token_bytes().map_err(|error| Error::Settings(format!("no constraint can be held: {error}")))?;
        // Tables of models are often larger than their tokenizers: ids beyond have no bytes and are never written.
        words.resize(table.min(MOST), vec![]);
        // No text has the byte 255, which marks special tokens in the tree.
        words.iter_mut().filter(|word| word.len() > LONGEST || word.contains(&0xFF)).for_each(Vec::clear);
        eos.iter().for_each(|&id| words[id as usize].clear());
        let visible = words.iter().map(|word| !word.is_empty()).collect();
        let dropping = if drops_a_space(tokenizer, &words) {
            (0..).zip(&words).filter(|(_, word)| word.first() == Some(&b' ')).map(|(id, _)| id).collect()
        } else {
            vec![]
        };
        for (id, word) in (0..).zip(words.iter_mut()) {
            if tokenizer.is_special(id) || eos.contains(&id) {
                let name = tokenizer.id_to_token(id).unwrap_or_else(|| format!("<{id}>"));
                word.push(TokTrie::SPECIAL_TOKEN_MARKER);
                word.extend(name.bytes().take(LONGEST));
            }
        }
        let info = TokRxInfo::new(words.len() as u32, end);
        let factory = catch_unwind(AssertUnwindSafe(|| {
            let trie = TokTrie::from(&info, &words).with_eos_tokens(&eos);
            let mut factory = ParserFactory::new_simple(&(Arc::new(ApproximateTokEnv::new(trie)) as _))?;
            factory.quiet().limits_mut().verbose_errors = false;
            Ok(factory)
        }));
        let factory =
            factory.map_err(|error| Error::Settings(format!("no constraint can be held: {}", first_line(&error))))?;
        Ok(Self { factory, dropping, visible })
    }

    /// The beginning of a document, and what its grammar is warned of.
    ///
    /// # Errors
    /// What is wrong with the grammar.
    pub fn begin(&self, grammar: TopLevelGrammar) -> std::result::Result<Matcher, String> {
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        match (matcher.get_error(), matcher.grammar_warnings().first()) {
            (Some(error), _) => Err(tidy(&error)),
            // What is held but in part is not held.
            (None, Some(warning)) => Err(warning.clone()),
            (None, None) => Ok(matcher),
        }
    }

    /// Ids whose text differs from their bytes behind these: those that begin with a space, where nothing is before them.
    pub fn dropping(&self, before: &[u32]) -> &[u32] {
        let visible = |id: &u32| self.visible.get(*id as usize).copied().unwrap_or(false);
        if before.iter().any(visible) { &[] } else { &self.dropping }
    }
}

/// Whether a text that begins with a token for a space loses that.
fn drops_a_space(tokenizer: &Tokenizer, words: &[Vec<u8>]) -> bool {
    let spaced = |(_, word): &(u32, &Vec<u8>)| word.len() > 1 && word[0] == b' ' && word[1].is_ascii_alphanumeric();
    let found = (0..).zip(words).find(spaced).and_then(|(id, _)| tokenizer.decode(&[id], true).ok());
    found.is_some_and(|text| !text.starts_with(' '))
}

/// What is wrong, without what is for the compiler's authors.
fn tidy(error: &str) -> String {
    let error = error.split("<non-verbose/>").next().unwrap_or_default();
    error.split("<backtrace>").next().unwrap_or_default().trim().to_owned()
}

fn first_line(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
