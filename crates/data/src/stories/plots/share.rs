//! Two want the same toy, and the one who has it must choose.

use super::{FRIENDS_EVER_AFTER, Told, outcome};
use crate::stories::grammar::Scene;
use crate::stories::{Outcome, world};

/// Where, what, its looks, and what one does with it.
const TOYS: &[(&[&str], &str, &str, &str)] = &[
    (&["park", "meadow", "village"], "ball", "[big|red|blue|new]", "throw"),
    (&["hill", "meadow", "beach"], "kite", "[red|blue|long|new]", "fly"),
    (&["snowy field"], "sled", "[new|fast|red|wooden]", "ride"),
    (&["lake", "pond", "river"], "boat", "[toy|little|white|paper]", "sail"),
    (&["school", "cabin"], "train", "[toy|long|green|wooden]", "drive"),
    (&["beach", "garden"], "shovel", "[yellow|red|little|new]", "dig with"),
    (&["park", "village"], "bike", "[red|blue|shiny|new]", "ride"),
    (&["cabin", "school"], "drum", "[big|red|loud|new]", "play"),
    (&["garden", "park"], "swing", "[new|wooden|blue|high]", "sit on"),
    (&["cabin", "garden"], "doll", "[new|pretty|soft|old]", "hold"),
    (&["school", "cabin"], "puzzle", "[new|big|hard|funny]", "do"),
    (&["farm", "forest"], "wagon", "[little|red|green|wooden]", "pull"),
];

pub(super) fn tell(scene: &mut Scene<'_>) -> Told {
    let (places, toy, looks, play) = *scene.dice.pick(TOYS);
    let hero = world::hero(scene, &[]);
    world::go_to(scene, places);
    let elder = world::elder(scene);
    let friend = world::playmate(scene, &hero);
    scene.set("thing", toy);
    scene.set("want", &format!("{looks} {toy}"));
    scene.set("play", play);
    scene.set("size2", "[little|kind|quiet|shy]");
    let outcome = outcome(scene);

    scene.tell(&format!(
        "{} {{He}} had a {{want}}[| from {{e}}]. [{{H}} wanted to {{play}} it all day.|{{He}} loved to {{play}} it.|\
         {{H}} did not want to do anything but {{play}} it.]",
        world::OPENING
    ));
    scene.tell(
        "[Soon|Then], a {size2} {kind2} named {f} came {to}. {He2} had [no {thing}|nothing to play with]. \
         [\"May I {play} the {thing} too?\"|\"Can I {play} your {thing}?\"|\"Can we share the {thing}?\"] asked {f}. \
         \"No!\" [said|shouted] {h}. \"[It is mine|It is my {thing}|Go away].\" [{F} was sad and walked away.|\
         {F} looked down and walked away.]",
    );
    scene.tell(
        "{H} [went on alone|played alone]. But soon it was [no fun|boring]. [There was nobody to laugh with.|\
         There was nobody to talk to.] [{H} thought of {f}'s sad face.|\"I was not kind,\" thought {h}.]",
    );
    if outcome == Outcome::Good {
        scene.tell(&format!(
            "{{H}} ran after {{f}}. [\"I am sorry,\" said {{h}}.|\"Please come back,\" said {{h}}.] \
             \"[We can {{play}} the {{thing}} together|You can {{play}} the {{thing}} first|Let us share the {{thing}}].\" \
             {{F}} smiled. They took turns with the {{want}}, and it was [much more fun|the best day of all]. {FRIENDS_EVER_AFTER}",
        ));
    } else {
        scene.tell(
            "{H} ran after {f}, but {he2} was gone. [{H} called and called, but nobody answered.|{H} looked for {him2} \
             until it was dark.] [\"I should have shared my {thing},\" said {h}.|{H} looked at the {want} and cried.] \
             [{He} had a {thing}, but no friend.|{He} went home alone.|The {want} was no fun anymore.]",
        );
    }
    Told { want: scene.word("want").into(), characters: vec![hero, elder, friend], outcome }
}
