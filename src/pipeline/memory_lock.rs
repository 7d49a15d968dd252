//! Text weights locked into memory, where that is wanted and the system lets us.

use crate::model::decoder::Decoder;
use crate::model::weights::Mapped;

/// Locks text weights where that is wanted; what could not be done.
pub(super) fn warnings(decoder: &dyn Decoder, mlock: bool) -> Vec<String> {
    let ple = decoder.ple().warning().map(str::to_owned);
    let locked = mlock.then(|| lock(decoder.weights())).flatten();
    ple.into_iter().chain(locked).collect()
}

/// Locks weights into memory; what the system says where it refuses.
pub(super) fn lock(weights: &Mapped) -> Option<String> {
    let error = weights.lock().err()?;
    log::warn!("{error}");
    Some(error.to_string())
}
