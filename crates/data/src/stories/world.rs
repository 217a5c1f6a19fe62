//! Who and where: names, kinds of animals, elders and places, shared by every plot.

use super::grammar::Scene;
use super::{Character, Pronoun};

// Few enough that a small model sees each often, and learns in minutes to keep to the one it began with.
const HE: &[&str] = &["Tom", "Max", "Ben", "Sam", "Leo", "Tim", "Jack", "Gus", "Hugo", "Toby", "Ned", "Felix"];
const SHE: &[&str] = &["Lily", "Mia", "Anna", "Lucy", "Emma", "Rosie", "Daisy", "Ella", "Ruby", "Nora", "Poppy", "Ivy"];
/// Heroes have paws, so that every hero can hold, push and reach.
const ANIMALS: &[&str] = &[
    "fox", "rabbit", "bear", "mouse", "kitten", "puppy", "squirrel", "hedgehog", "raccoon", "badger", "otter", "mole",
    "panda", "tiger", "lion", "monkey",
];
/// Whom one meets by chance, when nothing but company is asked of them.
const FRIENDS: &[&str] = &[
    "bird", "duck", "frog", "turtle", "goat", "pony", "lamb", "pig", "owl", "hen", "deer", "rabbit", "fox", "mouse",
    "kitten", "puppy", "squirrel", "hedgehog", "cow", "goose",
];

/// A place: its name, how one is there and goes there, and what belongs there.
pub(super) struct Place {
    pub(super) name: &'static str,
    at: &'static str,
    /// Weather that suits it.
    day: &'static str,
    scenery: &'static str,
    /// Where something might float, if there is water.
    pub(super) water: &'static str,
}

const SUN: &str = "[sunny|warm|bright|windy|fine]";

const fn place(name: &'static str, at: &'static str, scenery: &'static str) -> Place {
    Place { name, at, day: SUN, scenery, water: "" }
}

const fn water(name: &'static str, water: &'static str, scenery: &'static str) -> Place {
    Place { name, at: "at", day: SUN, scenery, water }
}

pub(super) const PLACES: &[Place] = &[
    place(
        "park",
        "in",
        "[The grass was soft and green|Birds were singing in the trees|Children were running on the grass]",
    ),
    place(
        "garden",
        "in",
        "[Red and yellow flowers were everywhere|Bees were humming around the roses|The tomatoes were ripe and red]",
    ),
    place(
        "forest",
        "in",
        "[The trees were tall and old|It smelled of leaves and wood|The sun came through the leaves]",
    ),
    place(
        "meadow",
        "in",
        "[The grass was full of flowers|Butterflies were dancing in the air|Crickets were singing in the grass]",
    ),
    place("farm", "on", "[The cows were eating hay|The hens were looking for corn|A big red barn stood there]"),
    place(
        "hill",
        "on",
        "[From there you could see far away|The wind was always strong there|White clouds were sailing by]",
    ),
    water("beach", "sea", "[The sand was warm|White waves were rolling in|There were shells everywhere]"),
    water(
        "lake",
        "lake",
        "[The water was clear and blue|Little fish were jumping|Green boats were lying on the shore]",
    ),
    water("pond", "pond", "[Frogs were sitting on green leaves|The water was still|Ducks were swimming in a row]"),
    water(
        "river",
        "river",
        "[The water was fast and cold|The water sang over the stones|Tall reeds were growing there]",
    ),
    place(
        "village",
        "in",
        "[The houses were small and white|It smelled of fresh bread|People were talking in the street]",
    ),
    place("market", "at", "[There was fruit in every color|People were buying fish and bread|Everyone was busy]"),
    place("school", "at", "[The room was full of books|The walls were full of pictures|The bell had just rung]"),
    Place {
        name: "snowy field",
        at: "in",
        day: "[cold|white|bright|quiet|winter]",
        water: "",
        scenery: "[The snow was deep and soft|Everything was white|Snow was falling slowly]",
    },
    place("kitchen", "in", "[The stove was warm|A pot was on the stove|The table was big and round]"),
    place("cabin", "in", "[The windows were open|A soft rug was on the floor|The fire was warm]"),
];

/// Chooses among the named places and sets `place`, `at`, `to`, `day`, `scenery` and `water`.
pub(super) fn go_to(scene: &mut Scene<'_>, names: &[&str]) -> &'static Place {
    let name = *scene.dice.pick(names);
    let place = PLACES.iter().find(|place| place.name == name).unwrap_or(&PLACES[0]);
    scene.set("place", place.name);
    scene.set("at", &format!("{} the {}", place.at, place.name));
    scene.set("to", &format!("to the {}", place.name));
    scene.set("day", place.day);
    scene.set("scenery", place.scenery);
    scene.set("water", place.water);
    place
}

/// Names the hero: a child in half of the stories, else an animal not in `avoid` (those who would
/// not need the help this plot has to offer). Sets `h kind size he him his hand`.
pub(super) fn hero(scene: &mut Scene<'_>, avoid: &[&str]) -> Character {
    let pronoun = pronoun(scene);
    let kind = if scene.dice.one_in(2) {
        if pronoun == Pronoun::He { "boy" } else { "girl" }
    } else {
        let able: Vec<_> = ANIMALS.iter().filter(|kind| !avoid.contains(kind)).collect();
        **scene.dice.pick(&able)
    };
    let name = name(scene, pronoun, &[]);
    scene.set("h", name);
    scene.set("kind", kind);
    scene.set("size", "[little|little|small|young]");
    scene.set("hand", if matches!(kind, "boy" | "girl") { "hand" } else { "paw" });
    pronouns(scene, pronoun, ["he", "him", "his"]);
    Character { name: name.into(), kind: kind.into(), pronoun }
}

/// Names the second character, of one of `kinds`. Sets `f kind2 he2 him2 his2`.
pub(super) fn friend(scene: &mut Scene<'_>, kinds: &[&str], hero: &Character) -> Character {
    let others: Vec<_> = kinds.iter().filter(|kind| **kind != hero.kind).collect();
    let kind = **scene.dice.pick(&others);
    let pronoun = match kind {
        "cow" | "hen" | "girl" => Pronoun::She,
        "boy" => Pronoun::He,
        _ => pronoun(scene),
    };
    let name = name(scene, pronoun, &[&hero.name]);
    scene.set("f", name);
    scene.set("kind2", kind);
    pronouns(scene, pronoun, ["he2", "him2", "his2"]);
    Character { name: name.into(), kind: kind.into(), pronoun }
}

/// A friend of no special gift: a child for a child, an animal for an animal.
pub(super) fn playmate(scene: &mut Scene<'_>, hero: &Character) -> Character {
    match hero.kind.as_str() {
        "boy" | "girl" => friend(scene, &["boy", "girl"], &Character { kind: String::new(), ..hero.clone() }),
        _ => friend(scene, FRIENDS, hero),
    }
}

/// Names the elder of the family. Sets `e he3 him3 his3`.
pub(super) fn elder(scene: &mut Scene<'_>) -> Character {
    let (name, pronoun) = *scene.dice.pick(&[
        ("Mom", Pronoun::She),
        ("Dad", Pronoun::He),
        ("Grandma", Pronoun::She),
        ("Grandpa", Pronoun::He),
    ]);
    scene.set("e", name);
    pronouns(scene, pronoun, ["he3", "him3", "his3"]);
    Character { name: name.into(), kind: "elder".into(), pronoun }
}

/// The first words of a story, before its want is told.
pub(super) const OPENING: &str = "[\
    One day, a {size} {kind} named {h} [went|came] {to}. {Scenery}.|\
    One {day} [day|morning], a {size} {kind} named {h} was {at}. {Scenery}.|\
    Once upon a time, there was a {size} {kind} named {h}. [One {day} day|One day], {he} went {to}.|\
    There was once a {size} {kind} named {h}. {He} [loved|liked] to be {at}. {Scenery}.|\
    {h} was a [{size}|happy|kind|brave|clever|shy|cheerful] {kind}. One {day} [day|morning], {he} went {to}.]";

fn pronoun(scene: &mut Scene<'_>) -> Pronoun {
    if scene.dice.one_in(2) { Pronoun::He } else { Pronoun::She }
}

fn pronouns(scene: &mut Scene<'_>, pronoun: Pronoun, keys: [&'static str; 3]) {
    let words = match pronoun {
        Pronoun::He => ["he", "him", "his"],
        Pronoun::She => ["she", "her", "her"],
    };
    for (key, word) in keys.into_iter().zip(words) {
        scene.set(key, word);
    }
}

/// A name with an initial that `taken` has not: two names alike confuse small readers and small models.
fn name(scene: &mut Scene<'_>, pronoun: Pronoun, taken: &[&str]) -> &'static str {
    let names = if pronoun == Pronoun::He { HE } else { SHE };
    let free: Vec<&'static str> =
        names.iter().copied().filter(|name| taken.iter().all(|other| other[..1] != name[..1])).collect();
    free[scene.dice.below(free.len())]
}
