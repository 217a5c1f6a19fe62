//! The methods: which stages there are, what of one goes into the next, and which answer comes of it.

use phyla_generate::Sequence;
use serde_json::json;

use super::ask::{ANSWER, ask, check, decoding};
use super::prompt::{Prompt, Prompts};
use super::{Chain, Heard, Method, Pass, Question, Settings, Solved, Stage, Step, ThroughChat, Vote, built_in};
use crate::{Error, Session};

/// Simpler questions at most; more is a model that repeats itself.
const MOST_STEPS: usize = 8;

/// Asks a model by a method.
pub struct Reasoner<'a> {
    session: &'a Session,
    settings: Settings,
    prompts: Prompts<'a>,
}

impl<'a> Reasoner<'a> {
    /// Puts a model and a method together.
    ///
    /// # Errors
    /// A model that writes no text or has no tokenizer; a template that does not parse; a chat template asked for where there is
    /// none; settings that the method has a say in.
    pub fn new(session: &'a Session, settings: Settings) -> Result<Self, Error> {
        let Some(tokenizer) = &session.tokenizer else { return Err(Error::NoTokenizer) };
        let task = session.model.arch.task;
        if !matches!(task, phyla_models::Task::CausalLm | phyla_models::Task::Seq2SeqLm) {
            return Err(Error::Task(format!(
                "to reason takes a model that writes text, and this one is for {}",
                task.describe()
            )));
        }
        check(&settings)?;
        let templated = !tokenizer.templates().is_empty();
        if settings.chat == ThroughChat::Always && !templated {
            return Err(Error::Task("the model has no chat template to go through".into()));
        }
        let chat = templated && settings.chat != ThroughChat::Never;
        let method = chains(&settings);
        let shots = settings.shots.clone().unwrap_or_else(|| built_in(settings.kind, method));
        let prompts = Prompts::new(tokenizer, &settings, method.template(), shots, chat)?;
        Ok(Self { session, settings, prompts })
    }

    /// Whether prompts go through the model's chat template.
    pub fn through_chat(&self) -> bool {
        self.prompts.chat
    }

    /// Answers questions, all at once; `heard` is told what is written where that is a single chain.
    ///
    /// What comes of a question does not depend on the others (over quantised weights where `deterministic` is set).
    ///
    /// # Errors
    /// Prompts that a template cannot write or the model cannot read; settings out of range; a failure of the model.
    pub fn solve(&self, questions: &[Question], heard: &mut dyn FnMut(Heard)) -> Result<Vec<Solved>, Error> {
        match chains(&self.settings) {
            Method::ZeroShot => self.two_stages(questions, heard),
            Method::LeastToMost => self.least_to_most(questions, heard),
            Method::Plain => self.one_stage(Stage::Answer, questions, heard),
            Method::FewShot | Method::SelfConsistency => self.one_stage(Stage::Reason, questions, heard),
        }
    }

    /// The chains that are drawn from each prompt that reasons.
    fn drawn(&self) -> Option<usize> {
        (self.settings.method == Method::SelfConsistency).then_some(self.settings.samples)
    }

    fn ask(
        &self,
        stage: Stage,
        drawn: Option<usize>,
        prompts: &[Prompt],
        heard: &mut dyn FnMut(Heard),
    ) -> Result<Vec<Vec<Sequence>>, Error> {
        let config = decoding(&self.settings, stage, drawn, self.prompts.chat);
        ask(self.session, prompts, config, self.settings.seed, heard)
    }

    /// A chain is one pass, and its text has the answer.
    fn one_stage(
        &self,
        stage: Stage,
        questions: &[Question],
        heard: &mut dyn FnMut(Heard),
    ) -> Result<Vec<Solved>, Error> {
        let prompts = questions.iter().map(|question| self.prompts.write(stage, question, &[]));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let found = self.ask(stage, self.drawn(), &prompts, heard)?;
        let solve = |(prompt, sequences): (&Prompt, Vec<Sequence>)| {
            let chains = sequences.iter().map(|sequence| {
                let pass = Pass::new(stage, prompt, sequence, false);
                let kind = self.settings.kind;
                let answer = if stage == Stage::Answer { kind.stated(&pass.text) } else { kind.find(&pass.text) };
                Chain { answer, passes: vec![pass] }
            });
            self.solved(chains.collect())
        };
        Ok(prompts.iter().zip(found).map(solve).collect())
    }

    /// A chain is two passes: what the first wrote is in the prompt of the second, which says the answer.
    fn two_stages(&self, questions: &[Question], heard: &mut dyn FnMut(Heard)) -> Result<Vec<Solved>, Error> {
        let first = questions.iter().map(|question| self.prompts.write(Stage::Reason, question, &[]));
        let first = first.collect::<Result<Vec<_>, _>>()?;
        let reasoned = self.ask(Stage::Reason, self.drawn(), &first, heard)?;
        let (mut chains, mut second, mut owners) = (vec![], vec![], vec![]);
        for (owner, (question, sequences)) in questions.iter().zip(&reasoned).enumerate() {
            for sequence in sequences {
                let (prompt, cut) = self.answering(question, sequence)?;
                let passes = vec![Pass::new(Stage::Reason, &first[owner], sequence, cut)];
                chains.push(Chain { answer: None, passes });
                second.push(prompt);
                owners.push(owner);
            }
        }
        let answers = self.ask(Stage::Answer, None, &second, heard)?;
        let mut solved: Vec<Vec<Chain>> = questions.iter().map(|_| vec![]).collect();
        for (((mut chain, prompt), sequences), owner) in chains.into_iter().zip(&second).zip(answers).zip(owners) {
            let passes = sequences.iter().map(|sequence| Pass::new(Stage::Answer, prompt, sequence, false));
            chain.passes.extend(passes);
            chain.answer = chain.passes.last().and_then(|pass| self.settings.kind.stated(&pass.text));
            solved[owner].push(chain);
        }
        Ok(solved.into_iter().map(|chains| self.solved(chains)).collect())
    }

    /// The prompt that asks for the answer behind a reasoning. Where a model has no room for both, the end of the reasoning goes.
    fn answering(&self, question: &Question, reasoned: &Sequence) -> Result<(Prompt, bool), Error> {
        let arch = &self.session.model.arch;
        let room = if arch.context_is_hard && arch.source().is_none() {
            arch.context.saturating_sub(ANSWER)
        } else {
            usize::MAX
        };
        let mut ids = reasoned.ids.clone();
        let mut text = reasoned.text.clone().unwrap_or_default();
        loop {
            let prompt = self.prompts.write(Stage::Answer, question, &[("reasoning", json!(text))])?;
            if prompt.ids.len() <= room || ids.is_empty() {
                return Ok((prompt, ids.len() < reasoned.ids.len()));
            }
            ids.truncate(ids.len().saturating_sub(prompt.ids.len() - room));
            text = self.prompts.tokenizer.decode(&ids, true)?;
        }
    }

    /// Decomposes, then answers one simpler question after the other, each of all questions at once.
    fn least_to_most(&self, questions: &[Question], heard: &mut dyn FnMut(Heard)) -> Result<Vec<Solved>, Error> {
        let prompts = questions.iter().map(|question| self.prompts.write(Stage::Decompose, question, &[]));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let found = self.ask(Stage::Decompose, None, &prompts, heard)?;
        let mut chains: Vec<Chain> = vec![];
        let mut open: Vec<Vec<String>> = vec![];
        for ((question, prompt), sequences) in questions.iter().zip(&prompts).zip(&found) {
            let passes: Vec<Pass> = sequences.iter().map(|s| Pass::new(Stage::Decompose, prompt, s, false)).collect();
            let text = passes.first().map(|pass| pass.text.as_str()).unwrap_or_default();
            open.push(simpler(text, &question.text));
            chains.push(Chain { answer: None, passes });
        }
        let mut solved: Vec<Vec<Step>> = questions.iter().map(|_| vec![]).collect();
        for round in 0..open.iter().map(Vec::len).max().unwrap_or(0) {
            let turn: Vec<usize> = (0..questions.len()).filter(|&at| round < open[at].len()).collect();
            let write = |&at: &usize| {
                let more = [("solved", json!(solved[at])), ("subquestion", json!(open[at][round]))];
                self.prompts.write(Stage::Solve, &questions[at], &more)
            };
            let prompts = turn.iter().map(write).collect::<Result<Vec<_>, _>>()?;
            if let [at] = turn[..] {
                heard(Heard::Begun(&format!("Q: {}", open[at][round])));
            }
            let found = self.ask(Stage::Solve, None, &prompts, heard)?;
            for ((at, prompt), sequences) in turn.into_iter().zip(&prompts).zip(found) {
                for sequence in &sequences {
                    let pass = Pass::new(Stage::Solve, prompt, sequence, false);
                    let answer = pass.text.trim().to_owned();
                    solved[at].push(Step { question: open[at][round].clone(), answer });
                    chains[at].passes.push(pass);
                }
            }
        }
        let answered = |mut chain: Chain| {
            chain.answer = chain.passes.last().and_then(|pass| self.settings.kind.find(&pass.text));
            self.solved(vec![chain])
        };
        Ok(chains.into_iter().map(answered).collect())
    }

    fn solved(&self, chains: Vec<Chain>) -> Solved {
        let vote = Vote::of(chains.iter().map(|chain| chain.answer.as_deref()));
        let votes = self.settings.method == Method::SelfConsistency;
        Solved { answer: vote.answer.clone(), vote: votes.then_some(vote), chains }
    }
}

/// The method of the chains that self-consistency draws; every other method's own.
fn chains(settings: &Settings) -> Method {
    match settings.method {
        Method::SelfConsistency if settings.without_shots => Method::ZeroShot,
        Method::SelfConsistency => Method::FewShot,
        method => method,
    }
}

/// The simpler questions of a decomposition, the question itself being the last. Lines that are numbered, or end with a
/// question mark, are questions; the first number stands in the prompt.
fn simpler(text: &str, question: &str) -> Vec<String> {
    let mut found = vec![];
    for (number, line) in text.lines().map(str::trim).enumerate() {
        let bare = line.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | ')' | '-' | '*' | ' '));
        let listed = number == 0 || bare.len() < line.len();
        if !bare.is_empty() && (listed || bare.ends_with('?')) && !found.iter().any(|known| known == bare) {
            found.push(bare.to_owned());
        }
    }
    found.truncate(MOST_STEPS);
    // What is asked in the end has to be asked, in its own words: the last sentence is its question.
    let last = question.rsplit_once(['.', '!']).map_or(question, |(_, last)| last).trim();
    let last = if last.is_empty() { question } else { last };
    if found.last().is_none_or(|found| found != last) {
        found.push(last.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decomposition_is_read_in_any_shape_and_ends_with_the_question() {
        let question = "A shop has 3 shelves. How many books are there?";
        for (text, expected) in [
            (
                " How many shelves?\n2. How many books are there?",
                &["How many shelves?", "How many books are there?"][..],
            ),
            (" a?\n2) b?\n- c?\nThat is all.", &["a?", "b?", "c?", "How many books are there?"]),
            ("", &["How many books are there?"]),
            (" a?\n2. a?\n3. a?", &["a?", "How many books are there?"]),
            ("\n\n\u{0}\n", &["How many books are there?"]),
        ] {
            assert_eq!(simpler(text, question), expected, "{text:?}");
        }
        assert_eq!(simpler(&"1. x\n".repeat(3), "").len(), 2);
        let many: String = (0..50).map(|n| format!("{n}. q{n}?\n")).collect();
        assert_eq!(simpler(&many, "What?").len(), MOST_STEPS + 1);
    }
}
