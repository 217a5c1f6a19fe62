//! Exemplars: questions whose answers are reasoned, our own or from a file.

use phyla_data::supervised::table::{Row, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Kind, Method};
use crate::Error;

/// A question, how one gets to its answer, and the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shot {
    /// The question.
    pub question: String,
    /// What there is to choose from.
    pub options: Vec<String>,
    /// How one gets to the answer.
    pub reasoning: String,
    /// The answer.
    pub answer: String,
    /// For least-to-most: simpler questions in order, the last being the question itself.
    pub steps: Vec<Step>,
}

/// A simpler question and its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The question.
    pub question: String,
    /// Its answer, reasoned.
    pub answer: String,
}

/// The built-in exemplars of a kind of answers. Least-to-most has those of texts where a kind has none with steps.
pub fn built_in(kind: Kind, method: Method) -> Vec<Shot> {
    let lines = match kind {
        Kind::Number => include_str!("shots/number.jsonl"),
        Kind::Choice => include_str!("shots/choice.jsonl"),
        Kind::YesNo => include_str!("shots/yes-no.jsonl"),
        Kind::Coin => include_str!("shots/coin.jsonl"),
        Kind::Letters => include_str!("shots/letters.jsonl"),
        Kind::Text => include_str!("shots/text.jsonl"),
    };
    // A test reads them all.
    let shots: Vec<Shot> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let no_steps = shots.iter().all(|shot| shot.steps.is_empty());
    if method == Method::LeastToMost && no_steps && kind != Kind::Text { built_in(Kind::Text, method) } else { shots }
}

/// Exemplars of a file, JSON or JSON lines, at most `most`: `question`, `reasoning` (or `rationale`), `answer` (or `correct`), with
/// `options` and `steps` where it has them. In an answer like GSM8K's what stands before `####` is the reasoning.
///
/// # Errors
/// A file that cannot be read; rows without these fields; none at all.
pub fn read_shots(table: &Table, most: usize) -> Result<Vec<Shot>, Error> {
    let shots: Vec<Shot> = table.rows().take(most).map(|row| shot(row?)).collect::<Result<_, Error>>()?;
    if shots.is_empty() {
        return Err(Error::Task("the file of exemplars has none".into()));
    }
    Ok(shots)
}

fn shot(row: Row) -> Result<Shot, Error> {
    let wrong = |message: String| phyla_data::Error::Record { position: row.position.clone(), message };
    let text = |names: &[&str]| names.iter().find_map(|name| row.fields.get(*name)).and_then(plain);
    let need = |names: &[&str]| text(names).ok_or_else(|| wrong(format!("an exemplar needs a text `{}`", names[0])));
    let part =
        |name: &str| row.fields.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(Value::Array(vec![]));
    let options: Vec<String> = serde_json::from_value(part("options"))
        .map_err(|error| wrong(format!("`options` should be a list of texts: {error}")))?;
    let steps = serde_json::from_value(part("steps"))
        .map_err(|error| wrong(format!("`steps` should be a list of objects with `question` and `answer`: {error}")))?;
    let (question, mut answer) = (need(&["question"])?, need(&["answer", "correct"])?);
    let mut reasoning = text(&["reasoning", "rationale", "chain"]);
    if let Some((before, after)) = answer.rsplit_once("####") {
        reasoning.get_or_insert_with(|| without_sums(before.trim()));
        answer = after.trim().to_owned();
    }
    let Some(reasoning) = reasoning else {
        return Err(wrong("an exemplar needs a text `reasoning`".into()).into());
    };
    Ok(Shot { question, options: super::prompt::lettered(&options), reasoning, answer, steps })
}

/// A value as text, if it is a text, a number or a truth value.
pub(crate) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A solution without GSM8K's notes for a calculator, `<<16-3=13>>`.
fn without_sums(text: &str) -> String {
    let mut parts = text.split("<<");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(">>").map_or(part, |(_, after)| after));
    }
    plain.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_built_in_exemplar_comes_to_its_answer() {
        for kind in Kind::ALL {
            let shots = built_in(kind, Method::FewShot);
            assert!(shots.len() >= 2, "{kind:?}");
            for shot in &shots {
                assert!(!shot.question.is_empty() && !shot.reasoning.is_empty(), "{shot:?}");
                let written = format!("{} The answer is {}.", shot.reasoning, shot.answer);
                assert!(kind.find(&written).is_some() && kind.find(&written) == kind.stated(&shot.answer), "{written}");
                assert_eq!(shot.options.is_empty(), kind != Kind::Choice);
                if let Some(last) = shot.steps.last() {
                    assert!(shot.question.ends_with(&last.question) || kind == Kind::Number, "{last:?}");
                    assert_eq!(kind.find(&last.answer), kind.stated(&shot.answer));
                }
            }
            assert!(built_in(kind, Method::LeastToMost).iter().any(|shot| !shot.steps.is_empty()), "{kind:?}");
        }
    }

    #[test]
    fn exemplars_come_from_files_of_several_kinds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let rows = [
            r###"{"question": "Q", "answer": "He has 2+3 = <<2+3=5>>5.\nSo 5.\n#### 5"}"###,
            r#"{"question": "R", "rationale": "Because.", "correct": "B", "options": ["A)1", "B)2"]}"#,
            r#"{"question": "S", "reasoning": "x", "answer": 7, "steps": [{"question": "s", "answer": "t"}]}"#,
        ];
        std::fs::write(&path, rows.join("\n")).unwrap();
        let found = read_shots(&Table::open(&path).unwrap(), 9).unwrap();
        assert_eq!((found[0].reasoning.as_str(), found[0].answer.as_str()), ("He has 2+3 = 5. So 5.", "5"));
        assert_eq!((found[1].answer.as_str(), found[1].options[1].as_str()), ("B", "(B) 2"));
        assert_eq!((found[2].answer.as_str(), found[2].steps.len()), ("7", 1));
        assert_eq!(read_shots(&Table::open(&path).unwrap(), 2).unwrap().len(), 2);
        std::fs::write(&path, "{\"question\": \"Q\", \"answer\": \"5\"}").unwrap();
        let error = read_shots(&Table::open(&path).unwrap(), 2).unwrap_err().to_string();
        assert!(error.contains("a.jsonl, line 1: an exemplar needs a text `reasoning`"), "{error}");
    }
}
