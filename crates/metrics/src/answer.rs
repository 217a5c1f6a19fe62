//! Answers in what models write: found by the rules of the literature, and written so that equal answers are equal texts.
//!
//! Where a text says "the answer is" (or `####`, or `\boxed{`), the answer is the first one behind the last such place;
//! elsewhere it is the last one of the text. So do the scripts of Wei et al. 2022 and Kojima et al. 2022 (appendix A.6).

mod number;

use serde::{Deserialize, Serialize};

pub use number::numbers;

/// What kind of thing an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A number, in the normal form of [`numbers`].
    #[default]
    Number,
    /// The letter of an option, `A` to `J`.
    Choice,
    /// `yes` or `no`.
    YesNo,
    /// `yes` or `no`, also where a text says on which side a coin lies: `yes` is heads.
    Coin,
    /// Letters put together, such as `yajo`.
    Letters,
    /// Any text: a line of it.
    Text,
}

/// What says that the answer follows, in small letters.
const TRIGGERS: [&str; 6] = ["the answer is", "answer is", "answer:", "####", "\\boxed{", "(arabic numerals) is"];

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Number, Self::Choice, Self::YesNo, Self::Coin, Self::Letters, Self::Text];

    /// Its name in templates and options: `number`, `choice`, `yes-no`, `coin`, `letters`, `text`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Choice => "choice",
            Self::YesNo => "yes-no",
            Self::Coin => "coin",
            Self::Letters => "letters",
            Self::Text => "text",
        }
    }

    /// The answer that a whole text comes to, if it has one.
    pub fn find(self, text: &str) -> Option<String> {
        match behind_trigger(text) {
            Some(rest) => self.first(rest),
            None => self.last(text),
        }
    }

    /// The answer of a text that was begun with "the answer is", or of a known answer.
    pub fn stated(self, text: &str) -> Option<String> {
        match behind_trigger(text) {
            Some(rest) if self.first(rest).is_some() => self.first(rest),
            _ => self.first(text),
        }
    }

    fn first(self, text: &str) -> Option<String> {
        match self {
            Self::Letters => letters(text),
            Self::Text => line(text.lines().find(|line| !line.trim().is_empty())?),
            _ => self.all(text).into_iter().next(),
        }
    }

    fn last(self, text: &str) -> Option<String> {
        match self {
            Self::Letters => {
                let quoted = text.rsplit('"').nth(1).filter(|_| text.matches('"').count() >= 2);
                letters(quoted.filter(|quoted| letters(quoted).is_some()).or_else(|| words(text).next_back())?)
            }
            Self::Text => line(text.lines().rfind(|line| !line.trim().is_empty())?),
            _ => self.all(text).into_iter().next_back(),
        }
    }

    /// Every answer of a text, in order; for the kinds of which a text can hold several.
    fn all(self, text: &str) -> Vec<String> {
        match self {
            Self::Number => numbers(text),
            Self::Choice => choices(text),
            Self::YesNo => yes_no(text),
            Self::Coin => match yes_no(text) {
                found if found.is_empty() => sides(text),
                found => found,
            },
            Self::Letters | Self::Text => vec![],
        }
    }
}

/// What follows the last place where a text says that its answer comes.
fn behind_trigger(text: &str) -> Option<&str> {
    // Only ASCII letters change, so places in both are the same.
    let small = text.to_ascii_lowercase();
    let ends = TRIGGERS.iter().filter_map(|trigger| Some(small.rfind(trigger)? + trigger.len()));
    ends.max().map(|end| &text[end..]).filter(|rest| !rest.trim().is_empty())
}

/// Words: runs of letters and digits, apostrophes inside included.
fn words(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '\'' || c == '’')).filter(|word| !word.is_empty())
}

/// Letters of options: those in brackets (`(b)`, `B)`) or, where there are none, capitals that stand alone.
fn choices(text: &str) -> Vec<String> {
    let (mut marked, mut alone) = (vec![], vec![]);
    let mut before = None;
    for (at, c) in text.char_indices() {
        let after = text[at + c.len_utf8()..].chars().next();
        let single = !before.is_some_and(char::is_alphanumeric)
            && !after.is_some_and(|next: char| next.is_alphanumeric() || matches!(next, '\'' | '’'));
        if single && ('A'..='J').contains(&c.to_ascii_uppercase()) {
            let letter = c.to_ascii_uppercase().to_string();
            if after == Some(')') || before == Some('(') {
                marked.push(letter);
            } else if c.is_ascii_uppercase() && !is_word(&text[at..]) {
                alone.push(letter);
            }
        }
        before = Some(c);
    }
    if marked.is_empty() { alone } else { marked }
}

/// Whether a capital that stands alone begins a sentence as a word: `A dog`, `I think`.
fn is_word(text: &str) -> bool {
    let mut after = text.chars().skip(1);
    matches!(text.as_bytes()[0], b'A' | b'I')
        && after.next() == Some(' ')
        && after.next().is_some_and(char::is_lowercase)
}

fn yes_no(text: &str) -> Vec<String> {
    let word = |word: &str| match word.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some("yes".to_owned()),
        "no" | "false" => Some("no".to_owned()),
        _ => None,
    };
    words(text).filter_map(word).collect()
}

/// On which side a coin is said to lie, as an answer to "is it heads?"; a word that denies turns it over.
fn sides(text: &str) -> Vec<String> {
    const NEAR: usize = 3;
    let words: Vec<String> = words(text).map(|word| word.to_ascii_lowercase().replace('’', "'")).collect();
    let denies = |word: &String| matches!(word.as_str(), "not" | "never") || word.ends_with("n't");
    let side = |(at, word): (usize, &String)| {
        let heads = match word.as_str() {
            "heads" => true,
            "tails" => false,
            _ => return None,
        };
        let denied = words[at.saturating_sub(NEAR)..at].iter().any(denies);
        Some(if heads != denied { "yes" } else { "no" }.to_owned())
    };
    words.iter().enumerate().filter_map(side).collect()
}

/// Letters put together: the first word or, where letters stand one by one (`y a j o`, `y-a-j-o`), all of these.
fn letters(text: &str) -> Option<String> {
    let mut words = words(text);
    let mut found = words.next()?.to_lowercase();
    if found.chars().count() == 1 {
        let single = |word: &&str| word.chars().count() == 1;
        found.extend(words.take_while(single).map(str::to_lowercase));
    }
    found.chars().all(char::is_alphabetic).then_some(found)
}

/// A line without what surrounds an answer.
fn line(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches(':').trim_end_matches(['.', '!']).trim_matches(['"', ' ', '*']);
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, cases: &[(&str, Option<&str>)]) {
        for (text, expected) in cases {
            assert_eq!(kind.find(text).as_deref(), *expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_those_behind_the_answer_or_the_last() {
        check(
            Kind::Number,
            &[
                ("", None),
                ("I do not know.", None),
                ("3 and 4 make 7.", Some("7")),
                ("The answer is 12. I had 3 apples.", Some("12")),
                ("The answer is 12. No: the answer is $1,300.00!", Some("1300")),
                ("THE ANSWER IS: -4", Some("-4")),
                ("so 5\n#### 1,450", Some("1450")),
                ("hence \\boxed{42}, as 7 said", Some("42")),
                // Said, and then nothing comes: what stood before counts.
                ("It is 9. The answer is", Some("9")),
                ("the answer is unclear", None),
                ("İ the answer is 5", Some("5")),
                ("Answer: 2.50 dollars", Some("2.5")),
            ],
        );
        assert_eq!(Kind::Number.stated(" 6 apples, of 9").as_deref(), Some("6"));
        assert_eq!(Kind::Number.stated("#### 70,000").as_deref(), Some("70000"));
        assert_eq!(Kind::Number.stated("6. The answer is").as_deref(), Some("6"));
    }

    #[test]
    fn options_are_letters_that_stand_alone() {
        check(
            Kind::Choice,
            &[
                ("", None),
                ("The answer is (C).", Some("C")),
                ("the answer is b)", Some("B")),
                ("The answer is D", Some("D")),
                ("A dog would choose E, not B", Some("B")),
                ("A dog", None),
                ("I think so", None),
                ("Among (A) 3 and (B) 4, A is wrong, so (B)", Some("B")),
                ("The answer is A", Some("A")),
                ("ABCDE", None),
                ("Z and K", None),
                ("A. 21", Some("A")),
                ("the answer is E's", None),
            ],
        );
    }

    #[test]
    fn yes_and_no_are_words() {
        check(
            Kind::YesNo,
            &[
                ("", None),
                ("Nobody knows yesterday's news", None),
                ("No, wait. Yes.", Some("yes")),
                ("The answer is no. Yes, really", Some("no")),
                ("So the answer is: **Yes**", Some("yes")),
                ("true", Some("yes")),
                ("That is FALSE", Some("no")),
            ],
        );
    }

    #[test]
    fn a_coin_that_lies_heads_up_is_a_yes() {
        check(
            Kind::Coin,
            &[
                ("It is still heads up.", Some("yes")),
                ("It was heads, now it is tails up.", Some("no")),
                ("The coin isn’t heads up", Some("no")),
                ("It is not tails.", Some("yes")),
                ("It is tails; the answer is yes", Some("yes")),
                ("It is no longer heads up", Some("no")),
                ("headstrong tailors", None),
            ],
        );
    }

    #[test]
    fn letters_are_put_together() {
        check(
            Kind::Letters,
            &[
                ("", None),
                ("The answer is \"yajo\".", Some("yajo")),
                ("the answer is Y-A-J-O.", Some("yajo")),
                ("the answer is y a j o, since", Some("yajo")),
                ("Putting them together gives nk.", Some("nk")),
                ("\"a\" and \"k\" give \"ak\" together", Some("ak")),
                ("the answer is 42", None),
            ],
        );
    }

    #[test]
    fn texts_are_lines_without_their_wrapping() {
        check(
            Kind::Text,
            &[
                ("", None),
                ("First.\nThe answer is \"the blue one\".\n", Some("the blue one")),
                ("one\n\ntwo.\n", Some("two")),
            ],
        );
    }
}
