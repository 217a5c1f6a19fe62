//! Names of parameters: ours and the checkpoint's, one table read both ways.

/// One line of a family's table: which module of theirs, or which part of it, is ours.
///
/// `{}` stands for a layer's number. Both names are of modules; `.weight` or `.bias` follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Our module.
    pub ours: &'static str,
    /// Their module.
    pub theirs: &'static str,
    /// Ours is this part of theirs, out of so many equal ones side by side along the output.
    pub part: (usize, usize),
    /// Their weight is `[in, out]`.
    pub transposed: bool,
}

/// Ours is theirs.
pub const fn whole(ours: &'static str, theirs: &'static str) -> Rule {
    Rule { ours, theirs, part: (0, 1), transposed: false }
}

/// Ours is theirs, transposed.
pub const fn whole_t(ours: &'static str, theirs: &'static str) -> Rule {
    Rule { transposed: true, ..whole(ours, theirs) }
}

/// Ours is part `index` of `count` of theirs, transposed.
pub const fn part_t(ours: &'static str, theirs: &'static str, index: usize, count: usize) -> Rule {
    Rule { part: (index, count), ..whole_t(ours, theirs) }
}

/// Where a parameter of ours lies in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The tensor's name.
    pub tensor: String,
    /// Which of how many equal parts of it.
    pub part: (usize, usize),
    /// Whether the tensor is stored transposed (matrices only).
    pub transposed: bool,
}

impl Place {
    /// Shape of the whole stored tensor, given the shape of our part of it.
    pub fn stored_shape(&self, ours: &[usize]) -> Vec<usize> {
        let mut shape = ours.to_vec();
        if let Some(first) = shape.first_mut() {
            *first *= self.part.1;
        }
        if self.transposed && shape.len() == 2 {
            shape.reverse();
        }
        shape
    }
}

/// The place of our parameter `path`, by the first rule that fits.
pub fn place(rules: &[Rule], path: &str) -> Option<Place> {
    let (module, kind) = path.rsplit_once('.')?;
    rules.iter().find_map(|rule| {
        let layer = capture(rule.ours, module)?;
        let module = match layer {
            Some(layer) => rule.theirs.replacen("{}", layer, 1),
            None => rule.theirs.to_string(),
        };
        Some(Place { tensor: format!("{module}.{kind}"), part: rule.part, transposed: rule.transposed })
    })
}

/// Matches `name` with `pattern`; the inner option is the layer's number if the pattern has one.
fn capture<'a>(pattern: &str, name: &'a str) -> Option<Option<&'a str>> {
    let Some((before, after)) = pattern.split_once("{}") else {
        return (pattern == name).then_some(None);
    };
    let layer = name.strip_prefix(before)?.strip_suffix(after)?;
    (!layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit())).then_some(Some(layer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_the_place() {
        let rules = [whole("tokens", "model.embed"), part_t("l.{}.attn.k", "h.{}.c_attn", 1, 3)];
        let found = place(&rules, "l.12.attn.k.bias");
        assert_eq!(found, Some(Place { tensor: "h.12.c_attn.bias".into(), part: (1, 3), transposed: true }));
        assert_eq!(found.map(|p| (p.stored_shape(&[4, 2]), p.stored_shape(&[4]))), Some((vec![2, 12], vec![12])));
        assert_eq!(place(&rules, "l.x.attn.k.bias"), None);
        assert_eq!(place(&rules, "tokens.weight").map(|p| p.tensor), Some("model.embed.weight".into()));
    }
}
