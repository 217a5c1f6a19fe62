//! Parameters as the tree of their paths, equal layers folded, drawn as lines.

use std::io::{self, Write};

use phyla_models::{Arch, Found, Slot, Survey};
use serde::Serialize;

use super::describe;
use crate::cli::output::count;

/// A block with its parameters, or a run of equal ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Node {
    /// Last part of the path; for a run of equal layers `layers.0-11`.
    name: String,
    /// How many blocks this stands for.
    times: usize,
    /// Weights in each of them.
    parameters: usize,
    /// Of the weight, for a block that is nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Vec<usize>>,
    /// Whether a bias comes with the weight.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    bias: bool,
    /// Stored types, or what is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stored: Vec<String>,
    /// What else is worth saying.
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Node>,
}

impl Node {
    /// The tree of everything surveyed.
    pub fn new(survey: &Survey) -> Self {
        let mut root = Node { name: survey.family.model_type.into(), times: 1, ..Node::default() };
        root.note = survey.family.architecture(survey.arch.task).unwrap_or_default().into();
        for slot in &survey.slots {
            root.insert(&survey.arch, slot, 0);
        }
        root.fold();
        root
    }

    /// Puts a slot below this node, which stands for the first `depth` parts of its path.
    fn insert(&mut self, arch: &Arch, slot: &Slot, depth: usize) {
        self.parameters = self.parameters.saturating_add(slot.count());
        let mut parts = slot.path.split('.').skip(depth);
        let (Some(name), Some(_)) = (parts.next(), parts.next()) else {
            // The last part: this node is the block that owns the weight.
            if slot.path.ends_with(".bias") {
                self.bias = true
            } else {
                self.shape = Some(slot.shape.clone())
            }
            let stored = match &slot.found {
                Found::Nothing => return,
                Found::Stored(dtype) => dtype.as_str().to_string(),
                Found::Missing(_) => "missing".into(),
                Found::Misshapen { shape, .. } => format!("misshapen {shape:?}"),
            };
            if !self.stored.contains(&stored) {
                self.stored.push(stored);
            }
            return;
        };
        let at = self.children.iter().rposition(|child| child.name == name).unwrap_or_else(|| {
            let path: Vec<&str> = slot.path.split('.').take(depth + 1).collect();
            let note = describe::block(arch, &path.join("."));
            self.children.push(Node { name: name.into(), times: 1, note, ..Node::default() });
            self.children.len() - 1
        });
        self.children[at].insert(arch, slot, depth + 1);
    }

    /// Lifts numbered children into their parent, equal neighbours as one.
    fn fold(&mut self) {
        let mut folded: Vec<Node> = vec![];
        for mut child in std::mem::take(&mut self.children) {
            child.fold();
            let numbered = |node: &Node| node.name.bytes().all(|byte| byte.is_ascii_digit());
            if child.children.is_empty() || !child.children.iter().all(numbered) {
                folded.push(child);
                continue;
            }
            let name = child.name;
            for run in child.children.chunk_by(|a, b| Node { name: b.name.clone(), ..a.clone() } == *b) {
                let (first, last) = (&run[0], &run[run.len() - 1]);
                let range = if run.len() == 1 { String::new() } else { format!("-{}", last.name) };
                folded.push(Node { name: format!("{name}.{}{range}", first.name), times: run.len(), ..first.clone() });
            }
        }
        self.children = folded;
    }

    /// Draws the tree.
    pub fn draw(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut lines = vec![];
        self.lines("", "", &mut lines);
        let mut widths = [0; 4];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let [name, shape, count, stored] = widths;
        for [a, b, c, d, e] in &lines {
            let line = format!("{a:name$}  {b:shape$}  {c:>count$}  {d:stored$}  {e}");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Name, shape, count, types and note of this node and those below it.
    fn lines(&self, stem: &str, below: &str, lines: &mut Vec<[String; 5]>) {
        let mut shape = self.shape.as_ref().map(|shape| format!("{shape:?}")).unwrap_or_default();
        if self.bias {
            shape += " + bias";
        }
        let times = if self.times > 1 { format!(" x{}", self.times) } else { String::new() };
        lines.push([
            format!("{stem}{}{times}", self.name),
            shape,
            count(self.parameters.saturating_mul(self.times) as u64),
            self.stored.join(", "),
            if self.times > 1 { format!("{} each", count(self.parameters as u64)) } else { self.note.clone() },
        ]);
        for (i, child) in self.children.iter().enumerate() {
            let (branch, rest) = if i + 1 == self.children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            child.lines(&format!("{below}{branch}"), &format!("{below}{rest}"), lines);
        }
    }
}
