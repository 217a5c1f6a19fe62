//! Names of parameters: ours and the checkpoint's, one table read both ways.

/// One line of a family's table: which module of theirs, or which part of it, is ours.
///
/// `{}` stands for a number: of a layer, or of an expert. Both names are of modules; `.weight` or `.bias` follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Our module.
    pub ours: &'static str,
    /// Their module.
    pub theirs: &'static str,
    /// Ours is this part of theirs, out of so many equal ones side by side along the output.
    pub part: (usize, usize),
    /// The parts lie side by side within each attention head, not over all of them.
    pub by_head: bool,
    /// Their weight is `[in, out]`.
    pub transposed: bool,
    /// The names are of parameters, not of modules.
    pub exact: bool,
    /// Their tensor has a leading dimension of 1 more.
    pub row: bool,
    /// The rule is for models that have this module of ours, too.
    pub beside: Option<&'static str>,
    /// Their rows are in another order within each head: those that turn together lie side by side.
    pub paired: bool,
    /// Theirs has a leading dimension; ours is the part of it that our last `{}` numbers.
    pub stacked: bool,
    /// Another module of theirs whose rows follow, head by head, on those of the first, which is stored transposed.
    pub folded: Option<&'static str>,
}

/// Ours is theirs.
pub const fn whole(ours: &'static str, theirs: &'static str) -> Rule {
    Rule {
        ours,
        theirs,
        part: (0, 1),
        by_head: false,
        transposed: false,
        exact: false,
        row: false,
        beside: None,
        paired: false,
        stacked: false,
        folded: None,
    }
}

/// This one parameter of ours is this tensor of theirs.
pub const fn exact(ours: &'static str, theirs: &'static str) -> Rule {
    Rule { exact: true, ..whole(ours, theirs) }
}

/// As [`exact`], theirs being a matrix of one row.
pub const fn row(ours: &'static str, theirs: &'static str) -> Rule {
    Rule { row: true, ..exact(ours, theirs) }
}

/// Ours is theirs, transposed.
pub const fn whole_t(ours: &'static str, theirs: &'static str) -> Rule {
    Rule { transposed: true, ..whole(ours, theirs) }
}

/// Ours is part `index` of `count` of theirs, transposed.
pub const fn part_t(ours: &'static str, theirs: &'static str, index: usize, count: usize) -> Rule {
    Rule { part: (index, count), ..whole_t(ours, theirs) }
}

/// Ours is part `index` of `count` of theirs.
pub const fn part(ours: &'static str, theirs: &'static str, index: usize, count: usize) -> Rule {
    Rule { part: (index, count), ..whole(ours, theirs) }
}

/// Ours is theirs, whose rows go in pairs of those that rotary positions turn together; ours are the first of all
/// pairs of a head, then the second ones.
pub const fn paired(ours: &'static str, theirs: &'static str) -> Rule {
    Rule { paired: true, ..whole(ours, theirs) }
}

/// Ours, with one `{}` more than theirs, is the part of theirs that this last number counts.
pub const fn stacked(ours: &'static str, theirs: &'static str) -> Rule {
    Rule { stacked: true, ..whole(ours, theirs) }
}

/// Ours is, head by head, the columns of one of theirs and then the rows of another, both with a leading dimension of
/// heads.
pub const fn folded(ours: &'static str, columns: &'static str, rows: &'static str) -> Rule {
    Rule { folded: Some(rows), ..whole(ours, columns) }
}

/// Within each head ours is part `index` of `count` of theirs.
pub const fn by_head(ours: &'static str, theirs: &'static str, index: usize, count: usize) -> Rule {
    Rule { part: (index, count), by_head: true, ..whole(ours, theirs) }
}

/// Two tables as one: a family's and what another adds to it. `N` is the number of rules of both.
pub const fn join<const N: usize>(first: &[Rule], second: &[Rule]) -> [Rule; N] {
    assert!(first.len() + second.len() == N, "the joined table has another length");
    let mut rules = [second[0]; N];
    let mut i = 0;
    while i < N {
        rules[i] = if i < first.len() { first[i] } else { second[i - first.len()] };
        i += 1;
    }
    rules
}

/// As [`whole`], in models that have `module` of ours, too.
pub const fn beside(module: &'static str, ours: &'static str, theirs: &'static str) -> Rule {
    Rule { beside: Some(module), ..whole(ours, theirs) }
}

/// Where a parameter of ours lies in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The tensor's name.
    pub tensor: String,
    /// Which of how many equal parts of it.
    pub part: (usize, usize),
    /// Whether the parts lie side by side within each attention head.
    pub by_head: bool,
    /// Whether the tensor is stored transposed (matrices only).
    pub transposed: bool,
    /// Whether it has a leading dimension of 1 more.
    pub row: bool,
    /// The parameter of ours without which it is not there.
    pub beside: Option<String>,
    /// Whether the rows of each head are stored in pairs of those that turn together.
    pub paired: bool,
    /// Which part of a leading dimension it is.
    pub slice: Option<usize>,
    /// The tensor whose rows follow on the columns of this one, head by head.
    pub folded: Option<String>,
}

impl Place {
    /// Whether our part, of shape `ours`, can be of a stored tensor of shape `stored`.
    pub fn fits(&self, ours: &[usize], stored: &[usize]) -> bool {
        match (self.slice, stored) {
            _ if self.folded.is_some() => stored.len() == 3 && stored.get(1) == ours.get(1),
            (Some(index), [count, rest @ ..]) => index < *count && rest == &self.stored_shape(ours)[1..],
            _ => stored == self.stored_shape(ours),
        }
    }

    /// Shape of the whole stored tensor, given the shape of our part of it; of a stack, up to this part.
    pub fn stored_shape(&self, ours: &[usize]) -> Vec<usize> {
        let mut shape = ours.to_vec();
        if let Some(first) = shape.first_mut() {
            *first *= self.part.1;
        }
        if self.transposed && shape.len() == 2 {
            shape.reverse();
        }
        if self.row {
            shape.insert(0, 1);
        }
        if let Some(index) = self.slice {
            shape.insert(0, index + 1);
        }
        shape
    }
}

/// The place of our parameter `path`, by the first rule that fits a model of which `has` tells whether it has a parameter.
pub fn place(rules: &[Rule], path: &str, has: impl Fn(&str) -> bool) -> Option<Place> {
    places(rules, path).find(|place| place.beside.as_deref().is_none_or(&has))
}

/// The places of our parameter `path` by every rule that fits: where checkpoints of different ages keep it. Saving
/// uses the first.
pub fn places(rules: &[Rule], path: &str) -> impl Iterator<Item = Place> {
    rules.iter().filter_map(move |rule| {
        let (name, kind) = if rule.exact { (path, None) } else { path.rsplit_once('.').map(|(m, k)| (m, Some(k)))? };
        let numbers = capture(rule.ours, name)?;
        let full = |pattern: &str| {
            let name = numbers.iter().fold(pattern.to_string(), |name, number| name.replacen("{}", number, 1));
            kind.map_or(name.clone(), |kind| format!("{name}.{kind}"))
        };
        let slice = if rule.stacked { Some(numbers.last()?.parse().ok()?) } else { None };
        let Rule { part, by_head, transposed, row, paired, .. } = *rule;
        let (tensor, beside, folded) = (full(rule.theirs), rule.beside.map(full), rule.folded.map(full));
        Some(Place { tensor, part, by_head, transposed, row, beside, paired, slice, folded })
    })
}

/// Matches `name` with `pattern`; gives the numbers that stand for its `{}`.
fn capture<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = pattern.split("{}");
    let mut rest = name.strip_prefix(parts.next()?)?;
    let mut numbers = vec![];
    for part in parts {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        rest = after.strip_prefix(part)?;
        numbers.push(number);
    }
    (rest.is_empty() && numbers.iter().all(|number| !number.is_empty())).then_some(numbers)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_rule_names_the_place() {
        let rules = [whole("tokens", "model.embed"), part_t("l.{}.attn.k", "h.{}.c_attn", 1, 3)];
        let place = |rules: &[Rule], path: &str| place(rules, path, |_| false);
        let found = place(&rules, "l.12.attn.k.bias");
        let expected = Place {
            tensor: "h.12.c_attn.bias".into(),
            part: (1, 3),
            by_head: false,
            transposed: true,
            row: false,
            beside: None,
            paired: false,
            slice: None,
            folded: None,
        };
        assert_eq!(found, Some(expected));
        assert_eq!(found.map(|p| (p.stored_shape(&[4, 2]), p.stored_shape(&[4]))), Some((vec![2, 12], vec![12])));
        assert_eq!(place(&rules, "l.x.attn.k.bias"), None);
        assert_eq!(place(&rules, "tokens.weight").map(|p| p.tensor), Some("model.embed.weight".into()));
        let rules = [whole("l.{}.experts.{}.up", "h.{}.e.{}.w3"), row("head.bias", "logits_bias"), whole("head", "lm")];
        assert_eq!(place(&rules, "l.2.experts.13.up.weight").map(|p| p.tensor), Some("h.2.e.13.w3.weight".into()));
        let bias: Vec<String> = places(&rules, "head.bias").map(|p| p.tensor).collect();
        assert_eq!(bias, ["logits_bias", "lm.bias"], "every age of checkpoint");
        assert_eq!(place(&rules, "head.bias").map(|p| p.stored_shape(&[7])), Some(vec![1, 7]));
    }

    #[test]
    fn experts_may_be_stacked() {
        let rules = [stacked("l.{}.experts.{}.up", "blk.{}.ffn_up_exps")];
        let found = place(&rules, "l.3.experts.11.up.weight", |_| false).unwrap();
        assert_eq!((found.tensor.as_str(), found.slice), ("blk.3.ffn_up_exps.weight", Some(11)));
        assert!(found.fits(&[4, 2], &[12, 4, 2]) && found.fits(&[4, 2], &[13, 4, 2]));
        assert!(
            !found.fits(&[4, 2], &[11, 4, 2]) && !found.fits(&[4, 2], &[12, 2, 4]) && !found.fits(&[4, 2], &[4, 2])
        );
    }

    #[test]
    fn a_rule_may_depend_on_another_module() {
        let rules = [beside("l.{}.gate", "l.{}.up", "h.{}.wi_1"), whole("l.{}.up", "h.{}.wi")];
        let of = |gated: bool| place(&rules, "l.4.up.weight", |path| gated && path == "l.4.gate.weight");
        assert_eq!(of(true).map(|p| p.tensor), Some("h.4.wi_1.weight".into()));
        assert_eq!(of(false).map(|p| p.tensor), Some("h.4.wi.weight".into()));
    }
}
