//! People, places, animals and things marked in stories, word by word, as BIO tags (Ramshaw and Marcus 1995).

use std::ops::Range;

use super::tales::{PLACES, places_of, tales};
use crate::dataset::Portion;
use crate::stories::Story;
use crate::supervised::records::{Origin, Tagged};

/// Animals that stories may tell of, with their plurals where these come too.
const ANIMALS: &[&str] = &[
    "fox",
    "rabbit",
    "bear",
    "mouse",
    "kitten",
    "puppy",
    "squirrel",
    "hedgehog",
    "raccoon",
    "badger",
    "otter",
    "mole",
    "panda",
    "tiger",
    "lion",
    "monkey",
    "bird",
    "duck",
    "frog",
    "turtle",
    "goat",
    "pony",
    "lamb",
    "pig",
    "owl",
    "hen",
    "deer",
    "cow",
    "goose",
    "dog",
    "firefly",
    "lizard",
    "beaver",
    "horse",
    "cat",
    "fish",
    "birds",
    "bees",
    "cows",
    "hens",
    "ducks",
    "frogs",
    "butterflies",
    "crickets",
    "pigs",
    "sheep",
];

/// Words and marks of a text, each where it stands; a name's `'s` is a word of its own.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut begun: Option<usize> = None;
    for (at, c) in text.char_indices() {
        if c.is_alphanumeric() {
            begun.get_or_insert(at);
            continue;
        }
        words.extend(begun.take().map(|start| start..at));
        if !c.is_whitespace() {
            words.push(at..at + c.len_utf8());
        }
    }
    words.extend(begun.map(|start| start..text.len()));
    words
}

/// The spans of a story and what they are; earlier ones win over later ones that overlap them.
fn spans(story: &Story) -> Vec<(Range<usize>, &'static str)> {
    let mut found: Vec<(Range<usize>, &'static str)> = Vec::new();
    let mut add = |word: &str, kind| {
        for place in places_of(&story.text, word) {
            if !found.iter().any(|(other, _)| place.start < other.end && other.start < place.end) {
                found.push((place, kind));
            }
        }
    };
    for character in &story.characters {
        add(&character.name, "PER");
    }
    // A wanted deed (`to swim`) is no thing.
    if !story.want.starts_with("to ") {
        add(&story.want, "THING");
        add(story.want.rsplit(' ').next().unwrap_or(&story.want), "THING");
    }
    PLACES.iter().for_each(|place| add(place, "LOC"));
    ANIMALS.iter().for_each(|animal| add(animal, "ANIMAL"));
    found
}

/// Stories as words with tags, without end: `PER`, `LOC`, `ANIMAL` and, of what is wanted, `THING`.
pub fn entities(seed: u64, portion: Portion) -> impl Iterator<Item = Tagged> + Send {
    tales("entities", seed, portion).map(|story| {
        let spans = spans(&story);
        let words = words(&story.text);
        let tag =
            |word: &Range<usize>| match spans.iter().find(|(span, _)| span.start <= word.start && word.end <= span.end)
            {
                None => "O".to_owned(),
                Some((span, kind)) => format!("{}-{kind}", if span.start == word.start { 'B' } else { 'I' }),
            };
        Tagged {
            tags: words.iter().map(tag).collect(),
            tokens: words.into_iter().map(|word| story.text[word].to_owned()).collect(),
            origin: Origin::default(),
        }
    })
}
