//! Texts that a model writes while it learns.
