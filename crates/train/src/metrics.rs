//! `metrics.jsonl`: one JSON object per logged step, for scripts and for the report.
//!
//! Unlike the TensorBoard files it is read back: a resumed run cuts it after the step that it resumes
//! from, so that the file never holds a step twice, and the report shows the whole history.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::calibration::Bin;

/// What is known after `step` updates. A row carries training figures, evaluation figures, or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Updates made.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Seconds of training so far, those before a resumption included.
    pub time: f64,
    /// Mean training loss since the previous row, in nats per target (squared distances for a regression).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Learning rate of the last update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Norm of the last update's gradient, before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Training tokens per second since the previous row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Validation loss, as the training loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// `exp(eval_loss)`, where the loss is over a vocabulary alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// What else the validation data measures, by the names of its field: `accuracy`, `f1`, …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub eval_scores: BTreeMap<String, f64>,
    /// Of a reward model, how often it is right by how sure it is, on the validation data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reliability: Vec<Bin>,
    /// What else training measures, as means since the previous row: `rewards/margins`, …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
    /// Largest resident memory of the process so far, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rss_mb: Option<f64>,
}

impl Row {
    /// Whether it tells of the validation data.
    #[must_use]
    pub fn is_evaluation(&self) -> bool {
        self.eval_loss.is_some() || !self.eval_scores.is_empty()
    }
}

/// Sums of values by name with how many were added, of which means are told: over a step's batches, and over the steps
/// between two rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Means(BTreeMap<String, (f64, u64)>);

impl Means {
    /// Adds values.
    pub fn add(&mut self, name: &str, values: &[f64]) {
        if !values.is_empty() {
            let (sum, count) = self.0.entry(name.to_owned()).or_default();
            *sum += values.iter().sum::<f64>();
            *count += values.len() as u64;
        }
    }

    /// Adds so many items that are summed already.
    pub fn share(&mut self, name: &str, sum: f64, count: usize) {
        let known = self.0.entry(name.to_owned()).or_default();
        *known = (known.0 + sum, known.1 + count as u64);
    }

    /// Adds what others have summed.
    pub fn merge(&mut self, other: &Self) {
        for (name, (more, items)) in &other.0 {
            let (sum, count) = self.0.entry(name.clone()).or_default();
            *sum += more;
            *count += items;
        }
    }

    /// The means.
    #[must_use]
    pub fn values(&self) -> BTreeMap<String, f64> {
        self.0.iter().map(|(name, (sum, count))| (name.clone(), sum / (*count).max(1) as f64)).collect()
    }
}

/// Why the metrics could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The metrics file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line before the last is no metrics row; cutting there would throw good rows away.
    #[error(
        "{path}, line {line}: not a metrics row ({message}); repair or remove the line, or move the file away to resume without its history"
    )]
    Line {
        /// The metrics file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What the JSON parser said.
        message: String,
    },
}

/// Appends rows to `metrics.jsonl`.
#[derive(Debug)]
pub struct Metrics {
    file: File,
    path: PathBuf,
}

impl Metrics {
    /// Starts a new file, replacing an old one.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path) -> Result<Self, MetricsError> {
        let file = File::create(path).map_err(io_error("create", path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Continues a file after `step`: rows of later steps, which a killed run wrote after its last
    /// checkpoint, are cut off, and so is a torn last line. Also returns the rows that stay.
    ///
    /// # Errors
    /// When the file cannot be opened, or a line other than the last is not a row.
    pub fn resume(path: &Path, step: u64) -> Result<(Self, Vec<Row>), MetricsError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io_error("open", path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error("read", path))?;
        let (rows, keep) = complete_rows(&bytes, step).map_err(|(line, message)| MetricsError::Line {
            path: path.to_owned(),
            line,
            message,
        })?;
        // Shortening in place touches no byte that stays: a crash here loses nothing.
        file.set_len(keep as u64).map_err(io_error("shorten", path))?;
        file.seek(SeekFrom::End(0)).map_err(io_error("extend", path))?;
        Ok((Self { file, path: path.to_owned() }, rows))
    }

    /// Appends one row. Numbers that are not finite become `null`.
    ///
    /// # Errors
    /// When the write fails.
    pub fn push(&mut self, row: &Row) -> Result<(), MetricsError> {
        let mut line = serde_json::to_vec(row).map_err(|error| io_error("write", &self.path)(error.into()))?;
        line.push(b'\n');
        // One write per line: a kill leaves whole lines.
        self.file.write_all(&line).map_err(io_error("write", &self.path))
    }

    /// Waits until the rows are on disk; called before a checkpoint, so that after a power cut the
    /// metrics reach at least as far as the newest checkpoint.
    ///
    /// # Errors
    /// When the disk reports one.
    pub fn sync(&self) -> Result<(), MetricsError> {
        self.file.sync_data().map_err(io_error("sync", &self.path))
    }
}

/// Rows up to `step`, and the length of the file that holds them.
fn complete_rows(bytes: &[u8], step: u64) -> Result<(Vec<Row>, usize), (usize, String)> {
    let mut rows = Vec::new();
    let mut keep = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let last = keep + line.len() == bytes.len();
        match serde_json::from_slice::<Row>(line) {
            // A line without its end was torn, even if it happens to parse.
            Ok(_) if !line.ends_with(b"\n") => break,
            Ok(row) if row.step > step => break,
            Ok(row) => rows.push(row),
            Err(_) if last => break,
            Err(error) => return Err((index + 1, error.to_string())),
        }
        keep += line.len();
    }
    Ok((rows, keep))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MetricsError {
    move |source| MetricsError::Io { action, path: path.to_owned(), source }
}

/// Largest resident memory of this process so far in MiB, where the system tells (Linux).
#[must_use]
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn row(step: u64) -> Row {
        Row { step, tokens: step * 1024, time: step as f64 * 0.1, loss: Some(3.0 / step as f64), ..Row::default() }
    }

    fn written(path: &Path, steps: std::ops::RangeInclusive<u64>) {
        let mut metrics = Metrics::create(path).unwrap();
        steps.for_each(|step| metrics.push(&row(step)).unwrap());
    }

    #[test]
    fn resuming_cuts_later_rows_and_continues() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        written(&path, 1..=10);
        let (mut metrics, rows) = Metrics::resume(&path, 6).unwrap();
        assert_eq!(rows, (1..=6).map(row).collect::<Vec<_>>());
        metrics.push(&row(7)).unwrap();
        let (_, rows) = Metrics::resume(&path, u64::MAX).unwrap();
        assert_eq!(rows, (1..=7).map(row).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_torn_at_any_byte_resumes_to_its_whole_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        written(&path, 1..=3);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let ends = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            let (mut metrics, rows) = Metrics::resume(&path, 3).unwrap();
            assert_eq!(rows.len(), ends);
            metrics.push(&row(4)).unwrap();
            assert_eq!(Metrics::resume(&path, 9).unwrap().1.len(), ends + 1);
        }
    }

    #[test]
    fn damage_in_the_middle_is_an_error_that_names_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\":1}\nnonsense\n{\"step\":3}\n").unwrap();
        let message = Metrics::resume(&path, 9).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl, line 2: not a metrics row"), "{message}");
    }

    #[test]
    fn what_is_not_finite_becomes_null_and_reads_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::create(&path).unwrap();
        metrics.push(&Row { step: 1, loss: Some(f64::NAN), ..Row::default() }).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"loss\":null"));
        assert_eq!(Metrics::resume(&path, 1).unwrap().1[0].loss, None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn peak_memory_is_plausible() {
        // A running test binary holds between one MiB and a few GiB.
        assert!((1.0..100_000.0).contains(&peak_rss_mb().unwrap()));
    }
}
