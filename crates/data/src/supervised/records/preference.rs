//! A prompt with a completion that was preferred and one that was not; or with one that is good or bad: the same spellings
//! as those of a [`Dialogue`], with other names for what is written.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::dialogue::{recognise, renamed};
use super::{Content, Dialogue, Fields, Origin, Record, Role, Roles, Set};
use crate::error::{Error, Result};
use crate::supervised::table::{Column, Row};
use crate::tokenizer::kind;

/// A prompt and two completions.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// The prompt with the preferred one.
    pub chosen: Dialogue,
    /// The prompt with the other.
    pub rejected: Dialogue,
    /// By how much the first is better.
    pub margin: Option<f64>,
}

/// A prompt and a completion that is good or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The prompt with its completion; of a conversation, its last turn.
    pub dialogue: Dialogue,
    /// Whether that is wanted.
    pub desirable: bool,
}

impl Preference {
    /// Two texts that complete another.
    pub fn new(prompt: &str, chosen: &str, rejected: &str) -> Self {
        Self { chosen: completion(prompt, chosen), rejected: completion(prompt, rejected), margin: None }
    }

    /// Every text in it, for a tokenizer to be trained on.
    pub fn texts(self) -> Vec<String> {
        let written = self.rejected.texts().pop();
        self.chosen.texts().into_iter().chain(written).collect()
    }
}

impl Judgement {
    /// A text that completes another.
    pub fn new(prompt: &str, text: &str, desirable: bool) -> Self {
        Self { dialogue: completion(prompt, text), desirable }
    }
}

fn completion(prompt: &str, completion: &str) -> Dialogue {
    Dialogue::new(Content::Completion { prompt: prompt.to_owned(), completion: completion.to_owned() })
}

/// What one of the completions is called where there is but one.
const WRITTEN: [&str; 3] = ["output", "response", "completion"];

/// What a prompt may be called.
const GIVEN: [&str; 5] = ["prompt", "instruction", "messages", "conversations", "conversation"];

const fn role(name: &'static str) -> Role {
    Role { name, aliases: &[], needed: false }
}

impl Record for Preference {
    const ROLES: &'static [Role] = &[
        role("chosen"),
        role("rejected"),
        role("margin"),
        role("completions"),
        role("ranks"),
        role("prompt"),
        role("instruction"),
        role("input"),
        role("messages"),
        role("conversations"),
        role("conversation"),
        role("system"),
        role("history"),
        role("tools"),
        role("chat_template_kwargs"),
    ];
    const SETS: &'static [Set] = &[];

    fn from_row(row: Row, columns: &BTreeMap<String, Column>, _: &mut Roles) -> Result<Self> {
        from_row::<Self, _>(row, columns, compared)
    }

    /// Of a row with several completions every pair, as in Ouyang et al. 2022, equation 1.
    fn all_of_row(row: Row, columns: &BTreeMap<String, Column>, _: &mut Roles) -> Result<Vec<Self>> {
        from_row::<Self, _>(row, columns, |fields, origin| {
            if fields.get("chosen").is_some_and(|value| !value.is_null()) {
                return Ok(vec![compared(fields, origin)?]);
            }
            match fields.shift_remove("completions") {
                Some(Value::Array(completions)) => ranked(completions, fields, &origin),
                Some(other) if !other.is_null() => {
                    Err(format!("`completions` should be a list, from the best to the worst; found {}", kind(&other)))
                }
                _ => Ok(vec![compared(fields, origin)?]),
            }
        })
    }

    fn read(fields: &mut Fields<'_>) -> std::result::Result<Self, String> {
        compared(fields.fields, fields.origin.clone())
    }

    fn write(&self) -> Map<String, Value> {
        let mut object = self.chosen.write();
        for (name, mut from) in [("chosen", self.chosen.write()), ("rejected", self.rejected.write())] {
            let written = WRITTEN.iter().find_map(|written| from.shift_remove(*written));
            object.insert(name.to_owned(), written.unwrap_or_default());
        }
        WRITTEN.iter().for_each(|written| drop(object.shift_remove(*written)));
        if let Some(margin) = self.margin {
            object.insert("margin".to_owned(), margin.into());
        }
        object
    }
}

impl Record for Judgement {
    const ROLES: &'static [Role] = &[
        role("label"),
        role("prompt"),
        role("completion"),
        role("chosen"),
        role("rejected"),
        role("messages"),
        role("conversations"),
        role("conversation"),
        role("instruction"),
        role("input"),
        role("output"),
        role("response"),
        role("system"),
        role("history"),
        role("tools"),
        role("chat_template_kwargs"),
    ];
    const SETS: &'static [Set] = &[];

    fn from_row(row: Row, columns: &BTreeMap<String, Column>, _: &mut Roles) -> Result<Self> {
        from_row::<Self, _>(row, columns, judged)
    }

    /// Of a row with two completions the preferred one is good and the other is not, as trl takes such data apart.
    fn all_of_row(row: Row, columns: &BTreeMap<String, Column>, _: &mut Roles) -> Result<Vec<Self>> {
        from_row::<Self, _>(row, columns, |fields, origin| {
            let has = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
            if has("label") || !(has("chosen") && has("rejected")) {
                return Ok(vec![judged(fields, origin)?]);
            }
            let Preference { chosen, rejected, .. } = compared(fields, origin)?;
            let judged = [(chosen, true), (rejected, false)];
            Ok(judged.into_iter().map(|(dialogue, desirable)| Self { dialogue, desirable }).collect())
        })
    }

    fn read(fields: &mut Fields<'_>) -> std::result::Result<Self, String> {
        judged(fields.fields, fields.origin.clone())
    }

    fn write(&self) -> Map<String, Value> {
        let mut object = self.dialogue.write();
        object.insert("label".to_owned(), self.desirable.into());
        object
    }
}

/// What `read` makes of the fields of a row, which play the roles of an `R`.
pub(super) fn from_row<R: Record, T>(
    mut row: Row,
    columns: &BTreeMap<String, Column>,
    read: impl Fn(&mut Map<String, Value>, Origin) -> std::result::Result<T, String>,
) -> Result<T> {
    if !columns.is_empty() {
        row.fields = renamed::<R>(&row, columns)?;
    }
    let position = row.position.clone();
    let record = read(&mut row.fields, Origin(Some(position.clone())));
    record.map_err(|message| Error::Record { position, message })
}

fn compared(fields: &mut Map<String, Value>, origin: Origin) -> std::result::Result<Preference, String> {
    let names: Vec<String> = fields.keys().take(20).map(|name| format!("`{name}`")).collect();
    let mut take = |name: &str| fields.shift_remove(name).filter(|value| !value.is_null());
    let (Some(chosen), Some(rejected)) = (take("chosen"), take("rejected")) else {
        return Err(format!(
            "expected `chosen` and `rejected`, or `completions` from the best to the worst; this row has {}",
            names.join(", ")
        ));
    };
    if chosen == rejected {
        return Err("`chosen` and `rejected` are the same; set `data.faults = \"skip\"` to leave such rows out".into());
    }
    let margin = match take("margin") {
        None => None,
        Some(value) => match value.as_f64() {
            Some(margin) => Some(margin),
            None => return Err(format!("`margin` should be a number, found {}", kind(&value))),
        },
    };
    // What a supervised run would learn from the same row.
    WRITTEN.iter().for_each(|written| drop(take(written)));
    // A prompt as a string beside two whole conversations is told by those themselves.
    let given = |name: &&str| match fields.get(*name) {
        None | Some(Value::Null) => false,
        Some(Value::String(_)) => !chosen.is_array(),
        Some(_) => true,
    };
    let (chosen, rejected) = match GIVEN.iter().any(given) {
        true => (chosen, rejected),
        false => {
            let (prompt, chosen, rejected) = divided(chosen, rejected)?;
            fields.insert("prompt".to_owned(), prompt);
            (chosen, rejected)
        }
    };
    let side = |written: Value| {
        let mut fields = fields.clone();
        complete(&mut fields, written)?;
        recognise(&mut fields, origin.clone())
    };
    Ok(Preference { chosen: side(chosen)?, rejected: side(rejected)?, margin })
}

/// Every pair of completions of which one is better: in their order, or by `ranks`, of which 1 is the best and equal ones
/// make no pair.
fn ranked(
    completions: Vec<Value>,
    fields: &mut Map<String, Value>,
    origin: &Origin,
) -> std::result::Result<Vec<Preference>, String> {
    let ranks = match fields.shift_remove("ranks").filter(|value| !value.is_null()) {
        None => (0..completions.len()).map(|place| place as f64).collect(),
        Some(Value::Array(ranks)) if ranks.len() == completions.len() => {
            let ranks: Option<Vec<f64>> = ranks.iter().map(Value::as_f64).collect();
            ranks.ok_or("`ranks` should be numbers, 1 for the best completion")?
        }
        Some(other) => {
            return Err(format!("`ranks` should be a list of {} numbers, found {other}", completions.len()));
        }
    };
    let mut pairs = vec![];
    for (better, rank) in completions.iter().zip(&ranks) {
        for (worse, _) in completions.iter().zip(&ranks).filter(|(_, other)| rank < other) {
            let mut fields = fields.clone();
            fields.insert("chosen".to_owned(), better.clone());
            fields.insert("rejected".to_owned(), worse.clone());
            pairs.push(compared(&mut fields, origin.clone())?);
        }
    }
    if pairs.is_empty() {
        return Err("`completions` needs at least two, one better than the other".into());
    }
    Ok(pairs)
}

/// Puts what was written where a row with one completion has it.
fn complete(fields: &mut Map<String, Value>, written: Value) -> std::result::Result<(), String> {
    if let Value::String(text) = &written
        && text.trim().is_empty()
    {
        return Err("a completion is blank".into());
    }
    if fields.get("instruction").is_some_and(|value| !value.is_null()) {
        fields.insert("output".to_owned(), written);
        return Ok(());
    }
    for name in ["messages", "conversations", "conversation"] {
        if let Some(said) = fields.shift_remove(name).filter(|value| !value.is_null()) {
            fields.insert("prompt".to_owned(), said);
        }
    }
    let written = match (fields.get("prompt"), written) {
        (_, message @ Value::Object(_)) => json!([message]),
        (Some(Value::Array(_)), Value::String(text)) => json!([{"role": "assistant", "content": text}]),
        (_, written) => written,
    };
    if let (Some(system), Some(Value::Array(prompt))) = (fields.shift_remove("system"), fields.get_mut("prompt"))
        && system.as_str().is_some_and(|text| !text.is_empty())
    {
        prompt.insert(0, json!({"role": "system", "content": system}));
    }
    fields.insert("completion".to_owned(), written);
    Ok(())
}

/// What both begin with, and what each goes on with; of conversations by messages.
fn divided(chosen: Value, rejected: Value) -> std::result::Result<(Value, Value, Value), String> {
    match (chosen, rejected) {
        (Value::String(chosen), Value::String(rejected)) => {
            let (prompt, chosen, rejected) = divided_texts(&chosen, &rejected);
            Ok((prompt.into(), chosen.into(), rejected.into()))
        }
        (Value::Array(mut chosen), Value::Array(mut rejected)) => {
            let same = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            let same = same.min(chosen.len().min(rejected.len()).saturating_sub(1));
            let rejected = rejected.split_off(same);
            let rest = chosen.split_off(same);
            Ok((chosen.into(), rest.into(), rejected.into()))
        }
        (chosen, rejected) => Err(format!(
            "`chosen` and `rejected` without a prompt should be two strings or two lists of messages, found {} and {}",
            kind(&chosen),
            kind(&rejected)
        )),
    }
}

/// Dialogues in the manner of HH-RLHF share all up to the last turn of the assistant that begins alike; of other texts the
/// prompt is what they share letter by letter, up to the last space in it.
fn divided_texts(chosen: &str, rejected: &str) -> (String, String, String) {
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

fn judged(fields: &mut Map<String, Value>, origin: Origin) -> std::result::Result<Judgement, String> {
    let desirable = match fields.shift_remove("label") {
        Some(Value::Bool(desirable)) => desirable,
        Some(Value::Number(number)) if number.as_i64() == Some(0) => false,
        Some(Value::Number(number)) if number.as_i64() == Some(1) => true,
        Some(Value::String(text)) if matches!(&*text.to_lowercase(), "true" | "1") => true,
        Some(Value::String(text)) if matches!(&*text.to_lowercase(), "false" | "0") => false,
        Some(other) => return Err(format!("`label` should be true or false, found {other}")),
        None => {
            return Err(
                "`label`, true for a good completion and false for a bad one, is missing; pairs have `chosen` and \
                        `rejected` instead"
                    .into(),
            );
        }
    };
    let dialogue = recognise(fields, origin)?;
    if let Content::Text(_) = dialogue.content {
        return Err("a text without a prompt has no completion to be judged".into());
    }
    Ok(Judgement { dialogue, desirable })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn pair(row: Value) -> std::result::Result<Preference, String> {
        let mut fields: Map<String, Value> = serde_json::from_value(row).unwrap();
        compared(&mut fields, Origin::default())
    }

    fn contents(row: Value) -> (Content, Content) {
        let pair = pair(row).unwrap();
        (pair.chosen.content, pair.rejected.content)
    }

    #[test]
    fn what_both_begin_with_is_the_prompt() {
        let own = |(a, b, c): (&str, &str, &str)| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(divided_texts("The sky is blue", "The sky is black"), own(("The sky is", " blue", " black")));
        assert_eq!(divided_texts("yes", "no"), own(("", "yes", "no")));
        assert_eq!(divided_texts("It is", "It is not"), own(("It", " is", " is not")));
        let (chosen, rejected) = ("\n\nHuman: Hi\n\nAssistant: I'm fine", "\n\nHuman: Hi\n\nAssistant: I'm not");
        assert_eq!(divided_texts(chosen, rejected), own(("\n\nHuman: Hi\n\nAssistant:", " I'm fine", " I'm not")));
        assert_eq!(divided_texts("naïve é", "naïve è"), own(("naïve", " é", " è")));
    }

    #[test]
    fn every_spelling_of_a_pair_is_read() {
        let completion = |completion: &str| Content::Completion { prompt: "a".into(), completion: completion.into() };
        let row = json!({"prompt": "a", "chosen": "b", "rejected": "c"});
        assert_eq!(contents(row), (completion("b"), completion("c")));
        let asked =
            |output: &str| Content::Instruction { instruction: "do".into(), input: "it".into(), output: output.into() };
        let row = json!({"instruction": "do", "input": "it", "output": "x", "chosen": "b", "rejected": "c"});
        assert_eq!(contents(row), (asked("b"), asked("c")));
        let user = json!({"role": "user", "content": "a"});
        let says = |text: &str| json!({"role": "assistant", "content": text});
        let reply = |text: &str| Content::Reply { prompt: vec![user.clone()], completion: vec![says(text)] };
        for row in [
            json!({"prompt": [user], "chosen": [says("b")], "rejected": [says("c")]}),
            json!({"prompt": [user], "chosen": "b", "rejected": "c"}),
            json!({"chosen": [user, says("b")], "rejected": [user, says("c")]}),
            json!({"prompt": "a", "chosen": [user, says("b")], "rejected": [user, says("c")]}),
            json!({
                "conversations": [{"from": "human", "value": "a"}],
                "chosen": {"from": "gpt", "value": "b"},
                "rejected": {"from": "gpt", "value": "c"}
            }),
        ] {
            assert_eq!(contents(row.clone()), (reply("b"), reply("c")), "{row}");
        }
    }

    #[test]
    fn what_is_no_pair_is_told() {
        for (row, expected) in [
            (json!({"prompt": "a", "chosen": "b"}), "from the best to the worst; this row has `prompt`, `chosen`"),
            (json!({"chosen": "b", "rejected": "b"}), "are the same"),
            (json!({"prompt": "a", "chosen": " ", "rejected": "b"}), "blank"),
            (json!({"chosen": "b", "rejected": ["a"]}), "two strings or two lists"),
            (json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "x"}), "`margin` should be a number"),
        ] {
            let error = pair(row.clone()).unwrap_err();
            assert!(error.contains(expected), "{row}: {error}");
        }
    }

    fn all_of<R: Record>(row: Value) -> std::result::Result<Vec<R>, String> {
        let file: std::sync::Arc<std::path::Path> = std::path::Path::new("pairs.jsonl").into();
        let position = crate::dataset::Position::at(&file, crate::dataset::Part::Line, 1);
        let row = Row { fields: serde_json::from_value(row).unwrap(), position, numbered: false };
        R::all_of_row(row, &BTreeMap::new(), &mut Roles::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_ranked_list_is_every_pair_of_it() {
        let pairs = |row: Value| -> Vec<(Content, Content)> {
            all_of::<Preference>(row)
                .unwrap()
                .into_iter()
                .map(|pair| (pair.chosen.content, pair.rejected.content))
                .collect()
        };
        let completion = |text: &str| Content::Completion { prompt: "p".into(), completion: text.into() };
        let [a, b, c] = ["a", "b", "c"].map(completion);
        let row = json!({"prompt": "p", "completions": ["a", "b", "c"]});
        assert_eq!(pairs(row), [(a.clone(), b.clone()), (a.clone(), c.clone()), (b.clone(), c.clone())]);
        let row = json!({"prompt": "p", "completions": ["a", "b", "c"], "ranks": [2, 1, 2]});
        assert_eq!(pairs(row), [(b.clone(), a.clone()), (b, c)]);
        let row = json!({"prompt": "p", "chosen": "a", "rejected": "b", "completions": null});
        assert_eq!(pairs(row).len(), 1);
        let user = json!([{"role": "user", "content": "p"}]);
        let says = |text: &str| json!([{"role": "assistant", "content": text}]);
        let row = json!({"prompt": user, "completions": [says("a"), says("b")]});
        assert!(matches!(&pairs(row)[0].0, Content::Reply { completion, .. } if completion[0]["content"] == "a"));
        for (row, expected) in [
            (json!({"prompt": "p", "completions": ["a"]}), "at least two"),
            (json!({"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]}), "one better than the other"),
            (json!({"prompt": "p", "completions": ["a", "b"], "ranks": [1]}), "a list of 2 numbers"),
            (json!({"prompt": "p", "completions": ["a", "b"], "ranks": [1, "x"]}), "should be numbers"),
            (json!({"prompt": "p", "completions": "a"}), "should be a list"),
        ] {
            let error = all_of::<Preference>(row.clone()).unwrap_err();
            assert!(error.contains(expected), "{row}: {error}");
        }
    }

    #[test]
    fn a_pair_is_two_judgements() {
        let all = all_of::<Judgement>;
        let pair = json!({"prompt": "a", "chosen": "b", "rejected": "c"});
        assert_eq!(all(pair).unwrap(), [Judgement::new("a", "b", true), Judgement::new("a", "c", false)]);
        let one = json!({"prompt": "a", "completion": "b", "label": false, "chosen": null});
        assert_eq!(all(one).unwrap(), [Judgement::new("a", "b", false)]);
        let error = all(json!({"prompt": "a", "completion": "b"})).unwrap_err();
        assert!(error.contains("pairs have `chosen` and `rejected`"), "{error}");
        assert!(all(json!({"prompt": "a", "chosen": "b", "rejected": "b"})).unwrap_err().contains("are the same"));
    }

    #[test]
    fn judgements_know_several_words_for_yes() {
        for (label, expected) in [(json!(true), true), (json!(0), false), (json!("True"), true), (json!("0"), false)] {
            let mut row = Map::from_iter([("prompt".to_owned(), json!("a")), ("completion".to_owned(), json!("b"))]);
            row.insert("label".to_owned(), label);
            assert_eq!(judged(&mut row, Origin::default()).unwrap().desirable, expected);
        }
        let mut row = Map::from_iter([("prompt".to_owned(), json!("a")), ("completion".to_owned(), json!("b"))]);
        assert!(judged(&mut row, Origin::default()).unwrap_err().contains("is missing"));
    }
}
