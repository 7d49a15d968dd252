#!/usr/bin/env bash
# `make nats-test`: nats-server as the only broker of a home, for the tests that need no settings of a broker and for Home Assistant's;
# then the loads of tests/fleet, which take many minutes, those over a network as root.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --locked --bin gemmad
export GEMMAD_TEST_BROKER=nats
# It uses a topic of the greatest length, of which the server dies: docs/fleet.md.
cargo test --locked --test publish --test daemon -- --skip names_of_any_length
tools/ha-test.sh "${CARGO_TARGET_DIR:-target}/debug/gemmad"
unset GEMMAD_TEST_BROKER

loads=(a_thousand_jobs a_hundred_jobs workers_add_up a_shared_subscription)
[ "$(id -u)" != 0 ] || loads+=(three_hosts how_late_voice)
for load in "${loads[@]}"; do
    cargo test --locked --test fleet "$load" -- --ignored --nocapture
done
