//! MobileNetV5 laid out: every block, its channels, and the tensors that they imply.

use serde::Deserialize;
use serde_json::Value;

use super::block::Block;
use super::block_args::{MAX_CHANNELS, ModelArgs, make_divisible, released};
use crate::model::encoder::VisionError;

/// MobileNetV5 laid out: every block with its channels resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Channels behind the stem.
    pub stem_channels: usize,
    /// Stages of blocks, in order.
    pub stages: Vec<Vec<Block>>,
    /// Rows, and columns, of soft tokens.
    pub msfa_output_resolution: usize,
    /// Channels behind the multi-scale fusion.
    pub hidden_size: usize,
}

/// Bounds on what a checkpoint may ask for.
const MAX_BLOCKS: usize = 1024;
const MAX_MSFA_RESOLUTION: usize = 64;

impl Architecture {
    /// The architecture of a checkpoint: `vision_config.hidden_size` and `vision_config.model_args`.
    ///
    /// # Errors
    /// `model_args` has an unknown key, a value of the wrong type, or asks for a block that does not exist here.
    pub fn new(hidden_size: usize, model_args: Option<&Value>) -> Result<Self, VisionError> {
        let fault = |key: &str, reason: String| VisionError::Config {
            key: format!("model_args: {key}"),
            reason,
        };
        let args = match model_args {
            None | Some(Value::Null) => ModelArgs::default(),
            Some(value) => ModelArgs::deserialize(value)
                .map_err(|error| fault("model_args", error.to_string()))?,
        };
        let stem_channels = make_divisible(args.stem_size.unwrap_or(64).min(MAX_CHANNELS) as f64);
        let msfa_output_resolution = args.msfa_output_resolution.unwrap_or(16);
        if !(1..=MAX_MSFA_RESOLUTION).contains(&msfa_output_resolution) {
            let reason =
                format!("is {msfa_output_resolution}; it must be 1 to {MAX_MSFA_RESOLUTION}");
            return Err(fault("msfa_output_resolution", reason));
        }
        let block_args = args.block_args.unwrap_or_else(released);
        if block_args.len() < 2 || block_args.iter().any(Vec::is_empty) {
            return Err(fault(
                "block_args",
                "needs at least two stages, none of them empty".into(),
            ));
        }
        if block_args.iter().map(Vec::len).sum::<usize>() > MAX_BLOCKS {
            return Err(fault(
                "block_args",
                format!("has more than {MAX_BLOCKS} blocks"),
            ));
        }
        let mut in_channels = stem_channels;
        let mut stages = Vec::with_capacity(block_args.len());
        for (s, stage) in block_args.iter().enumerate() {
            let mut blocks = Vec::with_capacity(stage.len());
            for (b, args) in stage.iter().enumerate() {
                let block = args
                    .resolve(in_channels)
                    .map_err(|reason| fault(&format!("block_args[{s}][{b}]"), reason))?;
                in_channels = block.out_channels;
                blocks.push(block);
            }
            stages.push(blocks);
        }
        Ok(Architecture {
            stem_channels,
            stages,
            msfa_output_resolution,
            hidden_size,
        })
    }

    /// Pixels that one pixel behind the last stage stands for, along one axis: the step in which resolutions come.
    pub fn total_stride(&self) -> usize {
        let strides = self.stages.iter().flatten().map(|block| block.stride);
        strides.fold(2, usize::saturating_mul)
    }

    /// The stage whose output is fused with that of the last: the last one before a stage that halves the picture again.
    pub fn fused_stage(&self) -> usize {
        let last = self.stages.len() - 1;
        (0..last)
            .rev()
            .find(|&stage| self.stages[stage + 1][0].stride > 1)
            .unwrap_or(last - 1)
    }

    /// Channels of the two fused outputs, finer one first.
    pub fn fused_channels(&self) -> [usize; 2] {
        [self.fused_stage(), self.stages.len() - 1].map(|stage| {
            self.stages[stage]
                .last()
                .map_or(0, |block| block.out_channels)
        })
    }

    /// Channels inside the fusion.
    pub fn fusion_mid_channels(&self) -> usize {
        make_divisible(2.0 * self.fused_channels().iter().sum::<usize>() as f64)
    }

    /// Name, behind `model.vision_tower.timm_model.`, and shape of every tensor of the network.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let stem = self.stem_channels;
        let mut all = vec![
            ("conv_stem.conv.weight".to_owned(), vec![stem, 3, 3, 3]),
            ("conv_stem.conv.bias".to_owned(), vec![stem]),
            ("conv_stem.bn.weight".to_owned(), vec![stem]),
        ];
        for (s, stage) in self.stages.iter().enumerate() {
            for (b, block) in stage.iter().enumerate() {
                let named = block
                    .tensors()
                    .into_iter()
                    .map(|(name, shape)| (format!("blocks.{s}.{b}.{name}"), shape));
                all.extend(named);
            }
        }
        let (fused, mid, out) = (
            self.fused_channels().iter().sum::<usize>(),
            self.fusion_mid_channels(),
            self.hidden_size,
        );
        all.extend([
            (
                "msfa.ffn.pw_exp.conv.weight".to_owned(),
                vec![mid, fused, 1, 1],
            ),
            ("msfa.ffn.pw_exp.bn.weight".to_owned(), vec![mid]),
            (
                "msfa.ffn.pw_proj.conv.weight".to_owned(),
                vec![out, mid, 1, 1],
            ),
            ("msfa.ffn.pw_proj.bn.weight".to_owned(), vec![out]),
            ("msfa.norm.weight".to_owned(), vec![out]),
        ]);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_released_table_has_the_published_number_of_parameters() {
        let architecture = Architecture::new(2048, None).unwrap();
        let total: usize = architecture
            .tensors()
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        assert_eq!(total, 294_126_912);
        // 552 vision tensors in the published files, four of them of the embedder.
        assert_eq!(architecture.tensors().len(), 548);
        assert_eq!(architecture.total_stride(), 32);
        assert_eq!(architecture.fused_channels(), [640, 1280]);
        assert_eq!(architecture.fusion_mid_channels(), 3840);
    }

    #[test]
    fn an_architecture_that_is_not_understood_is_an_error_that_names_the_key() {
        let er =
            r#"{"block_type":"er","out_chs":16,"stride":2,"exp_kernel_size":3,"exp_ratio":4.0}"#;
        let two = |block: &str| format!(r#"{{"block_args":[[{er}],[{block}]]}}"#);
        let cases = [
            (r#"{"stem_bias":false}"#.to_owned(), "stem_bias"),
            (
                r#"{"msfa_output_resolution":0}"#.to_owned(),
                "msfa_output_resolution",
            ),
            (format!(r#"{{"block_args":[[{er}]]}}"#), "two stages"),
            (two(r#"{"block_type":"cn","out_chs":16}"#), "cn"),
            (
                two(r#"{"block_type":"uir","out_chs":99999999,"exp_ratio":2.0}"#),
                "out_chs",
            ),
            (
                two(r#"{"block_type":"uir","out_chs":16,"exp_ratio":1e300}"#),
                "exp_ratio",
            ),
            (
                two(r#"{"block_type":"uir","out_chs":16,"exp_ratio":-1.0}"#),
                "exp_ratio",
            ),
            (
                two(r#"{"block_type":"uir","out_chs":16,"stride":2,"exp_ratio":2.0}"#),
                "stride",
            ),
            (
                two(r#"{"block_type":"uir","out_chs":16,"se_ratio":0.25,"exp_ratio":2.0}"#),
                "se_ratio",
            ),
            (
                two(r#"{"block_type":"mqa","out_chs":16,"num_heads":0}"#),
                "num_heads",
            ),
        ];
        for (json, named) in cases {
            let value: Value = serde_json::from_str(&json).unwrap();
            let error = Architecture::new(2048, Some(&value))
                .unwrap_err()
                .to_string();
            assert!(error.contains(named), "{json}: {error}");
        }
    }
}
