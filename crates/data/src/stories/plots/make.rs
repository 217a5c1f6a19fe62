//! Something is to be made for somebody, and one part is missing.

use super::{Told, outcome};
use crate::stories::grammar::Scene;
use crate::stories::{Outcome, world};

struct Craft {
    place: &'static str,
    want: &'static str,
    thing: &'static str,
    /// What is missing, as `no …` and as what a friend has to spare.
    missing: &'static str,
    spare: &'static str,
    made: &'static str,
    praise: &'static str,
    ruined: &'static str,
}

const CRAFTS: &[Craft] = &[
    Craft {
        place: "kitchen",
        want: "[big|sweet|chocolate] cake",
        thing: "cake",
        missing: "eggs",
        spare: "six eggs",
        made: "They mixed the eggs with milk and flour and put the cake in the oven",
        praise: "sweet and soft",
        ruined: "But they forgot the oven, and the cake burned black",
    },
    Craft {
        place: "kitchen",
        want: "[hot|big] soup",
        thing: "soup",
        missing: "carrots",
        spare: "some carrots",
        made: "They cut the carrots and put them in the pot",
        praise: "warm and good",
        ruined: "But the pot fell over, and the soup ran across the floor",
    },
    Craft {
        place: "kitchen",
        want: "[apple|sweet] pie",
        thing: "pie",
        missing: "apples",
        spare: "a bag of apples",
        made: "They cut the apples and put the pie in the oven",
        praise: "sweet and warm",
        ruined: "But they forgot the oven, and the pie burned black",
    },
    Craft {
        place: "beach",
        want: "[big|tall] sandcastle",
        thing: "sandcastle",
        missing: "bucket",
        spare: "a bucket",
        made: "They filled the bucket with sand and built one tower after another",
        praise: "as tall as a king's house",
        ruined: "But a big wave came and washed the sandcastle away",
    },
    Craft {
        place: "snowy field",
        want: "[big|funny|fat] snowman",
        thing: "snowman",
        missing: "nose",
        spare: "a long carrot",
        made: "They rolled three balls of snow and put the carrot in the middle of the face",
        praise: "big and funny",
        ruined: "But the sun came out, and the snowman melted",
    },
    Craft {
        place: "river",
        want: "[little|wooden] boat",
        thing: "boat",
        missing: "sail",
        spare: "a piece of white cloth",
        made: "They tied the cloth to a stick and put it on the boat",
        praise: "fast and light",
        ruined: "But the boat hit a stone and broke",
    },
    Craft {
        place: "hill",
        want: "[red|blue|yellow] kite",
        thing: "kite",
        missing: "string",
        spare: "a lot of string",
        made: "They tied the string to the paper, and the kite went up",
        praise: "as high as the clouds",
        ruined: "But the string broke, and the kite flew away",
    },
    Craft {
        place: "garden",
        want: "[little|wooden] bird house",
        thing: "bird house",
        missing: "nails",
        spare: "a box of nails",
        made: "They put the wood together with the nails and hung the house in a tree",
        praise: "safe and dry",
        ruined: "But the branch broke, and the bird house fell down in pieces",
    },
    Craft {
        place: "beach",
        want: "[long|pretty] necklace",
        thing: "necklace",
        missing: "shells",
        spare: "a bag of shells",
        made: "They put the shells on a string, one by one",
        praise: "white and pretty",
        ruined: "But the string broke, and the sea took all the shells",
    },
    Craft {
        place: "school",
        want: "[big|pretty] picture",
        thing: "picture",
        missing: "paint",
        spare: "three pots of paint",
        made: "They painted a house, a tree and a yellow sun",
        praise: "bright and pretty",
        ruined: "But the paint fell over, and the picture was all black",
    },
    Craft {
        place: "forest",
        want: "[small|secret] tree house",
        thing: "tree house",
        missing: "rope",
        spare: "a strong rope",
        made: "They pulled the wood up with the rope and built a floor and a roof",
        praise: "high and safe",
        ruined: "But a storm came in the night and blew the tree house down",
    },
    Craft {
        place: "meadow",
        want: "[pretty|yellow] crown",
        thing: "crown",
        missing: "flowers",
        spare: "a lot of flowers",
        made: "They tied the flowers together in a ring",
        praise: "fit for a queen",
        ruined: "But a hungry goat came and ate the crown",
    },
    Craft {
        place: "village",
        want: "[round|little|paper] lamp",
        thing: "lamp",
        missing: "candle",
        spare: "a small candle",
        made: "They put the candle inside and lit it when it was dark",
        praise: "bright as the moon",
        ruined: "But the paper caught fire, and the lamp burned",
    },
    Craft {
        place: "cabin",
        want: "[warm|long] scarf",
        thing: "scarf",
        missing: "wool",
        spare: "a ball of wool",
        made: "They worked with the wool all day long",
        praise: "soft and warm",
        ruined: "But the cat pulled at the wool, and the scarf came apart",
    },
];

pub(super) fn tell(scene: &mut Scene<'_>) -> Told {
    let craft = scene.dice.pick(CRAFTS);
    let hero = world::hero(scene, &[]);
    world::go_to(scene, &[craft.place]);
    let elder = world::elder(scene);
    let friend = world::playmate(scene, &hero);
    scene.set("thing", craft.thing);
    scene.set("want", craft.want);
    scene.set("missing", craft.missing);
    scene.set("spare", craft.spare);
    scene.set("size2", "[little|kind|happy]");
    let outcome = outcome(scene);

    scene.tell(&format!(
        "{} {{He}} wanted to make a {{want}} for {{e}}. [It was {{his3}} birthday.|{{E}} was sick in bed.|\
         {{He}} loved {{e}} very much.]",
        world::OPENING
    ));
    scene.tell(
        "[{H} began to work.|{H} started at once.] But there was one problem. {He} had no {missing}! \
         [{H} looked everywhere, but found no {missing}.|{He} sat down and thought.|\
         \"I cannot make a {thing} with no {missing},\" {he} said.]",
    );
    scene.tell(
        "[Just then|Soon], a {size2} {kind2} named {f} came by. [\"What are you making?\" asked {f}. \
         \"A {thing} for {e},\" said {h}, \"but I have no {missing}.\"|\"Why do you look so sad?\" asked {f}. \
         \"I have no {missing} for my {thing},\" said {h}.] \"I have {spare},\" said {f}. \
         \"[You can have it all|We can share|I will help you].\"",
    );
    if outcome == Outcome::Good {
        scene.set("praise", craft.praise);
        scene.tell(&format!(
            "{}. The {{thing}} was {{praise}}. [\"What a nice {{thing}}!\" said {{e}}.|\"Thank you, {{h}} and {{f}}!\" \
             said {{e}}.|{{E}} loved the {{want}}.] [{{He3}} gave them both a hug.|{{H}} was very proud.|\
             {{H}} learned that work is easy with a friend.]",
            craft.made
        ));
    } else {
        scene.tell(&format!(
            "{}. {}. [\"All that work!\" cried {{h}}.|\"Oh no!\" cried {{h}} and {{f}}.] [There was no {{want}} for {{e}}.|\
             {{H}} had nothing to give to {{e}}.] [{{H}} sat down and cried.|{{H}} was very sad.|{{H}} went home with empty {{hand}}s.]",
            craft.made, craft.ruined
        ));
    }
    Told { want: scene.word("want").into(), characters: vec![hero, elder, friend], outcome }
}
