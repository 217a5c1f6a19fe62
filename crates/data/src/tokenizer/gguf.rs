//! A tokenizer from the metadata of a GGUF file, by way of the files that say the same in a Hugging Face folder: so it
//! is loaded, saved and told apart like any other.

mod bpe;
mod pieces;
mod split;
mod words;
mod write;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Tokenizer;
use super::legacy::added_token;
use crate::error::{Error, Result};

/// What a token is, by the numbers of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// Comes from text.
    Normal,
    /// Stands for what cannot be spelled.
    Unknown,
    /// Comes from text only where it is asked for.
    Control,
    /// Is found in text before anything else is.
    Added,
    /// Never comes from text.
    Unused,
    /// Stands for a byte.
    Byte,
}

impl Type {
    const ALL: [Type; 6] = [Type::Normal, Type::Unknown, Type::Control, Type::Added, Type::Unused, Type::Byte];

    fn of(number: u64) -> Option<Type> {
        Self::ALL.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }

    /// Its number.
    fn number(self) -> i32 {
        self as i32 + 1
    }
}

/// The metadata, with errors that name the key.
struct Vocabulary<'a> {
    metadata: &'a Map<String, Value>,
    tokens: Vec<String>,
    types: Vec<Type>,
}

/// Roles in `tokenizer_config.json`, and the key that names the token; old files leave letters out.
const ROLES: [(&str, &[&str]); 7] = [
    ("bos_token", &["bos_token_id"]),
    ("eos_token", &["eos_token_id"]),
    ("unk_token", &["unknown_token_id"]),
    ("sep_token", &["seperator_token_id", "separator_token_id"]),
    ("pad_token", &["padding_token_id"]),
    ("cls_token", &["cls_token_id"]),
    ("mask_token", &["mask_token_id"]),
];

impl Tokenizer {
    /// The tokenizer that the `tokenizer.*` keys of a GGUF file describe.
    ///
    /// # Errors
    /// Names the key that is missing or wrong, and kinds of vocabularies or divisions of text that are not known.
    pub fn from_gguf(metadata: &Map<String, Value>) -> Result<Self> {
        let vocabulary = Vocabulary::read(metadata)?;
        let (mut tokenizer, adds) = match vocabulary.text("model")? {
            Some("gpt2") => bpe::build(&vocabulary)?,
            Some("llama") => pieces::build(&vocabulary)?,
            Some("bert") => words::build(&vocabulary)?,
            Some(other) => {
                return Err(wrong(
                    "model",
                    format!("{other:?} is not known; known are \"gpt2\", \"llama\" and \"bert\""),
                ));
            }
            None => return Err(wrong("model", "missing; it says what kind of vocabulary this is")),
        };
        tokenizer["version"] = json!("1.0");
        tokenizer["truncation"] = Value::Null;
        tokenizer["padding"] = Value::Null;
        tokenizer["added_tokens"] = vocabulary.added();
        tokenizer["post_processor"] = vocabulary.around(adds)?;
        let mut config = Map::new();
        // The class that takes `tokenizer.json` as it stands.
        config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        config.insert("clean_up_tokenization_spaces".into(), json!(false));
        for (role, keys) in ROLES {
            if let Some(id) = vocabulary.id(keys)? {
                config.insert(role.into(), json!(vocabulary.tokens[id]));
            }
        }
        let named =
            metadata.iter().filter_map(|(key, value)| Some((key.strip_prefix("tokenizer.chat_template.")?, value)));
        let mut templates: Vec<Value> =
            named.map(|(name, template)| json!({"name": name, "template": template})).collect();
        if let Some(template) = metadata.get("tokenizer.chat_template") {
            templates.push(json!({"name": "default", "template": template}));
        }
        if !templates.is_empty() {
            config.insert("chat_template".into(), json!(templates));
        }
        let bytes = |value: &Value| serde_json::to_vec(value).map_err(|error| Error::Tokenizer(error.to_string()));
        Tokenizer::from_memory(BTreeMap::from([
            ("tokenizer.json".to_owned(), bytes(&tokenizer)?),
            ("tokenizer_config.json".to_owned(), bytes(&Value::Object(config))?),
        ]))
    }
}

/// Tokens that stand around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Around {
    /// `bos_token`, before it.
    bos: bool,
    /// `eos_token`, after it.
    eos: bool,
    /// BERT's way: `cls_token` before it, `sep_token` after it and after a second one.
    pair: bool,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Map<String, Value>) -> Result<Self> {
        let mut this = Self { metadata, tokens: vec![], types: vec![] };
        let tokens = this.list("tokens")?.ok_or_else(|| wrong("tokens", "missing; it is the vocabulary"))?;
        let tokens = tokens.iter().enumerate().map(|(id, token)| match token.as_str() {
            // A name that no text has: an empty token cannot be found.
            Some("") => Ok(format!("[EMPTY_{id}]")),
            Some(token) => Ok(token.to_owned()),
            None => Err(wrong("tokens", format!("token {id} is not a string"))),
        });
        this.tokens = tokens.collect::<Result<_>>()?;
        let types = this.numbers("token_type", this.tokens.len())?;
        this.types = match types {
            Some(types) => types
                .iter()
                .map(|&number| {
                    Type::of(number as u64)
                        .ok_or_else(|| wrong("token_type", format!("{number} is no type; they go from 1 to 6")))
                })
                .collect::<Result<_>>()?,
            None => vec![Type::Normal; this.tokens.len()],
        };
        Ok(this)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.metadata.get(&format!("tokenizer.ggml.{key}"))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| wrong(key, "expected a string"));
        self.get(key).map(text).transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| wrong(key, "expected true or false"));
        self.get(key).map(flag).transpose()
    }

    fn list(&self, key: &str) -> Result<Option<&'a Vec<Value>>> {
        let list = |value: &'a Value| value.as_array().ok_or_else(|| wrong(key, "expected a list"));
        self.get(key).map(list).transpose()
    }

    /// One number for each token.
    fn numbers(&self, key: &str, tokens: usize) -> Result<Option<Vec<f64>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        if list.len() != tokens {
            return Err(wrong(key, format!("expected one for each of {tokens} tokens, found {}", list.len())));
        }
        let number =
            |value: &Value| value.as_f64().ok_or_else(|| wrong(key, format!("expected numbers, found {value}")));
        list.iter().map(number).collect::<Result<_>>().map(Some)
    }

    /// The token that the first of these keys names; a number beyond the vocabulary names none.
    fn id(&self, keys: &[&str]) -> Result<Option<usize>> {
        let Some((key, value)) = keys.iter().find_map(|key| Some((key, self.get(key)?))) else { return Ok(None) };
        match value.as_u64().and_then(|id| usize::try_from(id).ok()) {
            Some(id) => Ok(Some(id).filter(|&id| id < self.tokens.len())),
            // Files say -1 for none.
            None if value.as_i64() == Some(-1) => Ok(None),
            None => Err(wrong(key, format!("expected a token's number, found {value}"))),
        }
    }

    /// Tokens to numbers, as `tokenizer.json` has them; `spelled` gives the spelling there.
    fn vocab(&self, spelled: impl Fn(&str, Type) -> String) -> Result<Map<String, Value>> {
        let mut vocab = Map::with_capacity(self.tokens.len());
        for (id, (token, kind)) in self.tokens.iter().zip(&self.types).enumerate() {
            let spelled = spelled(token, *kind);
            if let Some(first) = vocab.insert(spelled, json!(id)) {
                return Err(wrong("tokens", format!("tokens {first} and {id} are both {token:?}")));
            }
        }
        Ok(vocab)
    }

    /// Tokens that are found in text as a whole.
    fn added(&self) -> Value {
        let tokens = self.tokens.iter().zip(&self.types).enumerate();
        let added = tokens.filter_map(|(id, (token, kind))| {
            let special = match kind {
                Type::Control | Type::Unknown => true,
                // Rows of the table that no token needs are numbered so by llama.cpp's converter.
                Type::Added if *token == format!("[PAD{id}]") => return None,
                Type::Added => false,
                _ => return None,
            };
            let mut added = added_token(token, Some(id as u64), false);
            added["special"] = json!(special);
            Some(added)
        });
        added.collect()
    }

    /// The tokens around a text: what the file says, or else what is usual for the kind.
    fn around(&self, usual: Around) -> Result<Value> {
        let bos = self.flag("add_bos_token")?.unwrap_or(usual.bos);
        let eos = self.flag("add_eos_token")?.unwrap_or(usual.eos);
        let need = |keys: &[&str]| {
            self.id(keys)?.ok_or_else(|| wrong(keys[0], "missing, and the token is to stand around texts"))
        };
        let (mut before, mut after, mut between) = (vec![], vec![], vec![]);
        if usual.pair {
            let sep = need(&["seperator_token_id", "separator_token_id", "eos_token_id"])?;
            before.push(need(&["cls_token_id", "bos_token_id"])?);
            after.push(sep);
            between.push(sep);
        } else {
            if bos {
                before.push(need(&["bos_token_id"])?);
            }
            if eos {
                after.push(need(&["eos_token_id"])?);
            }
        }
        if before.is_empty() && after.is_empty() {
            return Ok(Value::Null);
        }
        let piece = |kind: u32| move |id: &usize| json!({"SpecialToken": {"id": self.tokens[*id], "type_id": kind}});
        let text = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
        let first: Vec<Value> = before.iter().map(piece(0)).chain([text("A", 0)]).collect();
        let single: Vec<Value> = first.iter().cloned().chain(after.iter().map(piece(0))).collect();
        let second = u32::from(usual.pair);
        let start: Vec<Value> = if usual.pair { vec![] } else { before.iter().map(piece(0)).collect() };
        let pair: Vec<Value> = (single.iter().cloned())
            .chain(start)
            .chain([text("B", second)])
            .chain(after.iter().map(piece(second)))
            .collect();
        let tokens: Map<String, Value> = (before.iter().chain(&after))
            .map(|&id| {
                (self.tokens[id].clone(), json!({"id": self.tokens[id], "ids": [id], "tokens": [self.tokens[id]]}))
            })
            .collect();
        Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}))
    }
}

/// An error about a key.
fn wrong(key: &str, message: impl std::fmt::Display) -> Error {
    Error::Tokenizer(format!("tokenizer.ggml.{key}: {message}"))
}
