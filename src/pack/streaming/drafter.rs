//! The drafter of a model on the hub: small enough to be fetched whole before anything is packed.

use std::path::PathBuf;

use super::super::error::PackError;
use super::super::source::Location;
use super::staging::Staging;
use super::workplace::Workplace;
use super::{HubSource, Told, files};

/// The published ones have 158 MB; a model that is named by mistake has more.
const MAX_BYTES: u64 = 1 << 30;

/// Fetches the drafter that is wanted into a directory of its own in the workplace, which ends with that; gives the directory.
pub(super) fn fetch(
    hub: &HubSource<'_>,
    place: &Workplace,
    told: &mut Told<'_>,
) -> Result<Option<PathBuf>, PackError> {
    let Some(repository) = hub.drafter else {
        return Ok(None);
    };
    let hub = HubSource {
        repository,
        gguf: None,
        tokenizer: None,
        drafter: None,
        ..*hub
    };
    let place = place.inner("drafter", &hub)?;
    place.small_files(hub.client, repository, told)?;
    let weights = place.weights(repository)?;
    let bytes = weights
        .iter()
        .fold(0, |sum: u64, file| sum.saturating_add(file.size));
    if bytes > MAX_BYTES {
        return Err(PackError::Repository {
            repository: repository.id.clone(),
            reason: format!(
                "has {bytes} bytes of weights, and a drafter fewer than {MAX_BYTES}: name a repository whose name ends in -assistant"
            ),
        });
    }
    let mut staging = Staging::new(&hub, &place, &files(repository, &weights), told.fetched)?;
    for file in weights {
        staging.add_safetensors(file)?;
        staging.fetch(&Location {
            path: place.path(file),
            bytes: 0..file.size,
        })?;
    }
    Ok(Some(place.source().to_owned()))
}
