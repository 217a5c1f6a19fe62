//! The watermark: green ids are likelier by a bias. What is green is said in `crate::watermark`.

use super::{History, Processor};
use crate::sampler::likeliest;
use crate::watermark::{Green, SeedingScheme, WatermarkingConfig};

/// Adds to the logits of green ids. Texts shorter than the context are left as they are.
#[derive(Clone, Debug)]
pub struct Watermark {
    config: WatermarkingConfig,
    green: Green,
}

/// Ids that are tried where each decides for itself whether it is green.
const TRIED: usize = 40;

impl Watermark {
    /// Of these settings.
    pub fn new(config: WatermarkingConfig) -> Self {
        Self { green: Green::new(&config), config }
    }
}

impl Processor for Watermark {
    fn name(&self) -> &'static str {
        "watermarking_config"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let ids = history.ids();
        if ids.len() < self.config.context_width {
            return;
        }
        let green = match self.config.seeding_scheme {
            SeedingScheme::Left => self.green.ids(ids, row.len()),
            SeedingScheme::Own => {
                let mut text = ids[ids.len() - self.config.context_width..].to_vec();
                let mut tried = likeliest(row, TRIED);
                tried.retain(|&id| {
                    text.push(id);
                    let green = self.green.ids(&text, row.len()).contains(&id);
                    text.pop();
                    green
                });
                tried
            }
        };
        for id in green {
            row[id as usize] += self.config.bias;
        }
    }
}
