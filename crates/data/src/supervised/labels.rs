//! The classes of a data set: names in an order, and the ids that follow from it.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Names of classes; a class's id is its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSet {
    names: Vec<String>,
    ids: HashMap<String, u32>,
}

impl LabelSet {
    /// Names in a given order.
    ///
    /// # Errors
    /// When a name comes twice.
    pub fn new(names: Vec<String>) -> Result<Self> {
        let mut ids = HashMap::with_capacity(names.len());
        for (id, name) in names.iter().enumerate() {
            if ids.insert(name.clone(), id as u32).is_some() {
                return Err(Error::Settings(format!("the label `{name}` is listed twice")));
            }
        }
        Ok(Self { names, ids })
    }

    /// Names in order: by value if all are whole numbers, else by letters, as transformers' scripts sort them.
    pub fn sorted(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        let number = |name: &String| name.parse::<i64>().ok();
        if names.iter().all(|name| number(name).is_some()) {
            names.sort_by_key(|name| (number(name), name.clone()));
        } else {
            names.sort();
        }
        names.dedup();
        let ids = names.iter().enumerate().map(|(id, name)| (name.clone(), id as u32)).collect();
        Self { names, ids }
    }

    /// Reads `id2label` of a `config.json`.
    ///
    /// # Errors
    /// When its keys are not 0, 1, 2, … or its values no strings.
    pub fn from_id2label(map: &Map<String, Value>) -> Result<Self> {
        let name = |id: usize| map.get(&id.to_string()).and_then(Value::as_str).map(str::to_owned);
        let names: Option<Vec<String>> = (0..map.len()).map(name).collect();
        Self::new(names.ok_or_else(|| {
            Error::Settings("`id2label` should map \"0\", \"1\", … each to a name, without holes".to_owned())
        })?)
    }

    /// Classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True when there is no class.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All names, in the order of ids.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The name of a class.
    pub fn name(&self, id: u32) -> Option<&str> {
        self.names.get(id as usize).map(String::as_str)
    }

    /// The class that a label names; where names are listed and the data has whole numbers, these are ids.
    pub fn id(&self, label: &str) -> Option<u32> {
        let number = || label.parse().ok().filter(|id| (*id as usize) < self.names.len());
        self.ids.get(label).copied().or_else(number)
    }

    /// The class that a label names, or an error's text that lists the classes.
    pub(crate) fn expect(&self, label: &str) -> std::result::Result<u32, String> {
        self.id(label).ok_or_else(|| {
            let names: Vec<_> = self.names.iter().take(20).map(|name| format!("`{name}`")).collect();
            format!("the label `{label}` is none of the {} labels ({})", self.len(), names.join(", "))
        })
    }

    /// `id2label` for a `config.json`.
    pub fn id2label(&self) -> Map<String, Value> {
        self.names.iter().enumerate().map(|(id, name)| (id.to_string(), name.clone().into())).collect()
    }

    /// `label2id` for a `config.json`.
    pub fn label2id(&self) -> Map<String, Value> {
        self.names.iter().enumerate().map(|(id, name)| (name.clone(), id.into())).collect()
    }
}

/// Labels by number in the order in which they are met, until all are known and can be sorted.
#[derive(Debug, Default)]
pub(super) struct Interner {
    names: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Interner {
    pub(super) fn id(&mut self, name: &str) -> u32 {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.ids.insert(name.to_owned(), id);
        id
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_order_of_names() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let set = LabelSet::sorted(owned(&["neutral", "contradiction", "entailment", "neutral"]));
        assert_eq!(set.names(), ["contradiction", "entailment", "neutral"]);
        assert_eq!((set.id("neutral"), set.id("x"), set.name(1)), (Some(2), None, Some("entailment")));
        assert_eq!(LabelSet::sorted(owned(&["10", "9", "1"])).names(), ["1", "9", "10"]);
        let listed = LabelSet::new(owned(&["negative", "positive"])).unwrap();
        assert_eq!((listed.id("1"), listed.id("2"), listed.id("negative")), (Some(1), None, Some(0)));
        assert_eq!(LabelSet::from_id2label(&listed.id2label()).unwrap(), listed);
        assert!(LabelSet::new(owned(&["a", "a"])).is_err());
        assert!(listed.expect("x").unwrap_err().contains("none of the 2 labels (`negative`, `positive`)"));
    }
}
