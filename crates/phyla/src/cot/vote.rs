//! Self-consistency's vote: the answer that most chains come to (Wang et al. 2022, section 2).

use serde::Serialize;

/// What a vote came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Vote {
    /// The answer with the most votes; `None` where no chain came to one. Of several, the one that came first.
    pub answer: Option<String>,
    /// Its share of all chains, those without an answer counted: how sure the model may be of it.
    pub confidence: f64,
    /// Whether another answer has as many votes.
    pub tied: bool,
    /// Every answer with its votes, the most first, equal ones in the order in which they came.
    pub votes: Vec<Votes>,
    /// Chains without an answer.
    pub unanswered: usize,
}

/// An answer and its votes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Votes {
    /// The answer.
    pub answer: String,
    /// How many chains came to it.
    pub count: usize,
}

impl Vote {
    /// Counts the answers of chains.
    pub fn of<'a>(answers: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let (mut votes, mut unanswered, mut all) = (Vec::<Votes>::new(), 0, 0_usize);
        for answer in answers {
            all += 1;
            let Some(answer) = answer else {
                unanswered += 1;
                continue;
            };
            match votes.iter_mut().find(|votes| votes.answer == answer) {
                Some(votes) => votes.count += 1,
                None => votes.push(Votes { answer: answer.to_owned(), count: 1 }),
            }
        }
        // Stable: what came first stays first.
        votes.sort_by_key(|votes| std::cmp::Reverse(votes.count));
        let most = votes.first().map_or(0, |first| first.count);
        Self {
            answer: votes.first().map(|first| first.answer.clone()),
            confidence: most as f64 / all.max(1) as f64,
            tied: votes.get(1).is_some_and(|second| second.count == most),
            votes,
            unanswered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(answers: &[&str]) -> Vote {
        Vote::of(answers.iter().map(|answer| (!answer.is_empty()).then_some(*answer)))
    }

    #[test]
    fn most_votes_win_and_chains_without_an_answer_lower_the_confidence() {
        let found = vote(&["7", "", "18", "18", "3"]);
        assert_eq!((found.answer.as_deref(), found.confidence, found.tied), (Some("18"), 0.4, false));
        assert_eq!(
            found.votes.iter().map(|v| (v.answer.as_str(), v.count)).collect::<Vec<_>>(),
            [("18", 2), ("7", 1), ("3", 1)]
        );
        assert_eq!(found.unanswered, 1);
    }

    #[test]
    fn of_equal_votes_the_first_answer_wins_and_says_so() {
        let found = vote(&["2", "5", "5", "2", "9"]);
        assert_eq!((found.answer.as_deref(), found.confidence, found.tied), (Some("2"), 0.4, true));
        assert!(!vote(&["1"]).tied);
    }

    #[test]
    fn without_answers_there_is_none() {
        for answers in [&[][..], &["", ""]] {
            let found = vote(answers);
            assert_eq!((found.answer, found.confidence, found.tied), (None, 0., false));
        }
    }
}
