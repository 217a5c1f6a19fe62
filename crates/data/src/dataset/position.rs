//! Where a record stands, for messages that lead to it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The file.
    pub file: Arc<Path>,
    /// What is counted inside the file, and the count; `None` for the file as a whole.
    pub part: Option<(Part, u64)>,
}

/// What a [`Position`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Lines from 1.
    Line,
    /// Rows from 1.
    Row,
    /// Bytes from 0.
    Byte,
}

impl Position {
    /// The file as a whole.
    pub fn whole(file: impl Into<Arc<Path>>) -> Self {
        Self { file: file.into(), part: None }
    }

    /// A counted place in the file.
    pub fn at(file: &Arc<Path>, part: Part, count: u64) -> Self {
        Self { file: file.clone(), part: Some((part, count)) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.part {
            None => Ok(()),
            Some((Part::Line, line)) => write!(f, ", line {line}"),
            Some((Part::Row, row)) => write!(f, ", row {row}"),
            Some((Part::Byte, byte)) => write!(f, ", byte {byte}"),
        }
    }
}
