//! Marian: BART's layers over sinusoids, made to translate, perhaps with a vocabulary for each language
//! (Junczys-Dowmunt et al. 2018; the opus-mt models).

use phyla_nn::{EmbeddingSpec, TokenTable};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::bart::{self, ALIASES, IGNORED, NAMES, Variant};
use crate::config::{self, ConfigError, count, invalid};
use crate::family::Family;
use crate::names::Rule;
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field: BART's and two more.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    #[serde(flatten)]
    base: bart::Config,
    #[serde(flatten)]
    tables: Tables,
}

/// Which tower has which table.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tables {
    decoder_vocab_size: Option<usize>,
    share_encoder_decoder_embeddings: bool,
}

/// Both halves of a [`Config`], as a file holds them.
#[derive(Deserialize)]
struct Fields {
    #[serde(flatten)]
    base: bart::Config,
    #[serde(flatten)]
    tables: Tables,
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let defaults = json!({"vocab_size": 58_101, "pad_token_id": 58_100, "eos_token_id": 0,
            "decoder_start_token_id": 58_100, "decoder_vocab_size": null, "share_encoder_decoder_embeddings": true});
        config::over(deserializer, defaults).map(|Fields { base, tables }| Self { base, tables })
    }
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "marian";
    const ARCHITECTURES: &'static [(Task, &'static str)] =
        &[(Task::Seq2SeqLm, "MarianMTModel"), (Task::Base, "MarianModel")];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    // Old files hold the sinusoids, too; they are computed.
    const BUFFERS: &'static [&'static str] = &["embed_positions.weight", "final_logits_bias"];
    const ALIASES: &'static [(&'static str, &'static str)] = ALIASES;
    const IGNORED: &'static [&'static str] = IGNORED;

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let vocab = self.base.vocab_size;
        let target = count("decoder_vocab_size", self.tables.decoder_vocab_size.unwrap_or(vocab), "vocabulary")?;
        let mut arch = self.base.build(wanted, Variant::Marian, target)?;
        if self.tables.share_encoder_decoder_embeddings {
            return match target == vocab {
                true => Ok(arch),
                false => Err(invalid("decoder_vocab_size", format!("{target} rows cannot be shared with {vocab}"))),
            };
        }
        let source = arch.tokens;
        let target = EmbeddingSpec { rows: target, padding: self.base.padding(target)?, ..source };
        for (tower, table) in arch.towers_mut().into_iter().zip([source, target]) {
            tower.embed.tokens = TokenTable::Own(table);
        }
        Ok(arch)
    }
}
