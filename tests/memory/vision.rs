//! The early blocks of the vision tower run strip by strip: what they widen is never whole in memory.

use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::vision::{MAX_RESOLUTION_PX, Observation, VisionTower};
use gemmad::model::weights::Checkpoint;
use kernels::{Isa, Pool};

use crate::common::fixtures;
use crate::{ALONE, HEAP};

#[test]
fn activations_are_two_feature_maps_and_a_strip() {
    let _alone = ALONE.lock();
    let config = Config::load(&fixtures()).unwrap();
    let checkpoint = Checkpoint::open(&fixtures()).unwrap();
    let tower = VisionTower::load(
        &checkpoint,
        config.vision.as_ref().unwrap(),
        config.text.hidden_size,
    )
    .unwrap();
    let pool = Pool::new(Isa::best(), 2);
    let side = MAX_RESOLUTION_PX;
    let pixels = vec![128; side * side * 3];

    let mut maps = Vec::new();
    let mut stem_bytes = 0;
    let mut observer = |part: &Observation<'_>| {
        let bytes = part.height * part.width * part.channels * size_of::<f32>();
        match part.name {
            "stem" => stem_bytes = bytes,
            _ => maps.push(bytes),
        }
    };
    tower
        .encode_observed(&pool, &pixels, side, &mut observer)
        .unwrap();
    maps.sort_unstable();

    let (_, peak_bytes) = HEAP.peak_of(|| tower.encode(&pool, &pixels, side).unwrap());
    // A strip is 8 MiB; half as much again for the rows that it shares with the next one and for packed matrices.
    let allowed = maps.iter().rev().take(2).sum::<usize>() + (12 << 20);
    assert!(
        peak_bytes <= allowed,
        "{peak_bytes} bytes at the peak, {allowed} allowed"
    );
    // The fixture is small, so the bound must be tight enough to notice the stem alone.
    assert!(
        allowed < stem_bytes + (8 << 20),
        "the bound of {allowed} bytes proves nothing beside a stem of {stem_bytes}"
    );
}
