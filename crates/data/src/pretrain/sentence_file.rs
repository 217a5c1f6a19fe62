//! Documents as runs of tokenised sentences, for tasks that must know where both end.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::epochs::countable;
use super::sentences::SentenceSplit;
use crate::dataset::{Corpus, Document};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::tokens::TokenFile;

/// Sentences of documents, held in memory (four bytes a token) or mapped from a token file.
#[derive(Debug)]
pub struct Sentences {
    /// One sentence is one document of this file.
    file: Arc<TokenFile>,
    /// Sentences of each document, none of them empty.
    documents: Vec<Range<u32>>,
    /// Documents without any sentence.
    empty_documents: u64,
    /// Sentences without any token, which are left out.
    empty_sentences: u64,
}

/// Text split and encoded at once, in bytes.
const CHUNK: usize = 8 << 20;

impl Sentences {
    /// Reads a corpus: each of its documents is split into sentences, and each sentence encoded without special tokens.
    ///
    /// # Errors
    /// Errors of reading and encoding.
    pub fn read(corpus: &Corpus, tokenizer: &Tokenizer, split: SentenceSplit) -> Result<Self> {
        let mut sentences: Vec<Vec<u32>> = Vec::new();
        let mut empty = 0;
        let (mut pending, mut size) = (Vec::new(), 0);
        for document in corpus.documents()? {
            let document = document?;
            size += document.text.len();
            pending.push(document);
            if size >= CHUNK {
                empty += encode(&pending, tokenizer, split, &mut sentences)?;
                pending.clear();
                size = 0;
            }
        }
        empty += encode(&pending, tokenizer, split, &mut sentences)?;
        let read = Self::new(Arc::new(TokenFile::from_documents(sentences)))?;
        Ok(Self { empty_sentences: empty, ..read })
    }

    /// From a file in which each document is a sentence, and an empty one ends a document, as a blank line would.
    ///
    /// # Errors
    /// When there are more sentences than can be numbered.
    pub fn new(file: Arc<TokenFile>) -> Result<Self> {
        countable(file.documents())?;
        let (mut documents, mut empty) = (Vec::new(), 0);
        let mut start = 0;
        for sentence in 0..=file.documents() as u32 {
            if !file.range(sentence as usize).is_empty() {
                continue;
            }
            if start < sentence {
                documents.push(start..sentence);
            } else if (sentence as usize) < file.documents() {
                empty += 1;
            }
            start = sentence + 1;
        }
        Ok(Self { file, documents, empty_documents: empty, empty_sentences: 0 })
    }

    /// Documents with at least one sentence.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// The sentences of a document; none when there is no such document.
    pub fn document(&self, index: usize) -> Range<u32> {
        self.documents.get(index).cloned().unwrap_or(0..0)
    }

    /// Tokens of a sentence.
    pub fn len(&self, sentence: u32) -> usize {
        self.file.range(sentence as usize).len()
    }

    /// True when there is no sentence at all.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// The ids of neighbouring sentences of one document.
    pub fn ids(&self, sentences: Range<u32>) -> Vec<u32> {
        let start = self.file.range(sentences.start as usize).start;
        let end = self.file.range(sentences.end.saturating_sub(1) as usize).end;
        self.file.slice(start..end.max(start)).to_vec()
    }

    /// A checksum of sentences and documents.
    pub fn digest(&self) -> u64 {
        self.file.digest()
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.empty_documents > 0 {
            notes.push(format!("{} documents have no sentence", self.empty_documents));
        }
        if self.empty_sentences > 0 {
            notes.push(format!("{} sentences have no token and are left out", self.empty_sentences));
        }
        notes
    }
}

/// Adds the sentences of documents, and an empty one after each document that ends; returns how many sentences were
/// empty and left out.
fn encode(documents: &[Document], tokenizer: &Tokenizer, split: SentenceSplit, out: &mut Vec<Vec<u32>>) -> Result<u64> {
    let encoded: Vec<Vec<Vec<u32>>> = documents
        .par_iter()
        .map(|document| {
            let encode = |sentence| {
                tokenizer
                    .encode(sentence, false)
                    .map_err(|error| Error::Record { position: document.position.clone(), message: error.to_string() })
            };
            split.split(&document.text).into_iter().map(encode).collect()
        })
        .collect::<Result<_>>()?;
    let mut empty = 0;
    for (document, sentences) in documents.iter().zip(encoded) {
        let all = sentences.len() as u64;
        let before = out.len();
        out.extend(sentences.into_iter().filter(|ids| !ids.is_empty()));
        empty += all - (out.len() - before) as u64;
        if !document.more {
            out.push(Vec::new());
        }
    }
    Ok(empty)
}
