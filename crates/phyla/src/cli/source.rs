//! Inputs from files and standard input: plain lines as they stand, or records of tables.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use phyla_data::dataset::{Part, Position};
use phyla_data::supervised::records::Record;
use phyla_data::supervised::table::{Table, TableFormat};
use phyla_data::{Error, Result};

use super::error::usage;
use super::shared::{Format, TableArgs};

/// Standard input as a path, for tables.
const STDIN: &str = "/dev/stdin";

/// Bytes of a line at most: a file without line ends must not fill the memory.
const LONGEST: u64 = 1 << 28;

/// Records, or why there are none.
pub type Records<'a, R> = Box<dyn Iterator<Item = Result<R>> + 'a>;

/// Where inputs come from.
pub enum Source {
    /// A text a line.
    Lines(Option<PathBuf>),
    /// Rows of named fields.
    Table(Table),
}

impl Source {
    /// Opens a file, or standard input for `-`. What is named neither by its ending nor by `--format` is lines of text.
    pub fn open(path: &Path, args: &TableArgs) -> anyhow::Result<Self> {
        let stdin = path == Path::new("-");
        let mut settings = args.settings(&[path], false);
        if args.format == Some(Format::Text) || (args.format.is_none() && (stdin || !is_table(path))) {
            let file = (!stdin).then(|| path.to_owned());
            // Before the model, which takes longer to load than a missing file takes to be missed.
            if let Some(path) = &file {
                let found = std::fs::metadata(path);
                let help = "name a file, or - for standard input";
                match found {
                    Ok(found) if found.is_dir() => {
                        return Err(usage(format!("`{}` is a folder", path.display()), help));
                    }
                    Ok(_) => {}
                    Err(error) => return Err(usage(format!("cannot read `{}`: {error}", path.display()), help)),
                }
            }
            return Ok(Self::Lines(file));
        }
        if stdin {
            settings.paths = vec![STDIN.into()];
            if settings.format == Some(TableFormat::Parquet) {
                return Err(usage("Parquet cannot be read from standard input", "name the file"));
            }
            // To look at the first line would take it away.
            settings.delimiter = (settings.format == Some(TableFormat::Csv)).then_some(',');
        }
        Ok(Self::Table(Table::new(settings)?))
    }

    /// The records; those of plain lines are made by `of_line`.
    pub fn records<'a, R: Record + 'a>(
        &'a self,
        of_line: impl Fn(String) -> std::result::Result<R, String> + 'a,
    ) -> Result<Records<'a, R>> {
        match self {
            Self::Table(table) => Ok(Box::new(table.records())),
            Self::Lines(path) => {
                let lines = Lines::open(path.as_deref())?;
                Ok(Box::new(lines.map(move |line| {
                    let (text, position) = line?;
                    of_line(text).map_err(|message| Error::Record { position, message })
                })))
            }
        }
    }
}

/// Whether the name says that the file is a table.
pub fn is_table(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    const ENDINGS: [&str; 13] = [
        "jsonl",
        "ndjson",
        "json",
        "csv",
        "tsv",
        "tab",
        "parquet",
        "conll",
        "conll2003",
        "iob",
        "iob2",
        "bio",
        "conllu",
    ];
    name.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

/// Lines with their places, blank ones included: line `n` of what comes out belongs to line `n` of what went in.
pub struct Lines {
    input: Box<dyn BufRead>,
    path: Arc<Path>,
    number: u64,
    done: bool,
}

impl Lines {
    /// Opens a file, plain or packed (`.gz`), or standard input.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            let path = Path::new("standard input").into();
            return Ok(Self { input: Box::new(BufReader::new(std::io::stdin())), path, number: 0, done: false });
        };
        let file = File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let input: Box<dyn BufRead> = match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz")) {
            true => Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file)))),
            false => Box::new(BufReader::with_capacity(1 << 16, file)),
        };
        Ok(Self { input, path: path.into(), number: 0, done: false })
    }
}

impl Iterator for Lines {
    type Item = Result<(String, Position)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let mut line = vec![];
        let failed = |source| Error::Io { path: self.path.to_path_buf(), source };
        match self.input.by_ref().take(LONGEST + 1).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => {
                self.done = true;
                return Some(Err(failed(error)));
            }
        }
        self.number += 1;
        let position = Position::at(&self.path, Part::Line, self.number);
        if line.len() as u64 > LONGEST {
            if let Err(error) = self.input.skip_until(b'\n') {
                self.done = true;
                return Some(Err(failed(error)));
            }
            let message = format!("a line of more than {} MiB", LONGEST >> 20);
            return Some(Err(Error::Record { position, message }));
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        if line.ends_with(b"\r") {
            line.pop();
        }
        Some(match String::from_utf8(line) {
            Ok(text) => match text.strip_prefix('\u{feff}').filter(|_| self.number == 1) {
                Some(text) => Ok((text.to_owned(), position)),
                None => Ok((text, position)),
            },
            Err(error) => {
                let message = format!("invalid UTF-8 at byte {} of the line", error.utf8_error().valid_up_to());
                Err(Error::Record { position, message })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn lines_keep_their_numbers_whatever_stands_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, b"\xEF\xBB\xBFone\r\n\n\xFF\nlast").unwrap();
        let lines: Vec<_> = Lines::open(Some(&path)).unwrap().collect();
        let text = |at: usize| lines[at].as_ref().unwrap().0.as_str();
        assert_eq!((lines.len(), text(0), text(1), text(3)), (4, "one", "", "last"));
        assert!(lines[2].as_ref().unwrap_err().to_string().contains("line 3: invalid UTF-8 at byte 0"));
        assert!(
            is_table(Path::new("x/a.JSONL.gz")) && !is_table(Path::new("x/a.txt")) && !is_table(Path::new("jsonl"))
        );
    }
}
