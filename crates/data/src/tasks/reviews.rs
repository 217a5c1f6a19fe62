//! Reviews of things with one to five stars: grades that can be read in the text, neighbours less surely than others.

use phyla_kernels::rng::Rng;

use super::tales::hash;
use super::{pick, portion_of, stream};
use crate::dataset::Portion;
use crate::supervised::records::Graded;

const THINGS: [&str; 12] =
    ["lamp", "kite", "cake", "chair", "clock", "boat", "coat", "drum", "tent", "bike", "pan", "puzzle"];

/// What is said of a thing, from one star to five.
const SAID: [[&str; 5]; 5] = [
    [
        "The _ broke on the first day.",
        "I threw the _ away.",
        "Nobody should buy this _.",
        "It is the worst _ that I have seen.",
        "I want my money back for this _.",
    ],
    [
        "The _ is worse than I had hoped.",
        "I would not buy the _ again.",
        "The _ came late and had a crack.",
        "For this price the _ is too weak.",
        "We seldom use the _.",
    ],
    [
        "The _ does what it should, and no more.",
        "There are better ones than this _, and worse ones.",
        "The _ is fine for now.",
        "I have no strong feelings about the _.",
        "The _ is neither good nor bad.",
    ],
    [
        "I like the _ very much.",
        "The _ works well, with one small flaw.",
        "We use the _ almost every day.",
        "The _ is better than the old one.",
        "My friend wants such a _, too.",
    ],
    [
        "This _ is perfect.",
        "It is the best _ that I have ever had.",
        "We all love the _.",
        "Everybody should have a _ like this.",
        "I would give the _ more stars if I could.",
    ],
];

/// Reviews without end, as many of each number of stars: two sentences of that number, and one of the same or a neighbour's.
///
/// Which portion a review belongs to, its text decides.
pub fn reviews(seed: u64, portion: Portion) -> impl Iterator<Item = Graded> + Send {
    let mut rng = stream("reviews", seed, portion);
    std::iter::from_fn(move || {
        loop {
            let stars = rng.below(SAID.len() as u64) as usize;
            let text = review(&mut rng, stars);
            if portion_of("reviews", hash(&text)) == portion {
                return Some(Graded::new(text, stars + 1));
            }
        }
    })
}

fn review(rng: &mut Rng, stars: usize) -> String {
    let thing = *pick(rng, &THINGS);
    let near = match rng.below(4) {
        0 => stars.saturating_sub(1),
        1 => (stars + 1).min(SAID.len() - 1),
        _ => stars,
    };
    let mut sentences = [stars, stars, near].map(|stars| pick(rng, &SAID[stars]).replace('_', thing));
    rng.shuffle(&mut sentences);
    sentences.join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::supervised::records::Content;

    #[test]
    fn stars_are_given_alike_and_held_out_reviews_stay_apart() {
        let text = |graded: &Graded| match &graded.dialogue.content {
            Content::Text(text) => text.clone(),
            _ => String::new(),
        };
        let train: Vec<Graded> = reviews(1, Portion::Train).take(1000).collect();
        assert_eq!(train, reviews(1, Portion::Train).take(1000).collect::<Vec<_>>());
        for stars in 1..=5 {
            let count = train.iter().filter(|graded| graded.grade == stars.to_string()).count();
            assert!((150..250).contains(&count), "{count} of {stars} stars");
        }
        assert!(train.iter().all(|graded| !text(graded).contains('_') && text(graded).len() > 40));
        let known: HashSet<String> = train.iter().map(text).collect();
        assert!(reviews(2, Portion::Validation).take(200).all(|graded| !known.contains(&text(&graded))));
    }
}
