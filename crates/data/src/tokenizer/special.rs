//! Which tokens have a role (beginning, end, padding …), gathered from the four files that may say so.

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::files::{Files, kind};
use crate::error::{Error, Result};

/// A token with a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialToken {
    /// As spelled in the vocabulary.
    pub text: String,
    /// Its id.
    pub id: u32,
}

/// The roles transformers knows, each filled or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<SpecialToken>,
    /// Ends a sequence.
    pub eos: Option<SpecialToken>,
    /// Fills up a batch.
    pub pad: Option<SpecialToken>,
    /// Stands for what the vocabulary cannot spell.
    pub unk: Option<SpecialToken>,
    /// Stands between two texts (BERT).
    pub sep: Option<SpecialToken>,
    /// Stands first and is read for classification (BERT).
    pub cls: Option<SpecialToken>,
    /// Hides a word to be guessed (BERT).
    pub mask: Option<SpecialToken>,
    /// `additional_special_tokens`, or `extra_special_tokens` in newer files.
    pub more: Vec<SpecialToken>,
}

impl SpecialTokens {
    /// Role names as in `tokenizer_config.json`, with what fills them.
    pub fn roles(&self) -> [(&'static str, Option<&SpecialToken>); 7] {
        [
            ("bos_token", self.bos.as_ref()),
            ("eos_token", self.eos.as_ref()),
            ("pad_token", self.pad.as_ref()),
            ("unk_token", self.unk.as_ref()),
            ("sep_token", self.sep.as_ref()),
            ("cls_token", self.cls.as_ref()),
            ("mask_token", self.mask.as_ref()),
        ]
    }

    fn slot(&mut self, role: &str) -> Option<&mut Option<SpecialToken>> {
        Some(match role {
            "bos_token" => &mut self.bos,
            "eos_token" => &mut self.eos,
            "pad_token" => &mut self.pad,
            "unk_token" => &mut self.unk,
            "sep_token" => &mut self.sep,
            "cls_token" => &mut self.cls,
            "mask_token" => &mut self.mask,
            _ => return None,
        })
    }
}

/// Adds the tokens that stand outside `tokenizer.json`, and finds the tokens with a role.
///
/// `tokenizer_config.json` wins over `special_tokens_map.json`. A token that is named but is not in the
/// vocabulary gets the next free id, as in transformers.
pub(super) fn add(
    inner: &mut tokenizers::Tokenizer,
    files: &Files,
    config: &Map<String, Value>,
) -> Result<SpecialTokens> {
    add_declared(inner, files, config)?;
    let map = files.object("special_tokens_map.json")?.unwrap_or_default();
    let mut special = SpecialTokens::default();
    for (role, _) in SpecialTokens::default().roles() {
        let (file, value) = match config.get(role) {
            Some(value) => ("tokenizer_config.json", value),
            None => match map.get(role) {
                Some(value) => ("special_tokens_map.json", value),
                None => continue,
            },
        };
        let Some(token) = token(value).map_err(|found| wrong(files, file, role, found))? else {
            continue;
        };
        if let Some(slot) = special.slot(role) {
            *slot = Some(register(inner, token)?);
        }
    }
    let named = special.roles().iter().any(|(role, _)| config.contains_key(*role) || map.contains_key(*role));
    let generic = config.get("tokenizer_class").and_then(Value::as_str).is_some_and(|class| GENERIC.contains(&class));
    if !named && !generic {
        customary(inner, &mut special);
    }
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        let Some(values) = config.get(key).or_else(|| map.get(key)) else {
            continue;
        };
        // Newer files name them: {"image_token": "<image>"}.
        let values: Vec<&Value> = match values {
            Value::Array(values) => values.iter().collect(),
            Value::Object(values) => values.values().collect(),
            Value::Null => continue,
            other => return Err(wrong(files, "tokenizer_config.json", key, kind(other))),
        };
        for value in values {
            if let Some(token) = token(value).map_err(|found| wrong(files, "tokenizer_config.json", key, found))? {
                special.more.push(register(inner, token)?);
            }
        }
    }
    Ok(special)
}

/// Tokenizer classes of transformers that give no token a role by themselves.
const GENERIC: [&str; 2] = ["PreTrainedTokenizerFast", "TokenizersBackend"];

/// Roles that early checkpoints (GPT-2, BERT, RoBERTa, T5) leave to the tokenizer's class: files that name no role at all,
/// and a vocabulary that has the class's special tokens.
fn customary(inner: &tokenizers::Tokenizer, special: &mut SpecialTokens) {
    const END: &str = "<|endoftext|>";
    const CUSTOMS: [&[(&str, &str)]; 4] = [
        &[
            ("unk_token", "[UNK]"),
            ("sep_token", "[SEP]"),
            ("pad_token", "[PAD]"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ],
        &[
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("unk_token", "<unk>"),
            ("sep_token", "</s>"),
            ("pad_token", "<pad>"),
            ("cls_token", "<s>"),
            ("mask_token", "<mask>"),
        ],
        &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
        &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
    ];
    let added = inner.get_added_vocabulary().get_added_tokens_decoder();
    let find = |text: &str| {
        let (&id, _) = added.iter().find(|(_, token)| token.special && token.content == text)?;
        Some(SpecialToken { text: text.to_owned(), id })
    };
    for custom in CUSTOMS {
        if custom.iter().all(|(_, text)| find(text).is_some()) {
            for (role, text) in custom {
                if let Some(slot) = special.slot(role) {
                    *slot = find(text);
                }
            }
            return;
        }
    }
}

/// `added_tokens_decoder` in the configuration and `added_tokens.json`: tokens with an id of their own.
fn add_declared(inner: &mut tokenizers::Tokenizer, files: &Files, config: &Map<String, Value>) -> Result<()> {
    let mut declared: Vec<(u32, AddedToken)> = Vec::new();
    if let Some(Value::Object(tokens)) = config.get("added_tokens_decoder") {
        for (id, value) in tokens {
            let id = id.parse().map_err(|_| {
                wrong(files, "tokenizer_config.json", "added_tokens_decoder", "a key that is not a number")
            })?;
            if let Some(token) =
                token(value).map_err(|found| wrong(files, "tokenizer_config.json", "added_tokens_decoder", found))?
            {
                declared.push((id, token));
            }
        }
    }
    for (text, id) in files.object("added_tokens.json")?.unwrap_or_default() {
        let id = id
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| wrong(files, "added_tokens.json", &text, kind(&id)))?;
        if !declared.iter().any(|(_, token)| token.content == text) {
            declared.push((id, AddedToken::from(text, false)));
        }
    }
    // The library hands out ids in order, so the order of ids must be the order of adding.
    declared.sort_by_key(|(id, _)| *id);
    for (id, token) in declared {
        if inner.token_to_id(&token.content).is_none() {
            add_one(inner, token.clone())?;
        }
        let found = inner.token_to_id(&token.content);
        if found != Some(id) {
            return Err(Error::format(
                &files.path("tokenizer_config.json"),
                format!(
                    "added token `{}` is declared with id {id}, but tokenizer.json gives it {}",
                    token.content,
                    found.map_or("none".to_owned(), |id| id.to_string()),
                ),
            ));
        }
    }
    Ok(())
}

/// Marks a token as special and returns it with its id.
fn register(inner: &mut tokenizers::Tokenizer, mut token: AddedToken) -> Result<SpecialToken> {
    token.special = true;
    let text = token.content.clone();
    let known = inner.token_to_id(&text).is_some_and(|id| {
        inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    });
    if !known {
        add_one(inner, token)?;
    }
    let id = inner
        .token_to_id(&text)
        .ok_or_else(|| Error::Tokenizer(format!("the special token `{text}` could not be added")))?;
    Ok(SpecialToken { text, id })
}

fn add_one(inner: &mut tokenizers::Tokenizer, token: AddedToken) -> Result<()> {
    super::guarded(|| inner.add_tokens([token])).map(|_| ())
}

/// A token as a string, or as an object with `content` and its matching rules; `None` for null and "".
fn token(value: &Value) -> std::result::Result<Option<AddedToken>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => Ok(Some(AddedToken::from(text.clone(), true))),
        Value::Object(map) => {
            let Some(Value::String(text)) = map.get("content") else {
                return Err("an object without a string `content`");
            };
            let flag = |key: &str, default| map.get(key).and_then(Value::as_bool).unwrap_or(default);
            Ok((!text.is_empty()).then(|| {
                AddedToken::from(text.clone(), flag("special", false))
                    .single_word(flag("single_word", false))
                    .lstrip(flag("lstrip", false))
                    .rstrip(flag("rstrip", false))
                    .normalized(flag("normalized", !flag("special", false)))
            }))
        }
        other => Err(kind(other)),
    }
}

fn wrong(files: &Files, file: &str, key: &str, found: &str) -> Error {
    Error::format(
        &files.path(file),
        format!("`{key}` should be a token (a string, or an object with `content`), found {found}"),
    )
}
