//! Which blocks the network has: the released ones, or what `model_args` of the checkpoint says instead.

use serde::Deserialize;

use super::block::{Block, BlockKind};

/// `model_args`: what the checkpoint overrides. A key that is not here could change the network, so it is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelArgs {
    pub(super) stem_size: Option<usize>,
    pub(super) msfa_output_resolution: Option<usize>,
    pub(super) block_args: Option<Vec<Vec<BlockArgs>>>,
}

/// One entry of `block_args`, as timm's `decode_arch_def` writes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BlockArgs {
    block_type: String,
    out_chs: usize,
    stride: usize,
    noskip: bool,
    exp_ratio: f64,
    act_layer: Option<String>,
    se_ratio: f64,
    exp_kernel_size: usize,
    pw_kernel_size: usize,
    force_in_chs: usize,
    dw_kernel_size_start: usize,
    dw_kernel_size_mid: usize,
    dw_kernel_size_end: usize,
    dw_kernel_size: usize,
    num_heads: usize,
    key_dim: usize,
    value_dim: usize,
    kv_stride: usize,
}

/// Bounds on what a checkpoint may ask for: far above the released network, far below anything that overflows.
pub(super) const MAX_CHANNELS: usize = 1 << 16;
const MAX_KERNEL: usize = 15;
const MAX_STRIDE: usize = 4;

impl BlockArgs {
    /// Checks the entry and works out its channels; the error is the reason alone.
    pub(super) fn resolve(&self, in_channels: usize) -> Result<Block, String> {
        let within = |key: &str, value: usize, low: usize, high: usize| {
            let fits = (low..=high).contains(&value);
            fits.then_some(value)
                .ok_or_else(|| format!("{key} is {value}; it must be {low} to {high}"))
        };
        let unsupported = |key: &str, wrong: bool| {
            if wrong {
                Err(format!(
                    "{key} asks for something that Gemma 3n does not use"
                ))
            } else {
                Ok(())
            }
        };
        unsupported("act_layer", self.act_layer.is_some())?;
        unsupported("se_ratio", self.se_ratio != 0.0)?;
        unsupported("force_in_chs", self.force_in_chs != 0)?;
        unsupported("pw_kernel_size", self.pw_kernel_size > 1)?;
        unsupported("dw_kernel_size_end", self.dw_kernel_size_end != 0)?;
        let stride = within("stride", self.stride.max(1), 1, MAX_STRIDE)?;
        let out_channels = make_divisible(within("out_chs", self.out_chs, 1, MAX_CHANNELS)? as f64);
        let mid_channels = || {
            let ratio = if self.exp_ratio == 0.0 {
                1.0
            } else {
                self.exp_ratio
            };
            let mid = in_channels as f64 * ratio;
            if ratio > 0.0 && mid <= MAX_CHANNELS as f64 {
                Ok(make_divisible(mid))
            } else {
                Err(format!(
                    "exp_ratio is {ratio}; it must give 1 to {MAX_CHANNELS} channels"
                ))
            }
        };
        let kind = match self.block_type.as_str() {
            "er" => BlockKind::EdgeResidual {
                kernel: within("exp_kernel_size", self.exp_kernel_size, 1, MAX_KERNEL)?,
                mid_channels: mid_channels()?,
            },
            "uir" => {
                let start_kernel = within(
                    "dw_kernel_size_start",
                    self.dw_kernel_size_start,
                    0,
                    MAX_KERNEL,
                )?;
                let mid_kernel =
                    within("dw_kernel_size_mid", self.dw_kernel_size_mid, 0, MAX_KERNEL)?;
                unsupported(
                    "stride without a depthwise kernel",
                    stride > 1 && start_kernel == 0 && mid_kernel == 0,
                )?;
                BlockKind::InvertedBottleneck {
                    start_kernel,
                    mid_kernel,
                    mid_channels: mid_channels()?,
                }
            }
            "mqa" => {
                unsupported("stride of an attention block", stride > 1)?;
                BlockKind::MultiQueryAttention {
                    num_heads: within("num_heads", self.num_heads, 1, 256)?,
                    key_dim: within("key_dim", self.key_dim, 1, 4096)?,
                    value_dim: within("value_dim", self.value_dim, 1, 4096)?,
                    kv_stride: within("kv_stride", self.kv_stride.max(1), 1, MAX_STRIDE)?,
                    kernel: within("dw_kernel_size", self.dw_kernel_size, 1, MAX_KERNEL)?,
                }
            }
            other => {
                return Err(format!(
                    "block_type is {other:?}; er, uir and mqa are known"
                ));
            }
        };
        let residual = stride == 1 && in_channels == out_channels && !self.noskip;
        Ok(Block {
            in_channels,
            out_channels,
            stride,
            residual,
            kind,
        })
    }
}

/// The nearest multiple of 8, at least 8, and never less than nine tenths of `channels`.
///
/// Source: timm `make_divisible` with `round_limit` 0.9.
pub(super) fn make_divisible(channels: f64) -> usize {
    let rounded = (((channels + 4.0) as usize) / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * channels {
        rounded + 8
    } else {
        rounded
    }
}

/// `mobilenetv5_300m_enc`: what `model_args: null` stands for.
pub(super) fn released() -> Vec<Vec<BlockArgs>> {
    let er = |stride| BlockArgs {
        block_type: "er".into(),
        out_chs: 128,
        stride,
        exp_ratio: 4.0,
        exp_kernel_size: 3,
        ..BlockArgs::default()
    };
    let uir = |out_chs, start, mid, stride, exp_ratio| BlockArgs {
        block_type: "uir".into(),
        out_chs,
        stride,
        exp_ratio,
        dw_kernel_size_start: start,
        dw_kernel_size_mid: mid,
        ..BlockArgs::default()
    };
    let mqa = |out_chs, num_heads, width, kv_stride| BlockArgs {
        block_type: "mqa".into(),
        out_chs,
        num_heads,
        key_dim: width,
        value_dim: width,
        kv_stride,
        dw_kernel_size: 3,
        ..BlockArgs::default()
    };
    let stage0 = vec![er(2), er(1), er(1)];
    let mut stage1 = vec![uir(256, 3, 5, 2, 6.0)];
    for start in [5, 3, 5, 3] {
        stage1.push(uir(256, start, 0, 1, 4.0));
    }
    let mut stage2 = vec![uir(640, 5, 5, 2, 6.0)];
    stage2.extend((0..7).map(|_| uir(640, 5, 0, 1, 4.0)));
    stage2.push(uir(640, 0, 0, 1, 1.0));
    for _ in 0..14 {
        stage2.extend([mqa(640, 12, 64, 2), uir(640, 0, 0, 1, 2.0)]);
    }
    let mut stage3 = vec![uir(1280, 5, 5, 2, 6.0)];
    for _ in 0..19 {
        stage3.extend([mqa(1280, 16, 96, 1), uir(1280, 0, 0, 1, 2.0)]);
    }
    vec![stage0, stage1, stage2, stage3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_rounded_as_timm_rounds_them() {
        // timm 1.0.31: make_divisible of the same numbers.
        let pairs = [
            (1.0, 8),
            (11.0, 16),
            (12.0, 16),
            (20.0, 24),
            (28.0, 32),
            (44.0, 48),
            (60.0, 64),
            (100.0, 104),
        ];
        for (channels, rounded) in pairs {
            assert_eq!(make_divisible(channels), rounded, "{channels}");
        }
    }
}
