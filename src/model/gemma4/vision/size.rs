//! The size that a picture is brought to, and the patches that it is cut into.
//!
//! Source: reference section 3.1.

use crate::model::encoder::VisionError;
use crate::model::gemma4::config::VisionConfig;

/// Patches of a picture, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Patches side by side.
    pub columns: usize,
    /// Patches below each other.
    pub rows: usize,
}

impl Grid {
    /// The patches of a picture of such a size.
    ///
    /// # Errors
    /// A side is no whole number of soft tokens, or has more patches than there are positions.
    pub fn of(
        config: &VisionConfig,
        width_px: usize,
        height_px: usize,
    ) -> Result<Grid, VisionError> {
        let unfit = |reason| VisionError::Picture {
            width_px,
            height_px,
            reason,
        };
        let token_px = token_px(config);
        let whole = |side: usize| side > 0 && side.is_multiple_of(token_px);
        if !whole(width_px) || !whole(height_px) {
            return Err(unfit(format!(
                "a soft token stands for {token_px} x {token_px} of them"
            )));
        }
        let (columns, rows) = (width_px / config.patch_size, height_px / config.patch_size);
        let positions = config.position_embedding_size;
        if columns.max(rows) > positions {
            return Err(unfit(format!(
                "they are {columns} x {rows} patches, and this checkpoint knows {positions} positions a side (vision_config.position_embedding_size); take fewer soft tokens, or a part of the picture"
            )));
        }
        Ok(Grid { columns, rows })
    }

    /// How many there are.
    pub fn patches(self) -> usize {
        self.columns * self.rows
    }
}

/// Side of the square that one soft token stands for, pixels.
fn token_px(config: &VisionConfig) -> usize {
    config.patch_size * config.pooling_kernel_size
}

/// Soft tokens of a picture of such a size.
pub fn soft_tokens(config: &VisionConfig, [width_px, height_px]: [usize; 2]) -> usize {
    let token_px = token_px(config);
    (width_px / token_px) * (height_px / token_px)
}

/// Width and height of the largest picture of the shape of `width_px` x `height_px` that becomes at most `soft_tokens` soft tokens.
///
/// # Errors
/// There is no pixel.
pub fn fitted(
    config: &VisionConfig,
    soft_tokens: usize,
    width_px: usize,
    height_px: usize,
) -> Result<[usize; 2], VisionError> {
    if width_px == 0 || height_px == 0 {
        return Err(VisionError::Picture {
            width_px,
            height_px,
            reason: "it has none".to_owned(),
        });
    }
    let token_px = token_px(config);
    let most_pixels = (soft_tokens * token_px * token_px) as f64;
    let factor = (most_pixels / (height_px as f64 * width_px as f64)).sqrt();
    let tokens = |side: usize| (factor * side as f64 / token_px as f64).floor() as usize;
    // What is too thin for the breadth of one soft token gets that, and is as long as it may be.
    let [across, down] = match [tokens(width_px), tokens(height_px)] {
        [_, 0] => [(width_px / height_px).clamp(1, soft_tokens), 1],
        [0, _] => [1, (height_px / width_px).clamp(1, soft_tokens)],
        fitting => fitting,
    };
    Ok([across * token_px, down * token_px])
}
