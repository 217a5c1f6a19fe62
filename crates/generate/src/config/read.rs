//! `generation_config.json`.
