//! An elder warns of something tempting: who listens fares well, who does not fares ill.

use super::{Told, outcome};
use crate::stories::grammar::Scene;
use crate::stories::{Outcome, world};

struct Danger {
    places: &'static [&'static str],
    want: &'static str,
    because: &'static str,
    tempting: &'static str,
    /// What happened to the one who did it.
    harm: &'static str,
    cure: &'static str,
    /// What came of listening: what was seen, and what was done instead.
    seen: &'static str,
    instead: &'static str,
}

const DANGERS: &[Danger] = &[
    Danger {
        places: &["snowy field"],
        want: "walk on the ice",
        because: "the ice is too thin",
        tempting: "The ice was smooth and shiny",
        harm: "The ice broke, and {he} fell into the cold water",
        cure: "pulled {him} out and put a blanket around {him}",
        seen: "a big stone fell on the ice, and the ice broke",
        instead: "built a snowman with {h}",
    },
    Danger {
        places: &["kitchen"],
        want: "touch the pot",
        because: "the pot is too hot",
        tempting: "The pot smelled so good",
        harm: "The pot was very hot, and {he} burned {his} {hand}",
        cure: "put cold water on {his} {hand}",
        seen: "a drop of water fell on the pot and went hiss",
        instead: "gave {h} the first bowl of soup",
    },
    Danger {
        places: &["garden", "meadow", "forest"],
        want: "shake the bees' tree",
        because: "the bees will be angry",
        tempting: "The honey looked so sweet",
        harm: "The bees came out and stung {him} on the nose",
        cure: "put a cold cloth on {his} nose",
        seen: "a bear shook the tree, and the bees ran after him",
        instead: "gave {h} bread and honey",
    },
    Danger {
        places: &["market", "kitchen"],
        want: "eat all the candy",
        because: "too much candy makes you sick",
        tempting: "The candy was red and yellow and green",
        harm: "{His} tummy began to hurt, and {he} felt very sick",
        cure: "put {him} to bed and made some tea",
        seen: "another child ate too much candy and held his tummy",
        instead: "gave {h} one big candy after dinner",
    },
    Danger {
        places: &["river", "lake", "beach"],
        want: "take the boat out",
        because: "a storm is coming",
        tempting: "The boat was new, and the water was blue",
        harm: "The storm came, and the boat turned over",
        cure: "swam out and brought {him} back to the shore",
        seen: "the sky turned black, and big waves came",
        instead: "took {h} out in the boat the next day",
    },
    Danger {
        places: &["cabin"],
        want: "jump on the bed",
        because: "you will fall",
        tempting: "The bed was big and soft",
        harm: "{He} jumped too high, fell down and hurt {his} head",
        cure: "put ice on {his} head",
        seen: "the cat jumped on the bed and fell off",
        instead: "played a game with {h}",
    },
    Danger {
        places: &["forest", "meadow"],
        want: "eat the black berries",
        because: "the berries are bad",
        tempting: "The berries looked sweet",
        harm: "The berries were bad, and {his} mouth began to burn",
        cure: "gave {him} a lot of milk",
        seen: "a bird ate one of the berries and got sick",
        instead: "found sweet red berries for {h}",
    },
    Danger {
        places: &["farm"],
        want: "open the gate",
        because: "the pigs will run away",
        tempting: "The pigs looked so funny",
        harm: "The pigs ran out and pushed {him} into the mud",
        cure: "washed {him} with warm water",
        seen: "the pigs pushed against the gate and wanted to run",
        instead: "let {h} feed the smallest pig",
    },
    Danger {
        places: &["village", "park"],
        want: "run across the road",
        because: "the cars are too fast",
        tempting: "There was an ice cream shop on the other side",
        harm: "A car had to stop so fast that {he} fell down and hurt {his} knee",
        cure: "picked {him} up and put a bandage on {his} knee",
        seen: "a truck came around the corner, very fast",
        instead: "took {h} by the {hand} and bought two ice creams",
    },
    Danger {
        places: &["hill", "farm"],
        want: "pet the big dog",
        because: "the dog is angry",
        tempting: "The big dog looked so soft",
        harm: "The dog barked and bit {him} in the {hand}",
        cure: "put a bandage on {his} {hand}",
        seen: "the dog barked at a cow, very loud",
        instead: "let {h} pet a soft little lamb",
    },
];

pub(super) fn tell(scene: &mut Scene<'_>) -> Told {
    let danger = scene.dice.pick(DANGERS);
    let hero = world::hero(scene, &["bear"]);
    world::go_to(scene, danger.places);
    let elder = world::elder(scene);
    scene.set("want", danger.want);
    let outcome = outcome(scene);

    scene.tell(&format!(
        "{} [{{E}} was there too.|{{He}} was there with {{e}}.] {}, and {{h}} wanted to {{want}}.",
        world::OPENING,
        danger.tempting
    ));
    scene.tell(&format!(
        "\"[Please do|Do] not {{want}}, {{h}},\" said {{e}}. \"[You know that {because}|Remember, {because}].\" \
         [\"But I want to!\"|\"Only one time!\"|\"Why not?\"] said {{h}}. \"[No, {{h}}|Not today|Please listen to me],\" said {{e}}. \
         Then {{e}} [turned around|went away for a moment].",
        because = danger.because
    ));
    if outcome == Outcome::Good {
        scene.tell(&format!(
            "{{H}} still wanted to {{want}}. [But {{he}} thought of {{e}}'s words and waited.|But {{he}} listened to {{e}} and did not do it.] \
             [Then|A little later], {}. \"[Now I see|You were right], {{e}}!\" said {{h}}.",
            danger.seen
        ));
        scene.tell(&format!(
            "\"[I am proud of you|You are a good {{kind}}|Thank you for listening],\" said {{e}}. {{He3}} {}. \
             [{{H}} was very happy.|It was a good day.|{{H}} smiled and gave {{e}} a hug.] [{{H}} always listened to {{e}} after that.|\
             {{H}} learned that it is good to listen.]",
            danger.instead
        ));
    } else {
        scene.tell(&format!(
            "[{{H}} did not listen.|But {{h}} did not wait.] {{He}} went to {{want}}. {}! [\"Help!\" cried {{h}}.|\"Ow!\" cried {{h}}.|\
             {{H}} cried and cried.]",
            danger.harm
        ));
        scene.tell(&format!(
            "{{E}} came running. {{He3}} {}. \"[I am sorry|I should have listened],\" said {{h}}. {{H}} had to \
             [go home|stay in bed] for the rest of the day, and {{he}} was very sad. [{{H}} never wanted to {{want}} again.|\
             {{H}} learned that it is bad not to listen.]",
            danger.cure
        ));
    }
    Told { want: scene.expand("to {want}"), characters: vec![hero, elder], outcome }
}
