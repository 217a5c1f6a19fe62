//! A thing is out of reach, and someone with the right gift brings it back.

use super::{FRIENDS_EVER_AFTER, Told, outcome};
use crate::stories::grammar::Scene;
use crate::stories::{Outcome, world};

/// A way for a thing to be out of reach, who can reach there and how.
struct Spot {
    places: &'static [&'static str],
    /// The thing, its looks, and how it is spoilt when nobody gets it in time.
    things: &'static [(&'static str, &'static str, &'static str)],
    gone: &'static str,
    tried: &'static str,
    /// Kind, size, the gift in its own words, and the deed.
    helpers: &'static [(&'static str, &'static str, &'static str, &'static str)],
    brought: &'static str,
    failed: &'static str,
}

const COLOR: &str = "[red|blue|yellow|green|pink|orange]";
const SHINE: &str = "[shiny|golden|silver|pretty]";

const SPOTS: &[Spot] = &[
    Spot {
        places: &["park", "garden", "forest", "meadow", "farm"],
        things: &[
            ("kite", COLOR, "tore in two"),
            ("balloon", COLOR, "went pop"),
            ("hat", COLOR, "tore on a branch"),
            ("scarf", COLOR, "tore on a branch"),
            ("paper plane", COLOR, "fell apart"),
        ],
        gone: "[Suddenly, a strong wind came and carried|Then the wind took] the {thing} up into a tall tree.",
        tried: "[{He} jumped as high as {he} could, but the {thing} was too high.|{He} shook the tree, but the {thing} did not come down.|{He} threw a stick at the {thing}, but it stayed in the tree.]",
        helpers: &[
            ("bird", "little", "I can fly", "flew up to the top of the tree"),
            ("owl", "wise old", "I can fly", "flew up to the top of the tree"),
            ("squirrel", "quick", "I can climb", "climbed up the tree"),
            ("monkey", "funny", "I can climb", "climbed up the tree"),
            ("kitten", "gray", "I can climb", "climbed up the tree"),
        ],
        brought: ", pulled the {thing} free and [brought it down|dropped it into {his} arms]",
        failed: "[But the wind came again and the {thing} {spoilt}.|But when {he2} touched the {thing}, it {spoilt}.]",
    },
    Spot {
        places: &["lake", "pond", "river", "beach"],
        things: &[
            ("ball", COLOR, "was too far away"),
            ("boat", "[toy|wooden|white|paper]", "sank under the water"),
            ("hat", COLOR, "sank under the water"),
            ("bucket", COLOR, "sank under the water"),
            ("doll", "[small|pretty|wooden]", "sank under the water"),
        ],
        gone: "[Suddenly, the {thing} fell into the {water} and floated away.|Then the wind blew the {thing} far out on the {water}.]",
        tried: "[{He} tried to reach it with a long stick, but the stick was too short.|{He} could not swim, and the water was too deep.|{He} reached out for the {thing}, but it was too far away.]",
        helpers: &[
            ("duck", "white", "I can swim", "swam out to the {thing}"),
            ("frog", "big green", "I can swim", "jumped in and swam out"),
            ("turtle", "slow old", "I can swim", "slid in and swam out"),
            ("otter", "quick", "I can swim", "dived in and swam out"),
            ("beaver", "busy", "I can swim", "dived in and swam out"),
        ],
        brought: " and [pushed the {thing} back to the shore|brought the {thing} back to {him}]",
        failed: "[But a big wave came, and the {thing} {spoilt}.|But before {he2} got there, the {thing} {spoilt}.]",
    },
    Spot {
        places: &["garden", "forest", "meadow", "farm", "hill"],
        things: &[
            ("ring", SHINE, "slipped down into the dark"),
            ("coin", SHINE, "slipped down into the dark"),
            ("marble", COLOR, "rolled down even deeper"),
            ("key", SHINE, "slipped down into the dark"),
            ("bell", SHINE, "rolled down even deeper"),
        ],
        gone: "[Then the {thing} fell out of {his} {hand} and rolled into a deep hole.|Suddenly, {he} fell over a root, and the {thing} rolled into a small dark hole.]",
        tried: "[{He} put {his} {hand} into the hole, but it was too deep.|{He} tried to dig, but the ground was too hard.|{He} looked into the hole, but it was too small for {him}.]",
        helpers: &[
            ("mouse", "tiny", "I am very small", "ran down into the hole"),
            ("mole", "soft black", "I can dig", "dug down into the hole"),
            ("rabbit", "brown", "I can dig", "dug down into the hole"),
            ("lizard", "thin", "I am very small", "ran down into the hole"),
        ],
        brought: " and came back with the {thing}[| in {his2} mouth]",
        failed: "[But when {he2} touched the {thing}, it {spoilt}.|But the ground shook, and the {thing} {spoilt}.]",
    },
    Spot {
        places: &["hill", "forest", "farm", "beach"],
        things: &[
            ("drum", COLOR, "was flat and broken"),
            ("book", "[picture|thick|old|new]", "was wet and torn"),
            ("basket", "[little|brown|round]", "was flat and broken"),
            ("train", "[toy|wooden]", "was flat and broken"),
        ],
        gone: "[{H} put it down for a moment. Suddenly, a big rock rolled in front of a hole, and the {thing} was behind it.|{H} put it down to rest. Then an old tree fell over, and the {thing} was under it.]",
        tried: "[{He} pushed and pushed, but nothing moved.|{He} pulled with both {hand}s, but it was too heavy.|{He} pushed as hard as {he} could, but {he} was not strong enough.]",
        helpers: &[
            ("bear", "big", "I am strong", "pushed with {his2} big paws"),
            ("horse", "tall", "I am strong", "pulled with all {his2} strength"),
            ("cow", "big brown", "I am strong", "pushed with {his2} head"),
            ("elephant", "huge", "I am strong", "pushed with {his2} long nose"),
        ],
        brought: "[ and gave the {thing} to {him}|, picked up the {thing} and gave it back]",
        failed: "But it was too late. The {thing} {spoilt}.",
    },
    Spot {
        places: &["garden", "park", "meadow", "forest"],
        things: &[
            ("ball", COLOR, "went flat"),
            ("ribbon", COLOR, "tore in two"),
            ("scarf", COLOR, "tore in two"),
            ("teddy", "[brown|soft|old]", "tore in two"),
        ],
        gone: "[Then the {thing} fell into a bush full of thorns.|Suddenly, the wind blew the {thing} into a bush full of thorns.]",
        tried: "[{He} reached into the bush, but the thorns hurt {his} {hand}.|{He} tried to pull it out with a stick, but the thorns held it.|{He} wanted to go in, but the thorns were too sharp.]",
        helpers: &[
            ("turtle", "slow old", "I have a hard shell", "walked right into the bush"),
            ("hedgehog", "round", "I have thorns too", "walked right into the bush"),
            ("goat", "hungry", "I like to eat thorns", "ate the thorns one by one"),
        ],
        brought: " and [pushed the {thing} out|pulled out the {thing}]",
        failed: "[But a thorn went into the {thing}, and it {spoilt}.|But when {he2} pulled, the {thing} {spoilt}.]",
    },
];

pub(super) fn tell(scene: &mut Scene<'_>) -> Told {
    let spot = scene.dice.pick(SPOTS);
    let (thing, looks, spoilt) = *scene.dice.pick(spot.things);
    let helpers: Vec<_> = spot.helpers.iter().map(|helper| helper.0).collect();
    let hero = world::hero(scene, &helpers);
    world::go_to(scene, spot.places);
    let elder = world::elder(scene);
    let friend = world::friend(scene, &helpers, &hero);
    scene.set("thing", thing);
    scene.set("want", &format!("{looks} {thing}"));
    scene.set("spoilt", spoilt);
    if let Some((_, size, gift, deed)) = spot.helpers.iter().find(|helper| helper.0 == friend.kind) {
        scene.set("size2", size);
        scene.set("gift", gift);
        scene.set("deed", deed);
    }
    let outcome = outcome(scene);

    scene.tell(&format!(
        "{} {{He}} had a {{want}}. [It was a gift from {{e}}.|{{He}} loved it very much.|\
         It was {{his}} favorite thing.|{{He}} took it everywhere.]",
        world::OPENING
    ));
    scene.tell(&format!(
        "{} [{{H}} was sad.|\"Oh no!\" [cried|said] {{h}}.|\"My {{thing}}!\" [cried|said] {{h}}.] {}",
        spot.gone, spot.tried
    ));
    scene.tell(
        "[Just then|Soon], a {size2} {kind2} named {f} came by. [\"Why are you sad?\" asked {f}. \
         \"I want my {thing} back,\" said {h}.|\"What is wrong?\" asked {f}. \"I cannot get my \
         {thing},\" said {h}.] \"{gift}. [Let me help|I will help|I can help] you,\" said {f}.",
    );
    if outcome == Outcome::Good {
        scene.tell(&format!(
            "{{F}} {{deed}}{}. [\"Thank you, {{f}}!\" said {{h}}. \"You are [so kind|a good friend].\"|\
             {{H}} was so happy. \"Thank you, {{f}}!\" {{he}} said.|{{H}} gave {{f}} a big hug.] {FRIENDS_EVER_AFTER}",
            spot.brought
        ));
    } else {
        scene.tell(&format!(
            "{{F}} {{deed}}. {} [\"I am sorry,\" said {{f}}.|\"I tried,\" said {{f}}.] \
             [{{H}} cried, for the {{want}} was gone.|{{H}} went home without the {{want}}.|\
             {{H}} never played with the {{want}} again.] [{{E}} gave {{him}} a hug, but {{he}} was still sad.|\
             It was a sad day.|That night, {{he}} could not sleep.]",
            spot.failed
        ));
    }
    Told { want: scene.word("want").into(), characters: vec![hero, elder, friend], outcome }
}
