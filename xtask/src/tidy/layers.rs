//! Rules about what may depend on what: crates on crates, and crates on the machine below them.

use super::{Finding, Rule};

/// Each crate with the crates of ours that it may depend on. A new crate gets its line here first.
const MAY_USE: &[(&str, &[&str])] = &[
    ("kernels", &[]),
    ("metrics", &[]),
    ("parallel", &["kernels"]),
    ("ops", &["kernels", "parallel"]),
    ("data", &["kernels"]),
    ("nn", &["kernels", "parallel", "ops"]),
    ("models", &["kernels", "parallel", "ops", "nn"]),
    ("generate", &["kernels", "parallel", "ops", "nn", "models", "data"]),
    ("retrieve", &["kernels", "parallel", "ops", "nn", "models", "data"]),
    ("train", &["kernels", "metrics", "parallel", "ops", "nn", "models", "data", "generate"]),
    ("serve", &["kernels", "parallel", "ops", "nn", "models", "data", "generate", "train", "retrieve"]),
    (
        "phyla",
        &["kernels", "metrics", "parallel", "ops", "nn", "models", "data", "generate", "train", "retrieve", "serve"],
    ),
    ("xtask", &[]),
];

/// Crates that stay out, each with its reason.
const FORBIDDEN: &[(&str, &str)] = &[
    ("candle-nn", "its fused operations cut the gradient without a word"),
    ("candle-transformers", "its models are for inference only and own their products"),
    ("pyo3", "nothing here needs Python"),
    ("repugnant-pickle", "a pickle can run code; weights come as safetensors or GGUF"),
    ("serde-pickle", "a pickle can run code; weights come as safetensors or GGUF"),
    ("tch", "it links a second tensor library and its pickle reader"),
];

pub const DIRECTION: Rule = Rule {
    name: "dependency-direction",
    why: "kernels <- ops <- nn <- models <- {generate, train, retrieve} <- serve <- phyla: a layer that knows nothing \
          of those above can be read, tested and replaced alone; train may use generate, never the reverse",
    instead: "move the shared part down, or pass it in as an argument; a new crate gets a line in MAY_USE \
              (xtask/src/tidy/layers.rs) and in ARCHITECTURE.md",
    check: |tree| {
        let mut found = Vec::new();
        for (name, file, manifest) in tree.manifests() {
            if name.is_empty() {
                continue;
            }
            let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
                found.push(Finding::new(&file.path, 0, format!("crate `{name}` has no place among the layers")));
                continue;
            };
            for dependency in manifest.dependencies() {
                let Some(ours) = ours(&dependency.name) else {
                    continue;
                };
                if !allowed.contains(&ours) {
                    let what = format!("`{name}` depends on `{ours}`; it may use {}", one_of(allowed));
                    found.push(Finding::new(&file.path, dependency.line, what));
                }
            }
        }
        found
    },
};

pub const FORBIDDEN_CRATES: Rule = Rule {
    name: "forbidden-crates",
    why: "candle-nn cuts gradients silently, candle-transformers is for inference only, and a pickle can run code",
    instead: "write the operation in crates/ops with its own backward; read weights as safetensors or GGUF",
    check: |tree| {
        let mut found = Vec::new();
        let mut add = |path: &str, line: usize, name: &str| {
            if let Some((_, reason)) = FORBIDDEN.iter().find(|(banned, _)| *banned == name.replace('_', "-")) {
                found.push(Finding::new(path, line, format!("`{name}`: {reason}")));
            }
        };
        for (_, file, manifest) in tree.manifests() {
            for dependency in manifest.dependencies() {
                add(&file.path, dependency.line, &dependency.name);
            }
        }
        // The lock file shows what comes in through others.
        for (index, line) in tree.text("Cargo.lock").unwrap_or_default().lines().enumerate() {
            if let Some(name) = line.strip_prefix("name = ") {
                add("Cargo.lock", index + 1, name.trim_matches('"'));
            }
        }
        found
    },
};

pub const LINTS: Rule = Rule {
    name: "lints-are-on",
    why: "clippy denies unwrap, expect, panic and allow, and rustc unsafe code, only where the workspace's lints apply",
    instead: "keep `[workspace.lints]` at \"deny\" and write `[lints]` `workspace = true` in every Cargo.toml",
    check: |tree| {
        let mut found = Vec::new();
        let denied = [
            ("workspace.lints.rust", "unsafe_code"),
            ("workspace.lints.clippy", "unwrap_used"),
            ("workspace.lints.clippy", "expect_used"),
            ("workspace.lints.clippy", "panic"),
            ("workspace.lints.clippy", "allow_attributes"),
        ];
        for (name, file, manifest) in tree.manifests() {
            if !name.is_empty() {
                if manifest.get("lints", "workspace") != Some("true") {
                    found.push(Finding::new(&file.path, 0, "the workspace's lints do not apply here"));
                }
                continue;
            }
            for (table, key) in denied {
                if !matches!(manifest.get(table, key), Some("\"deny\"" | "\"forbid\"")) {
                    found.push(Finding::new(&file.path, 0, format!("`{key}` of [{table}] is not \"deny\"")));
                }
            }
        }
        found
    },
};

pub const UNSAFE: Rule = Rule {
    name: "unsafe-only-in-kernels",
    why: "memory safety is then a matter of one crate, whose functions are small, documented and tested against plain code",
    instead: "put the unsafe part behind a safe function of crates/kernels; files are mapped by its map.rs",
    check: |tree| {
        let outside = tree.sources.iter().filter(|source| !source.path.starts_with("crates/kernels/"));
        let mut found = Vec::new();
        for source in outside {
            for (i, token) in source.tokens.iter().enumerate() {
                // The lint's own name stands only in attributes that switch it off.
                if matches!(source.word(i), "unsafe" | "unsafe_code") {
                    found.push(Finding::new(&source.path, token.line, format!("`{}`", source.word(i))));
                }
            }
        }
        found
    },
};

pub const NO_FILES: Rule = Rule {
    name: "ops-and-nn-read-no-files",
    why: "a block is given its weights; where they come from (safetensors, GGUF, a shard, a random start) is for models to know",
    instead: "open the file in crates/models/src/checkpoint and pass the tensor, the mapped slice or the text down",
    check: |tree| {
        let mut found = Vec::new();
        for source in tree.sources_of("ops").chain(tree.sources_of("nn")) {
            for path in source.paths() {
                if reads_files(&path.parts) {
                    found.push(Finding::new(&source.path, path.line, format!("`{}`", path.parts.join("::"))));
                }
            }
        }
        found
    },
};

/// Does a path lead to the file system? Holding a mapped file is fine; opening one is not.
fn reads_files(parts: &[String]) -> bool {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let opens = |pair: &[&str]| {
        matches!(pair, ["std" | "tokio", "fs" | "net"] | ["File" | "MappedFile" | "OpenOptions", _] | ["fs", _])
    };
    parts.windows(2).any(opens)
        || parts.first().is_some_and(|first| matches!(*first, "memmap2" | "MmapOptions" | "Mmap"))
        || parts.last().is_some_and(|last| matches!(*last, "File" | "OpenOptions"))
}

/// The name of a crate of ours without its prefix.
fn ours(name: &str) -> Option<&str> {
    match name {
        "phyla" | "xtask" => Some(name),
        _ => name.strip_prefix("phyla-").or_else(|| name.strip_prefix("phyla_")),
    }
}

fn one_of(names: &[&str]) -> String {
    if names.is_empty() { "none of ours".to_owned() } else { names.join(", ") }
}
