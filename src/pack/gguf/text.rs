//! What a GGUF file says of its text model beside the tensors: the small files of a pack, and what has to hold.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;

use super::super::error::PackError;
use super::super::plan::matrix_shape;
use super::super::source::{Location, Source as _};
use super::super::{Companion, companions};
use super::blocks::BlockType;
use super::header::{TensorInfo, Value};
use super::others::GEMMA_4;
use super::{Gguf, config, names, tokenizer};
use crate::model::architecture::Architecture;
use crate::model::family;
use crate::model::tensor_table::{Access, Role};
use crate::model::tokenizer::Tokenizer;

/// What turns in the heads of full attention: 1 for a pair that does, this or more for one that does not.
const ROPE: &str = "rope_freqs.weight";
const STANDS_STILL: f32 = 1e29;
/// The table of embeddings, which is the head, too; and a head of its own.
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
/// Tokens whose texts stand twice in a published file, and a few more.
const DOUBLED: usize = 16;
/// Bytes that are compared at once.
const PIECE: usize = 1 << 20;

impl Gguf {
    /// What the hyper-parameters are read from, besides the header.
    pub(in crate::pack) fn locate_config(&self) -> Vec<Location> {
        let tensor = |name: &str| self.header.tensors.get(name);
        let (head, embedding) = (tensor(HEAD), tensor(EMBEDDING));
        // Compared with each other where there are two.
        let both = head.and(embedding).into_iter().chain(head);
        let located = tensor(ROPE).into_iter().chain(both);
        located
            .map(|info| self.locate_in(info, 1, 0, 0..1))
            .collect()
    }

    /// The hyper-parameters. What they ask for is looked for in stacks, too, from then on.
    pub(in crate::pack) fn architecture(&mut self) -> Result<Arc<dyn Architecture>, PackError> {
        Ok(self.config()?.0)
    }

    fn config(&mut self) -> Result<(Arc<dyn Architecture>, String), PackError> {
        let ids = tokenizer::ids(&self.header);
        let pairs = self.rotated_pairs()?;
        let json = config::config_json(&self.header, &self.path, &ids, pairs)?;
        let architecture = family::parse(json.as_bytes(), &self.path)?;
        self.check_head()?;
        self.find_stacked(&*architecture)?;
        Ok((architecture, json))
    }

    /// The hyper-parameters, and the small files of the pack: the tokenizer of `tokenizer_dir`, or the one beside the file if it is of
    /// the same tokens, or the file's own.
    pub(in crate::pack) fn companions(
        &mut self,
        tokenizer_dir: Option<&Path>,
    ) -> Result<(Arc<dyn Architecture>, Vec<Companion>), PackError> {
        // The architecture first: a file of another model is told so, not that its tokens are odd.
        let (architecture, config_json) = self.config()?;
        let spec = architecture.spec();
        let path = &self.path;
        let mut files = vec![("config.json".to_owned(), config_json.into_bytes())];
        let beside = path.parent().filter(|dir| self.is_told_by(dir));
        match tokenizer_dir.or(beside) {
            Some(dir) => {
                Tokenizer::load(dir)?.check_config(&spec.ids, spec.vocab_size, path)?;
                let own = companions(dir)?.into_iter();
                files.extend(own.filter(|(name, _)| {
                    name.contains("tokenizer") || name == "generation_config.json"
                }));
            }
            None => {
                let json = tokenizer::tokenizer_json(&self.header, path)?;
                Tokenizer::parse(&json, path)?.check_config(&spec.ids, spec.vocab_size, path)?;
                files.push(("tokenizer.json".to_owned(), json.into_bytes()));
            }
        }
        if let Some(Value::Text(template)) = self.header.values.get("tokenizer.chat_template") {
            files.push((
                "chat_template.jinja".to_owned(),
                template.clone().into_bytes(),
            ));
        }
        // The tensors are all that is needed of it now.
        self.header
            .values
            .retain(|key, _| !key.starts_with("tokenizer."));
        Ok((architecture, files))
    }

    /// Whether a directory has a tokenizer of the file's own tokens.
    fn is_told_by(&self, dir: &Path) -> bool {
        let Some(Value::Texts(tokens)) = self.header.values.get("tokenizer.ggml.tokens") else {
            return false;
        };
        let file = dir.join("tokenizer.json");
        let Some(tokenizer) = file.is_file().then(|| Tokenizer::load(dir).ok()).flatten() else {
            return false;
        };
        // Texts that the file has twice are something else there, which is why it is the better one.
        let differ = tokens
            .iter()
            .enumerate()
            .filter(|(id, text)| tokenizer.id_of(text) != Some(*id as u32));
        tokenizer.vocab_size() <= tokens.len() && differ.count() <= DOUBLED
    }

    /// Whether all matrices of the layers are blocks of Q4_0 that a pack can hold as they are.
    pub(in crate::pack) fn is_trained(&self, architecture: &dyn Architecture) -> bool {
        let tensors = architecture.text_tensors();
        let mut of_layers = tensors.iter().filter_map(|tensor| {
            let (role, access) = tensor.matrix?;
            matches!(role, Role::Attention | Role::FeedForward).then_some((tensor, access))
        });
        of_layers.all(|(tensor, access)| {
            let block_type = self.find(&tensor.name).map(|(info, ..)| info.block_type);
            block_type == Some(BlockType::Q4_0) && access != Access::Columns
        })
    }

    /// How many pairs of a full-attention head turn, where the file says it.
    fn rotated_pairs(&self) -> Result<Option<usize>, PackError> {
        if self.header.architecture() != Some(GEMMA_4) {
            return Ok(None);
        }
        let Some(info) = self.header.tensors.get(ROPE) else {
            return Ok(None);
        };
        let bad = |what: &str| {
            self.bad(format!(
                "tensor {ROPE} {what}: the file is no Gemma 4 E2B or E4B"
            ))
        };
        let [pairs] = info.shape[..] else {
            return Err(bad("is no list"));
        };
        let half = self.header.number("gemma4.attention.key_length") / 2.0;
        if info.block_type.plain() != Dtype::F32
            || info.block_type.block_len() != 1
            || pairs as f64 != half
        {
            return Err(bad(&format!(
                "has shape {:?}, for {half} pairs",
                info.shape
            )));
        }
        let bytes = self.bytes(info, 0, 4 * pairs)?;
        let factors = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
        let turning = factors.clone().take_while(|&factor| factor == 1.0).count();
        match factors.skip(turning).all(|factor| factor >= STANDS_STILL) {
            true => Ok(Some(turning)),
            false => Err(bad(
                "stretches the positions of some pairs, which is not read",
            )),
        }
    }

    /// A head of its own is taken where it is the embedding once more.
    fn check_head(&self) -> Result<(), PackError> {
        let (Some(head), Some(embedding)) = (
            self.header.tensors.get(HEAD),
            self.header.tensors.get(EMBEDDING),
        ) else {
            return Ok(());
        };
        let other = || {
            self.bad(format!(
                "it has a head of its own, {HEAD}, that is not {EMBEDDING} once more: Gemma's are tied, and gemmad holds one table for both"
            ))
        };
        if (head.block_type, &head.shape) != (embedding.block_type, &embedding.shape) {
            return Err(other());
        }
        let bytes = head.block_type.bytes(&head.shape).unwrap_or(0);
        for at in (0..bytes).step_by(PIECE) {
            let n = (bytes - at).min(PIECE as u64) as usize;
            if self.bytes(head, at, n)? != self.bytes(embedding, at, n)? {
                return Err(other());
            }
        }
        Ok(())
    }

    fn bytes(&self, info: &TensorInfo, at: u64, n: usize) -> Result<Vec<u8>, PackError> {
        let mut bytes = vec![0; n];
        self.parts[info.part]
            .file
            .read_exact_at(&mut bytes, info.start + at)
            .map_err(PackError::read(&self.path))?;
        Ok(bytes)
    }

    /// Finds the tensors that some writers stack: rows of q, k and v, of gate and up.
    fn find_stacked(&mut self, architecture: &dyn Architecture) -> Result<(), PackError> {
        let tensors = architecture.text_tensors();
        let rows_of = |name: &str| {
            let found = tensors.iter().find(|tensor| tensor.name == name);
            found.map_or(0, |tensor| matrix_shape(&tensor.shape).0)
        };
        for tensor in &tensors {
            if self.describe(&tensor.name).is_some() {
                continue;
            }
            let Some((stack, before)) = names::fused(&tensor.name) else {
                continue;
            };
            let Some(info) = self.header.tensors.get(&stack) else {
                continue;
            };
            let first: usize = before.iter().map(|name| rows_of(name)).sum();
            let rows = first..first + rows_of(&tensor.name);
            let (found, cols) = matrix_shape(&info.shape);
            if found < rows.end || info.shape.len() != 2 || Some(&cols) != tensor.shape.get(1) {
                return Err(self.bad(format!(
                    "tensor {stack} has shape {:?}, which does not hold the {} rows of {} from row {first} on",
                    info.shape, rows.len(), tensor.name
                )));
            }
            self.stacked.insert(tensor.name.clone(), (stack, rows));
        }
        Ok(())
    }
}
