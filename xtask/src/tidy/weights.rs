//! The rule that every product with a weight passes through one door.

use super::{Finding, Rule};
use crate::source::Source;
use crate::tree::Tree;

/// Functions and methods that multiply matrices, whoever offers them.
const PRODUCTS: &[&str] = &["matmul", "broadcast_matmul", "batch_matmul", "gemm", "dot", "einsum"];

pub const ONE_PRODUCT: Rule = Rule {
    name: "only-linear-and-moe-multiply",
    why: "adapters, quantisation, sharding and precision are written once, in Linear and Moe; a product elsewhere \
          would run without them and nobody would notice",
    instead: "call `Linear::forward` or an operation of crates/ops; a new kind of product becomes an operation there",
    check: |tree: &Tree| {
        let mut found = Vec::new();
        for source in tree.sources.iter().filter(|source| !may_multiply(&source.path)) {
            for i in source.outside_tests() {
                if source.is_method_call(i) && PRODUCTS.contains(&source.word(i)) {
                    let what = format!("`.{}(`", source.word(i));
                    found.push(Finding::new(&source.path, source.tokens[i].line, what));
                }
            }
            named(source, &mut found);
        }
        found
    },
};

fn named(source: &Source, found: &mut Vec<Finding>) {
    for path in source.paths() {
        let parts: Vec<&str> = path.parts.iter().map(String::as_str).collect();
        let product = match parts.as_slice() {
            ["gemm", _, ..] => true,
            ["phyla_kernels" | "kernels", rest @ ..] => rest.iter().any(|part| part.starts_with("product")),
            ["phyla_ops" | "ops", rest @ ..] => rest.iter().any(|part| part.starts_with("linear")),
            // `Tensor::matmul(&a, &b)`
            [_, .., last] => PRODUCTS.contains(last),
            _ => false,
        };
        if product {
            found.push(Finding::new(&source.path, path.line, format!("`{}`", parts.join("::"))));
        }
    }
}

fn may_multiply(path: &str) -> bool {
    let doors = [
        "crates/kernels/",
        "crates/ops/",
        "crates/nn/src/linear.rs",
        "crates/nn/src/linear/",
        // Its slot's content: what only a linear map calls.
        "crates/nn/src/adapter/",
        "crates/nn/src/moe.rs",
        "crates/nn/src/moe/",
    ];
    doors.iter().any(|door| path.starts_with(door))
}
