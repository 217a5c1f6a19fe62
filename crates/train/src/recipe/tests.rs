//! Reading, overriding, explaining and writing back recipes.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const SMALL: &str = r#"
model = "models/tiny"

[data]
kind = "text"
train = "corpus.txt"

[optim]
lr = 3e-4

[train]
steps = 100
"#;

fn parse(text: &str, overrides: &[&str]) -> Result<Recipe, RecipeError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Recipe::parse("recipes/small.toml", text, &overrides)
}

#[track_caller]
fn message(text: &str, overrides: &[&str]) -> String {
    parse(text, overrides).unwrap_err().to_string()
}

#[test]
fn defaults_are_filled_in() {
    let recipe = parse(SMALL, &[]).unwrap();
    assert_eq!(recipe.model, Model::Named("models/tiny".into()));
    assert_eq!(recipe.output, Path::new("runs/small"));
    assert_eq!(recipe.optim.rule, Rule::Adamw(AdamW { betas: [0.9, 0.999], eps: 1e-8 }));
    assert_eq!(recipe.method, Method::Full(Full::default()));
    assert_eq!(recipe.data.train_files(), [PathBuf::from("corpus.txt")]);
    assert_eq!(recipe.train.length(), Length::Steps(100));
    assert_eq!(recipe.schedule.shape, Shape::Cosine(Cosine::default()));
}

#[test]
fn the_resolved_recipe_is_complete_and_reads_back_the_same() {
    let rich = r#"
        output = "out"
        seed = 7
        dtype = "bf16"
        threads = 2
        [model]
        model_type = "llama"
        hidden_size = 64
        rope_parameters = { rope_type = "default", rope_theta = 10000.0 }
        [tokenizer]
        kind = "bpe"
        vocab_size = 2048
        [data]
        kind = "jsonl"
        train = ["a.jsonl", "b.jsonl"]
        field = "body"
        validation_fraction = 0.05
        packing = "stream"
        [method]
        freeze = ["tokens", "decoder.layers.{0,1}"]
        [objective]
        label_smoothing = 0.1
        [optim]
        kind = "adafactor"
        lr = 1e-2
        clip = 1.0
        beta1 = 0.9
        no_decay = ["tokens"]
        [[optim.groups]]
        pattern = "**.attn"
        lr_scale = 0.5
        [[optim.groups]]
        pattern = "head"
        weight_decay = 0.2
        [schedule]
        kind = "wsd"
        warmup_ratio = 0.03
        decay = "linear"
        [train]
        minutes = 2.5
        [train.dropout]
        residual = 0.1
        [train.sample]
        every = 100
        prompts = ["Once", ""]
    "#;
    for text in [SMALL, rich] {
        let recipe = parse(text, &[]).unwrap();
        let resolved = recipe.resolved().unwrap();
        assert_eq!(parse(&resolved, &[]).unwrap(), recipe, "{resolved}");
        // Complete: resolving again adds nothing.
        assert_eq!(parse(&resolved, &[]).unwrap().resolved().unwrap(), resolved);
    }
    let resolved = parse(SMALL, &[]).unwrap().resolved().unwrap();
    for line in ["kind = \"adamw\"", "betas = [0.9, 0.999]", "kind = \"cosine\"", "batch = 8", "packing = \"packed\""] {
        assert!(resolved.contains(line), "{line} is not in:\n{resolved}");
    }
}

#[test]
fn overrides_are_typed_nested_and_the_last_one_wins() {
    let recipe = parse(
        SMALL,
        &[
            "optim.lr=1e-4",
            "optim.lr=2e-4",
            "optim.betas=[0.9, 0.95]",
            "data.train=other file.txt",
            "train.dropout.residual=0.1",
            "train.sample.prompts=[\"a=b\"]",
            "seed=3",
        ],
    )
    .unwrap();
    assert_eq!(recipe.optim.lr, 2e-4);
    assert_eq!(recipe.optim.rule, Rule::Adamw(AdamW { betas: [0.9, 0.95], eps: 1e-8 }));
    assert_eq!(recipe.data.train_files(), [PathBuf::from("other file.txt")]);
    assert_eq!(recipe.train.dropout.residual, Some(0.1));
    assert_eq!(recipe.train.sample.prompts, ["a=b"]);
    assert_eq!(recipe.seed, 3);

    let groups = format!("{SMALL}\n[[optim.groups]]\npattern = \"head\"\n");
    let recipe = parse(&groups, &["optim.groups.0.lr_scale=0.25"]).unwrap();
    assert_eq!(recipe.optim.groups[0].lr_scale, 0.25);

    // A required key may come from the command line alone, and so may a table.
    let recipe = parse(&SMALL.replace("lr = 3e-4", ""), &["optim.lr=1", "schedule.kind=constant"]).unwrap();
    assert_eq!(recipe.optim.lr, 1.0);
    assert_eq!(recipe.schedule.shape, Shape::Constant(Constant {}));
}

#[test]
fn unknown_keys_name_their_table_their_place_and_the_nearest_key() {
    for (text, overrides, expected) in [
        (
            SMALL.replace("lr = 3e-4", "lr = 3e-4\nweight_dacay = 0.1"),
            vec![],
            "recipes/small.toml:10:1: unknown key `weight_dacay` in [optim] of kind \"adamw\"; did you mean `weight_decay`?",
        ),
        (
            SMALL.replace("train = \"corpus.txt\"", "  traim = \"corpus.txt\""),
            vec![],
            "recipes/small.toml:6:3: unknown key `traim` in [data] of kind \"text\"; did you mean `train`?",
        ),
        (
            SMALL.to_owned(),
            vec!["optim.lrr=1"],
            "--set optim.lrr=1: unknown key `lrr` in [optim] of kind \"adamw\"; did you mean `lr`?",
        ),
        (
            SMALL.to_owned(),
            vec!["optin.lr=1"],
            "--set optin.lr=1: unknown key `optin` at the top level; did you mean `optim`?",
        ),
        (
            format!("{SMALL}\n[train.dropout]\nresiduals = 0.1"),
            vec![],
            "recipes/small.toml:15:1: unknown key `residuals` in [train.dropout]; did you mean `residual`?",
        ),
        (
            format!("{SMALL}\n[[optim.groups]]\npattern = \"head\"\n[[optim.groups]]\npattern = \"head\"\nlrscale = 1"),
            vec![],
            "recipes/small.toml:18:1: unknown key `lrscale` in [optim.groups.1]; did you mean `lr_scale`?",
        ),
        (
            SMALL.to_owned(),
            vec!["schedule.kind=cosin"],
            "--set schedule.kind=cosin: unknown kind \"cosin\" in [schedule]; did you mean `cosine`?",
        ),
        (
            format!("{SMALL}\n[objective]\nkind = \"lm\"\nsmoothing = 0.1"),
            vec![],
            "recipes/small.toml:16:1: unknown key `smoothing` in [objective] of kind \"lm\"",
        ),
    ] {
        let message = message(&text, &overrides);
        assert!(message.starts_with(expected), "expected {expected}\nfound    {message}");
        assert!(message.contains("(valid: "), "{message}");
    }
}

#[test]
fn wrong_types_and_missing_keys_name_the_key() {
    for (text, overrides, expected) in [
        (
            SMALL.replace("3e-4", "\"high\""),
            vec![],
            "recipes/small.toml:9:1: `optim.lr`: invalid type: string \"high\", expected f64",
        ),
        (
            SMALL.to_owned(),
            vec!["train.steps=1.5"],
            "--set train.steps=1.5: `train.steps`: invalid type: floating point `1.5`, expected u64",
        ),
        (SMALL.to_owned(), vec!["optim.betas=[0.9]"], "--set optim.betas=[0.9]: `optim.betas"),
        (SMALL.replace("lr = 3e-4", ""), vec![], "recipes/small.toml:8:2: missing key `lr` in [optim]"),
        (
            SMALL.replace("kind = \"text\"", ""),
            vec![],
            "recipes/small.toml:4:2: [data] needs a `kind`: one of text, jsonl, parquet, stories, sums, table, task",
        ),
        (
            SMALL.replace("\"corpus.txt\"", "3"),
            vec![],
            "recipes/small.toml:6:1: `data.train`: expected a path or a list of paths, found integer",
        ),
        (SMALL.replace("[optim]\nlr = 3e-4", ""), vec![], "recipes/small.toml: missing key `optim` at the top level"),
        (
            SMALL.to_owned(),
            vec!["method.freeze=[\"a..b\"]"],
            "--set method.freeze=[\"a..b\"]: `method.freeze.0`: pattern `a..b`: an empty part",
        ),
        (
            SMALL.replace("model = \"models/tiny\"", "[model]\nhidden_size = 3"),
            vec![],
            "recipes/small.toml:2:2: [model] is a config and needs its `model_type`",
        ),
        (SMALL.replace("lr = ", "lr : "), vec![], "recipes/small.toml:9:4: not valid TOML: "),
    ] {
        let message = message(&text, &overrides);
        assert!(message.starts_with(expected), "expected {expected}\nfound    {message}");
    }
}

#[test]
fn overrides_that_cannot_apply_say_why() {
    for (assignment, expected) in [
        ("optim.lr", "expected key=value"),
        ("=3", "has an empty part"),
        ("optim..lr=3", "has an empty part"),
        ("model.hidden=3", "`model` is a string in the recipe, not a table"),
        ("optim.betas=[0.9", "not a TOML value"),
    ] {
        let message = message(SMALL, &[assignment]);
        assert!(message.starts_with(&format!("--set {assignment}: ")) && message.contains(expected), "{message}");
    }
    let groups = format!("{SMALL}\n[[optim.groups]]\npattern = \"head\"\n");
    assert!(message(&groups, &["optim.groups.1.lr_scale=1"]).contains("list of 1; expected an index below 1"));
}

#[test]
fn contradictions_are_all_reported_in_sentences() {
    for (overrides, expected) in [
        (vec!["train.epochs=1"], "exactly one of `steps`, `epochs` and `minutes`"),
        (vec!["optim.lr=-1"], "`optim.lr` is -1; expected a number at least 0"),
        (vec!["optim.lr=nan"], "`optim.lr` is NaN"),
        (vec!["optim.lr=inf"], "`optim.lr` is inf"),
        (vec!["train.batch=0"], "`train.batch` is 0; expected at least 1"),
        (vec!["device=gpu"], "expected auto, cpu, cuda:N or metal"),
        (vec!["schedule.min_lr=1"], "above the peak"),
        (vec!["schedule.warmup_steps=1", "schedule.warmup_ratio=0.1"], "both given; keep one"),
        (vec!["train.early_stop_patience=3"], "needs `data.validation` or `data.validation_fraction`"),
        (vec!["train.dropout.residual=1.0"], "expected at least 0 and below 1"),
        (vec!["objective.label_smoothing=1"], "expected at least 0 and below 1"),
        (vec!["data.train=[]"], "at least one file"),
        (vec!["optim.kind=sgd", "optim.nesterov=true"], "needs `optim.momentum` above 0"),
        (vec!["distill.teacher=a", "distill.beta=1.5"], "`distill.beta` is 1.5; expected a number between 0 and 1"),
        (vec!["distill.teacher=a", "distill.temperature=0"], "`distill.temperature` is 0"),
        (vec!["distill.teacher=a", "distill.alpha=0"], "nothing is learned of the teacher"),
        (vec!["distill.teacher=a", "distill.quantize=q9"], "`distill.quantize`"),
        (vec!["distill.teacher=a", "objective.kind=grpo"], "[distill] goes with objectives over tokens or classes"),
    ] {
        let message = message(SMALL, &overrides);
        assert!(message.contains(expected), "{overrides:?}: {message}");
    }
    let message = message(SMALL, &["train.batch=0", "optim.clip=0"]);
    assert!(message.contains("train.batch") && message.contains("optim.clip"), "{message}");
}

const PAIRS: &str = r#"
model = "models/tiny"
[data]
kind = "task"
task = "dates"
[objective]
kind = "seq2seq"
[optim]
lr = 3e-4
[train]
steps = 100
"#;

#[test]
fn every_objective_reads_back_the_same() {
    let labelled = |kind: &str, rest: &str| {
        format!("[data]\nkind = \"table\"\ntrain = \"a.csv\"\n{rest}[objective]\nkind = \"{kind}\"\n")
    };
    let text = |kind: &str| format!("[data]\nkind = \"stories\"\n[objective]\nkind = \"{kind}\"\n");
    let mask =
        "mask = { probability = 0.2, unit = { kind = \"span\", longest = 4, lengths = { kind = \"falling\" } } }\n";
    for (tables, name) in [
        (text("lm"), "lm"),
        (text("mlm") + mask, "mlm"),
        (text("mlm_nsp") + "sentences = \"lines\"\n" + mask, "mlm_nsp"),
        (text("t5_span") + "noise_density = 0.3\n", "t5_span"),
        (labelled("seq2seq", "") + "label_smoothing = 0.1\nsource_prefix = \"x: \"\n", "seq2seq"),
        (
            labelled("classify", "columns = { text = [\"a\", \"b\"], label = 3 }\n") + "labels = [\"no\", \"yes\"]\n",
            "classify",
        ),
        (labelled("token_classify", "conll_columns = [0, 3]\n") + "label_all = true\n", "token_classify"),
        (
            labelled("qa", "validation_fraction = 0.1\n") + "answers = { max_answer_len = 7, null_threshold = 0.5 }\n",
            "qa",
        ),
        (labelled("multiple_choice", "format = \"csv\"\ndelimiter = \";\"\n") + "max_len = 99\n", "multiple_choice"),
    ] {
        let whole = format!("model = \"m\"\n{tables}[optim]\nlr = 1e-3\n[train]\nsteps = 1\n");
        let recipe = parse(&whole, &[]).unwrap();
        assert_eq!(recipe.objective.name(), name);
        let resolved = recipe.resolved().unwrap();
        assert_eq!(parse(&resolved, &[]).unwrap(), recipe, "{resolved}");
    }
}

#[test]
fn data_and_objective_must_fit() {
    for (text, overrides, expected) in [
        (
            PAIRS,
            vec!["data.task=sentiment"],
            "learns from pairs of texts, and the items of `data.task` are texts with labels",
        ),
        (
            PAIRS,
            vec!["objective.kind=lm"],
            "learns from text without labels; expected `data.kind` text, jsonl, parquet, stories or sums",
        ),
        (SMALL, vec!["objective.kind=qa"], "learns from questions on texts; expected `data.kind` table or task"),
        (
            SMALL,
            vec!["objective.kind=mlm", "data.max_len=64"],
            "`data.max_len` and `data.packing` are for `objective.kind` \"lm\"",
        ),
        (PAIRS, vec!["data.task=date"], "`data.task`: unknown variant `date`"),
        (PAIRS, vec!["data.language=german"], "are for `data.task` \"numbers\" alone"),
        (PAIRS, vec!["data.items=0"], "`data.items` is 0; expected 1 to"),
        (SMALL, vec!["data={ kind = 'sums', digits = 10 }"], "`data.digits` is 10; expected 1 to 9"),
        (SMALL, vec!["data={ kind = 'sums', items = 0 }"], "`data.items` is 0; expected 1 to"),
        (PAIRS, vec!["data={ kind = 'sums' }"], "learns from pairs of texts; expected `data.kind` table or task"),
        (PAIRS, vec!["data.validation_fraction=0.1"], "a task has `data.validation_items`"),
        (PAIRS, vec!["objective.max_source_len=1"], "`objective.max_source_len` is 1; expected 2 to"),
        (PAIRS, vec!["tokenizer.kind=characters"], "needs a token that ends a text"),
        (
            PAIRS,
            vec!["tokenizer.kind=bpe", "tokenizer.vocab_size=259", "tokenizer.preset=translation"],
            "needs at least 260",
        ),
        (PAIRS, vec!["train.average_last=3"], "only 2 checkpoints are kept"),
        (PAIRS, vec!["data.validation_items=0", "train.eval_generate=5"], "\"seq2seq\" with validation data"),
        (SMALL, vec!["train.batch_tokens=100"], "are for labelled data"),
        (SMALL, vec!["objective.kind=mlm", "objective.mask.probability=0.0"], "nothing is hidden"),
        (SMALL, vec!["objective.kind=mlm", "tokenizer.kind=unigram"], "needs a mask token"),
        (SMALL, vec!["objective.kind=t5_span", "tokenizer.kind=wordpiece"], "needs sentinels"),
        (
            SMALL,
            vec!["objective.kind=t5_span", "train.sample.every=5"],
            "nothing to show for `objective.kind` \"t5_span\"",
        ),
        (
            PAIRS,
            vec!["objective.kind=qa", "data.task=questions", "objective.doc_stride=320"],
            "a window needs more than",
        ),
        (PAIRS, vec!["data={kind=\"table\", format=\"parallel\", train=\"a.en\"}"], "parallel text is two"),
    ] {
        let message = message(text, &overrides);
        assert!(message.contains(expected), "{overrides:?}: {message}");
    }
}

#[test]
fn decay_and_groups_follow_dimensions_and_patterns() {
    let text = format!(
        "{SMALL}\n[[optim.groups]]\npattern = \"decoder.layers.*\"\nlr_scale = 0.5\n[[optim.groups]]\npattern = \"**.norm\"\nweight_decay = 0.3\n"
    );
    let optim = parse(&text, &["optim.weight_decay=0.1", "optim.no_decay=[\"tokens\"]"]).unwrap().optim;
    let settings = |path, dims| {
        let found = optim.settings(path, dims);
        (found.lr_scale, found.weight_decay)
    };
    assert_eq!(settings("head.weight", 2), (1.0, 0.1));
    assert_eq!(settings("head.bias", 1), (1.0, 0.0));
    assert_eq!(settings("tokens.weight", 2), (1.0, 0.0));
    assert_eq!(settings("decoder.layers.3.attn.q.weight", 2), (0.5, 0.1));
    assert_eq!(settings("decoder.layers.3.norm.weight", 1), (1.0, 0.3));

    let paths = ["tokens.weight", "decoder.layers.3.attn.q.weight"];
    let error = optim.check_paths(&paths).unwrap_err().to_string();
    assert!(error.contains("`**.norm` matches none of the 2 parameters"), "{error}");
    let full = Full { freeze: vec![phyla_nn::pattern::Pattern::parse("**").unwrap()] };
    assert!(full.check_paths(&paths).unwrap_err().to_string().contains("nothing is left to train"));
}

#[test]
fn differences_name_each_changed_key() {
    let before = parse(SMALL, &["train.eval_batches=3"]).unwrap();
    let after = parse(SMALL, &["optim.lr=1e-3", "schedule.kind=constant", "output=elsewhere"]).unwrap();
    let mut changes = before.differences(&after).unwrap();
    changes.sort();
    assert_eq!(
        changes,
        [
            "optim.lr: 0.0003 -> 0.001",
            "schedule.cycles: 0.5 -> (absent)",
            "schedule.kind: \"cosine\" -> \"constant\"",
            "train.eval_batches: 3 -> (absent)",
        ]
    );
    assert!(before.differences(&before).unwrap().is_empty());
}

#[test]
fn mangled_recipes_never_panic() {
    // Deterministic mutations: cut, double and replace bytes at every place of a real recipe.
    let text = parse(SMALL, &[]).unwrap().resolved().unwrap();
    for at in 0..text.len() {
        let (before, after) = text.split_at(at);
        for replacement in ["", "[", "]", "\"", "=", "\n", ".", "{", "9999999999999999999999", "é", "\0"] {
            let mutated = format!("{before}{replacement}{}", after.get(1..).unwrap_or_default());
            if let Err(error) = parse(&mutated, &[]) {
                assert!(!error.to_string().is_empty());
            }
        }
        drop(parse(before, &[]));
    }
    // Depth is bounded by the parser, not by our stack.
    drop(parse(&format!("a = {}", "[".repeat(100_000)), &[]));
    drop(parse(SMALL, &[&format!("a={}", "{a=".repeat(100_000))]));
    drop(parse(SMALL, &[&format!("{}=1", vec!["a"; 100_000].join("."))]));
}

#[test]
fn every_recipe_of_the_repository_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let recipe = Recipe::read(&path, &[]).unwrap();
            let again = Recipe::parse("again", &recipe.resolved().unwrap(), &[]).unwrap();
            assert_eq!(again, recipe);
            count += 1;
        }
    }
    assert!(count >= 9, "found {count} recipes");
}

#[test]
fn the_variants_that_recipes_name_parse() {
    // Each `--set` of a comment by itself, over the recipe it stands in.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let comments = text.lines().filter_map(|line| line.strip_prefix("#   ").filter(|line| line.contains("--set")));
        let mut overrides: Vec<String> = vec![];
        for comment in comments {
            for set in comment.split("--set ").skip(1) {
                // As a shell divides words: quotes hold them together and are no part of them.
                let mut quoted = false;
                let word = set.chars().take_while(|&c| {
                    quoted ^= c == '\'';
                    quoted || c != ' '
                });
                overrides.push(word.filter(|&c| c != '\'').collect());
            }
        }
        // Together: later ones stand on earlier ones, as `data.columns` on `data`.
        Recipe::read(&path, &overrides).unwrap();
        count += overrides.len();
    }
    assert!(count >= 20, "found {count} overrides");
}
