//! Someone gathers things, goes too far, and needs one who knows the way home.

use super::{FRIENDS_EVER_AFTER, Told, outcome};
use crate::stories::grammar::Scene;
use crate::stories::{Outcome, world};

/// Where, what there is to gather, and what it is for.
const FINDS: &[(&[&str], &str, &str)] = &[
    (&["forest", "hill"], "[red|sweet|ripe] berries", "[a pie|some jam]"),
    (&["forest"], "[brown|round|fat] mushrooms", "[a soup|the dinner]"),
    (&["meadow", "hill"], "[yellow|white|wild] flowers", "[the table|a vase]"),
    (&["beach"], "[white|pink|pretty] shells", "[a necklace|the window]"),
    (&["forest", "farm"], "[brown|big|round] nuts", "[a cake|the winter]"),
    (&["river", "lake", "beach"], "[smooth|shiny|round] stones", "[the garden|a game]"),
    (&["farm", "garden"], "[soft|white|long] feathers", "[a pillow|a hat]"),
    (&["farm", "snowy field"], "[dry|long|thin] sticks", "[the fire|the stove]"),
];

/// Who knows the way, its size, why, and how it leads.
const GUIDES: &[(&str, &str, &str, &str)] = &[
    ("owl", "wise old", "I can see in the dark", "flew from tree to tree"),
    ("dog", "big brown", "I can smell the way", "walked with {his2} nose on the ground"),
    ("bird", "little", "I can see your house from above", "flew ahead and sang"),
    ("firefly", "tiny", "I have a light", "shone like a star"),
    ("deer", "gentle", "I know every path", "walked on without a sound"),
    ("goose", "white", "I have flown all over this land", "flew ahead and called"),
];

pub(super) fn tell(scene: &mut Scene<'_>) -> Told {
    let (places, find, purpose) = *scene.dice.pick(FINDS);
    let hero = world::hero(scene, &[]);
    world::go_to(scene, places);
    let elder = world::elder(scene);
    let guides: Vec<_> = GUIDES.iter().map(|guide| guide.0).collect();
    let friend = world::friend(scene, &guides, &hero);
    if let Some((_, size, reason, deed)) = GUIDES.iter().find(|guide| guide.0 == friend.kind) {
        scene.set("size2", size);
        scene.set("reason", reason);
        scene.set("deed", deed);
    }
    scene.set("find", find);
    scene.set("purpose", purpose);
    let outcome = outcome(scene);

    scene.tell(&format!(
        "{} {{E}} needed {{find}} for {{purpose}}. \"[I will find some|I can bring you some|I want to help],\" said {{h}}, \
         and {{he}} took a [big|round] basket.",
        world::OPENING
    ));
    scene.tell(
        "{H} found [two|three|four|five] of the {find}, then more and more. {He} went too far. \
         When the basket was full, {he} looked around. [It was getting dark.|The sun was going down.|A thick fog had come.] \
         \"Where am I?\" [said|cried] {h}. {He} was lost!",
    );
    if outcome == Outcome::Good {
        scene.tell(
            "[Just then|After a while], {h} met a {size2} {kind2} named {f}. [\"I am lost,\" said {h}. \"I want to go home.\"|\
             \"Can you help me? I want to go home,\" said {h}.] \"{reason},\" said {f}. \"[Follow me|Come with me].\"",
        );
        scene.tell(&format!(
            "{{F}} {{deed}}, and {{h}} followed {{him2}} [all the way|step by step]. [At last|Soon], they saw the house. \
             {{E}} was waiting at the door. \"[I was so worried|There you are|Welcome home], {{h}}!\" said {{e}}. \
             [\"Look, I have the {{find}}!\" said {{h}}.|{{H}} gave {{him3}} the {{find}}.] {FRIENDS_EVER_AFTER}"
        ));
    } else {
        scene.tell(
            "{He} ran and fell over a [root|stone], and the basket flew \
             out of {his} {hand}s. [The {find} were gone.|The {find} were lost.]",
        );
        scene.tell(
            "[Just then|After a while], {h} met a {size2} {kind2} named {f}. \"I want to go home,\" said {h}. \
             \"{reason},\" said {f}. \"[Follow me|Come with me].\"",
        );
        scene.tell(
            "{F} {deed}, and at last {h} was home. [\"I have no {find},\" said {h}.|\"I lost the {find},\" said {h}.] \
             {E} gave {him} a hug, but [there was nothing for {purpose}|{h} was still sad].",
        );
    }
    Told { want: scene.word("find").into(), characters: vec![hero, elder, friend], outcome }
}
