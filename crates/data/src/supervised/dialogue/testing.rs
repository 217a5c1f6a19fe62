//! Tokenizers for the tests of dialogues and of what is made of them.
#![expect(clippy::unwrap_used, reason = "tests")]

use crate::tokenizer::{BpeSettings, Tokenizer, train_bpe};

/// A byte-level vocabulary with ChatML's tokens.
pub fn bpe() -> Tokenizer {
    let text = "### Instruction:\nSay hello to the fox.\n\n### Response:\nHello, fox! Below is an instruction";
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec();
    let settings = BpeSettings { vocab_size: 320, special_tokens: special, ..BpeSettings::default() };
    train_bpe((0..9).map(|_| Ok(text)), &settings, &mut |_| {}).unwrap()
}

pub fn chatml() -> Tokenizer {
    let tokenizer = bpe();
    let source = tokenizer.templates().find("chatml").unwrap();
    tokenizer.with_chat_template(&source)
}
