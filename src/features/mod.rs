//! Raw media to model input: log-mel frames, resampled audio, resized pictures.

pub mod audio_file;
pub mod image;
pub mod log_mel;
pub mod resample;
pub mod speech_check;
pub mod speech_detect;
pub mod speech_evidence;
pub mod speech_split;
pub mod speech_turn;
pub mod wav;
