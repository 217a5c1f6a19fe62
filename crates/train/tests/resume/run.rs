//! Small runs of a recipe in processes of their own, which faults and kills may end, and what they leave behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::Device;
use phyla_train::metrics::{Metrics, Row};
use phyla_train::recipe::Recipe;
use phyla_train::{Options, train};
use serde_json::Value;

const ROLE: &str = "PHYLA_TEST_RUN";
const RESUME: &str = "PHYLA_TEST_RESUME";

/// What the test called `child` of a binary does when it is the child: a whole run, as the program does it.
pub fn child() {
    let Some(recipe) = std::env::var_os(ROLE) else { return };
    let options = Options { resume: std::env::var_os(RESUME).is_some(), quiet: false, device: Device::Cpu };
    let done = Recipe::read(Path::new(&recipe), &[]).map_err(Into::into).and_then(|recipe| train(&recipe, &options));
    // Not a panic: the harness would end with a status of its own, and print more than the message.
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(3);
    }
}

/// A recipe with its data, its token cache and its run, in a folder that goes with it.
pub struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    /// Writes data and recipe: `tables` follows `output` and `[data]` is ours.
    pub fn new(tables: &str) -> Self {
        let run = Self { folder: tempfile::tempdir().unwrap() };
        run.write("train.jsonl", &documents(0..11));
        run.write("validation.jsonl", &documents(40..46));
        run.recipe(tables);
        run
    }

    /// Writes the recipe anew.
    pub fn recipe(&self, tables: &str) {
        let root = self.folder.path().display().to_string();
        self.write("recipe.toml", &tables.replace("ROOT", &root));
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// The run's folder.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// A child over the recipe, not started yet.
    pub fn command(&self, resume: bool) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--test-threads=1", "--nocapture"])
            .env(ROLE, self.folder.path().join("recipe.toml"))
            .env("XDG_CACHE_HOME", self.folder.path().join("cache"))
            .env("RAYON_NUM_THREADS", "2");
        if resume {
            command.env(RESUME, "1");
        }
        command
    }

    /// Runs to the end, which must be a good one.
    pub fn finish(&self, resume: bool) -> Output {
        let output = self.command(resume).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The final weights, of an adapter where one was trained.
    pub fn weights(&self) -> Vec<u8> {
        let model = self.root().join("model");
        let adapter = std::fs::read(model.join("adapter_model.safetensors"));
        adapter.or_else(|_| std::fs::read(model.join("model.safetensors"))).unwrap()
    }

    /// All metrics without what a clock or the system measured.
    pub fn rows(&self) -> Vec<Row> {
        let rows = Metrics::resume(&self.root().join("metrics.jsonl"), u64::MAX).unwrap().1;
        let timeless = |row: Row| Row { time: 0., tokens_per_second: None, peak_rss_mb: None, ..row };
        rows.into_iter().map(timeless).collect()
    }

    /// The state of the newest checkpoint, timeless.
    pub fn state(&self) -> Value {
        let latest = std::fs::read_to_string(self.root().join("latest")).unwrap();
        let path = self.root().join("checkpoints").join(latest.trim()).join("trainer_state.json");
        let mut state: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        state["seconds"] = Value::Null;
        state["since"]["seconds"] = Value::Null;
        state
    }

    /// Names of the checkpoints and the content of `best`.
    pub fn kept(&self) -> (Vec<String>, Option<String>) {
        let entries = std::fs::read_dir(self.root().join("checkpoints")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        (names, std::fs::read_to_string(self.root().join("best")).ok())
    }

    /// Damages the newest file of the token cache; says which.
    pub fn corrupt_cache(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.folder.path().join("cache/phyla/tokens")).unwrap();
        let path = entries.map(|entry| entry.unwrap().path()).min().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Adds a document to the training text.
    pub fn more_text(&self) {
        self.write("train.jsonl", &documents(0..12));
    }
}

/// Documents of differing lengths, one JSON line each.
fn documents(numbers: std::ops::Range<usize>) -> String {
    let words = ["a fox", "the hen", "ran home", "saw rain", "and slept", "by the well"];
    numbers
        .map(|n| {
            let text: Vec<&str> = (0..3 + n * 7 % 11).map(|i| words[(n * 5 + i * i) % words.len()]).collect();
            format!("{{\"text\": \"{} {n}.\"}}\n", text.join(" "))
        })
        .collect()
}
