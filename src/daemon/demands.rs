//! Whether a model does what a configuration asks of it.

use super::DaemonError;
use crate::capture::options::CameraOptions;
use crate::config::Matformer;
use crate::pipeline::{PictureOptions, PictureSpec};

/// Whether a model that has `slices` serves those that a configuration names.
///
/// # Errors
/// The first that it does not.
pub fn check_slices(named: &Matformer, slices: &[String]) -> Result<(), DaemonError> {
    for (key, name) in [
        ("slice", &named.slice),
        ("degraded_slice", &named.degraded_slice),
    ] {
        if let Some(name) = name
            && !slices.contains(name)
        {
            let name = name.clone();
            return Err(match slices {
                // The whole model.
                [_] => DaemonError::NoSlices { key, name },
                _ => DaemonError::Slice {
                    key,
                    name,
                    slices: slices.join(", "),
                },
            });
        }
    }
    Ok(())
}

/// Whether a model sees pictures as a configuration's cameras want them.
///
/// # Errors
/// The first camera that asks for what it does not do.
pub(super) fn check_cameras(
    cameras: &[CameraOptions],
    pictures: &PictureSpec,
) -> Result<(), DaemonError> {
    for camera in cameras {
        let options = PictureOptions {
            soft_tokens: camera.soft_tokens,
            ..PictureOptions::default()
        };
        options
            .check(pictures)
            .map_err(|error| DaemonError::Setting(format!("camera `{}`: {error}", camera.id)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_may_ask_for_what_the_model_does_and_for_nothing_else() {
        let check = |more: &str, soft_tokens: &'static [usize]| {
            let camera = format!("id = \"door\"\ndevice = \"/dev/video0\"\n{more}");
            let pictures = PictureSpec {
                family: "Gemma",
                soft_tokens,
                processor: serde_json::Value::Null,
            };
            check_cameras(&[toml::from_str(&camera).unwrap()], &pictures)
                .map_err(|error| error.to_string())
        };
        assert_eq!(check("", &[]), Ok(()));
        assert_eq!(check("soft_tokens = 70", &[70, 140]), Ok(()));
        for soft_tokens in [&[] as &[usize], &[140]] {
            let error = check("soft_tokens = 70", soft_tokens).unwrap_err();
            let named = error.contains("camera `door`") && error.contains("soft_tokens");
            assert!(named, "{error}");
        }
    }
}
