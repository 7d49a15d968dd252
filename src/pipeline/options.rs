//! How a model is to be run.

use super::{PrefixCacheOptions, TowerOptions};
use crate::model::decoder::kv_cache::KvType;
use crate::model::weights::PleOptions;

/// How a model is to be run.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Threads that compute, the caller's included; 0 for as many as the machine has fast cores.
    pub threads: usize,
    /// Tokens of context: prompt and answer together.
    pub context: usize,
    /// Tokens that go through the layers together during prefill.
    pub prefill_chunk: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// How the towers encode.
    pub towers: TowerOptions,
    /// How the per-layer-embedding table is read.
    pub ple: PleOptions,
    /// Keep text weights in memory once they were read.
    pub mlock: bool,
    /// Memory for keys and values of conversations that may go on, bytes.
    pub conversation_bytes: u64,
    /// Where keys and values of prompt beginnings are kept.
    pub prefix_cache: PrefixCacheOptions,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            threads: 0,
            context: 4096,
            prefill_chunk: 128,
            kv_type: KvType::F32,
            towers: TowerOptions::default(),
            ple: PleOptions::default(),
            mlock: false,
            conversation_bytes: 256 << 20,
            prefix_cache: PrefixCacheOptions::default(),
        }
    }
}
