//! Requests that name adapters of their own are answered as a model is that has these and no others.

use phyla_generate::NamedAdapter;
use phyla_models::adapter::{Adapter, AdapterSpec, BottleneckSpec, Ia3Spec, LoraSpec, PromptSpec};
use phyla_nn::pattern::Pattern;
use phyla_ops::{Weight, cpu};

use super::*;

/// An adapter whose numbers are anything but those that change nothing.
fn random(model: &Model, name: &str, spec: AdapterSpec) -> NamedAdapter {
    let adapter = Adapter::fresh(model, &spec, 1).unwrap();
    let rng = Rng::new(4).split(name);
    for param in adapter.params() {
        let mut numbers = vec![0.; param.count()];
        rng.split(param.path()).fill_normal(&mut numbers, if param.dims().len() == 1 { 1. } else { 0. }, 0.2);
        param.set_weight(Weight::Dense(cpu::tensor(numbers, param.dims()).unwrap())).unwrap();
    }
    NamedAdapter { name: name.into(), adapter: Arc::new(adapter) }
}

fn adapters(model: &Model) -> Vec<NamedAdapter> {
    let all = || vec![Pattern::parse("decoder.layers.**").unwrap()];
    let lora = |dora| AdapterSpec::Lora(LoraSpec { rank: 3, dora, targets: all(), ..LoraSpec::default() });
    let mut made = vec![random(model, "low", lora(false)), random(model, "turned", lora(true))];
    if model.keeps_rows() {
        made.push(random(model, "scaled", AdapterSpec::Ia3(Ia3Spec::default())));
        made.push(random(model, "behind", AdapterSpec::Bottleneck(BottleneckSpec { inner: 5, ..Default::default() })));
    }
    made
}

/// Gives requests adapters, so that neighbours and those that begin alike have others.
fn choosing(mut requests: Vec<Request>, known: &[NamedAdapter]) -> Vec<Request> {
    let mut rng = Rng::new(8).split("choices");
    for request in &mut requests {
        let mut pick = || known[rng.below(known.len() as u64) as usize].name.clone();
        let (one, other) = (pick(), pick());
        request.adapters = match rng.below(6) {
            0 => None,
            1 => Some(vec![]),
            2 if one != other => Some(vec![one, other]),
            _ => Some(vec![one]),
        };
    }
    requests
}

fn use_of(model: &Model, known: &[NamedAdapter], names: Option<&[String]>) {
    let of_name = |name: &String| known.iter().find(|named| named.name == *name).unwrap().adapter.clone();
    let all = || known.iter().map(|named| named.adapter.clone()).collect();
    model.use_adapters(&names.map_or_else(all, |names| names.iter().map(of_name).collect::<Vec<_>>()));
}

#[test]
fn each_request_has_its_own() {
    let f32s = model(json!({}));
    let bf16s = bf16(&f32s);
    let wide = json!({ "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4 });
    let q4 = quantized(&model(wide), "q4_0");
    let latent = model(json!({
        "model_type": "deepseek_v2", "num_key_value_heads": 6, "kv_lora_rank": 40, "q_lora_rank": null,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "n_shared_experts": 1
    }));
    for (name, model, deterministic) in
        [("f32", &f32s, false), ("bf16", &bf16s, false), ("q4_0", &q4, true), ("latent", &latent, false)]
    {
        let known = adapters(model);
        let mut requests = choosing(requests(40, 3, 60, deterministic), &known);
        // One that a search answers, all by itself.
        requests[7].config = GenerationConfig { num_beams: Some(2), max_new_tokens: Some(5), ..Default::default() };
        let bits = Bits::default();
        let expected: Vec<Vec<Sequence>> = requests
            .iter()
            .map(|request| {
                use_of(model, &known, request.adapters.as_deref());
                bits.alone(model, std::slice::from_ref(request));
                alone(model, request)
            })
            .collect();
        let watch = |moment: &Moment| bits.note(moment, -1);
        let generator = Generator::new(model, None).with_adapters(&known).watched_by(&watch);
        let mut engine = Engine::new(generator, small(24)).unwrap();
        let heard: Vec<Rc<RefCell<Heard>>> = requests.iter().map(|_| Rc::default()).collect();
        for (heard, request) in heard.iter().zip(&requests) {
            let heard = heard.clone();
            engine.submit(request.clone(), move |update| heard.borrow_mut().hear(update)).unwrap();
            engine.step().unwrap();
        }
        engine.run().unwrap();
        for (i, (heard, expected)) in heard.iter().zip(&expected).enumerate() {
            assert_eq!(heard.borrow().answer().sequences, *expected, "{name}, request {i}");
        }
        let (differ, all) = bits.differ();
        assert!(all > 200 && differ == 0, "{name}: {differ} of {all} rows of logits differ");
        // Unfolded latents are read whole, and no prompt in pieces.
        assert!(engine.stats().shared_tokens > 0 || name == "latent", "{name}: nothing was shared");
        model.use_adapters(&[]);
    }
}

#[test]
fn a_name_that_no_adapter_has_is_refused() {
    let model = model(json!({}));
    let known = adapters(&model);
    let mut engine = Engine::new(Generator::new(&model, None).with_adapters(&known), small(8)).unwrap();
    let request = |name: &str| Request {
        prompt: vec![1],
        config: sampling(2),
        adapters: Some(vec![name.into()]),
        ..Default::default()
    };
    let error = engine.submit(request("lower"), |_| {}).unwrap_err().to_string();
    assert!(error.contains("\"lower\"") && error.contains("\"low\", \"turned\""), "{error}");
    let twice = Request { adapters: Some(vec!["low".into(), "low".into()]), ..request("low") };
    let error = engine.submit(twice, |_| {}).unwrap_err().to_string();
    assert!(error.contains("\"low\" is named twice"), "{error}");
    let prompt = random(&model, "before", AdapterSpec::Prompt(PromptSpec::default()));
    let error = Engine::new(Generator::new(&model, None).with_adapters(&[prompt]), small(8)).unwrap_err().to_string();
    assert!(error.contains("prompt or prefix"), "{error}");
}
