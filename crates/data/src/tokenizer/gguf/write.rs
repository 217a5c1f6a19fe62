//! The way back: the `tokenizer.*` keys of a GGUF file that say what a tokenizer does. What the format has no word for is
//! refused; what comes out is read again and tried on texts before it is given away.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::split::{GPT2, Split};
use super::{ROLES, Type, wrong};
use crate::error::{Error, Result};
use crate::template::DEFAULT;
use crate::tokenizer::Tokenizer;

/// Stands for a space in SentencePiece's pieces, and before a word in WordPiece's.
const SPACE: &str = "\u{2581}";

/// What the keys have to say as the files do. Composed letters only: the format has no normal forms.
const TEXTS: [&str; 12] = [
    "Once upon a time, there was a little girl named Lily.",
    "  two  spaces, leading and inside ",
    "Lily's mom said, \"Let's go!\"\nThey went.\n\n\n\tTab  and\u{a0}more \r\n end",
    "zürich 東京 🙂 naïve Straße élève São Paulo",
    "1234567890 + x = 3.14159e-10; ZZZ (2026-01-31) #42",
    "def main(args):\n    return [x ** 2 for x in range(10)]  # squares\n",
    "I'm you're HE'LL it's DON'T we've",
    "Привет, мир! مرحبا بالعالم नमस्ते 안녕하세요 こんにちは",
    "aaaaaaaaaaaaaaaaaaaa thethethe !!!??? ---- ____",
    "https://example.org/a_b?c=d&e=f%20g",
    "你好，世界。今天天气很好。",
    "",
];

impl Tokenizer {
    /// The `tokenizer.*` keys of a GGUF file whose token table has `rows` rows. Lists of whole numbers are for `i32`, of
    /// others for `f32`, ids for `u32`.
    ///
    /// # Errors
    /// Names the part of `tokenizer.json` that the format has no word for, and texts that would become other ids.
    pub fn to_gguf(&self, rows: usize) -> Result<Map<String, Value>> {
        if rows < self.vocab_size {
            return Err(cannot(format!("it has {} tokens, and the model's table {rows} rows", self.vocab_size)));
        }
        let json = self.files.object("tokenizer.json")?.unwrap_or_default();
        let model = &json["model"];
        let kind = model["type"].as_str().unwrap_or(if model.get("merges").is_some() { "BPE" } else { "" });
        let mut keys = Map::new();
        let mut set = |key: &str, value: Value| _ = keys.insert(format!("tokenizer.ggml.{key}"), value);
        let pieces = model["byte_fallback"] == true;
        match kind {
            "BPE" if pieces => {
                set("model", json!("llama"));
                set("pre", json!("default"));
                set("scores", json!(scores(model, self, rows)?));
                set("add_space_prefix", json!(begins_with_space(&json)?));
            }
            "BPE" => {
                set("model", json!("gpt2"));
                set("pre", json!(Split::of(&patterns(&json)?, model["ignore_merges"] == true)?));
                set("merges", json!(merges(model)?.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>()));
            }
            "WordPiece" => words(&json, &mut set)?,
            other => return Err(cannot(format!("its model is {other:?}; known are BPE and WordPiece"))),
        }
        let (tokens, types) = self.table(kind, pieces, rows);
        set("tokens", json!(tokens));
        set("token_type", json!(types));
        self.roles(&mut set);
        if kind != "WordPiece" {
            let (bos, eos) = self.ends()?;
            set("add_bos_token", json!(bos));
            set("add_eos_token", json!(eos));
        }
        for name in self.templates.names() {
            let key = if name == DEFAULT {
                "tokenizer.chat_template".into()
            } else {
                format!("tokenizer.chat_template.{name}")
            };
            keys.insert(key, json!(self.templates.source(name)));
        }
        self.prove(&keys)?;
        Ok(keys)
    }

    /// The tokens in order of their ids, and what they are.
    fn table(&self, kind: &str, pieces: bool, rows: usize) -> (Vec<String>, Vec<i32>) {
        let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
        let mut types = vec![Type::Unused.number(); rows];
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let continues = |token: &str| kind == "WordPiece" && !(token.starts_with('[') && token.ends_with(']'));
        for (token, id) in self.vocabulary() {
            let kind = match added.get(&id) {
                _ if pieces && self.unk() == Some(id) => Type::Unknown,
                Some(token) if token.special => Type::Control,
                Some(_) => Type::Added,
                None if pieces && is_byte(&token) => Type::Byte,
                None => Type::Normal,
            };
            types[id as usize] = kind.number();
            tokens[id as usize] = match token.strip_prefix("##") {
                Some(rest) if continues(&token) => rest.to_owned(),
                None if continues(&token) && kind == Type::Normal => format!("{SPACE}{token}"),
                _ => token,
            };
        }
        (tokens, types)
    }

    fn roles(&self, set: &mut impl FnMut(&str, Value)) {
        for (role, token) in self.special.roles() {
            let keys = ROLES.iter().find(|(known, _)| *known == role).map(|(_, keys)| keys);
            if let (Some(token), Some(keys)) = (token, keys) {
                set(keys[0], json!(token.id));
            }
        }
    }

    /// Whether `bos` stands before a text and `eos` after it; anything else cannot be said.
    fn ends(&self) -> Result<(bool, bool)> {
        let (bare, whole) = (self.encode("a", false)?, self.encode("a", true)?);
        let around = |bos: bool, eos: bool| -> Option<Vec<u32>> {
            let (bos, eos) =
                (if bos { vec![self.bos()?] } else { vec![] }, if eos { vec![self.eos()?] } else { vec![] });
            Some([bos, bare.clone(), eos].concat())
        };
        let cases = [(false, false), (true, false), (false, true), (true, true)];
        let found = cases.into_iter().find(|&(bos, eos)| around(bos, eos).as_ref() == Some(&whole));
        found.ok_or_else(|| cannot(format!("it puts {whole:?} around {bare:?}, and only bos and eos can be said")))
    }

    /// Reads the keys again and tries both on texts.
    fn prove(&self, keys: &Map<String, Value>) -> Result<()> {
        let again = Tokenizer::from_gguf(keys)?;
        for text in TEXTS {
            let (ours, theirs) = (self.encode(text, true)?, again.encode(text, true)?);
            if ours != theirs {
                let at = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
                let some = |ids: &[u32]| format!("{:?}", &ids[at.min(ids.len())..ids.len().min(at + 8)]);
                return Err(cannot(format!(
                    "of the text {text:?} it makes {} from id {at} on, and its form in the file {}",
                    some(&ours),
                    some(&theirs)
                )));
            }
        }
        Ok(())
    }
}

/// An error about the tokenizer.
fn cannot(why: impl std::fmt::Display) -> Error {
    Error::Tokenizer(format!("the tokenizer cannot be put into a GGUF file: {why}"))
}

fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}

/// The pairs that are joined, the first ones first.
fn merges(model: &Value) -> Result<Vec<(&str, &str)>> {
    let lines = model["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pair = |line| pair(line).ok_or_else(|| cannot(format!("a merge is {line}: expected two pieces")));
    lines.iter().map(pair).collect()
}

/// Two pieces, as files had them first and as they have them now.
fn pair(line: &Value) -> Option<(&str, &str)> {
    match line {
        Value::String(line) => line.split_once(' ').filter(|(_, right)| !right.contains(' ')),
        Value::Array(pair) if pair.len() == 2 => pair[0].as_str().zip(pair[1].as_str()),
        _ => None,
    }
}

/// SentencePiece's scores: the piece that is joined first has the highest. Pieces that nothing is joined to have 0.
fn scores(model: &Value, tokenizer: &Tokenizer, rows: usize) -> Result<Vec<f64>> {
    let mut rank: HashMap<String, usize> = HashMap::new();
    for (left, right) in merges(model)? {
        let next = rank.len() + 1;
        rank.entry(format!("{left}{right}")).or_insert(next);
    }
    let mut scores = vec![0.; rows];
    for (piece, rank) in rank {
        if let Some(id) = tokenizer.token_to_id(&piece) {
            scores[id as usize] = -(rank as f64);
        }
    }
    Ok(scores)
}

/// Whether a space stands before the first word of a text that has none there.
fn begins_with_space(json: &Map<String, Value>) -> Result<bool> {
    let parts = |value: &Value, key: &str| match value["type"].as_str() {
        Some("Sequence") => value[key].as_array().cloned().unwrap_or_default(),
        Some(_) => vec![value.clone()],
        None => vec![],
    };
    let null = Value::Null;
    let part = |key: &str| json.get(key).unwrap_or(&null);
    let mut begins = false;
    for part in parts(part("normalizer"), "normalizers").iter().chain(&parts(part("pre_tokenizer"), "pretokenizers")) {
        match part["type"].as_str() {
            Some("Prepend") if part["prepend"] == SPACE => begins = true,
            Some("Replace") if part["pattern"]["String"] == " " && part["content"] == SPACE => {}
            Some("Metaspace") if part["prepend_scheme"] == "never" || part["add_prefix_space"] == false => {}
            Some("Metaspace") => begins = true,
            _ => {
                return Err(cannot(format!("it changes texts by {part}, and pieces with scores go with spaces alone")));
            }
        }
    }
    Ok(begins)
}

/// The patterns by which texts are divided before letters stand for bytes.
fn patterns(json: &Map<String, Value>) -> Result<Vec<String>> {
    match json.get("normalizer").map(|normalizer| &normalizer["type"]) {
        None | Some(Value::Null) => {}
        // Nobody who reads the format composes letters; texts are composed as a rule.
        Some(kind) if kind == "NFC" => {}
        Some(kind) => {
            return Err(cannot(format!("its normalizer is {kind}, and bytes stay as they are in the format")));
        }
    }
    let pre = json.get("pre_tokenizer").cloned().unwrap_or_default();
    let parts = match pre["type"].as_str() {
        Some("Sequence") => pre["pretokenizers"].as_array().cloned().unwrap_or_default(),
        _ => vec![pre],
    };
    let mut patterns = vec![];
    for part in &parts {
        match part["type"].as_str() {
            Some("Split") if part["behavior"] == "Isolated" && part["invert"] != true => {
                match part["pattern"]["Regex"].as_str() {
                    Some(pattern) => patterns.push(pattern.to_owned()),
                    None => return Err(cannot(format!("it divides texts by {}", part["pattern"]))),
                }
            }
            Some("Digits") if part["individual_digits"] == true => patterns.push(r"\p{N}".into()),
            Some("ByteLevel") if part["add_prefix_space"] != true => {
                if part["use_regex"] != false {
                    patterns.push(GPT2.into());
                }
            }
            _ => return Err(cannot(format!("it divides texts by {part}"))),
        }
    }
    Ok(patterns)
}

/// BERT's pieces of words.
fn words(json: &Map<String, Value>, set: &mut impl FnMut(&str, Value)) -> Result<()> {
    let part = |key: &str| json.get(key).cloned().unwrap_or_default();
    let (model, normalizer, pre) = (part("model"), part("normalizer"), part("pre_tokenizer"));
    let expected = model["continuing_subword_prefix"] == "##"
        && normalizer["type"] == "BertNormalizer"
        && normalizer["clean_text"] != false
        && normalizer["handle_chinese_chars"] != false
        && pre["type"] == "BertPreTokenizer";
    if !expected {
        return Err(cannot("it is none like BERT's: `##`, BertNormalizer and BertPreTokenizer in `tokenizer.json`"));
    }
    let lowercase = normalizer["lowercase"] != false;
    set("model", json!("bert"));
    set("pre", json!("default"));
    set("normalizer.lowercase", json!(lowercase));
    set("normalizer.strip_accents", json!(normalizer["strip_accents"].as_bool().unwrap_or(lowercase)));
    Ok(())
}

impl Split {
    /// The name of the way to divide texts that has these patterns.
    fn of(patterns: &[String], whole: bool) -> Result<&'static str> {
        Self::name_of(patterns, whole).ok_or_else(|| {
            wrong("pre", format!("there is no name for a way to divide texts by {patterns:?} (whole tokens: {whole})"))
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::tokenizer::{BpeSettings, PreTokenizer, WordPieceSettings, train_bpe, train_wordpiece};

    fn texts() -> Vec<String> {
        TEXTS.iter().map(|text| text.repeat(3)).collect()
    }

    fn same(tokenizer: &Tokenizer, rows: usize) -> Map<String, Value> {
        let keys = tokenizer.to_gguf(rows).unwrap();
        let again = Tokenizer::from_gguf(&keys).unwrap();
        for text in TEXTS {
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(again.encode(text, true).unwrap(), ids, "{text}");
            assert_eq!(again.decode(&ids, true).unwrap(), tokenizer.decode(&ids, true).unwrap(), "{text}");
        }
        keys
    }

    #[test]
    fn bytes_that_are_joined_come_back() {
        for pre_tokenizer in [PreTokenizer::Gpt2, PreTokenizer::Llama3] {
            let special: Vec<String> = ["<|end|>", "<s>", "<pad>"].map(String::from).into();
            let settings = BpeSettings {
                vocab_size: 320,
                special_tokens: special.clone(),
                pre_tokenizer,
                bos_token: Some("<s>".into()),
                eos_token: Some("<|end|>".into()),
                pad_token: Some("<pad>".into()),
                chat_template: Some("{{ messages }}".into()),
                ..BpeSettings::default()
            };
            let tokenizer = train_bpe(texts().into_iter().map(Ok), &settings, &mut |_| {}).unwrap();
            let keys = same(&tokenizer, 322);
            assert_eq!(keys["tokenizer.ggml.model"], "gpt2");
            assert_eq!(keys["tokenizer.ggml.eos_token_id"], json!(tokenizer.eos()));
            assert_eq!(keys["tokenizer.chat_template"], "{{ messages }}");
            assert_eq!(keys["tokenizer.ggml.add_bos_token"], false);
            let (tokens, types) = (&keys["tokenizer.ggml.tokens"], &keys["tokenizer.ggml.token_type"]);
            assert_eq!((tokens[0].as_str(), types[0].as_i64()), (Some("<|end|>"), Some(3)));
            assert_eq!((tokens[321].as_str(), types[321].as_i64()), (Some("[PAD321]"), Some(5)));
            let message = tokenizer.to_gguf(319).unwrap_err().to_string();
            assert!(message.contains("320 tokens, and the model's table 319 rows"), "{message}");
        }
    }

    #[test]
    fn pieces_of_words_come_back() {
        for lowercase in [true, false] {
            let settings = WordPieceSettings { vocab_size: 400, lowercase, ..WordPieceSettings::default() };
            let tokenizer = train_wordpiece(texts().into_iter().map(Ok), &settings, &mut |_| {}).unwrap();
            let keys = same(&tokenizer, tokenizer.vocab_size());
            assert_eq!(
                (&keys["tokenizer.ggml.model"], &keys["tokenizer.ggml.cls_token_id"]),
                (&json!("bert"), &json!(tokenizer.cls()))
            );
            assert!(!keys.contains_key("tokenizer.ggml.add_bos_token"));
        }
    }

    /// A small vocabulary as Llama 2 has it: 3 special tokens, 256 bytes, letters, and what is joined of them.
    fn pieces(prepend: bool) -> Value {
        let joined = [("t", "h"), ("th", "e"), ("\u{2581}", "the"), ("a", "a"), ("aa", "aa")];
        let letters = ["\u{2581}", "t", "h", "e", "a", "n", "."];
        let tokens: Vec<String> = (["<unk>", "<s>", "</s>"].map(String::from).into_iter())
            .chain((0..256).map(|byte| format!("<0x{byte:02X}>")))
            .chain(joined.iter().map(|(a, b)| format!("{a}{b}")))
            .chain(letters.map(String::from))
            .collect();
        let vocab: Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let begin = prepend.then(|| json!({"type": "Prepend", "prepend": SPACE}));
        let added = |id: usize| {
            json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
        };
        let bos = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added(0), added(1), added(2)],
            "normalizer": {"type": "Sequence", "normalizers": begin.into_iter().chain([replace]).collect::<Vec<_>>()},
            "pre_tokenizer": null,
            "post_processor": {"type": "TemplateProcessing", "single": [bos, text("A", 0)],
                "pair": [bos, text("A", 0), bos, text("B", 1)],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": vocab, "merges": joined.iter().map(|(a, b)| json!([a, b])).collect::<Vec<_>>()},
        })
    }

    fn open(json: &Value) -> Tokenizer {
        let config = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
        let bytes = |value: &Value| serde_json::to_vec(value).unwrap();
        let files = BTreeMap::from([
            ("tokenizer.json".to_owned(), bytes(json)),
            ("tokenizer_config.json".to_owned(), bytes(&config)),
        ]);
        Tokenizer::from_memory(files).unwrap()
    }

    #[test]
    fn pieces_with_scores_come_back() {
        for prepend in [true, false] {
            let tokenizer = open(&pieces(prepend));
            let keys = tokenizer.to_gguf(tokenizer.vocab_size()).unwrap();
            let again = Tokenizer::from_gguf(&keys).unwrap();
            for text in ["the aaaa then athe.", " the", "\u{2581}the é"] {
                assert_eq!(again.encode(text, true).unwrap(), tokenizer.encode(text, true).unwrap(), "{text}");
            }
            assert_eq!(keys["tokenizer.ggml.add_space_prefix"], prepend);
            assert_eq!(keys["tokenizer.ggml.add_bos_token"], true);
            let scores: Vec<f64> = serde_json::from_value(keys["tokenizer.ggml.scores"].clone()).unwrap();
            assert_eq!(scores[259..265], [-1., -2., -3., -4., -5., 0.]);
            let types: Vec<i32> = serde_json::from_value(keys["tokenizer.ggml.token_type"].clone()).unwrap();
            assert_eq!((types[..4].to_vec(), types[265]), (vec![2, 3, 3, 6], 1));
        }
    }

    #[test]
    fn what_the_format_has_no_word_for_is_refused() {
        let message = |change: &dyn Fn(&mut Value)| {
            let mut json = pieces(true);
            change(&mut json);
            open(&json).to_gguf(300).unwrap_err().to_string()
        };
        let said = message(&|json| json["normalizer"] = json!({"type": "Lowercase"}));
        assert!(said.contains("it changes texts by") && said.contains("Lowercase"), "{said}");
        let said = message(&|json| {
            json["post_processor"]["single"] = json!([
                {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}
            ]);
        });
        assert!(said.contains("only bos and eos can be said"), "{said}");
        // Pairs of one piece far apart: to join by the pair's rank is then not to join by the piece's score.
        let said = message(&|json| {
            json["model"]["merges"] = json!([["a", "a"], ["t", "h"], ["aa", "aa"], ["h", "e"], ["t", "he"]]);
            json["model"]["vocab"]["he"] = json!(271);
        });
        assert!(said.contains("of the text"), "{said}");
        let said = message(&|json| {
            json["model"]["byte_fallback"] = json!(false);
            json["normalizer"] = json!(null);
            json["pre_tokenizer"] = json!({"type": "Whitespace"});
        });
        assert!(said.contains("divides texts by") && said.contains("Whitespace"), "{said}");
    }
}
