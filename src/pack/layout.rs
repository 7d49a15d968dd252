//! The header of a pack's file.

use safetensors::Dtype;

use super::plan::{FilePlan, Store};

/// Every tensor starts on a cache line: kernels read blocks in place.
pub(super) const ALIGNMENT_BYTES: u64 = 64;

/// The header of a safetensors file, and the zeros behind each tensor.
pub(super) struct Layout {
    pub(super) header: Vec<u8>,
    pub(super) paddings: Vec<u64>,
}

impl Layout {
    pub(super) fn new(plan: &FilePlan) -> Layout {
        let mut tensors = serde_json::Map::new();
        let mut formats = serde_json::Map::new();
        let mut paddings = Vec::with_capacity(plan.entries.len());
        let mut end = 0;
        for entry in &plan.entries {
            let bytes = entry.bytes().unwrap_or(u64::MAX / 2);
            let (dtype, shape) = match &entry.store {
                Store::Quantized { blocks, .. }
                | Store::Trained(blocks)
                | Store::Residual(blocks) => {
                    formats.insert(entry.name.clone(), blocks.describe().into());
                    (Dtype::U8, vec![bytes as usize])
                }
                Store::Plain(tensor) => (tensor.dtype, tensor.shape.clone()),
                Store::ResidualPeaks { rows, .. } => (Dtype::BF16, vec![*rows]),
            };
            let mut add = |name: String, dtype: Dtype, shape: Vec<usize>, bytes: u64| {
                let value = serde_json::json!({
                    "dtype": dtype.to_string(), "shape": shape, "data_offsets": [end, end + bytes],
                });
                tensors.insert(name, value);
                end += bytes;
            };
            add(entry.name.clone(), dtype, shape, bytes);
            let padding = bytes.next_multiple_of(ALIGNMENT_BYTES) - bytes;
            if padding > 0 {
                // The format allows no holes; no tensor of the model is called so, and names are unique in a pack.
                let name = format!("padding.{}.{}", plan.group, paddings.len());
                add(name, Dtype::U8, vec![padding as usize], padding);
            }
            paddings.push(padding);
        }
        if !formats.is_empty() {
            tensors.insert("__metadata__".to_owned(), formats.into());
        }
        let mut json = serde_json::Value::from(tensors).to_string().into_bytes();
        let length = (json.len() as u64 + 8).next_multiple_of(ALIGNMENT_BYTES) - 8;
        json.resize(length as usize, b' ');
        let mut header = length.to_le_bytes().to_vec();
        header.append(&mut json);
        Layout { header, paddings }
    }
}
