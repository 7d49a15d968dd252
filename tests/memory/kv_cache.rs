//! A K/V cache takes memory as it is used, not when it is made.

use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::gemma3n::config::Config;

use crate::ALONE;
use crate::common::fixtures;

/// Anonymous memory of this process, bytes (proc(5)).
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    1024 * line
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
}

#[test]
fn a_long_context_costs_nothing_until_it_is_used() {
    let _alone = ALONE.lock();
    let mut config = Config::load(&fixtures()).unwrap().text;
    config.head_dim = 256;
    for kind in [KvType::F32, KvType::F16, KvType::Int8] {
        let before = anonymous();
        let cache = KvCache::new(&config.layers(), kind, 32_768, 8);
        assert!(cache.bytes() > 32 << 20, "{}", cache.bytes());
        let grown = anonymous().saturating_sub(before);
        assert!(
            grown < cache.bytes() / 8,
            "{kind:?}: {grown} of {}",
            cache.bytes()
        );
    }
}
