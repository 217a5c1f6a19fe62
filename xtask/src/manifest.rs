//! A `Cargo.toml` as far as the rules read it: its tables, keys and the crates it depends on.

/// One `key = value`, with the table it stands in.
pub struct Entry {
    pub line: usize,
    pub table: String,
    pub key: String,
    /// As written, comment and spaces around it removed.
    pub value: String,
}

pub struct Manifest {
    pub entries: Vec<Entry>,
}

/// A crate that a manifest names, under the name its registry knows.
pub struct Dependency {
    pub line: usize,
    pub name: String,
}

impl Manifest {
    pub fn read(text: &str) -> Self {
        let mut table = String::new();
        let mut entries = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = without_comment(line).trim();
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                table = header.trim_matches(['[', ']']).trim().to_owned();
                // `[dependencies.name]` names a crate even where no key follows.
                entries.push(Entry { line: index + 1, table: table.clone(), key: String::new(), value: String::new() });
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim().trim_matches('"').to_owned(), value.trim().to_owned());
                entries.push(Entry { line: index + 1, table: table.clone(), key, value });
            }
        }
        Self { entries }
    }

    /// The value of `key` in `table`, as written.
    pub fn get(&self, table: &str, key: &str) -> Option<&str> {
        self.entries.iter().find(|entry| entry.table == table && entry.key == key).map(|entry| entry.value.as_str())
    }

    /// Every crate of a table of dependencies, of whatever kind and target.
    pub fn dependencies(&self) -> Vec<Dependency> {
        let mut found: Vec<Dependency> = Vec::new();
        for entry in &self.entries {
            let Some(named) = dependency_key(entry) else {
                continue;
            };
            let renamed = (entry.key == "package").then(|| entry.value.clone()).or_else(|| package(&entry.value));
            let name = renamed.map_or(named, |name| name.trim_matches('"').to_owned());
            found.push(Dependency { line: entry.line, name });
        }
        found.dedup_by(|later, earlier| later.name == earlier.name);
        found
    }
}

/// The name under which an entry, or the header of its table, adds a dependency.
fn dependency_key(entry: &Entry) -> Option<String> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let own = kinds.iter().any(|kind| entry.table == *kind || entry.table.ends_with(&format!(".{kind}")));
    if own {
        let name = entry.key.split('.').next()?.trim();
        return (!name.is_empty()).then(|| name.to_owned());
    }
    let (table, name) = entry.table.rsplit_once('.')?;
    kinds.iter().any(|kind| table.ends_with(kind)).then(|| name.trim_matches('"').to_owned())
}

/// The `package = "name"` of an inline table.
fn package(value: &str) -> Option<String> {
    let inside = value.strip_prefix('{')?.strip_suffix('}')?;
    inside.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == "package").then(|| value.trim().to_owned())
    })
}

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        Manifest::read(text).dependencies().into_iter().map(|dependency| dependency.name).collect()
    }

    #[test]
    fn dependencies_are_found_however_they_are_written() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true # b = 1\nc = { version = \"1\", \
                    features = [\"d\"] }\n[dev-dependencies.e]\nversion = \"1\"\n[target.'cfg(unix)'.dependencies]\n\
                    f = \"1\"\n[workspace.dependencies]\ng = \"1\"\n[features]\nh = []\n";
        assert_eq!(names(text), ["a", "c", "e", "f", "g"]);
    }

    #[test]
    fn a_renamed_crate_keeps_its_own_name() {
        assert_eq!(names("[dependencies]\na = { version = \"1\", package = \"b\" }\n"), ["b"]);
        assert_eq!(names("[dependencies.a]\nversion = \"1\"\npackage = \"b\"\n"), ["a", "b"]);
    }

    #[test]
    fn values_are_found_by_table_and_key() {
        let manifest = Manifest::read("[lints]\nworkspace = true\n");
        assert_eq!(manifest.get("lints", "workspace"), Some("true"));
        assert_eq!(manifest.get("package", "workspace"), None);
    }
}
