//! Rules about model families: they are data, and nobody above `models` knows their names.

use super::{Finding, Rule};
use crate::lex::Kind;
use crate::source::Source;
use crate::tree::Tree;
use std::collections::BTreeSet;

/// The crates above `models`.
const ABOVE: &[&str] = &["generate", "train", "retrieve", "serve", "phyla"];

/// Families of the field, by the word that all their versions share. Those registered are added to them.
const FAMILIES: &[&str] = &[
    "albert",
    "bart",
    "bert",
    "camembert",
    "deberta",
    "deepseek",
    "distilbert",
    "electra",
    "falcon",
    "gemma",
    "gpt",
    "llama",
    "mamba",
    "minilm",
    "mistral",
    "mixtral",
    "modernbert",
    "mpnet",
    "mt5",
    "neox",
    "olmo",
    "phi3",
    "qwen",
    "roberta",
    "smollm",
    "t5",
    "tinyllama",
    "vicuna",
    "xlnet",
];

/// Families named after what everybody speaks of.
const ORDINARY: &[&str] = &["transformer", "encoder_decoder", "marian"];

/// Files above `models` that may name families, each with its reason.
const MAY_NAME: &[(&str, &str)] = &[];

pub const NO_ARITHMETIC: Rule = Rule {
    name: "families-hold-no-arithmetic",
    why: "a family is data: its config, its arch and its names; arithmetic in it would be a twin of a block, without \
          adapters, cache and quantisation",
    instead: "give the block a variant, or write a new block in crates/nn, and choose it in `arch`",
    check: |tree| {
        let mut found = Vec::new();
        for source in families(tree) {
            for path in source.paths() {
                if let Some(part) = path.parts.iter().find(|part| computes(part)) {
                    found.push(Finding::new(&source.path, path.line, format!("`{part}`")));
                }
            }
            for i in source.outside_tests() {
                if let Some(what) = arithmetic(source, i) {
                    found.push(Finding::new(&source.path, source.tokens[i].line, what));
                }
            }
        }
        found
    },
};

pub const REGISTERED: Rule = Rule {
    name: "families-are-registered",
    why: "a family that the registry does not list cannot be loaded, and one without a parity row is not known to be right",
    instead: "add the family's line to crates/models/src/registry.rs and its row to crates/models/tests/parity.rs",
    check: |tree| {
        let mut found = Vec::new();
        for source in families(tree) {
            for place in ["crates/models/src/registry.rs", "crates/models/tests/parity.rs"] {
                let listed = tree.sources.iter().find(|other| other.path == place).is_some_and(|other| {
                    // Tables may name a family by its module or by its `model_type`, which may have hyphens.
                    let named = |i| other.word(i).trim_matches('"').replace('-', "_") == stem(source);
                    (0..other.tokens.len()).any(named)
                });
                if !listed {
                    found.push(Finding::new(&source.path, 0, format!("`{}` does not stand in {place}", stem(source))));
                }
            }
        }
        found
    },
};

pub const NO_NAMES_ABOVE: Rule = Rule {
    name: "no-family-names-above-models",
    why: "a feature that asks which family it serves works for that one only, and every new family would have to be \
          taught to it",
    instead: "let the family say it as data in its `Arch` or through the registry, and ask for the property",
    check: |tree| {
        let own: BTreeSet<String> = families(tree).map(|source| stem(source).to_owned()).collect();
        let mut found = Vec::new();
        for source in ABOVE.iter().flat_map(|name| tree.sources_of(name)) {
            for i in source.outside_tests() {
                let token = source.tokens[i];
                if (token.kind == Kind::Ident || token.kind == Kind::Str && !is_prose(source.word(i)))
                    && let Some(family) = family_in(source.word(i), &own)
                {
                    found.push(Finding::new(
                        &source.path,
                        token.line,
                        format!("`{family}` in {}", shown(source.word(i))),
                    ));
                }
            }
        }
        // Configs and templates that are compiled in are code too.
        for file in &tree.texts {
            let above = ABOVE.iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/")));
            for (index, line) in file.text.lines().enumerate().filter(|_| above) {
                if let Some(family) = family_in(line, &own) {
                    found.push(Finding::new(&file.path, index + 1, format!("`{family}`")));
                }
            }
        }
        found.retain(|finding| !MAY_NAME.iter().any(|(path, _)| *path == finding.path));
        found
    },
};

/// The files that define a family: they say `impl Family for`.
fn families(tree: &Tree) -> impl Iterator<Item = &Source> {
    let defines = |source: &Source| source.outside_tests().any(|i| source.at(i, &["Family", "for"]));
    tree.sources_of("models").filter(move |source| defines(source))
}

/// The module of a file: `llama` for `llama.rs` and for `llama/mod.rs`.
fn stem(source: &Source) -> &str {
    let path = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
    path.rsplit('/').next().unwrap_or(path)
}

/// Does a path that holds this part lead to tensors?
fn computes(part: &str) -> bool {
    matches!(part, "phyla_ops" | "phyla_kernels" | "candle_core" | "candle" | "gemm" | "Tensor" | "Data" | "Param")
}

/// What at code token `i` computes on tensors. Sums, products and powers of config values are no arithmetic in
/// this sense; summing in place over a loop is.
fn arithmetic(source: &Source, i: usize) -> Option<String> {
    let word = source.word(i);
    if source.is_method_call(i) {
        let tensor = matches!(word, "forward" | "matmul" | "softmax" | "to_dtype") || word.starts_with("broadcast_");
        return tensor.then(|| format!("`.{word}(`"));
    }
    if word == "fn" && source.word(i + 1).starts_with("forward") {
        return Some(format!("`fn {}`", source.word(i + 1)));
    }
    let assigns = matches!(word, "+" | "-" | "*" | "/")
        && source.word(i + 1) == "="
        && source.tokens[i].end == source.tokens[i + 1].start;
    assigns.then(|| format!("`{word}=`"))
}

/// Methods for any model of a kind, named after the first one.
const METHODS: &[[&str; 2]] = &[["t5", "span"], ["sentence", "bert"]];

/// The family that a name or a string speaks of: a whole word of it, versions and letter case aside.
fn family_in(text: &str, own: &BTreeSet<String>) -> Option<String> {
    let mut words = words(text);
    // A method may bear the name of the model it was published with.
    while let Some(at) = words.windows(2).position(|pair| METHODS.iter().any(|method| pair == method)) {
        words.drain(at..at + 2);
    }
    let known = words.iter().find_map(|word| {
        let family = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let hit = [word.as_str(), family].into_iter().find(|form| FAMILIES.contains(form));
        hit.map(str::to_owned)
    });
    known.or_else(|| {
        own.iter().filter(|name| !ORDINARY.contains(&name.as_str())).find_map(|name| {
            let parts: Vec<&str> = name.split('_').collect();
            words.windows(parts.len()).any(|window| window == parts).then(|| name.clone())
        })
    })
}

/// Splits `Qwen2Config`, `deepseek_v2` and `"a Llama-3 file"` into lower-case words.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in text.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && !before.is_uppercase()) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Is a literal text for people, such as an example in a help page? A name that code compares with is one word,
/// and a config that it parses has quotes or braces.
fn is_prose(literal: &str) -> bool {
    let inside = literal.trim_matches(['r', 'b', 'c', '#']).trim_matches('"');
    inside.split_whitespace().count() >= 3 && !inside.contains(['"', '{'])
}

fn shown(word: &str) -> String {
    let short: String = word.lines().next().unwrap_or_default().chars().take(60).collect();
    if short.starts_with('"') { short } else { format!("`{short}`") }
}
