//! Arithmetic on slices: no I/O, no model names, no layers.
