//! The figures of a fleet.

use serde_json::Value;

use super::{Page, Table, add, name_of};

/// What other boards do for this one; nothing, where there are none.
pub(super) fn write(page: &mut Page, health: &Value) {
    if health.is_null() {
        return;
    }
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let connected = health["connected"].as_bool().unwrap_or_default();
    page.one(
        "gemmad_fleet_connected",
        "gauge",
        "1 while the connection to the NATS server stands.",
        f64::from(u8::from(connected)),
    );
    let (workers, busy) = (number(&health["workers"]), number(&health["busy"]));
    let mut states = Table::new();
    add(&mut states, &[("state", "busy")], busy);
    add(&mut states, &[("state", "idle")], workers - busy);
    page.table(
        "gemmad_fleet_workers",
        "gauge",
        "Other boards that work for this one.",
        &states,
    );
    page.one(
        "gemmad_fleet_away_jobs",
        "gauge",
        "Jobs that wait for other boards or are with them.",
        number(&health["away"]),
    );
    let mut jobs = Table::new();
    for state in ["came_back", "poison", "unwanted"] {
        add(&mut jobs, &[("state", state)], number(&health[state]));
    }
    page.table(
        "gemmad_fleet_jobs_total",
        "counter",
        "Jobs that came back from other boards, those of them that workers died of, and results that nobody waited for.",
        &jobs,
    );
    let mut done = Table::new();
    for board in health["boards"].as_array().into_iter().flatten() {
        if board["role"] == "source" {
            continue;
        }
        let labels = [("board", &name_of(&board["node"])[..])];
        add(&mut done, &labels, number(&board["done"]));
    }
    page.table(
        "gemmad_fleet_board_jobs_total",
        "counter",
        "What each of the other boards has done for others since its start.",
        &done,
    );
}
