//! Which layers differ, as Qwen's configurations state it: sliding windows layer by layer or from some layer on, and
//! experts in every so many layers.

use crate::ConfigError;
use crate::config::{invalid, refused};

/// Whether a layer is the last of every `step`.
pub(crate) fn is_last_of(step: usize, layer: usize) -> bool {
    (layer + 1).is_multiple_of(step)
}

/// As [`by_layer`], but without `layer_types` every other layer below `max_window_layers` has the window, the first
/// among them: the rule of Qwen2's mixtures.
pub(crate) fn alternating(
    layers: usize,
    layer_types: Option<&[String]>,
    window: Option<usize>,
    max_window_layers: usize,
) -> Result<Vec<Option<usize>>, ConfigError> {
    match layer_types {
        Some(_) => by_layer(layers, layer_types, window, max_window_layers),
        None => Ok((0..layers).map(|i| window.filter(|_| i < max_window_layers && i % 2 == 0)).collect()),
    }
}

/// The window of each layer; `None` attends fully.
pub(crate) fn by_layer(
    layers: usize,
    layer_types: Option<&[String]>,
    window: Option<usize>,
    max_window_layers: usize,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let Some(types) = layer_types else {
        return Ok((0..layers).map(|i| window.filter(|_| i >= max_window_layers)).collect());
    };
    if types.len() != layers {
        return Err(invalid("layer_types", format!("expected one for each of {layers} layers, found {}", types.len())));
    }
    (types.iter())
        .map(|kind| match (kind.as_str(), window) {
            ("full_attention" | "attention", _) => Ok(None),
            ("sliding_attention", Some(window)) => Ok(Some(window)),
            ("sliding_attention", None) => {
                Err(invalid("layer_types", "sliding_attention needs use_sliding_window and sliding_window"))
            }
            (other, _) => {
                Err(refused("layer_types", format!("{other:?}; known are full_attention and sliding_attention")))
            }
        })
        .collect()
}
