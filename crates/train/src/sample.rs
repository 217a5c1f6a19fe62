//! Texts that a model writes while it learns.

use phyla_data::tokenizer::Tokenizer;
use phyla_models::Model;

use crate::TrainError;
use crate::recipe::Sample;
use crate::report::SampleText;

pub fn samples(_: &Model, _: &Tokenizer, _: &Sample, _: u64) -> Result<Vec<SampleText>, TrainError> {
    Ok(vec![])
}
