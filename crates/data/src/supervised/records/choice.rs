//! A question and the choices one must be taken from.

use serde_json::{Map, Value};

use super::{Fields, Origin, Record, Role, Set, fields};
use crate::tokenizer::kind;

/// A question with choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// A text the question is about, if there is one.
    pub context: Option<String>,
    /// The question, or the beginning that the choices complete.
    pub question: String,
    /// What to choose from.
    pub choices: Vec<String>,
    /// Which is right, from 0.
    pub answer: Option<usize>,
    /// Where it comes from.
    pub origin: Origin,
}

/// The choices and the names by which an answer may call them.
fn choices(value: Value, called: &str) -> Result<(Vec<String>, Vec<String>), String> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        other => Err(format!("{called}: a choice should be a string, found {}", kind(&other))),
    };
    match value {
        Value::Array(values) => {
            let (mut texts, mut names) = (Vec::new(), Vec::new());
            for value in values {
                match value {
                    Value::Object(mut object) => {
                        let choice = object.shift_remove("text").unwrap_or_default();
                        texts.push(text(choice)?);
                        names.extend(object.get("label").and_then(Value::as_str).map(str::to_owned));
                    }
                    other => texts.push(text(other)?),
                }
            }
            Ok((texts, names))
        }
        Value::Object(mut object) => match (object.shift_remove("text"), object.shift_remove("label")) {
            (Some(Value::Array(texts)), names) => {
                let texts = texts.into_iter().map(text).collect::<Result<_, _>>()?;
                let names = names.and_then(|names| serde_json::from_value(names).ok());
                Ok((texts, names.unwrap_or_default()))
            }
            // Several columns, one for each choice.
            _ => Ok((object.into_iter().map(|(_, value)| text(value)).collect::<Result<_, _>>()?, Vec::new())),
        },
        other => Err(format!("{called} should be a list of strings, found {}", kind(&other))),
    }
}

/// Which choice is meant: by name, by number from 0, by letter, or by its own text.
fn index(answer: &Value, choices: &[String], names: &[String]) -> Result<usize, String> {
    let wrong = || format!("the answer {answer} names none of the {} choices", choices.len());
    let within = |index: usize| if index < choices.len() { Ok(index) } else { Err(wrong()) };
    let text = match answer {
        Value::Number(number) => {
            let number = number.as_u64().and_then(|number| usize::try_from(number).ok()).ok_or_else(wrong)?;
            return within(number);
        }
        Value::String(text) => text.trim(),
        _ => return Err(wrong()),
    };
    if let Some(index) = names.iter().position(|name| name == text) {
        return Ok(index);
    }
    if let Some(index) = choices.iter().position(|choice| choice == text) {
        return Ok(index);
    }
    if let Ok(number) = text.parse() {
        return within(number);
    }
    match text.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => within(usize::from(letter.to_ascii_uppercase() - b'A')),
        _ => Err(wrong()),
    }
}

impl Record for Choice {
    const ROLES: &'static [Role] = &[
        Role { name: "context", aliases: &["context", "passage", "article"], needed: false },
        Role { name: "question", aliases: &["question", "ctx", "goal", "query", "premise", "sentence"], needed: true },
        Role { name: "choices", aliases: &["choices", "options", "endings", "answers"], needed: true },
        Role { name: "answer", aliases: &["answer", "label", "answerkey", "answer_index", "correct"], needed: false },
    ];
    const SETS: &'static [Set] = &[
        &[("question", "question.stem"), ("choices", "question.choices"), ("answer", "answerkey")],
        &[
            ("context", "sent1"),
            ("question", "sent2"),
            ("choices", "ending0"),
            ("choices", "ending1"),
            ("choices", "ending2"),
            ("choices", "ending3"),
        ],
        &[("choices", "ending0"), ("choices", "ending1"), ("choices", "ending2"), ("choices", "ending3")],
        &[("choices", "ending0"), ("choices", "ending1")],
        &[("choices", "choice0"), ("choices", "choice1"), ("choices", "choice2"), ("choices", "choice3")],
        &[("choices", "choice1"), ("choices", "choice2"), ("choices", "choice3"), ("choices", "choice4")],
        &[("choices", "choice1"), ("choices", "choice2")],
        &[("question", "goal"), ("choices", "sol1"), ("choices", "sol2")],
        &[("question", "sentence"), ("choices", "option1"), ("choices", "option2")],
        &[("choices", "a"), ("choices", "b"), ("choices", "c"), ("choices", "d")],
    ];

    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        let context = fields.text("context")?.filter(|context| !context.trim().is_empty());
        let question = fields.needed("question")?;
        let called = fields.called("choices");
        let (choices, names) = choices(fields.take("choices").unwrap_or_default(), &called)?;
        if choices.len() < 2 {
            return Err(format!("expected at least two choices, found {}", choices.len()));
        }
        let answer = match fields.take("answer") {
            // Hidden answers of test sets.
            None => None,
            Some(Value::String(text)) if text.trim().is_empty() => None,
            Some(answer) => Some(index(&answer, &choices, &names)?),
        };
        Ok(Self { context, question, choices, answer, origin: fields.origin.clone() })
    }

    fn write(&self) -> Map<String, Value> {
        let mut object = Map::new();
        if let Some(context) = &self.context {
            object.insert("context".to_owned(), context.clone().into());
        }
        object.extend(fields([
            ("question", self.question.clone().into()),
            ("choices", self.choices.clone().into()),
            ("answer", self.answer.into()),
        ]));
        object
    }
}
