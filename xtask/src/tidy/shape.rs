//! Rules about length: of files, and of the one function of a block that everybody reads.

use super::{Finding, Rule};

/// Lines of a file, tests left out.
pub const LONGEST_FILE: usize = 500;

/// Lines of a block's `forward`, from `fn` to its closing brace.
pub const LONGEST_FORWARD: usize = 40;

pub const FILE_LENGTH: Rule = Rule {
    name: "file-length",
    why: "one file says one thing and is read in one go",
    instead: "split it along its parts; a folder with the file's name holds them",
    check: |tree| {
        let long = tree.sources.iter().filter(|source| source.lines_without_tests() > LONGEST_FILE);
        long.map(|source| {
            let what = format!("{} lines without tests, {LONGEST_FILE} at most", source.lines_without_tests());
            Finding::new(&source.path, 0, what)
        })
        .collect()
    },
};

pub const FORWARD_LENGTH: Rule = Rule {
    name: "forward-length",
    why: "the forward of a block is what a reader compares with the paper; it has to fit on a screen",
    instead: "name the steps and move them into functions of the block, or fuse them into an operation of crates/ops",
    check: |tree| {
        let mut found = Vec::new();
        for source in tree.sources_of("nn") {
            for function in source.functions(is_forward) {
                let lines = function.last_line + 1 - function.first_line;
                if lines > LONGEST_FORWARD && !source.is_test(function.first_line) {
                    let what = format!("`{}` has {lines} lines, {LONGEST_FORWARD} at most", function.name);
                    found.push(Finding::new(&source.path, function.first_line, what));
                }
            }
        }
        found
    },
};

/// `forward` and its siblings, such as `forward_cached`.
pub fn is_forward(name: &str) -> bool {
    name == "forward" || name.starts_with("forward_")
}
