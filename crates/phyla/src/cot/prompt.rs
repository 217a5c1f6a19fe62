//! Prompts of the methods: templates filled, through the model's chat template or not, and in ids.

use phyla_data::template::{Chat, PromptTemplate};
use phyla_data::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use super::{Question, Settings, Shot, Stage};
use crate::Error;

/// Where the model's turn begins, in what a template writes; Unicode keeps it for a program's own use.
const TURN: char = '\u{FDD3}';

/// A prompt, as text and as ids.
pub(super) struct Prompt {
    pub text: String,
    pub ids: Vec<u32>,
    /// What it ends with, for whoever watches.
    pub last_line: String,
}

/// Writes prompts.
pub(super) struct Prompts<'a> {
    pub tokenizer: &'a Tokenizer,
    pub template: PromptTemplate,
    pub shots: Vec<Shot>,
    pub kind: &'static str,
    /// Through the model's chat template.
    pub chat: bool,
}

impl<'a> Prompts<'a> {
    pub fn new(
        tokenizer: &'a Tokenizer,
        settings: &Settings,
        built_in: &str,
        shots: Vec<Shot>,
        chat: bool,
    ) -> Result<Self, Error> {
        let template = match &settings.template {
            Some((name, source)) => PromptTemplate::new(name, source)?,
            None => PromptTemplate::new(settings.method.name(), built_in)?,
        };
        Ok(Self { tokenizer, template, shots, kind: settings.kind.name(), chat })
    }

    /// The prompt of a stage; `more` is what earlier stages gave.
    pub fn write(&self, stage: Stage, question: &Question, more: &[(&str, Value)]) -> Result<Prompt, Error> {
        let mut variables = Map::new();
        for (name, value) in [
            ("stage", json!(stage.name())),
            ("question", json!(question.text)),
            ("options", json!(question.options)),
            ("kind", json!(self.kind)),
            ("shots", json!(self.shots)),
            ("chat", json!(self.chat)),
            ("assistant", json!(TURN)),
            ("reasoning", json!("")),
            ("solved", json!([])),
            ("subquestion", json!("")),
        ] {
            variables.insert(name.into(), value);
        }
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let written = self.template.render(&variables)?;
        let (asked, begun) = written.rsplit_once(TURN).unwrap_or((&written, ""));
        // A space at the end would part the next word from its own: vocabularies have words with the space before them.
        let (asked, begun) = (asked.replace(TURN, ""), begun.trim_end());
        let text =
            if self.chat { self.turns(asked.trim(), begun)? } else { format!("{asked}{begun}").trim_end().to_owned() };
        let shown = if begun.is_empty() { asked.trim() } else { begun };
        let last_line = shown.lines().next_back().unwrap_or_default().to_owned();
        let ids = self.tokenizer.encode(&text, !self.chat)?;
        Ok(Prompt { text, ids, last_line })
    }

    /// A conversation of what is asked, and the beginning of what is answered.
    fn turns(&self, asked: &str, begun: &str) -> Result<String, Error> {
        let mut messages = vec![json!({ "role": "user", "content": asked })];
        if !begun.is_empty() {
            messages.push(json!({ "role": "assistant", "content": begun }));
        }
        let chat = Chat {
            messages: &messages,
            add_generation_prompt: begun.is_empty(),
            continue_final: (!begun.is_empty()).then_some("content"),
            ..Chat::default()
        };
        Ok(self.tokenizer.templates().render(None, &chat)?.text)
    }
}

/// Options with their letters in brackets, whether they came with letters (`A)5`, `(a) 5`, `A. 5`) or without.
pub(crate) fn lettered(options: &[String]) -> Vec<String> {
    let letters = ('A'..='J').zip(options);
    letters.map(|(letter, option)| format!("({letter}) {}", bare(option.trim(), letter))).collect()
}

fn bare(option: &str, letter: char) -> &str {
    let open = option.strip_prefix('(').unwrap_or(option);
    let rest = open.strip_prefix([letter, letter.to_ascii_lowercase()]);
    rest.and_then(|rest| rest.strip_prefix([')', '.', ':'])).map_or(option, str::trim)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::{Kind, Method, built_in};
    use super::*;

    fn written(method: Method, stage: Stage, kind: Kind, question: Question, more: &[(&str, Value)]) -> String {
        let tokenizer = Tokenizer::from_characters((' '..='~').chain(['\n'])).unwrap();
        let settings = Settings { method, kind, ..Settings::default() };
        let shots = built_in(kind, method);
        let prompts = Prompts::new(&tokenizer, &settings, method.template(), shots, false).unwrap();
        let prompt = prompts.write(stage, &question, more).unwrap();
        assert_eq!(prompt.ids.len(), prompt.text.chars().count());
        assert!(prompt.text.ends_with(&prompt.last_line) && !prompt.text.ends_with(char::is_whitespace));
        prompt.text
    }

    #[test]
    fn the_built_in_templates_say_what_the_papers_do() {
        let text = written(Method::Plain, Stage::Answer, Kind::Number, "1 + 1?".into(), &[]);
        assert_eq!(text, "Q: 1 + 1?\nA: The answer (arabic numerals) is");
        let text = written(Method::ZeroShot, Stage::Reason, Kind::Number, "1 + 1?".into(), &[]);
        assert_eq!(text, "Q: 1 + 1?\nA: Let's think step by step.");
        let reasoned = [("reasoning", json!(" It is 2.\n"))];
        let text = written(Method::ZeroShot, Stage::Answer, Kind::YesNo, "Is it 2?".into(), &reasoned);
        let expected = "Q: Is it 2?\nA: Let's think step by step. It is 2.\nTherefore, the answer (yes or no) is";
        assert_eq!(text, expected);
        let options = lettered(&["A)5".into(), "b) 6".into(), "x".into()]);
        let question = Question { text: "Which?".into(), options };
        let text = written(Method::FewShot, Stage::Reason, Kind::Choice, question, &[]);
        assert!(
            text.starts_with("Q: A cyclist") && text.contains("option B. The answer is (B).\n\nQ: The price"),
            "{text}"
        );
        assert!(text.ends_with("\n\nQ: Which?\nOptions: (A) 5 (B) 6 (C) x\nA:"), "{text}");
    }

    #[test]
    fn least_to_most_has_earlier_answers_in_its_context() {
        let text = written(Method::LeastToMost, Stage::Decompose, Kind::Number, "How many?".into(), &[]);
        assert!(text.contains("1. How many bulbs were planted?\n2. How many bulbs are left?\n\nQ: Olga"), "{text}");
        assert!(text.ends_with("\n\nQ: How many?\nA: To solve this, answer in order:\n1."), "{text}");
        let more = [("solved", json!([{ "question": "a?", "answer": "It is 3." }])), ("subquestion", json!("b?"))];
        let text = written(Method::LeastToMost, Stage::Solve, Kind::Number, "There are some. How many?".into(), &more);
        assert!(text.ends_with("\n\nThere are some. How many?\nQ: a?\nA: It is 3.\nQ: b?\nA:"), "{text}");
    }

    #[test]
    fn templates_of_every_method_and_kind_can_be_written() {
        for method in Method::ALL {
            for kind in Kind::ALL {
                for stage in [Stage::Reason, Stage::Answer, Stage::Decompose, Stage::Solve] {
                    assert!(written(method, stage, kind, "Who?".into(), &[]).contains("Who?"));
                }
            }
        }
    }
}
