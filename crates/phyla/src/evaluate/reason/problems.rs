//! Data sets of questions that take several steps: the files they are published in, and those that are made by a seed.

use std::fmt;

use phyla_data::dataset::Portion;
use phyla_data::supervised::records::Parallel;
use phyla_data::supervised::table::{Row, Table};
use phyla_data::tasks::{Sum, coin_flips, last_letters, sums};
use serde_json::{Map, Value};

use crate::Error;
use crate::cot::{Kind, Question, lettered, plain};

/// Which data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Puzzle {
    /// Grade-school word problems (Cobbe et al. 2021).
    Gsm8k,
    /// Word problems with what does not matter in them (Patel et al. 2021).
    Svamp,
    /// Word problems of several operations (Roy and Roth 2015); AddSub and SingleEq come in the same form.
    Multiarith,
    /// Algebra with five options (Ling et al. 2017).
    Aqua,
    /// Coins that are turned over (Wei et al. 2022).
    CoinFlip,
    /// Last letters put together (Wei et al. 2022).
    LastLetters,
    /// Questions whose steps are not said (Geva et al. 2021).
    Strategyqa,
    /// Sums, as the recipes of scratchpads learn them (Nye et al. 2021).
    Sums,
}

impl Puzzle {
    /// What kind of answer it has.
    pub fn kind(self) -> Kind {
        match self {
            Self::Gsm8k | Self::Svamp | Self::Multiarith | Self::Sums => Kind::Number,
            Self::Aqua => Kind::Choice,
            Self::CoinFlip => Kind::Coin,
            Self::LastLetters => Kind::Letters,
            Self::Strategyqa => Kind::YesNo,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gsm8k => "gsm8k",
            Self::Svamp => "svamp",
            Self::Multiarith => "multiarith",
            Self::Aqua => "aqua",
            Self::CoinFlip => "coin_flip",
            Self::LastLetters => "last_letters",
            Self::Strategyqa => "strategyqa",
            Self::Sums => "sums",
        }
    }

    /// `count` different problems by a seed, if this data set is made and not collected; `size` is how many names a puzzle has (2),
    /// or how many digits a number has at most (6). There may be fewer, if there are no more.
    pub fn made(self, seed: u64, size: Option<usize>, count: usize) -> Option<Vec<Problem>> {
        let names = size.unwrap_or(2);
        let pair = |pair: Parallel| Problem {
            question: Question { text: pair.source, options: vec![] },
            answer: pair.target.unwrap_or_default(),
            group: None,
        };
        let all: Box<dyn Iterator<Item = Problem>> = match self {
            Self::CoinFlip => Box::new(coin_flips(seed, names).map(pair)),
            Self::LastLetters => Box::new(last_letters(seed, names).map(pair)),
            Self::Sums => {
                let digits = size.unwrap_or(6).try_into().unwrap_or(u32::MAX);
                Box::new(sums(seed, Portion::Validation, digits).map(sum))
            }
            _ => return None,
        };
        let mut seen = std::collections::HashSet::new();
        let new = all.take(count.saturating_mul(4)).filter(|problem| seen.insert(problem.question.text.clone()));
        Some(new.take(count).collect())
    }
}

impl fmt::Display for Puzzle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A question and its right answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What is asked.
    pub question: Question,
    /// What is right, as [`Kind::stated`] writes it.
    pub answer: String,
    /// What it is counted with besides all: `3 digits`.
    pub group: Option<String>,
}

fn sum(sum: Sum) -> Problem {
    let digits = sum.digits();
    Problem {
        question: Question { text: sum.question(), options: vec![] },
        answer: sum.answer(),
        group: Some(format!("{digits} digit{}", if digits == 1 { "" } else { "s" })),
    }
}

/// The problems of files, at most `most`.
///
/// # Errors
/// Files that cannot be read, and rows without the fields that the data set has: their place, and what is missing.
pub fn problems(puzzle: Puzzle, table: &Table, most: usize) -> Result<Vec<Problem>, Error> {
    let mut found = vec![];
    for row in table.rows() {
        if found.len() >= most {
            break;
        }
        let mut row = row?;
        // Files of BIG-bench, and of puzzles, have their rows under this name.
        match row.fields.remove("examples") {
            Some(Value::Array(examples)) => {
                for (number, example) in examples.into_iter().enumerate().take(most - found.len()) {
                    let Value::Object(fields) = example else {
                        return Err(wrong(&row, format!("example {number} should be an object")));
                    };
                    found.push(problem(puzzle, &Row { fields, ..row.clone() }, Some(number))?);
                }
            }
            _ => found.push(problem(puzzle, &row, None)?),
        }
    }
    if found.is_empty() {
        return Err(Error::Task(format!("the data has no problem of {puzzle}")));
    }
    Ok(found)
}

fn wrong(row: &Row, message: String) -> Error {
    phyla_data::Error::Record { position: row.position.clone(), message }.into()
}

fn problem(puzzle: Puzzle, row: &Row, number: Option<usize>) -> Result<Problem, Error> {
    let place = number.map(|number| format!("example {number}: ")).unwrap_or_default();
    let missing = |what: &str| wrong(row, format!("{place}a problem of {puzzle} needs {what}"));
    let fields = &row.fields;
    let text = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)).and_then(plain);
    let (question, answer) = match puzzle {
        Puzzle::Svamp => {
            let (body, question) = (text(&["Body", "body"]), text(&["Question", "question"]));
            let question = question.ok_or_else(|| missing("a text `Question`"))?;
            (Some(body.map_or_else(|| question.clone(), |body| joined(&body, &question))), text(&["Answer", "answer"]))
        }
        Puzzle::Multiarith => {
            let solution = fields.get("lSolutions").and_then(|all| all.get(0)).and_then(plain);
            (text(&["sQuestion", "question"]), solution.or_else(|| text(&["final_ans", "answer"])))
        }
        Puzzle::Aqua => (text(&["question"]), text(&["correct", "answer"])),
        Puzzle::Strategyqa => (text(&["input", "question"]), target(fields).or_else(|| text(&["answer"]))),
        Puzzle::Gsm8k | Puzzle::CoinFlip | Puzzle::LastLetters | Puzzle::Sums => {
            (text(&["question"]), text(&["answer"]))
        }
    };
    let question = question.filter(|text| !text.is_empty()).ok_or_else(|| missing("a text `question`"))?;
    let answer = answer.ok_or_else(|| missing("an `answer`"))?;
    let options = match fields.get("options") {
        Some(options) if puzzle == Puzzle::Aqua => {
            let options: Vec<String> =
                serde_json::from_value(options.clone()).map_err(|_| missing("a list of texts `options`"))?;
            lettered(&options)
        }
        None if puzzle == Puzzle::Aqua => return Err(missing("a list of texts `options`")),
        _ => vec![],
    };
    let known = puzzle.kind().stated(&answer);
    let Some(answer) = known else {
        return Err(wrong(row, format!("{place}the answer {answer:?} is no {}", puzzle.kind().name())));
    };
    Ok(Problem { question: Question { text: question, options }, answer, group: None })
}

/// A sentence and what is asked of it; some lack the mark at their end.
fn joined(body: &str, question: &str) -> String {
    let ends = body.ends_with(|c: char| c.is_ascii_punctuation());
    format!("{body}{} {question}", if ends { "" } else { "." })
}

/// The choice with the highest score in BIG-bench's `target_scores`.
fn target(fields: &Map<String, Value>) -> Option<String> {
    let scores = fields.get("target_scores")?.as_object()?;
    let best = scores.iter().max_by(|a, b| a.1.as_f64().unwrap_or(0.).total_cmp(&b.1.as_f64().unwrap_or(0.)))?;
    Some(best.0.clone())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn read(puzzle: Puzzle, name: &str, text: &str) -> Result<Vec<Problem>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        problems(puzzle, &Table::open(path).unwrap(), 100)
    }

    #[test]
    fn each_data_set_is_read_as_it_is_published() {
        let options = r#"{"question": "How far?", "options": ["A)5 km", "B)6 km"], "rationale": "r", "correct": "B"}"#;
        let strategy = r#"{"name": "s", "examples": [{"input": "Is it?", "target_scores": {"Yes": 0, "No": 1}}]}"#;
        for (puzzle, name, text, question, answer) in [
            (
                Puzzle::Gsm8k,
                "a.jsonl",
                r###"{"question": "Q 7?", "answer": "1+1=<<1+1=2>>2\n#### 1,002"}"###,
                "Q 7?",
                "1002",
            ),
            (
                Puzzle::Svamp,
                "a.json",
                r#"[{"Body": "It rains", "Question": "Why?", "Answer": 51.0}]"#,
                "It rains. Why?",
                "51",
            ),
            (Puzzle::Multiarith, "a.json", r#"[{"sQuestion": " Who? ", "lSolutions": [39.5]}]"#, "Who?", "39.5"),
            (Puzzle::Aqua, "a.json", options, "How far?", "B"),
            (Puzzle::Strategyqa, "a.json", strategy, "Is it?", "no"),
            (Puzzle::Strategyqa, "a.json", r#"[{"question": "Is it?", "answer": true}]"#, "Is it?", "yes"),
            (Puzzle::CoinFlip, "a.json", r#"{"examples": [{"question": "Up?", "answer": "yes"}]}"#, "Up?", "yes"),
            (Puzzle::LastLetters, "a.json", r#"{"examples": [{"question": "L?", "answer": "yajo"}]}"#, "L?", "yajo"),
        ] {
            let found = read(puzzle, name, text).unwrap();
            assert_eq!((found[0].question.text.as_str(), found[0].answer.as_str()), (question, answer), "{puzzle}");
        }
        assert_eq!(read(Puzzle::Aqua, "a.json", options).unwrap()[0].question.options, ["(A) 5 km", "(B) 6 km"]);
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        for (puzzle, text, expected) in [
            (Puzzle::Gsm8k, r#"{"question": "Q"}"#, "line 1: a problem of gsm8k needs an `answer`"),
            (Puzzle::Gsm8k, r#"{"question": "Q", "answer": "none"}"#, "the answer \"none\" is no number"),
            (Puzzle::Aqua, r#"{"question": "Q", "correct": "A"}"#, "needs a list of texts `options`"),
            (Puzzle::CoinFlip, r#"{"examples": [{"answer": "no"}]}"#, "example 0: a problem of coin_flip needs a text"),
            (Puzzle::CoinFlip, r#"{"examples": [3]}"#, "example 0 should be an object"),
            (Puzzle::Gsm8k, r#"{"examples": []}"#, "no problem of gsm8k"),
        ] {
            let error = read(puzzle, "a.jsonl", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn made_problems_differ_and_end_where_there_are_no_more() {
        let made = Puzzle::Sums.made(1, None, 300).unwrap();
        assert_eq!(made.len(), 300);
        assert!(made.iter().any(|problem| problem.group.as_deref() == Some("6 digits")));
        // Of the 100 sums of two digits a tenth is held out.
        let few = Puzzle::Sums.made(1, Some(1), 300).unwrap();
        assert!((1..30).contains(&few.len()), "{}", few.len());
        assert_eq!(few[0].group.as_deref(), Some("1 digit"));
        assert_eq!(Puzzle::Gsm8k.made(1, None, 5), None);
        assert_eq!(Puzzle::CoinFlip.made(1, Some(8), 50).unwrap().len(), 50);
    }
}
