//! `[frigate]` as cameras.

use super::{CameraOptions, CameraType};
use crate::capture::frigate::FrigateCamera;
use crate::capture::motion::Motion;
use crate::frigate::FrigateOptions;

/// Frigate's cameras as cameras here, each of its name in lower case.
///
/// # Errors
/// A value of the section does not fit: which key, what stands there and what may.
pub fn frigate_cameras(frigate: &FrigateOptions) -> Result<Vec<CameraOptions>, String> {
    if !frigate.enabled {
        return Ok(Vec::new());
    }
    frigate.check()?;
    let camera = |name: &String| CameraOptions {
        id: FrigateOptions::id_of(name),
        name: Some(name.clone()),
        kind: CameraType::Frigate(FrigateCamera {
            frigate: frigate.clone(),
            name: name.clone(),
        }),
        fps: 1.0,
        // That is Frigate's work.
        motion: Motion {
            enabled: false,
            ..Motion::default()
        },
        every_s: 0,
        cooldown_s: frigate.cooldown_s,
        soft_tokens: None,
        prompt: None,
        publish_image: true,
    };
    Ok(frigate.cameras.iter().map(camera).collect())
}
