//! How text is divided before pieces are merged, by the names that `tokenizer.ggml.pre` has for it.

use serde_json::{Value, json};

use super::wrong;
use crate::error::Result;
use crate::tokenizer::PreTokenizer;

/// A way to divide text: patterns one after another, each dividing what the ones before it left whole.
pub(super) struct Split {
    patterns: &'static [&'static str],
    /// A piece that is a token needs no merges.
    pub whole: bool,
    /// Texts begin with a token where the file says nothing of it.
    pub bos: bool,
}

pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words of capitals and then small letters.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Letters that have a case, of the scripts that its list names.
const DEEPSEEK_LETTERS: &str =
    r"\s?(?:(?![ⴀ-ⴭꞐ-ꟺꬰ-ꭨ\x{10570}-\x{105BC}\x{16E40}-\x{16E7F}\x{1D400}-\x{1DF1E}])[\p{Lu}\p{Ll}\p{Lt}])+";
const CHINESE: &str = r"[一-龥ࠀ-一가-퟿]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

const LLAMA3: &str = PreTokenizer::Llama3.pattern();

/// Names, patterns, and whether whole tokens need no merges and texts begin with one.
type Line = (&'static [&'static str], &'static [&'static str], bool, bool);

const SPLITS: &[Line] = &[
    (
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "gigachat",
            "roberta-bpe",
            "mpt",
            "olmo",
            "jais",
            "trillion",
        ],
        &[GPT2],
        false,
        false,
    ),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        &[LLAMA3],
        true,
        true,
    ),
    (&["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], &[LLAMA3], false, false),
    (&["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"], &[QWEN2], false, false),
    (
        &["deepseek-llm"],
        &[r"[\r\n]", DEEPSEEK_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", CHINESE, r"\p{N}+"],
        false,
        false,
    ),
    (&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CHINESE, r"\p{N}"], false, false),
    (&["deepseek-v3"], &[r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3], false, false),
    (&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], false, false),
    (
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"],
        &[r"\p{N}", GPT2],
        false,
        false,
    ),
    (&["tekken"], &[TEKKEN], true, true),
    (&["gpt-4o", "llama4", "o200k"], &[GPT4O], false, false),
    (&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], false, false),
];

impl Split {
    /// The way of that name.
    pub fn named(name: &str) -> Result<Split> {
        match SPLITS.iter().find(|(names, ..)| names.contains(&name)) {
            Some(&(_, patterns, whole, bos)) => Ok(Split { patterns, whole, bos }),
            None => {
                let known: Vec<&str> = SPLITS.iter().flat_map(|(names, ..)| names.iter().copied()).collect();
                Err(wrong(
                    "pre",
                    format!(
                        "{name:?} is not known, and with another way to divide text a model would \
                    read other tokens than it was trained on; known are {}",
                        known.join(", ")
                    ),
                ))
            }
        }
    }

    /// The first of the names of the way that has these patterns.
    pub fn name_of(patterns: &[String], whole: bool) -> Option<&'static str> {
        let same = |line: &&Line| line.1 == patterns && line.2 == whole;
        SPLITS.iter().find(same).and_then(|(names, ..)| names.first().copied())
    }

    /// As `tokenizer.json` has it.
    pub fn json(&self) -> Value {
        let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let parts: Vec<Value> = self.patterns.iter().map(split).chain([bytes]).collect();
        json!({"type": "Sequence", "pretokenizers": parts})
    }
}
