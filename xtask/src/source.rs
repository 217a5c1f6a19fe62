//! One Rust file as the rules see it: tokens, the paths it names, its functions, and which lines are tests.

use crate::lex::{Kind, Token, lex};
use std::collections::BTreeSet;

/// A Rust file, lexed.
pub struct Source {
    /// Relative to the root of the repository, with `/` between the parts.
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
    pub comments: Vec<Token>,
    /// Indexed by line - 1: does the line belong to a test?
    tests: Vec<bool>,
    /// Modules that stand in files of their own and are compiled for tests only.
    pub test_modules: Vec<String>,
}

/// A `fn` with a body.
pub struct Function {
    pub name: String,
    pub first_line: usize,
    pub last_line: usize,
}

/// A path such as `std::fs::File`, from an expression, a type or a `use`, whose groups are spelled out.
#[derive(Debug)]
pub struct Named {
    pub line: usize,
    pub parts: Vec<String>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let (tokens, comments) = lex(text);
        let lines = text.lines().count();
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
            comments,
            tests: vec![false; lines],
            test_modules: Vec::new(),
        };
        if source.lies_among_tests() {
            source.mark_as_test();
        } else {
            source.mark_test_items();
        }
        source
    }

    /// The text of code token `i`, and nothing past the end.
    pub fn word(&self, i: usize) -> &str {
        self.tokens.get(i).map_or("", |token| &self.text[token.start..token.end])
    }

    /// Does `pattern` stand at code token `i`?
    pub fn at(&self, i: usize, pattern: &[&str]) -> bool {
        pattern.iter().enumerate().all(|(offset, word)| self.word(i + offset) == *word)
    }

    pub fn is_test(&self, line: usize) -> bool {
        self.tests.get(line.wrapping_sub(1)).copied().unwrap_or(false)
    }

    /// Lines outside tests, whatever they hold.
    pub fn lines_without_tests(&self) -> usize {
        self.tests.iter().filter(|&&test| !test).count()
    }

    pub fn mark_as_test(&mut self) {
        self.tests.fill(true);
    }

    /// Indices of the code tokens outside tests.
    pub fn outside_tests(&self) -> impl Iterator<Item = usize> {
        (0..self.tokens.len()).filter(|&i| !self.is_test(self.tokens[i].line))
    }

    /// Is code token `i` the name of a method that is called there?
    pub fn is_method_call(&self, i: usize) -> bool {
        i > 0
            && self.tokens[i].kind == Kind::Ident
            && self.word(i - 1) == "."
            && (self.word(i + 1) == "(" || self.at(i + 1, &[":", ":", "<"]))
    }

    /// Attributes, as the range of tokens between `[` and `]`.
    pub fn attributes(&self) -> Vec<std::ops::Range<usize>> {
        (0..self.tokens.len())
            .filter_map(|i| {
                let open = self.attribute_open(i)?;
                Some(open + 1..self.closing(open))
            })
            .collect()
    }

    /// The functions that have a body, in the order of the file; `pattern` decides on the name.
    pub fn functions(&self, pattern: impl Fn(&str) -> bool) -> Vec<Function> {
        let mut found = Vec::new();
        for i in 0..self.tokens.len() {
            if self.word(i) != "fn" || !pattern(self.word(i + 1)) {
                continue;
            }
            let Some(body) = self.body(i) else { continue };
            let close = self.closing(body);
            let last = self.tokens.get(close).or(self.tokens.last());
            found.push(Function {
                name: self.word(i + 1).to_owned(),
                first_line: self.tokens[i].line,
                last_line: last.map_or(0, |token| token.line),
            });
        }
        found
    }

    /// Every path outside tests. A `use` gives one for each of its leaves.
    pub fn paths(&self) -> Vec<Named> {
        let mut found = Vec::new();
        let mut i = 0;
        while i < self.tokens.len() {
            if self.tokens[i].kind != Kind::Ident || self.is_test(self.tokens[i].line) {
                i += 1;
            } else if self.word(i) == "use" && self.word(i + 1) != "<" {
                i = self.use_tree(i + 1, &mut Vec::new(), &mut found);
            } else {
                let (parts, next) = self.plain_path(i);
                found.push(Named { line: self.tokens[i].line, parts });
                i = next;
            }
        }
        found
    }

    /// The token that closes what token `open` opens, or the end of the file.
    pub fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for i in open..self.tokens.len() {
            match self.word(i) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return i;
            }
        }
        self.tokens.len()
    }

    fn plain_path(&self, mut i: usize) -> (Vec<String>, usize) {
        let mut parts = vec![self.word(i).to_owned()];
        while self.at(i + 1, &[":", ":"]) && self.tokens.get(i + 3).is_some_and(|t| t.kind == Kind::Ident) {
            i += 3;
            parts.push(self.word(i).to_owned());
        }
        (parts, i + 1)
    }

    fn use_tree(&self, mut i: usize, prefix: &mut Vec<String>, found: &mut Vec<Named>) -> usize {
        let depth = prefix.len();
        let line = self.tokens.get(i).map_or(0, |token| token.line);
        loop {
            match self.word(i) {
                ":" => i += 1,
                "{" => {
                    let close = self.closing(i);
                    i += 1;
                    while i < close {
                        // The token after a leaf is its comma; any other is skipped too, so that the loop ends.
                        i = self.use_tree(i, prefix, found) + 1;
                    }
                    i = close + 1;
                    break;
                }
                "as" => {
                    found.push(Named { line, parts: prefix.clone() });
                    i += 2;
                    break;
                }
                "" | "," | ";" | "}" => {
                    found.push(Named { line, parts: prefix.clone() });
                    break;
                }
                word => {
                    prefix.push(word.to_owned());
                    i += 1;
                }
            }
        }
        prefix.truncate(depth);
        i
    }

    /// `tests/`, `benches/` and `examples/` hold tests; so does a file called `tests.rs`.
    fn lies_among_tests(&self) -> bool {
        let folders = ["tests", "benches", "examples"];
        let apart = self.path.split('/').any(|part| folders.contains(&part) || part == "tests.rs");
        let whole = (0..self.tokens.len()).any(|i| self.at(i, &["#", "!", "[", "cfg", "(", "test", ")"]));
        apart || whole
    }

    fn mark_test_items(&mut self) {
        let mut spans = Vec::new();
        let mut i = 0;
        while i < self.tokens.len() {
            let Some(open) = self.attribute_open(i) else {
                i += 1;
                continue;
            };
            let test = self.at(open + 1, &["test", "]"])
                || self.at(open + 1, &["cfg", "(", "test", ")"])
                || self.at(open + 1, &["cfg", "(", "all", "(", "test"]);
            let mut item = self.closing(open) + 1;
            if test {
                while let Some(open) = self.attribute_open(item) {
                    item = self.closing(open) + 1;
                }
                let last = self.item_end(item);
                spans.push((self.tokens[i].line, self.tokens.get(last).map_or(self.tests.len(), |t| t.line)));
                if self.at(item, &["mod"]) && self.word(item + 2) == ";" {
                    self.test_modules.push(self.word(item + 1).to_owned());
                }
                item = last + 1;
            }
            i = item;
        }
        for (first, last) in spans {
            let last = last.min(self.tests.len());
            self.tests[first - 1..last].fill(true);
        }
    }

    /// The `[` of an attribute, inner or outer, whose `#` is token `i`.
    fn attribute_open(&self, i: usize) -> Option<usize> {
        if self.at(i, &["#", "["]) { Some(i + 1) } else { self.at(i, &["#", "!", "["]).then_some(i + 2) }
    }

    /// The `{` of the body of the `fn` at token `i`, or nothing where it is only declared.
    fn body(&self, mut i: usize) -> Option<usize> {
        while i < self.tokens.len() {
            match self.word(i) {
                "(" | "[" => i = self.closing(i) + 1,
                "{" => return Some(i),
                ";" => return None,
                _ => i += 1,
            }
        }
        None
    }

    /// The last token of the item, field or statement that starts at token `start`.
    fn item_end(&self, start: usize) -> usize {
        const FIELD_OR_ARM: bool = true;
        let items = [
            "pub",
            "mod",
            "fn",
            "impl",
            "struct",
            "enum",
            "trait",
            "use",
            "const",
            "static",
            "type",
            "unsafe",
            "async",
            "extern",
            "macro_rules",
            "union",
        ];
        let loose = if items.contains(&self.word(start)) { !FIELD_OR_ARM } else { FIELD_OR_ARM };
        let ends_at_semicolon = ["use", "static", "type"].contains(&self.word(start));
        let mut i = start;
        while i < self.tokens.len() {
            match self.word(i) {
                "{" if !ends_at_semicolon => return self.closing(i),
                "(" | "[" | "{" => i = self.closing(i) + 1,
                ";" => return i,
                "," if loose => return i,
                "}" | ")" if loose => return i.saturating_sub(1),
                _ => i += 1,
            }
        }
        self.tokens.len().saturating_sub(1)
    }
}

/// Where module `name`, declared in file `path`, may lie: its file, or the folder below which it lies.
pub fn module_places(path: &str, name: &str) -> [String; 2] {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.trim_end_matches(".rs");
    let base = match stem {
        "lib" | "main" | "mod" => folder.to_owned(),
        _ => format!("{folder}/{stem}"),
    };
    [format!("{base}/{name}.rs"), format!("{base}/{name}/")]
}

/// Marks the files of modules that only tests compile.
pub fn mark_test_modules(sources: &mut [Source]) {
    let places: BTreeSet<[String; 2]> = sources
        .iter()
        .flat_map(|source| source.test_modules.iter().map(|name| module_places(&source.path, name)))
        .collect();
    for source in sources {
        if places.iter().any(|[file, folder]| source.path == *file || source.path.starts_with(folder.as_str())) {
            source.mark_as_test();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests_of(text: &str) -> Vec<usize> {
        let source = Source::new("crates/nn/src/a.rs", text);
        (1..=text.lines().count()).filter(|&line| source.is_test(line)).collect()
    }

    fn paths_of(text: &str) -> Vec<String> {
        Source::new("a.rs", text).paths().iter().map(|path| path.parts.join("::")).collect()
    }

    #[test]
    fn a_test_module_ends_with_its_brace() {
        assert_eq!(tests_of("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n"), [2, 3, 4, 5]);
    }

    #[test]
    fn single_test_items_are_found() {
        assert_eq!(tests_of("#[cfg(test)]\nuse a::{b, c};\nfn a() {}\n"), [1, 2]);
        assert_eq!(tests_of("#[test]\n#[expect(x, reason = \"y\")]\nfn a<A, B>() {\n}\nfn b() {}\n"), [1, 2, 3, 4]);
        assert_eq!(tests_of("struct A {\n#[cfg(test)]\na: u32,\nb: u32,\n}\n"), [2, 3]);
        assert_eq!(tests_of("#[cfg(not(test))]\nfn a() {}\n"), Vec::<usize>::new());
    }

    #[test]
    fn whole_files_of_tests_are_found() {
        assert_eq!(tests_of("#![cfg(test)]\nfn a() {}\n"), [1, 2]);
        assert_eq!(Source::new("crates/nn/tests/a.rs", "fn a() {}\n").lines_without_tests(), 0);
        let mut sources = [
            Source::new("crates/nn/src/lib.rs", "#[cfg(test)]\nmod check;\nmod a;\n"),
            Source::new("crates/nn/src/check.rs", "fn a() {}\n"),
            Source::new("crates/nn/src/check/deep.rs", "fn a() {}\n"),
            Source::new("crates/nn/src/a.rs", "fn a() {}\n"),
        ];
        mark_test_modules(&mut sources);
        assert_eq!(sources.iter().map(Source::lines_without_tests).collect::<Vec<_>>(), [1, 0, 0, 1]);
    }

    #[test]
    fn uses_are_spelled_out() {
        assert_eq!(
            paths_of("use std::{fs::{self, File}, io as stream};\nuse a::*;\npub(crate) use ::b::c;"),
            ["std::fs::self", "std::fs::File", "std::io", "a::*", "pub", "crate", "b::c"]
        );
    }

    #[test]
    fn a_use_that_is_none_ends() {
        assert_eq!(paths_of("impl A + use<'a> { b }"), ["impl", "A", "use", "b"]);
        assert_eq!(paths_of("use a::{b; c; {d}, e").last().map(String::as_str), Some("a::e"));
        assert_eq!(paths_of("use a::{b, {c, d}, {}, self as _}; e"), ["a::b", "a::c", "a::d", "a::self", "e"]);
    }

    #[test]
    fn paths_in_code_are_found() {
        assert_eq!(paths_of("let x = a::b::c(d); ::e::f"), ["let", "x", "a::b::c", "d", "e::f"]);
    }

    #[test]
    fn functions_know_their_lines() {
        let source =
            Source::new("a.rs", "trait A { fn forward(&self); }\nfn forward(\n a: [u8; 3]\n) {\n if b {}\n}\n");
        let found = source.functions(|name| name == "forward");
        assert_eq!(found.iter().map(|f| (f.first_line, f.last_line)).collect::<Vec<_>>(), [(2, 6)]);
    }
}
