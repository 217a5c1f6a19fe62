//! The options that commands over data share: which model, how inputs come together, which column is what.

use std::collections::BTreeMap;
use std::path::Path;

use clap::ValueEnum;
use phyla::device::Choice;
use phyla::{Session, adapt};
use phyla_data::dataset::Faults;
use phyla_data::supervised::lengths::LengthBatches;
use phyla_data::supervised::table::{Column, TableFormat, TableSettings};

use super::model::{self, AdapterArgs, Dtype, QuantizeArgs};

#[derive(clap::Args)]
pub struct ModelArgs {
    /// A folder, or a hub id such as org/name
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub model: String,

    /// Type of the weights; auto is the stored one
    #[arg(long, value_enum, default_value = "auto")]
    pub dtype: Dtype,

    #[command(flatten)]
    pub bits: QuantizeArgs,

    #[command(flatten)]
    pub adapters: AdapterArgs,

    /// auto, cpu, cuda:N or metal
    #[arg(long, default_value = "auto")]
    pub device: Choice,
}

impl ModelArgs {
    pub fn session(&self) -> anyhow::Result<Session> {
        let session = model::session(&self.model, self.device, self.dtype, self.bits)?;
        adapt(&session.model, &self.adapters.adapters)?;
        Ok(session)
    }
}

#[derive(clap::Args)]
pub struct BatchArgs {
    /// Tokens that are computed together, filling included
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = count())]
    pub batch_tokens: usize,

    /// Inputs in memory at once, among which like lengths are put together
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count())]
    pub chunk: usize,

    /// Tokens of a row at most; longer texts are cut, or read in windows [default: as many as the model can take]
    #[arg(long, value_name = "N", value_parser = count())]
    pub max_len: Option<usize>,
}

impl BatchArgs {
    pub fn batches(&self) -> LengthBatches {
        LengthBatches { tokens: self.batch_tokens, chunk: self.chunk, ..LengthBatches::default() }
    }
}

/// Counts that fit memory many times over; more is a slip of the finger.
pub fn count() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser;
    clap::value_parser!(u64).range(1..=1 << 28).map(|count| count as usize)
}

/// What kind of file, by the names of the data crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A text a line
    Text,
    /// One JSON object a line
    Jsonl,
    /// A list of JSON objects, or SQuAD's nested one
    Json,
    /// Cells between commas, in quotes where needed
    Csv,
    /// Cells between tabs
    Tsv,
    /// Apache Parquet
    Parquet,
    /// A word and its tag a line
    Conll,
}

impl Format {
    pub fn table(self) -> TableFormat {
        match self {
            Self::Text => TableFormat::Text,
            Self::Jsonl => TableFormat::Jsonl,
            Self::Json => TableFormat::Json,
            Self::Csv => TableFormat::Csv,
            Self::Tsv => TableFormat::Tsv,
            Self::Parquet => TableFormat::Parquet,
            Self::Conll => TableFormat::Conll,
        }
    }
}

#[derive(clap::Args)]
pub struct TableArgs {
    /// Kind of file, where its name does not tell
    #[arg(long, value_enum)]
    pub format: Option<Format>,

    /// Which column plays which role (text, text_b, label, tokens, tags, question, context, choices, source, target, …),
    /// by name or number from 0; repeatable
    #[arg(long = "column", value_name = "ROLE=COLUMN", value_parser = column)]
    pub columns: Vec<(String, Column)>,

    /// Whether the first line of a table names its columns [default: known names there decide]
    #[arg(long, value_name = "BOOL")]
    pub header: Option<bool>,
}

impl TableArgs {
    /// The settings for files.
    pub fn settings(&self, paths: &[impl AsRef<Path>], skip: bool) -> TableSettings {
        let mut settings = TableSettings::new("");
        settings.paths = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        settings.format = self.format.map(Format::table);
        settings.columns = self.columns.iter().cloned().collect::<BTreeMap<_, _>>();
        settings.header = self.header;
        settings.faults = if skip { Faults::Skip } else { Faults::Refuse };
        settings
    }
}

/// Readers of tables name the keys of a recipe; here these are options.
pub fn as_options(error: anyhow::Error) -> anyhow::Error {
    let message = error.to_string();
    let about = ["columns", "`header", "`format`", "`quotes"].iter().any(|key| message.contains(key));
    let of_data = error.is::<phyla_data::Error>() || matches!(error.downcast_ref(), Some(phyla::Error::Data(_)));
    if of_data && about {
        let help = "as options these are --column ROLE=COLUMN (such as text=0), --header true or false, --format";
        return super::error::usage(message, help);
    }
    error
}

fn column(text: &str) -> Result<(String, Column), String> {
    let (role, name) = text.split_once('=').ok_or("expected ROLE=COLUMN, such as text=review")?;
    let column = match name.parse() {
        Ok(number) => Column::Number(number),
        Err(_) if name.contains(',') => Column::Several(name.split(',').map(str::to_owned).collect()),
        Err(_) => Column::Name(name.to_owned()),
    };
    Ok((role.to_owned(), column))
}
