//! AdaLoRA against peft's own training, from the fixtures that `tests/golden/adalora.py` wrote: losses, what is masked and when,
//! and the directions that are left.

use phyla_models::adapter::{AdaLoraSpec, AdapterSpec, merge};
use phyla_models::checkpoint::{Dtype, SafetensorsWriter, TensorSpec, Values};
use phyla_train::allocator::Allocator;
use phyla_train::beside::Beside;
use serde_json::json;

use super::*;

fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    found.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// Which singular values of each module are not 0, beside its name in peft.
type Alive = Vec<(String, Vec<bool>)>;

fn alive(adapter: &Adapter) -> Alive {
    let of = |values: Vec<f32>| values.iter().map(|value| *value != 0.).collect();
    let all = adapter.directions();
    all.iter().map(|module| (module.module.clone(), of(module.values.numbers().unwrap()))).collect()
}

/// What came of a training.
struct Trained {
    adapter: Arc<Adapter>,
    allocator: Allocator,
    losses: Vec<f64>,
    /// After each step.
    masks: Vec<Alive>,
}

/// Trains as peft did.
fn train(model: &Model, adapter: Adapter, family: &str) -> Trained {
    let (adapter, params) = learning(model, adapter);
    let allocator = Allocator::new(&adapter, None).unwrap().unwrap();
    let (mut optimizer, objective) = (optimizer(&params, 1e-2), Objective::Lm(Lm::default()));
    let beside = Beside { allocator: Some(&allocator), ..Beside::default() };
    let stepper = Stepper { clip: Some(0.7), beside, ..Stepper::new(model, &objective) };
    let batches = [batch(family)];
    let (mut losses, mut masks) = (vec![], vec![]);
    for step in 1..=26 {
        losses.push(stepper.run(&mut optimizer, &batches, step, 1e-2).unwrap().loss);
        masks.push(alive(&adapter));
    }
    Trained { adapter, allocator, losses, masks }
}

#[test]
fn losses_masks_and_ranks_are_pefts() {
    for family in ["llama", "gpt2"] {
        let folder = golden("adalora").join(family);
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        let model = base(family);
        let begun = Adapter::load(&model, &folder.join("begun")).unwrap();
        assert_eq!(begun.spec().name(), "adalora");
        let Trained { adapter, allocator, losses, masks } = train(&model, begun, family);
        let theirs = losses_of(&expected);
        let worst = losses.iter().zip(&theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0., f64::max);
        println!("{family}: losses {worst:.1e}");
        assert!(worst < 1e-4, "{family}: {worst} {losses:?} {theirs:?}");
        let budgets = expected.get("budgets").unwrap().bytes().to_vec();
        let budgets = budgets.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as usize);
        assert_eq!((1..=26).map(|step| allocator.budget(step)).collect::<Vec<_>>(), budgets.collect::<Vec<_>>());
        for (step, modules) in masks.iter().enumerate() {
            for (module, alive) in modules {
                let view = expected.get(&format!("base_model.model.{module}.lora_E")).unwrap();
                let theirs: Vec<bool> = view.bytes()[step * 4..][..4].iter().map(|flag| *flag > 0).collect();
                assert_eq!(alive, &theirs, "{family} {module}, step {}", step + 1);
            }
        }
        // What is saved: the pattern, and the matrices without what was taken away.
        let narrow = Arc::new(adapter.narrowed(&allocator.kept()).unwrap());
        let whole = logits(&model, &batch(family));
        model.use_adapters(std::slice::from_ref(&narrow));
        assert!(apart(&logits(&model, &batch(family)), &whole) < 1e-6);
        let off = apart(&whole, &expected.get("logits").unwrap().to_f32().unwrap());
        println!("{family}: answers {off:.1e}");
        assert!(off < 1e-4, "{family}: {off}");
        let written = tempfile::tempdir().unwrap();
        narrow.save(&model, written.path(), None).unwrap();
        let read = |folder: &Path| -> Value {
            serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
        };
        let (ours, theirs) = (read(written.path()), read(&folder.join("trained")));
        for key in [
            "peft_type",
            "rank_pattern",
            "init_r",
            "target_r",
            "lora_alpha",
            "tinit",
            "tfinal",
            "deltaT",
            "total_step",
            "beta1",
            "beta2",
            "orth_reg_weight",
            "target_modules",
            "fan_in_fan_out",
        ] {
            assert_eq!(ours[key], theirs[key], "{family} {key}");
        }
        let weights = "adapter_model.safetensors";
        let [ours, theirs] =
            [written.path(), &folder.join("trained")].map(|folder| Checkpoint::open(folder.join(weights)).unwrap());
        assert_eq!(ours.names().collect::<Vec<_>>(), theirs.names().collect::<Vec<_>>());
        for name in theirs.names() {
            let [ours, theirs] = [&ours, &theirs].map(|checkpoint| checkpoint.get(name).unwrap());
            assert_eq!(ours.shape, theirs.shape, "{family} {name}");
            let (ours, theirs) = (ours.to_f32().unwrap(), theirs.to_f32().unwrap());
            let near = ours.iter().zip(theirs.iter()).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(near, "{family} {name}");
        }
        if let Some(out) = std::env::var_os("PHYLA_ADAPTERS_OUT") {
            // For `tests/golden/adalora.py FOLDER`, which opens it in peft.
            let out = Path::new(&out).join(family);
            narrow.save(&model, &out, None).unwrap();
            let specs = [TensorSpec { name: "logits".into(), dtype: Dtype::F32, shape: vec![whole.len()] }];
            let mut writer = SafetensorsWriter::create_file(out.join("expected.safetensors"), &specs).unwrap();
            writer.write("logits", Values::F32(&whole)).unwrap();
            writer.finish().unwrap();
        }
    }
}

/// Adapters that peft trained, some of whose modules have no direction left.
#[test]
fn what_peft_trained_is_used_saved_and_merged() {
    for family in ["llama", "gpt2"] {
        let folder = golden("adalora").join(family);
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        let expected = expected.get("logits").unwrap().to_f32().unwrap();
        let model = base(family);
        let adapter = Arc::new(Adapter::load(&model, &folder.join("trained")).unwrap());
        assert!(adapter.directions().iter().any(|module| module.values.count() == 0), "{family}: a module without any");
        model.use_adapters(std::slice::from_ref(&adapter));
        assert!(apart(&logits(&model, &batch(family)), &expected) < 2e-5, "{family}");
        let written = tempfile::tempdir().unwrap();
        adapter.save(&model, written.path(), None).unwrap();
        let again = Arc::new(Adapter::load(&model, written.path()).unwrap());
        model.use_adapters(std::slice::from_ref(&again));
        assert!(apart(&logits(&model, &batch(family)), &expected) < 2e-5, "{family}: saved and read");
        let bytes = |folder: &Path| std::fs::read(folder.join("adapter_config.json")).unwrap();
        let read = |folder: &Path| serde_json::from_slice::<Value>(&bytes(folder)).unwrap()["rank_pattern"].clone();
        assert_eq!(read(written.path()), read(&folder.join("trained")));
        merge(&model, &adapter).unwrap();
        assert!(apart(&logits(&model, &batch(family)), &expected) < 2e-5, "{family}: merged");
    }
}

#[test]
fn a_new_adapter_changes_nothing_and_reads_pefts_names() {
    let spec = json!({ "adalora": { "init_r": 5, "target_r": 2, "lora_alpha": 10, "deltaT": 2, "tinit": 3, "tfinal": 4,
        "total_step": 20, "orth_reg_weight": 0.1, "target_modules": ["**.attn.*"] } });
    let spec: AdapterSpec = serde_json::from_value(spec).unwrap();
    let expected = AdaLoraSpec {
        rank: 5,
        target_rank: 2,
        alpha: 10.,
        delta_t: 2,
        tinit: 3,
        tfinal: 4,
        total_step: Some(20),
        orth_reg_weight: 0.1,
        targets: spec.targets().into_iter().cloned().collect(),
        ..AdaLoraSpec::default()
    };
    assert_eq!(spec, AdapterSpec::AdaLora(expected));
    let model = base("gpt2");
    let before = logits(&model, &batch("gpt2"));
    let adapter = Arc::new(Adapter::fresh(&model, &spec, 7).unwrap());
    model.use_adapters(std::slice::from_ref(&adapter));
    assert_eq!(logits(&model, &batch("gpt2")), before);
    // c_attn and c_proj of two layers; q, k and v share their right directions and values.
    let modules = adapter.directions();
    assert_eq!(modules.iter().map(|module| module.b.len()).collect::<Vec<_>>(), [3, 1, 3, 1]);
    assert!(modules.iter().all(|module| module.values.count() == 5));
}
