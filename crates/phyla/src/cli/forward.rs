//! `phyla forward`: one pass over given ids, every number of it written down: how to compare with others.

mod ids;

use std::path::{Path, PathBuf};

use anyhow::Context;
use candle_core::Device;
use phyla::device::Choice;
use phyla_models::checkpoint::{self, SafetensorsWriter, TensorSpec, Values};
use phyla_models::{Input, Model};
use phyla_nn::TokenTypes;
use phyla_ops::{Tensor, cpu};
use serde_json::json;

use super::error::usage;
use super::model::{self, AdapterArgs, Dtype, QuantizeArgs};
use super::output;

/// Run a model once over given ids and write its numbers
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla forward --model models/small --ids ids.json --output out.safetensors
  phyla forward --model models/small --ids ids.json --output out.safetensors --hidden-states

ids.json is an object of nested lists, a row for each sequence:
  {\"input_ids\": [[15, 7, 2], [3, 9, 0]], \"attention_mask\": [[1, 1, 1], [1, 1, 0]]}
It may also hold position_ids, token_type_ids, and document_ids: packed rows, where a token sees the
tokens of its own document only. An encoder-decoder needs decoder_input_ids too, perhaps with
decoder_attention_mask; num_choices says how many rows are the choices of one question.

The output holds, in f32, what the head that `architectures` names gives: `logits`, for instance
[rows, tokens, vocabulary], or `start_logits` and `end_logits`, `prediction_logits` and
`seq_relationship_logits`, `pooler_output`; and `last_hidden_state` [rows, tokens, hidden], with
`encoder_last_hidden_state` of an encoder-decoder. --hidden-states adds `hidden_states.N` (or
`encoder_hidden_states.N` and `decoder_hidden_states.N`): the embeddings and what each layer gives,
the last one after the final norm. What stands at padding means nothing.")]
pub struct Args {
    /// A folder, or a hub id such as org/name
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,

    /// A JSON file with input_ids; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    ids: PathBuf,

    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Type of the weights in the products; auto is the stored one
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,

    #[command(flatten)]
    bits: QuantizeArgs,

    #[command(flatten)]
    adapters: AdapterArgs,

    /// auto, cpu, cuda:N or metal
    #[arg(long, default_value = "auto")]
    device: Choice,

    /// Write what every layer gives, too
    #[arg(long)]
    hidden_states: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let input = ids::read(&args.ids)?;
    warn_of_hidden_rows("attention_mask", &input);
    if let Some(decoder) = &input.decoder {
        warn_of_hidden_rows("decoder_attention_mask", decoder);
    }
    let model = model::open(&args.model, args.device, args.dtype, args.bits, &args.adapters)?;
    let tensors = tensors(&model, &input, args.hidden_states)?;
    write(&args.output, &tensors).with_context(|| format!("cannot write `{}`", args.output.display()))?;
    if args.json {
        let tensors: Vec<_> =
            tensors.iter().map(|(name, tensor)| json!({ "name": name, "shape": tensor.dims() })).collect();
        return output::json(&json!({ "output": args.output, "tensors": tensors }));
    }
    output::stdout(|out| {
        tensors.iter().try_for_each(|(name, tensor)| writeln!(out, "{name:18} {:?}", tensor.dims()))?;
        writeln!(out, "written to {}", args.output.display())
    })
}

/// A row that is hidden whole still gives numbers; they mean nothing.
fn warn_of_hidden_rows(key: &str, input: &Input) {
    let rows = input.attention_mask.iter().flat_map(|mask| mask.chunks(input.time.max(1)));
    if let Some(row) = rows.into_iter().position(|row| row.iter().all(|&seen| seen == 0)) {
        tracing::warn!("{key}: row {row} hides every token, so what is written for it means nothing");
    }
}

/// Everything to be written, by name.
fn tensors(model: &Model, input: &Input, hidden_states: bool) -> anyhow::Result<Vec<(String, Tensor)>> {
    let rows = model.arch.vocab();
    if model.arch.main().embed.token_types == TokenTypes::TokenTable
        && let Some(id) = input.token_types.iter().flatten().find(|&&id| id as usize >= rows)
    {
        let wrong = format!("token_type_ids: {id} is outside the token table of {rows} rows, which it indexes here");
        return Err(usage(wrong, "give ids of tokens, for instance of the speakers"));
    }
    phyla_ops::no_grad(|| model.run(input, hidden_states)).map_err(mistaken)
}

/// Ids that do not fit the model are the user's.
fn mistaken(error: candle_core::Error) -> anyhow::Error {
    // The rest of what candle says is a backtrace, when one is asked for.
    let error = match error {
        candle_core::Error::WithBacktrace { inner, .. } => *inner,
        error => error,
    };
    usage(error.to_string(), "the file given by --ids must fit the model")
}

fn write(path: &Path, tensors: &[(String, Tensor)]) -> anyhow::Result<()> {
    let specs: Vec<TensorSpec> = (tensors.iter())
        .map(|(name, tensor)| TensorSpec {
            name: name.clone(),
            dtype: checkpoint::Dtype::F32,
            shape: tensor.dims().to_vec(),
        })
        .collect();
    let mut writer = SafetensorsWriter::create_file(path, &specs)?;
    for (name, tensor) in tensors {
        let data = tensor.data().to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?.contiguous()?;
        writer.write(name, Values::F32(&cpu::view::<f32>(&data)?))?;
    }
    writer.finish()?;
    Ok(())
}
