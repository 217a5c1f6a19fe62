//! Rewards that the text itself decides: a pattern, valid JSON, the right answer, its length.

use fancy_regex::Regex;
use phyla_metrics::answer::Kind;
use serde_json::Value;

use super::Item;
use crate::TrainError;
use crate::recipe::{LengthUnit, RewardFunction};

/// A check of completions.
#[derive(Debug)]
pub enum Check {
    /// How often a pattern is found, up to some number.
    Regex(Box<Regex>, usize),
    /// Whether it is JSON, with these keys.
    Json(Vec<String>),
    /// Whether it comes to the answer in a column.
    Answer(String, Kind),
    /// How near it is to a length.
    Length(usize, LengthUnit),
}

impl Check {
    /// The check that a recipe describes.
    pub fn new(reward: &RewardFunction) -> Result<Self, TrainError> {
        Ok(match reward {
            RewardFunction::Regex { pattern, most } => {
                let pattern = Regex::new(pattern).map_err(|error| TrainError::Settings(error.to_string()))?;
                Self::Regex(Box::new(pattern), *most)
            }
            RewardFunction::Json { keys } => Self::Json(keys.clone()),
            RewardFunction::Answer { column, answer } => Self::Answer(column.clone(), *answer),
            RewardFunction::Length { target, unit } => Self::Length(*target, *unit),
            RewardFunction::Model { .. } | RewardFunction::Command { .. } => {
                return Err(TrainError::Settings(format!("`{}` is no check of a text", reward.name())));
            }
        })
    }

    /// One reward for each completion.
    pub fn scores(&self, items: &[Item]) -> Result<Vec<Option<f64>>, TrainError> {
        items.iter().map(|item| self.score(item).map(Some)).collect()
    }

    fn score(&self, item: &Item) -> Result<f64, TrainError> {
        let right = |right: bool| f64::from(u8::from(right));
        Ok(match self {
            Self::Regex(pattern, most) => {
                let found = pattern.find_iter(item.completion).take(*most);
                let found: Result<Vec<_>, _> = found.collect();
                let failed =
                    |error: fancy_regex::Error| TrainError::Reward { name: "regex".into(), what: error.to_string() };
                found.map_err(failed)?.len() as f64
            }
            Self::Json(keys) => right(match serde_json::from_str::<Value>(item.completion.trim()) {
                Ok(value) => keys.iter().all(|key| value.get(key).is_some()),
                Err(_) => false,
            }),
            Self::Answer(column, kind) => {
                let wanted = match item.prompt.columns.get(column) {
                    Some(Value::String(text)) => kind.stated(text).unwrap_or_else(|| text.trim().to_owned()),
                    Some(Value::Null) | None => {
                        let columns: Vec<&str> = item.prompt.columns.keys().map(String::as_str).collect();
                        let what = format!(
                            "no column `{column}` beside the prompt {:?}; its row has {columns:?}",
                            item.prompt.text
                        );
                        return Err(TrainError::Reward { name: "answer".into(), what });
                    }
                    Some(other) => kind.stated(&other.to_string()).unwrap_or_else(|| other.to_string()),
                };
                right(kind.find(item.completion).is_some_and(|found| found == wanted))
            }
            Self::Length(target, unit) => {
                let length = match unit {
                    LengthUnit::Words => item.completion.split_whitespace().count(),
                    LengthUnit::Characters => item.completion.chars().count(),
                    LengthUnit::Tokens => item.tokens,
                };
                (1. - (length as f64 - *target as f64).abs() / *target as f64).max(0.)
            }
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use phyla_data::supervised::prompts::Source;
    use phyla_data::supervised::records::Asked;
    use serde_json::json;

    use super::*;

    fn score(reward: &RewardFunction, completion: &str) -> f64 {
        let columns = json!({"answer": "so it is 1,024", "n": 12});
        let columns = columns.as_object().unwrap().clone();
        let prompt = Source { asked: Asked::Text("?".into()), text: "?".into(), columns };
        let item = Item { prompt: &prompt, completion, ended: true, tokens: 3 };
        Check::new(reward).unwrap().scores(&[item]).unwrap()[0].unwrap()
    }

    #[test]
    fn patterns_are_counted_up_to_a_number() {
        let reward = RewardFunction::Regex { pattern: "(?i)happy".into(), most: 2 };
        for (text, expected) in [("sad", 0.), ("Happy", 1.), ("happy happy happy", 2.)] {
            assert_eq!(score(&reward, text), expected);
        }
    }

    #[test]
    fn json_must_parse_and_have_its_keys() {
        let plain = RewardFunction::Json { keys: vec![] };
        let keyed = RewardFunction::Json { keys: vec!["a".into()] };
        for (text, all, with) in
            [(" {\"a\": 1}\n", 1., 1.), ("[1, 2]", 1., 0.), ("{\"b\": 1}", 1., 0.), ("{\"a\": 1", 0., 0.), ("", 0., 0.)]
        {
            assert_eq!((score(&plain, text), score(&keyed, text)), (all, with), "{text}");
        }
    }

    #[test]
    fn answers_are_compared_as_numbers() {
        let reward = RewardFunction::Answer { column: "answer".into(), answer: Kind::Number };
        for (text, expected) in [("1000 + 24 = 1024.", 1.), ("The answer is 1,024", 1.), ("24", 0.), ("", 0.)] {
            assert_eq!(score(&reward, text), expected, "{text}");
        }
        let number = RewardFunction::Answer { column: "n".into(), answer: Kind::Number };
        assert_eq!(score(&number, "12.0"), 1.);
    }

    #[test]
    fn lengths_count_by_their_distance() {
        let words = RewardFunction::Length { target: 4, unit: LengthUnit::Words };
        for (text, expected) in [("a b c d", 1.), ("a b", 0.5), ("", 0.), ("a b c d e f g h i j", 0.)] {
            assert_eq!(score(&words, text), expected, "{text}");
        }
        assert_eq!(score(&RewardFunction::Length { target: 3, unit: LengthUnit::Tokens }, "x"), 1.);
        assert_eq!(score(&RewardFunction::Length { target: 2, unit: LengthUnit::Characters }, "äö"), 1.);
    }

    #[test]
    fn a_missing_column_is_named() {
        let reward = RewardFunction::Answer { column: "solution".into(), answer: Kind::Number };
        let prompt = Source { asked: Asked::Text("2+2".into()), text: "2+2".into(), columns: serde_json::Map::new() };
        let item = Item { prompt: &prompt, completion: "4", ended: true, tokens: 1 };
        let message = Check::new(&reward).unwrap().scores(&[item]).unwrap_err().to_string();
        assert!(message.contains("no column `solution`"), "{message}");
    }
}
