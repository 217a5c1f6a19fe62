//! Rewards by a program of the user's, over lines of JSON.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phyla_data::supervised::records::Asked;
use serde_json::{Map, Value};

use super::Item;
use crate::TrainError;

/// A program that runs as long as the training.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    /// Lines for its standard input: a thread of its own writes them, so that neither side waits for the other.
    questions: Option<Sender<String>>,
    answers: Receiver<std::io::Result<String>>,
    /// The last lines of its standard error.
    complaints: Arc<Mutex<VecDeque<String>>>,
    timeout: Duration,
}

/// Lines of standard error that are kept for messages.
const KEPT: usize = 5;

impl Program {
    /// Starts it.
    pub fn start(command: &[String], timeout: f64) -> Result<Self, TrainError> {
        let name = command.join(" ");
        let failed = |what: String| TrainError::Reward { name: name.clone(), what };
        let Some((program, arguments)) = command.split_first() else { return Err(failed("no program".into())) };
        let mut starting = Command::new(program);
        starting.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the training alone, which ends the program when it has saved.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut starting, 0);
        let mut child = starting.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("has no standard streams".into()));
        };
        let (questions, asked) = channel::<String>();
        std::thread::spawn(move || {
            let mut stdin = stdin;
            // A program that no longer reads shows by not answering.
            asked.into_iter().try_for_each(|line| writeln!(stdin, "{line}").and_then(|()| stdin.flush())).ok();
        });
        let (said, answers) = channel();
        std::thread::spawn(move || BufReader::new(stdout).lines().try_for_each(|line| said.send(line)).ok());
        let complaints = Arc::new(Mutex::new(VecDeque::new()));
        let kept = complaints.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_back(line);
                if kept.len() > KEPT {
                    kept.pop_front();
                }
            }
        });
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX);
        Ok(Self { name, child, questions: Some(questions), answers, complaints, timeout })
    }

    /// One answer for each completion.
    pub fn scores(&mut self, items: &[Item]) -> Result<Vec<Option<f64>>, TrainError> {
        for item in items {
            let sent = self.questions.as_ref().is_some_and(|questions| questions.send(question(item)).is_ok());
            if !sent {
                return Err(self.ended());
            }
        }
        items.iter().enumerate().map(|(at, item)| self.answer(at, item)).collect()
    }

    fn answer(&mut self, at: usize, item: &Item) -> Result<Option<f64>, TrainError> {
        let line = match self.answers.recv_timeout(self.timeout) {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Err(self.failed(format!("its answer cannot be read: {error}"))),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = self.timeout.as_secs_f64();
                return Err(self.failed(format!("no answer to completion {} within {seconds} s", at + 1)));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
        };
        let value: Option<Value> = serde_json::from_str(line.trim()).ok();
        let said = match &value {
            Some(Value::Object(said)) => said.get("reward"),
            other => other.as_ref(),
        };
        match said {
            Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) if number.as_f64().is_some() => Ok(number.as_f64()),
            _ => Err(self.failed(format!(
                "expected a number, {{\"reward\": number}} or null for {:?}, found {line:?}",
                shortened(item.completion)
            ))),
        }
    }

    /// The error of a program that is gone.
    fn ended(&mut self) -> TrainError {
        // Its streams close a moment before it can be waited for.
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        self.failed(format!("it ended before it had answered ({status})"))
    }

    fn failed(&self, what: String) -> TrainError {
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Vec<&str> = complaints.iter().map(String::as_str).collect();
        let said = if said.is_empty() { String::new() } else { format!("; it said: {}", said.join(" | ")) };
        TrainError::Reward { name: self.name.clone(), what: format!("{what}{said}") }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its input ends, and with it a program that works as it should; any other is stopped.
        self.questions = None;
        for _ in 0..20 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn question(item: &Item) -> String {
    let mut line = Map::new();
    let prompt = match &item.prompt.asked {
        Asked::Text(text) => Value::from(text.clone()),
        Asked::Messages(messages) => Value::from(messages.clone()),
    };
    line.insert("prompt".into(), prompt);
    line.insert("completion".into(), item.completion.into());
    for (name, value) in &item.prompt.columns {
        line.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(line).to_string()
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use phyla_data::supervised::prompts::Source;

    use super::*;

    fn asked(script: &str, timeout: f64, times: usize) -> Result<Vec<Option<f64>>, String> {
        let columns = Map::from_iter([("n".to_owned(), Value::from(3))]);
        let prompt = Source { asked: Asked::Text("a \"b\"\n".into()), text: String::new(), columns };
        let item = Item { prompt: &prompt, completion: "yes", ended: true, tokens: 1 };
        let command = ["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let mut program = Program::start(&command, timeout).map_err(|error| error.to_string())?;
        program.scores(&vec![item; times]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_answered_by_a_line() {
        let script = "while read line; do case \"$line\" in *'\"n\":3'*) echo 1.5;; *) echo 0;; esac; done";
        assert_eq!(asked(script, 60., 300), Ok(vec![Some(1.5); 300]));
        assert_eq!(asked("read a; echo '{\"reward\": -2}'; read b; echo null", 60., 2), Ok(vec![Some(-2.), None]));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for (script, told) in [
            ("read a; echo nonsense", "found \"nonsense\""),
            ("read a; echo '{\"score\": 1}'", "expected a number"),
            ("read a; echo oh dear >&2; sleep 0.2; exit 3", "it ended before it had answered (exit status: 3)"),
            ("sleep 5", "no answer to completion 1 within 0.3 s"),
        ] {
            let message = asked(script, if script.starts_with("sleep 5") { 0.3 } else { 60. }, 1).unwrap_err();
            assert!(message.contains(told), "{script}: {message}");
        }
        let message = asked("read a; echo oh dear >&2; sleep 0.2; exit 3", 60., 1).unwrap_err();
        assert!(message.contains("it said: oh dear"), "{message}");
        let message = Program::start(&["no-such-program-here".to_owned()], 1.).unwrap_err().to_string();
        assert!(message.contains("no-such-program-here") && message.contains("cannot be started"), "{message}");
    }
}
