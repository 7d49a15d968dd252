//! Raw media to model input: log-mel frames, resampled audio, resized pictures.
pub mod image;
