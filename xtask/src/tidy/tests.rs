//! Every rule broken once, and kept once by code that comes close to breaking it.
#![expect(clippy::panic, reason = "tests")]

use super::*;
use crate::tree::TextFile;

/// Files of a tree: path and text.
type Files<'a> = &'a [(&'a str, &'a str)];

struct Case {
    rule: &'static str,
    /// Each tree has at least one finding, and the first stands on the line given with it.
    broken: &'static [(usize, Files<'static>)],
    kept: Files<'static>,
}

const FAMILY: &str = "//! Pre-norm decoder with rotary positions.\nimpl Family for Config {}\n";

const CASES: &[Case] = &[
    Case {
        rule: "dependency-direction",
        broken: &[
            (2, &[("crates/ops/Cargo.toml", "[dependencies]\nphyla-nn.workspace = true\n")]),
            (2, &[("crates/generate/Cargo.toml", "[dev-dependencies]\nphyla-train = { path = \"../train\" }\n")]),
            (1, &[("crates/nn/Cargo.toml", "[dependencies.phyla-models]\nworkspace = true\n")]),
            (0, &[("crates/glue/Cargo.toml", "[dependencies]\n")]),
        ],
        kept: &[
            ("Cargo.toml", "[workspace.dependencies]\nphyla-nn = { path = \"crates/nn\" }\n"),
            ("crates/ops/Cargo.toml", "[dependencies]\n# phyla-nn\nphyla-kernels.workspace = true\n"),
            ("crates/train/Cargo.toml", "[dependencies]\nphyla-generate.workspace = true\n"),
        ],
    },
    Case {
        rule: "forbidden-crates",
        broken: &[
            (2, &[("crates/nn/Cargo.toml", "[dependencies]\ncandle-nn = \"0.11\"\n")]),
            (
                2,
                &[(
                    "Cargo.toml",
                    "[workspace.dependencies]\npickle = { version = \"1\", package = \"serde-pickle\" }\n",
                )],
            ),
            (2, &[("Cargo.lock", "[[package]]\nname = \"candle-transformers\"\n")]),
        ],
        kept: &[
            ("crates/nn/Cargo.toml", "[dependencies]\ncandle-core = \"0.11\" # not candle-nn\n"),
            ("Cargo.lock", "[[package]]\nname = \"candle-core\"\n"),
        ],
    },
    Case {
        rule: "lints-are-on",
        broken: &[
            (0, &[("crates/nn/Cargo.toml", "[package]\nname = \"phyla-nn\"\n")]),
            (0, &[("Cargo.toml", "[workspace.lints.rust]\nunsafe_code = \"warn\"\n")]),
        ],
        kept: &[
            ("crates/nn/Cargo.toml", "[lints]\nworkspace = true\n"),
            (
                "Cargo.toml",
                "[workspace.lints.rust]\nunsafe_code = \"deny\"\n[workspace.lints.clippy]\nunwrap_used = \"deny\"\n\
                 expect_used = \"deny\"\npanic = \"deny\"\nallow_attributes = \"deny\"\n",
            ),
        ],
    },
    Case {
        rule: "unsafe-only-in-kernels",
        broken: &[
            (2, &[("crates/ops/src/a.rs", "//! A.\nfn a() { unsafe { b() } }\n")]),
            (1, &[("crates/nn/src/a.rs", "#![expect(unsafe_code, reason = \"fast\")]\n")]),
            (2, &[("crates/nn/tests/a.rs", "//! A.\nunsafe fn a() {}\n")]),
        ],
        kept: &[
            ("crates/kernels/src/map.rs", "//! A.\nfn a() { unsafe { b() } }\n"),
            ("crates/ops/src/a.rs", "//! No unsafe.\nfn a() { b(\"unsafe\"); /* unsafe */ unsafely() }\n"),
        ],
    },
    Case {
        rule: "ops-and-nn-read-no-files",
        broken: &[
            (1, &[("crates/nn/src/a.rs", "use std::{fs::read, sync::Arc};\n")]),
            (1, &[("crates/nn/src/a.rs", "fn a() { std::fs::read(b) }\n")]),
            (1, &[("crates/ops/src/a.rs", "fn a() { phyla_kernels::map::MappedFile::open(b) }\n")]),
            (2, &[("crates/ops/src/a.rs", "use std::io;\nfn a() { File::open(b) }\n")]),
        ],
        kept: &[
            ("crates/ops/src/a.rs", "use phyla_kernels::map::{MappedFile, MappedSlice};\nfn a(f: &MappedFile) {}\n"),
            ("crates/nn/src/a.rs", "// std::fs\n#[cfg(test)]\nmod tests {\nuse std::fs;\n}\n"),
            ("crates/models/src/checkpoint.rs", "use std::fs::File;\n"),
        ],
    },
    Case {
        rule: "only-linear-and-moe-multiply",
        broken: &[
            (1, &[("crates/nn/src/mlp.rs", "fn a() { x.matmul(&w) }\n")]),
            (1, &[("crates/train/src/a.rs", "fn a() { Tensor::broadcast_matmul(&x, &w) }\n")]),
            (1, &[("crates/nn/src/mlp.rs", "use phyla_kernels::{threads, product::linear};\n")]),
            (1, &[("crates/generate/src/a.rs", "fn a() { phyla_ops::linear(&x, &w, None) }\n")]),
            (1, &[("crates/train/src/a.rs", "use phyla_ops::{Tensor, linear_cross_entropy};\n")]),
            (1, &[("crates/models/src/a.rs", "fn a() { gemm::gemm(1) }\n")]),
        ],
        kept: &[
            ("crates/nn/src/linear.rs", "fn a() { phyla_ops::linear(&x, &w, None) }\n"),
            ("crates/nn/src/moe.rs", "fn a() { x.matmul(&w) }\n"),
            ("crates/nn/src/adapter/low_rank.rs", "fn a() { phyla_ops::linear(&x, &a, None) }\n"),
            ("crates/ops/src/a.rs", "fn a() { x.matmul(&w) }\n"),
            (
                "crates/nn/src/mlp.rs",
                "use crate::linear::Linear;\n// x.matmul(&w)\nfn a() { \".matmul(\"; x.iter().product() }\n",
            ),
            ("crates/nn/src/norm.rs", "#[test]\nfn a() { x.matmul(&w) }\n"),
        ],
    },
    Case {
        rule: "families-hold-no-arithmetic",
        broken: &[
            (1, &[("crates/models/src/llama.rs", "use phyla_ops::rope;\nimpl Family for Config {}\n")]),
            (2, &[("crates/models/src/llama.rs", "impl Family for Config {}\nfn a(x: &candle_core::Tensor) {}\n")]),
            (2, &[("crates/models/src/llama.rs", "impl Family for Config {}\nfn a() { x.forward(y) }\n")]),
            (2, &[("crates/models/src/llama.rs", "impl Family for Config {}\nfn forward() {}\n")]),
            (
                3,
                &[("crates/models/src/llama.rs", "impl Family for Config {}\nfn a() {\nfor x in y { *x *= 2.0; } }\n")],
            ),
        ],
        kept: &[
            (
                "crates/models/src/llama.rs",
                "impl Family for Config {}\nfn a() { self.hidden / self.heads == 2 && b.powf(-0.5) * 2.0 >= 1.0 }\n",
            ),
            ("crates/models/src/heads.rs", "use phyla_ops::Tensor;\n"),
        ],
    },
    Case {
        rule: "families-are-registered",
        broken: &[
            (0, &[("crates/models/src/llama.rs", FAMILY)]),
            (
                0,
                &[
                    ("crates/models/src/llama.rs", FAMILY),
                    ("crates/models/src/registry.rs", "// llama\nfamily!(qwen2);\n"),
                    ("crates/models/tests/parity.rs", "row(\"llama\");\n"),
                ],
            ),
        ],
        kept: &[
            ("crates/models/src/llama.rs", FAMILY),
            ("crates/models/src/registry.rs", "family(llama::Config);\n"),
            ("crates/models/tests/parity.rs", "row(\"llama\");\n"),
        ],
    },
    Case {
        rule: "no-family-names-above-models",
        broken: &[
            (1, &[("crates/train/src/a.rs", "const A: &str = r#\"{ \"a\": 1, \"model_type\": \"llama\" }\"#;\n")]),
            (1, &[("crates/train/src/a.rs", "fn a() { b.contains(\"Llama\") }\n")]),
            (1, &[("crates/train/src/a.rs", "fn is_llama() {}\n")]),
            (1, &[("crates/generate/src/a.rs", "fn a() { if kind == \"gpt2\" {} }\n")]),
            (1, &[("crates/phyla/src/a.rs", "use phyla_models::Qwen2Config;\n")]),
            (2, &[("crates/serve/src/config.json", "{\n\"model_type\": \"llama\"}\n")]),
            // A family that only this project knows counts as soon as it exists.
            (1, &[("crates/train/src/a.rs", "fn tiny_tales() {}\n"), ("crates/models/src/tiny_tales.rs", FAMILY)]),
        ],
        kept: &[
            ("crates/phyla/src/help.rs", "const HELP: &str = \"Examples:\n  phyla inspect models/gpt2\n\";\n"),
            (
                "crates/train/src/a.rs",
                "//! As Llama does.\n/// `gpt2`\nfn bertscore() { \"albertine\" }\n#[test]\nfn llama() {}\n",
            ),
            ("crates/models/src/llama.rs", FAMILY),
            ("crates/models/src/transformer.rs", FAMILY),
            ("crates/generate/src/a.rs", "use crate::transformer;\n"),
        ],
    },
    Case {
        rule: "no-stubs",
        broken: &[
            (1, &[("crates/nn/src/a.rs", "fn a() { todo!() }\n")]),
            (1, &[("crates/nn/src/a.rs", "fn a() { unimplemented!(\"b\") }\n")]),
            (1, &[("xtask/src/a.rs", "fn a() { dbg!(b); }\n")]),
        ],
        kept: &[("crates/nn/src/a.rs", "// todo!()\nfn todo() { \"todo!()\"; todo() }\n")],
    },
    Case {
        rule: "expect-not-allow",
        broken: &[
            (1, &[("crates/nn/src/a.rs", "#[allow(dead_code)]\nfn a() {}\n")]),
            (2, &[("crates/nn/src/a.rs", "#[test]\n#[allow(dead_code)]\nfn a() {}\n")]),
            (1, &[("crates/nn/src/a.rs", "#![cfg_attr(unix, allow(dead_code))]\n")]),
            (1, &[("crates/nn/src/a.rs", "#[expect(dead_code)]\nfn a() {}\n")]),
            (1, &[("crates/nn/src/a.rs", "#[expect(clippy::unwrap_used, reason = \"safe\")]\nfn a() {}\n")]),
        ],
        kept: &[
            (
                "crates/nn/src/a.rs",
                "// #[allow(dead_code)]\n#[expect(dead_code, reason = \"b\")]\nfn allow() { allow(1) }\n",
            ),
            (
                "crates/nn/src/b.rs",
                "#[cfg(test)]\nmod tests {\n#![expect(clippy::unwrap_used, reason = \"tests\")]\n}\n",
            ),
            ("crates/nn/src/c.rs", "#![cfg_attr(test, expect(clippy::panic, reason = \"tests\"))]\n"),
        ],
    },
    Case {
        rule: "file-header",
        broken: &[
            (1, &[("crates/nn/src/a.rs", "use b::c;\n")]),
            (1, &[("crates/nn/tests/a.rs", "//! placeholder\n")]),
            (1, &[("crates/nn/src/a.rs", "")]),
        ],
        kept: &[("crates/nn/src/a.rs", "//! The gated perceptron between two attentions.\n")],
    },
    Case {
        rule: "no-private-words",
        broken: &[
            (1, &[("xtask/private-words.txt", "/den/\n"), ("docs/a.md", "see /den/b\n")]),
            (1, &[("xtask/private-words.txt", "hostess\n"), ("crates/nn/src/a.rs", "// from Hostess.example\n")]),
        ],
        kept: &[
            ("xtask/private-words.txt", "# words\n\n/den/\n"),
            ("docs/a.md", "see garden/den/b, ~/den/b and https://x.org/den/b\n"),
        ],
    },
    Case {
        rule: "pages-are-true",
        broken: &[
            (2, &[("CONTRIBUTING.md", "a\nsee `crates/nn/src/b.rs`\n")]),
            (0, &[("ARCHITECTURE.md", "no rules here\n")]),
        ],
        kept: &[
            ("CONTRIBUTING.md", "see `crates/nn/src/a.rs`, `crates/nn`, `crates/nn/src/<block>.rs` and crates/b\n"),
            ("crates/nn/src/a.rs", ""),
        ],
    },
];

fn tree(files: Files) -> Tree {
    Tree::new(
        files.iter().map(|(path, text)| TextFile { path: (*path).to_owned(), text: (*text).to_owned() }).collect(),
    )
}

fn rule(name: &str) -> &'static Rule {
    RULES.iter().find(|rule| rule.name == name).unwrap_or_else(|| panic!("no rule `{name}`"))
}

/// What makes the rules binding: CI runs the tests and nothing else.
#[test]
fn this_project_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tree = Tree::read(&root).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(tree.sources.iter().any(|source| source.path == "xtask/src/tidy/tests.rs"), "this is not the project");
    let reports: String = RULES.iter().map(|rule| report(rule, &(rule.check)(&tree))).collect();
    assert!(reports.is_empty(), "\n{reports}");
}

#[test]
fn every_rule_sees_its_breaches() {
    for case in CASES {
        for (line, files) in case.broken {
            let findings = (rule(case.rule).check)(&tree(files));
            let first = findings.first().unwrap_or_else(|| panic!("{} does not see {files:?}", case.rule));
            assert_eq!(first.line, *line, "{}: {first:?} in {files:?}", case.rule);
        }
    }
}

#[test]
fn no_rule_sees_what_is_not_there() {
    for case in CASES {
        let findings = (rule(case.rule).check)(&tree(case.kept));
        assert!(findings.is_empty(), "{}: {findings:?}", case.rule);
    }
}

#[test]
fn every_rule_has_a_case() {
    // The rules on length have tests of their own below.
    let own = ["file-length", "forward-length"];
    for rule in RULES {
        let tested = own.contains(&rule.name) || CASES.iter().any(|case| case.rule == rule.name);
        assert!(tested, "rule `{}` is broken nowhere", rule.name);
    }
}

#[test]
fn a_file_may_have_500_lines_without_tests() {
    let tests = "#[cfg(test)]\nmod tests {\n// a\n}\n";
    for (lines, findings) in [(shape::LONGEST_FILE, 0), (shape::LONGEST_FILE + 1, 1)] {
        let text = "// a\n".repeat(lines) + tests;
        let tree = tree(&[("crates/nn/src/a.rs", &text), ("crates/nn/tests/a.rs", &"// a\n".repeat(900))]);
        assert_eq!((shape::FILE_LENGTH.check)(&tree).len(), findings, "{lines} lines");
    }
}

#[test]
fn a_forward_may_have_40_lines() {
    for (lines, findings) in [(shape::LONGEST_FORWARD, 0), (shape::LONGEST_FORWARD + 1, 1)] {
        for name in ["forward", "forward_cached"] {
            let text = format!("impl A {{\nfn {name}(&self) {{\n{}}}\n}}\n", "a;\n".repeat(lines - 2));
            let found = (shape::FORWARD_LENGTH.check)(&tree(&[("crates/nn/src/a.rs", &text)]));
            assert_eq!(found.len(), findings, "{name} of {lines} lines");
            assert!(found.iter().all(|finding| finding.line == 2));
            // Only blocks are held to it.
            assert!((shape::FORWARD_LENGTH.check)(&tree(&[("crates/ops/src/a.rs", &text)])).is_empty());
        }
    }
}

#[test]
fn the_map_must_name_every_crate_and_every_rule() {
    let all: String = RULES.iter().map(|rule| format!("`{}`\n", rule.name)).collect();
    let manifest = ("crates/nn/Cargo.toml", "[lints]\nworkspace = true\n");
    let with = |page: &str| (pages::TRUE_PAGES.check)(&tree(&[("ARCHITECTURE.md", page), manifest])).len();
    assert_eq!(with(&format!("{all}crates/nn")), 0);
    assert_eq!(with(&all), 1);
    assert_eq!(with(&format!("{}crates/nn", all.replace("`no-stubs`", ""))), 1);
}

#[test]
fn a_report_says_where_what_why_and_what_to_do() {
    let rule = rule("no-stubs");
    let text = report(rule, &(rule.check)(&tree(&[("crates/nn/src/a.rs", "//! A.\nfn a() { todo!() }\n")])));
    assert!(text.starts_with("crates/nn/src/a.rs:2: no-stubs: `todo!`\n"), "{text}");
    assert!(text.contains(rule.why) && text.contains(rule.instead), "{text}");
    assert_eq!(report(rule, &[]), "");
}
