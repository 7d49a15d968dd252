//! The header of one safetensors file: read within bounds, and checked.

use std::fs::File;
use std::path::Path;

use safetensors::SafeTensors;

use super::super::files;
use super::error::io;
use super::mapping;
use super::pack::Blocks;
use super::tensor_info::TensorInfo;
use super::{Group, WeightsError};

/// The headers of all files together. Those of published checkpoints are below 1 MiB; parsed they take up to thirty times their
/// bytes, so the library's own limit of 100 MB a file would let a hostile one fill a board's memory.
pub(super) const MAX_HEADER_BYTES: u64 = 4 << 20;
/// Published names have two levels below `layers`; they are short.
const MAX_NAME_BYTES: usize = 256;

/// The tensors of a file, by its number in the checkpoint's list; `left` is how many bytes of headers may still be read.
pub(super) fn read_header(
    file: usize,
    path: &Path,
    mut handle: &File,
    is_pack: bool,
    left: &mut u64,
) -> Result<Vec<TensorInfo>, WeightsError> {
    use std::io::Read;
    let bad = |reason: String| WeightsError::Header {
        path: path.to_owned(),
        reason,
    };
    let size = handle.metadata().map_err(io("read", path))?.len();
    let mut length = [0u8; 8];
    handle.read_exact(&mut length).map_err(|_| {
        bad(format!(
            "it has {size} bytes, too few for a safetensors header"
        ))
    })?;
    let mut start = length.to_vec();
    let length = u64::from_le_bytes(length);
    if length > *left || length > size.saturating_sub(8) {
        // Not worth more words where it cannot be read.
        handle.take(512).read_to_end(&mut start).ok();
        if let Some(what) = files::instead_of_file(&start) {
            return Err(WeightsError::Instead {
                path: path.to_owned(),
                reason: what.to_owned(),
            });
        }
        return Err(bad(format!(
            "its header claims {length} bytes; the file has {size} bytes and the headers of all files together may have {MAX_HEADER_BYTES}"
        )));
    }
    *left -= length;
    let whole = mapping::map_whole(handle, path)?;
    let (header_bytes, metadata) =
        SafeTensors::read_metadata(&whole).map_err(|e| bad(header_reason(&e, size)))?;
    let data_start = header_bytes as u64 + 8;
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        if name.len() > MAX_NAME_BYTES {
            return Err(bad(format!(
                "a tensor name has {} bytes; {MAX_NAME_BYTES} are allowed",
                name.len()
            )));
        }
        let (start, end) = info.data_offsets;
        let bytes = (end - start) as u64;
        let blocks = metadata
            .metadata()
            .as_ref()
            .and_then(|formats| formats.get(&name));
        let blocks = match blocks.filter(|_| is_pack) {
            None => None,
            Some(text) => Some(
                Blocks::parse(text)
                    .filter(|blocks| blocks.bytes().map(|bytes| bytes as u64) == Some(bytes))
                    .ok_or_else(|| WeightsError::Pack {
                        path: path.to_owned(),
                        reason: format!("tensor {name} is said to be {text:?}, which does not fit its {bytes} bytes"),
                    })?,
            ),
        };
        tensors.push(TensorInfo {
            group: Group::of(&name),
            name,
            shape: blocks.map_or_else(
                || info.shape.clone(),
                |blocks| vec![blocks.rows, blocks.cols],
            ),
            dtype: info.dtype,
            file,
            start: data_start + start as u64,
            bytes,
            blocks,
        });
    }
    Ok(tensors)
}

/// The library's message with what a person can do about it.
fn header_reason(error: &safetensors::SafeTensorError, size: u64) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::MetadataIncompleteBuffer => format!(
            "its header describes more or fewer bytes than the {size} that the file has: it is truncated or was changed"
        ),
        E::InvalidOffset(tensor) => {
            format!("tensor {tensor} overlaps another one or leaves a gap before it")
        }
        E::TensorInvalidInfo => {
            "a tensor's shape and type do not match its size in bytes".to_owned()
        }
        E::ValidationOverflow => "a tensor's shape is absurdly large".to_owned(),
        other => format!("not a safetensors file: {other}"),
    }
}
