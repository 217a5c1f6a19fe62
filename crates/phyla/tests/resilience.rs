//! The program itself, killed at random moments, interrupted, started twice: what it leaves, says and returns.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A recipe and its run, in a folder that goes with them.
struct Run {
    folder: tempfile::TempDir,
}

const RECIPE: &str = "output = 'ROOT/run'\nseed = 3\n\
    [model]\nmodel_type = 'llama'\nhidden_size = 32\nintermediate_size = 64\nnum_hidden_layers = 2\n\
    num_attention_heads = 2\nmax_position_embeddings = 64\ntie_word_embeddings = true\n\
    [tokenizer]\nkind = 'characters'\n\
    [data]\nkind = 'stories'\nbytes = 20000\nvalidation_fraction = 0.1\nmax_len = 64\n\
    [optim]\nlr = 3e-3\nclip = 1.0\n\
    [train]\nsteps = STEPS\nbatch = 8\nlog_every = 5\neval_every = 7\nsave_every = 2\nkeep_last = 2\n\
    dropout = { residual = 0.1 }\n";

impl Run {
    fn new(steps: usize) -> Self {
        let run = Self { folder: tempfile::tempdir().unwrap() };
        let text = RECIPE.replace("ROOT", &run.folder.path().display().to_string());
        std::fs::write(run.folder.path().join("recipe.toml"), text.replace("STEPS", &steps.to_string())).unwrap();
        run
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phyla"));
        command.arg("train").arg(self.folder.path().join("recipe.toml")).args(more);
        command.env("XDG_CACHE_HOME", self.folder.path().join("cache"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn output(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    fn spawn(&self, more: &[&str]) -> Child {
        self.command(more).spawn().unwrap()
    }

    fn weights(&self) -> Vec<u8> {
        std::fs::read(self.root().join("model/model.safetensors")).unwrap()
    }

    /// Waits until the metrics have so many lines.
    fn wait_for_rows(&self, count: usize) {
        let start = Instant::now();
        while std::fs::read_to_string(self.root().join("metrics.jsonl")).map_or(0, |text| text.lines().count()) < count
        {
            assert!(start.elapsed() < Duration::from_secs(60), "the run does not get going");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The metrics without what a clock or the system measured, each line as it stands.
    fn metrics(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.root().join("metrics.jsonl")).unwrap();
        let timeless = |line: &str| {
            let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
            for key in ["time", "tokens_per_second", "peak_rss_mb"] {
                row.as_object_mut().unwrap().remove(key);
            }
            row.to_string()
        };
        text.lines().map(timeless).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// A small generator of moments; the seed is printed with every failure.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn kills_at_random_moments_cost_no_bit_of_the_weights() {
    let (steps, wanted, seed) = (40, number("PHYLA_TEST_KILLS", 30), number("PHYLA_TEST_SEED", 1));
    let whole = Run::new(steps);
    let start = Instant::now();
    let output = whole.output(&["--quiet"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let usual = start.elapsed();
    let mut moments = Moments(seed);
    let (mut kills, mut runs, mut half_written, mut lost) = (0, 0, 0, 0);
    // A safety net, far above the usual 10 s: kills that come too early make no progress.
    while kills < wanted && start.elapsed() < Duration::from_secs(20 + 3 * wanted) {
        let run = Run::new(steps);
        runs += 1;
        loop {
            let mut child = run.spawn(&["--resume", "--quiet"]);
            // Anywhere from the first file to a bit beyond the end of what is left.
            let moment = usual.mul_f64(moments.next(1000) as f64 / 1000. * 0.7);
            std::thread::sleep(moment);
            child.kill().unwrap();
            let ended = child.wait().unwrap();
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            if ended.success() {
                break;
            }
            assert_eq!(ended.code(), None, "seed {seed}: {said}");
            kills += 1;
            let folders = std::fs::read_dir(run.root().join("checkpoints")).into_iter().flatten().flatten();
            let names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
            half_written += usize::from(names.iter().any(|name| name.ends_with(".tmp")));
            lost += names.iter().filter(|name| name.contains("damaged")).count();
            if kills >= wanted {
                let output = run.output(&["--resume", "--quiet"]);
                assert!(output.status.success(), "seed {seed}: {}", text(&output.stderr));
                break;
            }
        }
        assert_eq!(whole.weights(), run.weights(), "seed {seed}, run {runs}: the final weights differ");
        assert_eq!(whole.metrics(), run.metrics(), "seed {seed}, run {runs}: the metrics differ");
    }
    println!("{kills} kills in {runs} runs, {half_written} of them while a checkpoint was written, {lost} lost");
    assert!(kills >= wanted && lost == 0, "seed {seed}: {kills} kills, {lost} damaged checkpoints");
}

#[test]
fn signals_save_and_end_with_their_status() {
    for (name, status) in [("-INT", 130), ("-TERM", 143)] {
        let run = Run::new(100_000);
        let child = run.spawn(&[]);
        run.wait_for_rows(2);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains("stopping after this step to save a checkpoint"), "{said}");
        assert!(!said.contains("error"), "{said}");
        assert!(text(&output.stdout).contains("stopped and saved; go on with --resume"));
        let latest = std::fs::read_to_string(run.root().join("latest")).unwrap();
        let step: u64 = latest.trim().strip_prefix("step-").unwrap().parse().unwrap();
        assert!(step >= 5 && !run.root().join("model").exists());
        // And it goes on from just there.
        let rows = std::fs::read_to_string(run.root().join("metrics.jsonl")).unwrap().lines().count();
        let child = run.spawn(&["--resume", "--json"]);
        run.wait_for_rows(rows + 2);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert!(text(&output.stderr).contains(&format!("resuming after step {step} ")), "{}", text(&output.stderr));
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(summary["stopped"], "interrupted");
        assert!(summary["steps"].as_u64().unwrap() > step);
    }
}

#[test]
fn a_second_run_in_the_same_folder_is_told_what_to_do() {
    let run = Run::new(100_000);
    let mut child = run.spawn(&["--quiet"]);
    run.wait_for_rows(1);
    for more in [&["--quiet"][..], &["--quiet", "--resume"]] {
        let output = run.output(more);
        assert_eq!(output.status.code(), Some(2));
        let expected = format!("is in use by another run (process {}); wait for it, stop it", child.id());
        assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = run.output(&["--quiet"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("already holds a run") && said.contains("continue it with --resume"), "{said}");
}

#[test]
fn a_full_disk_is_a_failure_in_one_message_and_the_run_goes_on_with_room() {
    let run = Run::new(8);
    std::fs::create_dir_all(run.root()).unwrap();
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount").args(arguments).arg(run.root()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=700k", "tmpfs"]) {
        println!("skipped: mounting a small file system takes rights that this user has not");
        return;
    }
    let output = run.output(&["--quiet"]);
    let roomy = mount(&["-o", "remount,size=50m"]);
    let resumed = run.output(&["--quiet", "--resume"]);
    let unmounted = Command::new("umount").arg(run.root()).status().unwrap();
    let said = text(&output.stderr);
    println!("{}", said.trim_end());
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("error: cannot ") && said.contains("No space left on device"), "{said}");
    assert!(roomy && resumed.status.success() && unmounted.success(), "{}", text(&resumed.stderr));
}

#[test]
fn divergence_and_a_changed_recipe_have_their_statuses() {
    let run = Run::new(6);
    assert!(run.output(&["--quiet"]).status.success());
    let output = run.output(&["--quiet", "--resume", "--set", "train.batch=16"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("the recipe has changed since the run began") && said.contains("train.batch: 8 -> 16"),
        "{said}"
    );
    let output = run.output(&["--quiet", "--resume", "--set", "train.steps=60", "--set", "optim.lr=1e38"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(said.starts_with("error: step ") && said.contains("the last"), "{said}");
    // Nothing is lost: with the old rate the run goes on.
    let output = run.output(&["--quiet", "--resume", "--set", "train.steps=9"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}
