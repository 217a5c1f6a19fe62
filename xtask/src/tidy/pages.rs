//! The rule that the pages about the code speak of code that exists.

use super::{Finding, RULES, Rule};

/// Pages whose paths are checked.
const PAGES: &[&str] = &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];

/// The page that must name every crate and every rule.
const MAP: &str = "ARCHITECTURE.md";

/// Folders by whose name a path in a page is recognised.
const FOLDERS: &[&str] = &["crates/", "xtask/", "docs/", "tests/", "recipes/", ".ci/", ".cargo/"];

pub const TRUE_PAGES: Rule = Rule {
    name: "pages-are-true",
    why: "a map with a wrong path is worse than none; the map of the crates and the list of these rules are complete",
    instead: "correct the page in the same change",
    check: |tree| {
        let mut found = Vec::new();
        for page in PAGES {
            for (index, line) in tree.text(page).unwrap_or_default().lines().enumerate() {
                for path in paths(line).filter(|path| !tree.holds(path)) {
                    found.push(Finding::new(page, index + 1, format!("`{path}` does not exist")));
                }
            }
        }
        let Some(map) = tree.text(MAP) else {
            return found;
        };
        let crates =
            tree.manifests().into_iter().map(|(name, ..)| name).filter(|name| !name.is_empty() && name != "xtask");
        for name in crates.filter(|name| !map.contains(&format!("crates/{name}"))) {
            found.push(Finding::new(MAP, 0, format!("crate `crates/{name}` is not on the map")));
        }
        for rule in RULES.iter().filter(|rule| !map.contains(&format!("`{}`", rule.name))) {
            found.push(Finding::new(MAP, 0, format!("rule `{}` is not listed", rule.name)));
        }
        found
    },
};

/// The paths between backticks that say exactly one file or folder.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|path| {
        FOLDERS.iter().any(|folder| path.starts_with(folder)) && !path.contains(['<', '*', '{', ' ', '…', ':'])
    })
}
