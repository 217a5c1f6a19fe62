//! Small English stories from a seeded grammar: a training set of our own that needs no download.
//!
//! In the spirit of TinyStories (Eldan and Li, 2023, arXiv:2305.07759) a story has a hero, a place,
//! a want, an obstacle and an ending that follows from them, in words a small child knows; so a
//! model of a few million parameters can learn to tell one within minutes, and whether it does can
//! be judged: is the hero still the hero, the red ball still red, does the end fit? Unlike that
//! set, these are composed, not sampled from a larger model, and each [`Story`] knows what
//! it is about and how many bits of choice are in it.

mod check;
mod dice;
mod grammar;
mod plots;
mod world;

pub use check::fault;

use dice::Dice;
use grammar::Scene;
use phyla_kernels::rng::Rng;
use serde::{Deserialize, Serialize};

/// How a story ends for its hero's want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The want came true, or something better did.
    Good,
    /// It did not.
    Sad,
}

/// The pronoun a character keeps all through a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pronoun {
    /// he, him, his
    He,
    /// she, her, her
    She,
}

/// Who takes part in a story.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Character {
    /// The name as written in the text.
    pub name: String,
    /// `girl`, `boy`, an animal, or `elder` for Mom, Dad, Grandma and Grandpa.
    pub kind: String,
    /// The pronoun that stands for the name.
    pub pronoun: Pronoun,
}

/// A story and what it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// Three to five paragraphs, an empty line between them, no line break at the end.
    pub text: String,
    /// The hero first; then the elder; then the friend, if there is one.
    pub characters: Vec<Character>,
    /// Where it happens, without the article: `park`.
    pub place: String,
    /// The wanted thing (`red ball`) or deed (`to swim`), as the text words it.
    pub want: String,
    /// How it ends.
    pub outcome: Outcome,
    /// The choices made, in bits. A model cannot on average predict stories with fewer, so
    /// `exp(bits · ln 2 / tokens)` is about the lowest perplexity training can reach.
    pub bits: f32,
}

/// Stories under `seed` until their texts reach `bytes` bytes; the same seed gives the same
/// stories, and a larger `bytes` only appends to them.
pub fn generate(seed: u64, bytes: usize) -> impl Iterator<Item = Story> {
    stream(Rng::new(seed), bytes)
}

/// Like [`generate`], from a stream of its own: stories to evaluate on under the same seed.
pub fn held_out(seed: u64, bytes: usize) -> impl Iterator<Item = Story> {
    stream(Rng::new(seed).split("held out"), bytes)
}

/// Stories told twice, with a good and with a sad ending, alike up to where the ending shows; without end.
pub fn both_ways(seed: u64) -> impl Iterator<Item = (Story, Story)> {
    let rng = Rng::new(seed).split("both ways");
    (0u64..).map(move |number| {
        let told = |ending| {
            let mut dice = Dice::new(rng.split(number));
            dice.ending = Some(ending);
            story(&mut dice)
        };
        (told(Outcome::Good), told(Outcome::Sad))
    })
}

/// Beginnings to complete, of the kind the stories have.
pub fn prompts() -> &'static [&'static str] {
    &[
        "One day, a little fox named",
        "Once upon a time, there was a little girl named Lily.",
        "One sunny day, a small boy named Tom was in the park.",
        "There was once a young bear named Gus. He loved to be",
        "One day, a little rabbit named Daisy went to the meadow. The grass was full of flowers. She had a red kite.",
        "Mia was a brave girl. One windy day, she went to the lake. More than anything, she wanted to swim.",
        "One cold morning, a young otter named Ned was in the snowy field. He wanted to make a big snowman for Grandpa.",
        "Once upon a time, there was a little mouse named Max. One day, he went to the market. In a shop, he saw a",
    ]
}

fn stream(rng: Rng, bytes: usize) -> impl Iterator<Item = Story> {
    let mut dice = Dice::new(rng);
    let mut told = 0;
    std::iter::from_fn(move || {
        if told >= bytes {
            return None;
        }
        let story = story(&mut dice);
        told += story.text.len();
        Some(story)
    })
}

fn story(dice: &mut Dice) -> Story {
    let mut scene = Scene::new(dice);
    let mut told = plots::tell(&mut scene);
    let (text, place) = (scene.text(), scene.word("place").to_owned());
    // An elder is cast for every story, but some of the choices leave them unmentioned.
    told.characters.retain(|character| text.contains(&character.name));
    Story { text, characters: told.characters, place, want: told.want, outcome: told.outcome, bits: dice.take_bits() }
}

#[cfg(test)]
mod tests;
