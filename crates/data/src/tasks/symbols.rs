//! Two puzzles that take as many steps as there are names in them: coins that are turned over, and last letters put
//! together. The tasks are those of Wei et al. 2022 (section 5), in our own words.

use phyla_kernels::rng::Rng;

use super::{pick, stream};
use crate::dataset::Portion;
use crate::supervised::records::Parallel;

/// Names that end in many letters.
const NAMES: [&str; 48] = [
    "Ada", "Bernard", "Carlos", "Dorothy", "Emil", "Fatima", "Georg", "Hugo", "Ines", "Jacob", "Kenji", "Leon", "Mark",
    "Nadia", "Oskar", "Philip", "Quentin", "Ruth", "Stephen", "Tomas", "Ursula", "Viktor", "Wendy", "Xavier", "Yusuf",
    "Zoe", "Amir", "Brook", "Cedric", "Dalia", "Erik", "Freya", "Gilbert", "Hans", "Isaac", "Joel", "Katrin", "Louise",
    "Milo", "Noah", "Olaf", "Pavel", "Raj", "Sam", "Tariq", "Umberto", "Vincent", "Walter",
];

/// Coins that some people turn over and others leave alone, without end; `people` to a coin, answered `yes` or `no`.
pub fn coin_flips(seed: u64, people: usize) -> impl Iterator<Item = Parallel> + Send {
    let mut rng = stream("coin_flip", seed, Portion::Train);
    std::iter::from_fn(move || {
        let (mut text, mut heads) = ("A coin lies heads up.".to_owned(), true);
        for name in names(&mut rng, people) {
            let turns = rng.below(2) == 0;
            heads ^= turns;
            text += &format!(" {name} {}.", if turns { "turns it over" } else { "leaves it as it is" });
        }
        text += " Does it lie heads up now?";
        Some(Parallel::new(text, if heads { "yes" } else { "no" }.to_owned()))
    })
}

/// Names whose last letters are to be put together, without end; `words` to a puzzle.
pub fn last_letters(seed: u64, words: usize) -> impl Iterator<Item = Parallel> + Send {
    let mut rng = stream("last_letters", seed, Portion::Train);
    std::iter::from_fn(move || {
        let names = names(&mut rng, words);
        let answer: String = names.iter().filter_map(|name| name.chars().next_back()).collect();
        let text = format!("Write the last letters of the words in \"{}\" one behind the other.", names.join(" "));
        Some(Parallel::new(text, answer))
    })
}

/// Different names, as far as there are so many.
fn names(rng: &mut Rng, count: usize) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::with_capacity(count);
    while names.len() < count {
        let name = *pick(rng, &NAMES);
        if names.len() >= NAMES.len() || !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn coins_are_turned_as_often_as_it_says_and_both_answers_come() {
        let mut yes = 0;
        for coin in coin_flips(3, 4).take(1000) {
            let turns = coin.source.matches("turns it over").count();
            assert_eq!(turns + coin.source.matches("leaves").count(), 4);
            assert_eq!(coin.target.unwrap() == "yes", turns.is_multiple_of(2));
            yes += usize::from(turns.is_multiple_of(2));
        }
        assert!((400..600).contains(&yes), "{yes}");
        assert_eq!(coin_flips(3, 4).next(), coin_flips(3, 4).next());
        assert_ne!(coin_flips(3, 4).next(), coin_flips(4, 4).next());
    }

    #[test]
    fn letters_are_the_last_of_each_name() {
        for puzzle in last_letters(1, 3).take(200) {
            let names: Vec<&str> = puzzle.source.split('"').nth(1).unwrap().split(' ').collect();
            let letters: String = names.iter().map(|name| &name[name.len() - 1..]).collect();
            assert_eq!((names.len(), puzzle.target), (3, Some(letters)));
        }
        assert_eq!(last_letters(1, 100).next().unwrap().target.unwrap().len(), 100);
    }
}
