//! Routing and balance against what transformers and PyTorch say: `tests/golden/routing.json`.
#![expect(clippy::unwrap_used, reason = "tests")]

use candle_core::Device;
use phyla_ops::{Balance, Data, Groups, Routing, Tensor, balance, load_balance, route};
use serde_json::Value;

fn golden(part: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/routing.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = all[part].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn count(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn tensor(value: &Value, rows: usize) -> Data {
    let values = floats(value);
    let columns = values.len() / rows;
    Data::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

/// Both sides are f32 sums of at most 16 terms, in different order: some units in the last place of the largest.
fn near(name: &str, ours: &Data, theirs: &[f32]) {
    let ours: Vec<f32> = ours.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let top = theirs.iter().fold(1e-2f32, |top, x| top.max(x.abs()));
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() <= 1e-6 * top, "{name}: {ours} instead of {theirs}");
    }
}

fn routing(top_k: usize) -> Routing {
    Routing { top_k, renormalise: false, scale: 1., groups: None }
}

#[test]
fn routers_choose_and_weigh_as_transformers() {
    for case in golden("routing") {
        let (name, how) = (case["name"].as_str().unwrap(), &case["routing"]);
        let groups = how.get("groups").map(|g| Groups { count: count(&g[0]), top: count(&g[1]) });
        let scale = how.get("scale").map_or(1., |scale| scale.as_f64().unwrap() as f32);
        let renormalise = how["renormalise"].as_bool().unwrap();
        let routing = Routing { top_k: count(&how["top_k"]), renormalise, scale, groups };
        let logits = Tensor::leaf(tensor(&case["logits"], count(&case["rows"])));
        let routed = route(&logits, &routing).unwrap();
        let chosen: Vec<u32> = case["chosen"].as_array().unwrap().iter().map(|e| count(e) as u32).collect();
        assert_eq!(routed.experts, chosen, "{name}");
        near(name, routed.weights.data(), &floats(&case["weights"]));
        routed.weights.backward_with(tensor(&case["up"], count(&case["rows"]))).unwrap();
        near(name, &logits.grad().unwrap(), &floats(&case["dlogits"]));
    }
}

#[test]
fn load_balance_is_that_of_transformers() {
    for case in golden("switch") {
        let name = case["name"].as_str().unwrap();
        let keep: Option<Vec<u8>> =
            case["mask"].as_array().map(|mask| mask.iter().map(|keep| count(keep) as u8).collect());
        let logits = case["logits"].as_array().unwrap();
        let leaves: Vec<Tensor> = logits.iter().map(|l| Tensor::leaf(tensor(l, count(&case["rows"])))).collect();
        let routed: Vec<_> = leaves.iter().map(|l| route(l, &routing(count(&case["top_k"]))).unwrap()).collect();
        let loss = load_balance(&routed.iter().collect::<Vec<_>>(), keep.as_deref(), 1.).unwrap();
        near(name, loss.data(), &[case["loss"].as_f64().unwrap() as f32]);
        loss.backward().unwrap();
        for (leaf, grad) in leaves.iter().zip(case["dlogits"].as_array().unwrap()) {
            near(name, &leaf.grad().unwrap(), &floats(grad));
        }
    }
}

#[test]
fn balance_is_that_of_the_paper() {
    for case in golden("deepseek") {
        let (devices, limit) = (count(&case["devices"]), count(&case["limit"]));
        let (kind, of) = match case["kind"].as_str().unwrap() {
            "device" => ("device", Balance::Device { devices }),
            "communication" => ("communication", Balance::Communication { devices, limit }),
            other => (other, Balance::Expert),
        };
        let sequences = count(&case["sequences"]);
        let logits = Tensor::leaf(tensor(&case["logits"], sequences * count(&case["time"])));
        let routed = route(&logits, &routing(count(&case["top_k"]))).unwrap();
        let loss = balance(&routed, of, sequences, None, 1.).unwrap();
        near(kind, loss.data(), &[case["loss"].as_f64().unwrap() as f32]);
        loss.backward().unwrap();
        near(kind, &logits.grad().unwrap(), &floats(&case["dlogits"]));
    }
}
