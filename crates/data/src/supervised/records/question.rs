//! A question on a text, answered by spans of that text, or by none.

use serde_json::{Map, Value, json};

use super::{Fields, Origin, Record, Role, Set, fields};
use crate::tokenizer::kind;

/// A question, the text it is asked of, and its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The question's own, or empty.
    pub id: String,
    /// The question.
    pub question: String,
    /// The text to answer it from.
    pub context: String,
    /// Answers, each good by itself; empty: the text has none.
    pub answers: Vec<Answer>,
    /// Answers whose place had to be looked for, since the file's was missing or wrong.
    pub moved: usize,
    /// Where it comes from.
    pub origin: Origin,
}

/// A span of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The span's text.
    pub text: String,
    /// Where it begins, in characters of the context; none for an answer in other words than the context's.
    pub start: Option<usize>,
}

impl Question {
    /// A question with an answer that begins at `start` characters, or with none.
    pub fn new(question: impl Into<String>, context: impl Into<String>, answer: Option<(&str, usize)>) -> Self {
        let answers = answer.map(|(text, start)| Answer { text: text.to_owned(), start: Some(start) });
        Self {
            id: String::new(),
            question: question.into(),
            context: context.into(),
            answers: answers.into_iter().collect(),
            moved: 0,
            origin: Origin::default(),
        }
    }
}

/// The place, in characters, at which `text` begins in `context`: `near` if it stands there, else nearest to it.
fn place(context: &str, text: &str, near: Option<usize>) -> Option<usize> {
    if let Some(near) = near
        && let Some((byte, _)) = context.char_indices().nth(near)
        && context[byte..].starts_with(text)
    {
        return Some(near);
    }
    let mut counted = (0, 0);
    let places = context.match_indices(text).map(|(byte, _)| {
        counted = (byte, counted.1 + context[counted.0..byte].chars().count());
        counted.1
    });
    places.min_by_key(|place| place.abs_diff(near.unwrap_or(0)))
}

type Given = (String, Option<usize>);

/// Answers in any of the shapes found: objects, parallel lists, or bare strings.
fn answers(value: Value, start: Option<Value>) -> Result<Vec<Given>, String> {
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![(text, start.as_ref().and_then(number))]),
        Value::Object(mut object) => {
            let (texts, starts) = (object.shift_remove("text"), object.shift_remove("answer_start"));
            match (texts, starts) {
                (Some(Value::Array(texts)), starts) => {
                    let starts = match starts {
                        Some(Value::Array(starts)) => starts,
                        _ => Vec::new(),
                    };
                    let pairs = texts.into_iter().enumerate().map(|(index, text)| match text {
                        Value::String(text) => Ok((text, starts.get(index).and_then(number))),
                        other => Err(format!("an answer should be a string, found {}", kind(&other))),
                    });
                    pairs.collect()
                }
                (Some(Value::String(text)), start) => Ok(vec![(text, start.as_ref().and_then(number))]),
                _ => Err("an answer should have `text` and `answer_start`".to_owned()),
            }
        }
        Value::Array(values) => {
            let mut all = Vec::with_capacity(values.len());
            for value in values {
                if matches!(value, Value::Array(_)) {
                    return Err("an answer should be a string or an object, found a list".to_owned());
                }
                all.extend(answers(value, None)?);
            }
            Ok(all)
        }
        other => Err(format!("answers should be a list, found {}", kind(&other))),
    }
}

impl Record for Question {
    const ROLES: &'static [Role] = &[
        Role { name: "id", aliases: &["id", "query_id", "question_id", "qid"], needed: false },
        Role { name: "question", aliases: &["question", "query_text", "query"], needed: true },
        Role { name: "context", aliases: &["context", "context_text", "passage", "document"], needed: true },
        Role { name: "answers", aliases: &["answers", "answer", "answer_text"], needed: false },
        Role { name: "answer_start", aliases: &["answer_start", "start"], needed: false },
        Role { name: "impossible", aliases: &["is_impossible", "impossible"], needed: false },
    ];
    const SETS: &'static [Set] = &[];

    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        let id = match fields.take("id") {
            Some(Value::String(id)) => id,
            Some(Value::Number(id)) => id.to_string(),
            _ => String::new(),
        };
        let named = |message: String| if id.is_empty() { message } else { format!("question `{id}`: {message}") };
        let question = fields.needed("question").map_err(named)?;
        let context = fields.needed("context").map_err(named)?;
        let start = fields.take("answer_start").map(|start| match start {
            // A cell of a delimited file.
            Value::String(text) => text.trim().parse::<u64>().map_or(Value::Null, Value::from),
            other => other,
        });
        let given = answers(fields.take("answers").unwrap_or_default(), start).map_err(named)?;
        let impossible = match fields.take("impossible") {
            None => false,
            Some(Value::Bool(impossible)) => impossible,
            Some(Value::Number(number)) => number.as_i64() != Some(0),
            Some(Value::String(text)) => matches!(text.trim().to_lowercase().as_str(), "true" | "1" | "yes"),
            Some(other) => {
                return Err(named(format!("`is_impossible` should be true or false, found {}", kind(&other))));
            }
        };
        let (mut answers, mut moved) = (Vec::new(), 0);
        // Answers to impossible questions are plausible ones, which are wrong.
        for (text, start) in given.into_iter().filter(|(text, _)| !impossible && !text.trim().is_empty()) {
            let found = place(&context, &text, start);
            moved += usize::from(found.is_some() && start != found);
            answers.push(Answer { text, start: found });
        }
        Ok(Self { id, question, context, answers, moved, origin: fields.origin.clone() })
    }

    fn write(&self) -> Map<String, Value> {
        let answers: Vec<Value> =
            self.answers.iter().map(|answer| json!({"text": answer.text, "answer_start": answer.start})).collect();
        fields([
            ("id", self.id.clone().into()),
            ("question", self.question.clone().into()),
            ("context", self.context.clone().into()),
            ("answers", answers.into()),
        ])
    }
}
