//! A prompt with a completion that was preferred and one that was not; or with one that is good or bad.

use serde_json::{Map, Value};

use super::{Fields, Origin, Record, Role, Set, fields};
use crate::tokenizer::kind;

/// A prompt and two completions.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// What both complete; empty when nothing is shared.
    pub prompt: String,
    /// The preferred one.
    pub chosen: String,
    /// The other.
    pub rejected: String,
    /// By how much the first is better.
    pub margin: Option<f64>,
    /// Where it comes from.
    pub origin: Origin,
}

/// A prompt and a completion that is good or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// What is completed.
    pub prompt: String,
    /// How.
    pub completion: String,
    /// Whether that is wanted.
    pub desirable: bool,
    /// Where it comes from.
    pub origin: Origin,
}

const PROMPT: Role = Role { name: "prompt", aliases: &["prompt", "instruction", "question", "query"], needed: false };
const INPUT: Role = Role { name: "input", aliases: &["input"], needed: false };

/// The prompt as a text: as it is, or an instruction with its input as Alpaca words them.
fn prompt(fields: &mut Fields<'_>) -> Result<Option<String>, String> {
    let instructed = fields.columns("prompt").iter().any(|column| column.eq_ignore_ascii_case("instruction"));
    let (prompt, input) = (fields.text("prompt")?, fields.text("input")?);
    Ok(match prompt {
        Some(prompt) if instructed => Some(instruction(&prompt, input.as_deref().unwrap_or_default())),
        Some(prompt) => Some(prompt + &input.unwrap_or_default()),
        None => input,
    })
}

/// Alpaca's words around a task (Taori et al. 2023).
fn instruction(task: &str, input: &str) -> String {
    let (given, input) = match input.trim() {
        "" => ("", String::new()),
        input => (", paired with an input that provides further context", format!("### Input:\n{input}\n\n")),
    };
    format!(
        "Below is an instruction that describes a task{given}. Write a response that appropriately completes the \
         request.\n\n### Instruction:\n{task}\n\n{input}### Response:\n"
    )
}

/// Divides two texts into what both begin with and what each goes on with.
///
/// Dialogues in the manner of HH-RLHF share all up to the last turn of the assistant that begins alike; of others the
/// prompt is what they share letter by letter, up to the last space in it.
fn divided(chosen: &str, rejected: &str) -> (String, String, String) {
    const TURN: &str = "\n\nAssistant:";
    let same = chosen.char_indices().zip(rejected.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
    let shared = &chosen[..same.unwrap_or(chosen.len().min(rejected.len()))];
    let end = match shared.rfind(TURN) {
        Some(at) => at + TURN.len(),
        // The space goes to the completion, as tokenizers count it to the word behind.
        None => shared.rfind(char::is_whitespace).unwrap_or(0),
    };
    (chosen[..end].to_owned(), chosen[end..].to_owned(), rejected[end..].to_owned())
}

impl Record for Preference {
    const ROLES: &'static [Role] = &[
        PROMPT,
        INPUT,
        Role { name: "chosen", aliases: &["chosen", "preferred", "accepted"], needed: true },
        Role { name: "rejected", aliases: &["rejected", "dispreferred"], needed: true },
        Role { name: "margin", aliases: &["margin"], needed: false },
    ];
    const SETS: &'static [Set] = &[];

    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        let given = prompt(fields)?;
        let (chosen, rejected) = (fields.needed("chosen")?, fields.needed("rejected")?);
        if chosen == rejected {
            return Err(format!("{} and {} are the same text", fields.called("chosen"), fields.called("rejected")));
        }
        let (prompt, chosen, rejected) = match given {
            Some(prompt) => (prompt, chosen, rejected),
            None => divided(&chosen, &rejected),
        };
        let margin = match fields.take("margin") {
            None => None,
            Some(value) => match value.as_f64() {
                Some(margin) => Some(margin),
                None => return Err(format!("{} should be a number, found {}", fields.called("margin"), kind(&value))),
            },
        };
        Ok(Self { prompt, chosen, rejected, margin, origin: fields.origin.clone() })
    }

    fn numbered(_: &[&str]) -> Option<Vec<&'static str>> {
        None
    }

    fn write(&self) -> Map<String, Value> {
        let mut object = fields([
            ("prompt", self.prompt.clone().into()),
            ("chosen", self.chosen.clone().into()),
            ("rejected", self.rejected.clone().into()),
        ]);
        if let Some(margin) = self.margin {
            object.insert("margin".to_owned(), margin.into());
        }
        object
    }
}

impl Record for Judgement {
    const ROLES: &'static [Role] = &[
        PROMPT,
        INPUT,
        Role { name: "completion", aliases: &["completion", "response", "output", "answer"], needed: true },
        Role { name: "label", aliases: &["label", "desirable", "kto_tag"], needed: true },
    ];
    const SETS: &'static [Set] = &[];

    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        let prompt = prompt(fields)?.unwrap_or_default();
        let completion = fields.needed("completion")?;
        let called = fields.called("label");
        let desirable = match fields.take("label") {
            Some(Value::Bool(desirable)) => desirable,
            Some(Value::Number(number)) if number.as_i64() == Some(0) => false,
            Some(Value::Number(number)) if number.as_i64() == Some(1) => true,
            Some(Value::String(text)) if matches!(&*text.to_lowercase(), "true" | "1") => true,
            Some(Value::String(text)) if matches!(&*text.to_lowercase(), "false" | "0") => false,
            Some(other) => return Err(format!("{called} should be true or false, found {other}")),
            None => return Err(format!("{called} is missing or null")),
        };
        Ok(Self { prompt, completion, desirable, origin: fields.origin.clone() })
    }

    fn numbered(_: &[&str]) -> Option<Vec<&'static str>> {
        None
    }

    fn write(&self) -> Map<String, Value> {
        fields([
            ("prompt", self.prompt.clone().into()),
            ("completion", self.completion.clone().into()),
            ("label", self.desirable.into()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::divided;

    #[test]
    fn what_both_begin_with_is_the_prompt() {
        let own = |(a, b, c): (&str, &str, &str)| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(divided("The sky is blue", "The sky is black"), own(("The sky is", " blue", " black")));
        assert_eq!(divided("yes", "no"), own(("", "yes", "no")));
        assert_eq!(divided("It is", "It is not"), own(("It", " is", " is not")));
        let (chosen, rejected) = ("\n\nHuman: Hi\n\nAssistant: I'm fine", "\n\nHuman: Hi\n\nAssistant: I'm not");
        assert_eq!(divided(chosen, rejected), own(("\n\nHuman: Hi\n\nAssistant:", " I'm fine", " I'm not")));
        assert_eq!(divided("naïve é", "naïve è"), own(("naïve", " é", " è")));
    }
}
