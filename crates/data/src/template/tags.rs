//! `{% generation %}` … `{% endgeneration %}`, transformers' own tag, put into terms the template engine knows.

/// Written where a block begins.
pub(super) const BEGIN: char = '\u{FDD0}';
/// Written where a block ends.
pub(super) const END: char = '\u{FDD1}';

/// The source with the tags replaced by marks, each between two empty statements that carry the tag's own control
/// of white space (`{%-`, `-%}`).
pub(super) fn mark_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let (taken, marked) = if tag.starts_with("{#") {
            (tag.find("#}").map_or(tag.len(), |end| end + 2), None)
        } else if let Some((length, name, left, right)) = statement(tag) {
            match name {
                "generation" => (length, Some((left, BEGIN, right))),
                "endgeneration" => (length, Some((left, END, right))),
                "raw" => (raw(tag, length), None),
                _ => (length, None),
            }
        } else {
            (1, None)
        };
        match marked {
            Some((left, mark, right)) => {
                out.extend(["{%", left, " if true %}", mark.encode_utf8(&mut [0; 4]), "{% endif ", right, "%}"])
            }
            None => out.push_str(&tag[..taken]),
        }
        rest = &tag[taken..];
    }
    out.push_str(rest);
    out
}

/// A statement of a single word: its length, the word, and the controls of white space on either side.
fn statement(tag: &str) -> Option<(usize, &str, &str, &str)> {
    let inner = tag.strip_prefix("{%")?;
    let left = control(inner.get(..1)?);
    let body = inner[left.len()..].trim_start();
    let end = body.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(body.len());
    let after = body[end..].trim_start();
    let right = control(after.get(..1)?);
    let close = after[right.len()..].strip_prefix("%}")?;
    Some((tag.len() - close.len(), &body[..end], left, right))
}

fn control(sign: &str) -> &str {
    if sign == "-" || sign == "+" { sign } else { "" }
}

/// The length of a raw block, in which tags are text.
fn raw(tag: &str, opening: usize) -> usize {
    let mut at = opening;
    while let Some(next) = tag[at..].find("{%") {
        at += next;
        match statement(&tag[at..]) {
            Some((length, "endraw", ..)) => return at + length,
            _ => at += 2,
        }
    }
    tag.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_marks_and_keep_their_control_of_white_space() {
        let marked = mark_generation("a{%- generation -%} b {%endgeneration%}c");
        assert_eq!(marked, "a{%- if true %}\u{FDD0}{% endif -%} b {% if true %}\u{FDD1}{% endif %}c");
    }

    #[test]
    fn comments_raw_blocks_and_other_tags_stay() {
        for source in [
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{% endraw %}",
            "{% if generation %}{{ '{' }}{% endif %}",
            "{% generation x %}",
            "{%",
            "{% generation",
            "{{ '{%' }} é {",
            "{% raw %}{% generation %}",
        ] {
            assert_eq!(mark_generation(source), source);
        }
    }
}
