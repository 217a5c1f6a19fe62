//! The hero gives up a wish to help someone in need, and is remembered for it.

use super::{Told, outcome};
use crate::stories::grammar::Scene;
use crate::stories::{Outcome, world};

/// Kinds in need, the trouble, and the help that costs time.
const NEEDS: &[(&[&str], &str, &str)] = &[
    (&["bird", "duck", "owl"], "had hurt {his2} wing and could not fly", "put a soft bandage on {his2} wing"),
    (&["lamb", "dog", "pony", "kitten"], "had a thorn in {his2} foot", "pulled out the thorn very gently"),
    (&["lamb", "duck", "kitten", "puppy"], "had lost {his2} mother", "carried {him2} all the way to {his2} mother"),
    (&["mouse", "hen", "rabbit"], "had not eaten for two days", "ran home and brought {him2} bread and milk"),
    (
        &["turtle", "frog", "lizard"],
        "was lying on {his2} back and could not get up",
        "turned {him2} over and gave {him2} water",
    ),
    (&["mouse", "bird", "kitten"], "was wet and cold", "made a warm bed for {him2}"),
];

/// Where, what is wished for, how it was missed, and how it is made good.
const WISHES: &[(&[&str], &str, &str, &str, &str)] = &[
    (
        &["village", "market"],
        "[parade|circus|puppet show]",
        "see the {prize}",
        "the {prize} was over",
        "told {him} a funny story, with all the songs and all the clowns",
    ),
    (
        &["park", "meadow"],
        "[birthday party|picnic|dance]",
        "go to the {prize}",
        "the {prize} was over",
        "came with all {his2} friends and made a new party, only for {h}",
    ),
    (
        &["lake", "river", "beach"],
        "[big|silver|fat] fish",
        "catch a {prize}",
        "the fish were gone",
        "showed {h} where the biggest fish were",
    ),
    (
        &["forest", "hill", "meadow"],
        "[wild rose|gold feather|lucky stone]",
        "find a {prize}",
        "it was too dark to find a {prize}",
        "brought the prettiest {prize} of all",
    ),
    (
        &["school", "park", "hill"],
        "[big|long|great] race",
        "win the {prize}",
        "the race was over",
        "came with a gold cup for {h} and said that a kind heart is the best prize",
    ),
    (
        &["farm", "garden"],
        "[sweet melon|ripe peach|honey cake]",
        "get a {prize}",
        "there was no {prize} left",
        "put a {prize} in front of {h}'s door",
    ),
];

pub(super) fn tell(scene: &mut Scene<'_>) -> Told {
    let (places, prize, wish, late, reward) = *scene.dice.pick(WISHES);
    let (kinds, trouble, help) = *scene.dice.pick(NEEDS);
    let hero = world::hero(scene, &[]);
    world::go_to(scene, places);
    let elder = world::elder(scene);
    let friend = world::friend(scene, kinds, &hero);
    scene.set("prize", prize);
    scene.set("want", wish);
    scene.set("late", late);
    scene.set("size2", "[small|little|poor]");
    let outcome = outcome(scene);

    scene.tell(&format!(
        "{} {{He}} wanted to {{want}}. \"[Do not be late|Hurry up|Have fun]!\" said {{e}}, and {{h}} [ran|walked] as fast as {{he}} could.",
        world::OPENING
    ));
    scene.tell(&format!(
        "[On the way|Then], {{h}} [saw|met] a {{size2}} {{kind2}} named {{f}}. {{F}} {trouble}. \
         [\"Please help me,\" said {{f}}.|\"Can you help me?\" asked {{f}}.] [\"I want to {{want}},\" thought {{h}}, \"but {{f}} needs me.\"|\
         {{H}} wanted to go on, but {{he}} felt sorry for {{f}}.] So {{he}} stopped and {help}.",
    ));
    if outcome == Outcome::Good {
        scene.tell(&format!(
            "[Now {{late}}, but {{h}} was not angry.|When {{h}} was done, {{late}}.] [\"You are more important,\" said {{h}}.|\
             \"I am glad that you are well,\" said {{h}}.] [The next day|The next morning], {{f}} {reward}. \
             \"[This is for you|You helped me],\" said {{f}}. [{{H}} was very happy.|{{H}} laughed with joy.] \
             [{{E}} said, \"Kind deeds come back to you.\"|{{H}} learned that it is good to be kind.]",
        ));
    } else {
        scene.tell(
            "When {h} was done, {late}. {F} [said thank you and went home|thanked {him} and left]. [{H} sat down and cried.|{H} stood there all alone.] \
             \"[I did not {want}|I wanted to {want} so much],\" {he} said. \"[You did the right thing|You have a good heart],\" said {e}. \
             But {h} [was still sad|could not smile] that [day|evening].",
        );
    }
    Told { want: scene.expand("to {want}"), characters: vec![hero, elder, friend], outcome }
}
