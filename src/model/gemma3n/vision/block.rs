//! One block of MobileNetV5, its channels resolved.

/// One block: its outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Step of the spatial convolution.
    pub stride: usize,
    /// Whether the input is added to the output.
    pub residual: bool,
    /// Its inside.
    pub kind: BlockKind,
}

/// One block: its inside.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockKind {
    /// A full convolution to `mid_channels`, then pointwise.
    EdgeResidual {
        /// Side of the convolution's kernel.
        kernel: usize,
        /// Channels between the two.
        mid_channels: usize,
    },
    /// Depthwise, pointwise up, depthwise, pointwise down; a kernel of 0 means that the depthwise convolution is absent.
    InvertedBottleneck {
        /// Side of the kernel before the expansion.
        start_kernel: usize,
        /// Side of the kernel between the two pointwise convolutions.
        mid_kernel: usize,
        /// Channels between the two pointwise convolutions.
        mid_channels: usize,
    },
    /// Attention of several query heads over one key and one value head.
    MultiQueryAttention {
        /// Query heads.
        num_heads: usize,
        /// Width of a query and of a key.
        key_dim: usize,
        /// Width of a value.
        value_dim: usize,
        /// Step of the depthwise convolution in front of keys and values; 1 means that there is none.
        kv_stride: usize,
        /// Side of its kernel.
        kernel: usize,
    },
}

impl Block {
    /// Name and shape of each of its tensors.
    pub(super) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (input, output) = (self.in_channels, self.out_channels);
        let mut all = Vec::new();
        let mut add = |name: &str, shape: &[usize]| all.push((name.to_owned(), shape.to_vec()));
        match self.kind {
            BlockKind::EdgeResidual {
                kernel,
                mid_channels: mid,
            } => {
                add("conv_exp.weight", &[mid, input, kernel, kernel]);
                add("bn1.weight", &[mid]);
                add("conv_pwl.weight", &[output, mid, 1, 1]);
                add("bn2.weight", &[output]);
            }
            BlockKind::InvertedBottleneck {
                start_kernel,
                mid_kernel,
                mid_channels: mid,
            } => {
                if start_kernel > 0 {
                    add(
                        "dw_start.conv.weight",
                        &[input, 1, start_kernel, start_kernel],
                    );
                    add("dw_start.bn.weight", &[input]);
                }
                add("pw_exp.conv.weight", &[mid, input, 1, 1]);
                add("pw_exp.bn.weight", &[mid]);
                if mid_kernel > 0 {
                    add("dw_mid.conv.weight", &[mid, 1, mid_kernel, mid_kernel]);
                    add("dw_mid.bn.weight", &[mid]);
                }
                add("pw_proj.conv.weight", &[output, mid, 1, 1]);
                add("pw_proj.bn.weight", &[output]);
                add("layer_scale.gamma", &[output]);
            }
            BlockKind::MultiQueryAttention {
                num_heads,
                key_dim,
                value_dim,
                kv_stride,
                kernel,
            } => {
                add("norm.weight", &[input]);
                add(
                    "attn.query.proj.weight",
                    &[num_heads * key_dim, input, 1, 1],
                );
                for (part, width) in [("key", key_dim), ("value", value_dim)] {
                    if kv_stride > 1 {
                        add(
                            &format!("attn.{part}.down_conv.weight"),
                            &[input, 1, kernel, kernel],
                        );
                        add(&format!("attn.{part}.norm.weight"), &[input]);
                    }
                    add(&format!("attn.{part}.proj.weight"), &[width, input, 1, 1]);
                }
                add(
                    "attn.output.proj.weight",
                    &[output, num_heads * value_dim, 1, 1],
                );
                add("layer_scale.gamma", &[output]);
            }
        }
        all
    }
}
