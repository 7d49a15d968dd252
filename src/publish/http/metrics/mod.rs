//! `GET /metrics`: figures in the text form of Prometheus.

mod fleet;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;

use super::Shared;
use super::answer::ask;
use super::fault::Fault;
use crate::media::CaptionTrigger;
use crate::report::{Payload, Report, ReportTiming};

/// Labels and a number.
type Table = BTreeMap<Vec<(&'static str, String)>, f64>;

/// What is counted while reports go by and clients ask.
#[derive(Debug, Default)]
pub(super) struct Counts {
    refused_clients: AtomicU64,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    requests: Table,
    jobs: Table,
    tokens: Table,
    seconds: Table,
}

fn add(table: &mut Table, labels: &[(&'static str, &str)], more: f64) {
    let labels = labels
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    *table.entry(labels.collect()).or_default() += more;
}

impl Counts {
    /// There was no room for one more client.
    pub(super) fn refuse_client(&self) {
        self.refused_clients.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what has been done.
    pub(super) fn take(&self, report: &Report) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Report::Voice(event) => tables.done("voice", event.event_type.name(), &event.timing),
            // One that was asked for is told as a job, too.
            Report::Caption { event, .. } if event.trigger != CaptionTrigger::Request => {
                tables.done("caption", event.event_type.name(), &event.timing);
            }
            Report::JobEnded(update) => {
                let state = update.error.as_ref().map_or_else(
                    || "done".to_owned(),
                    |error| name_of(&serde_json::to_value(error.code).unwrap_or_default()),
                );
                let timing = update.reply.as_ref().and_then(|reply| reply.timing.clone());
                tables.done(update.header.kind, &state, &timing.unwrap_or_default());
            }
            _ => {}
        }
    }

    fn request(&self, path: &str, status: u16) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = [("path", path), ("status", &status.to_string())];
        add(&mut tables.requests, &labels, 1.0);
    }
}

fn name_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Tables {
    fn done(&mut self, kind: &str, state: &str, timing: &ReportTiming) {
        add(&mut self.jobs, &[("kind", kind), ("state", state)], 1.0);
        for (what, tokens) in [
            ("prompt", timing.prompt_tokens),
            ("prompt_cached", timing.cached_tokens),
            ("answer", timing.tokens),
            ("pass", timing.passes),
        ] {
            add(
                &mut self.tokens,
                &[("kind", kind), ("token", what)],
                tokens as f64,
            );
        }
        for (stage, ms) in [
            ("queue", timing.queue_ms),
            ("load", timing.load_ms),
            ("encode", timing.encode_ms),
            ("prefill", timing.prefill_ms),
            ("decode", timing.decode_ms),
        ] {
            add(
                &mut self.seconds,
                &[("kind", kind), ("stage", stage)],
                ms / 1e3,
            );
        }
    }
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/metrics", get(metrics))
}

/// Counts every request by its route.
pub(super) async fn counted(
    State(shared): State<Arc<Shared>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    // What leads nowhere is anybody's words.
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let response = next.run(request).await;
    shared.counts.request(&route, response.status().as_u16());
    response
}

/// The text that is made.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string does not fail.
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        writeln!(self.0, "{name} {value}").ok();
    }

    fn table(&mut self, name: &str, kind: &str, help: &str, table: &Table) {
        if table.is_empty() {
            return;
        }
        self.head(name, kind, help);
        for (labels, value) in table {
            let labels = labels
                .iter()
                .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)));
            let labels = labels.collect::<Vec<_>>().join(",");
            writeln!(self.0, "{name}{{{labels}}} {value}").ok();
        }
    }
}

/// Source: the exposition format's own rules.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Fault> {
    let reply = ask(&shared, Payload::Stats)?.whole().await?;
    let health = Value::Object(reply.details);
    let page = written(&shared, &health);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], page).into_response())
}

fn written(shared: &Shared, health: &Value) -> String {
    let mut page = Page::default();
    let info = shared.info().clone();
    let card = &shared.card;
    let labels = [
        ("version", info.version.as_str()),
        ("model", &card.name),
        ("quantisation", &card.quantisation),
        ("isa", &info.isa),
    ];
    let mut build = Table::new();
    add(&mut build, &labels, 1.0);
    page.table("gemmad_info", "gauge", "What runs.", &build);
    let number = |path: &str| health.pointer(path).and_then(Value::as_f64);
    let bytes = |path: &str| number(path).unwrap_or_default() * f64::from(1 << 20);
    let uptime = shared.started.elapsed().as_secs_f64();
    page.one(
        "gemmad_uptime_seconds",
        "gauge",
        "Seconds since the server was opened.",
        uptime,
    );
    let degraded = health["degraded"]
        .as_array()
        .is_some_and(|reasons| !reasons.is_empty());
    page.one(
        "gemmad_degraded",
        "gauge",
        "1 while less is done to keep the board well.",
        f64::from(u8::from(degraded)),
    );
    page.one(
        "gemmad_resident_memory_bytes",
        "gauge",
        "Resident memory, mapped weights included.",
        bytes("/rss_mib"),
    );
    page.one(
        "gemmad_anonymous_memory_bytes",
        "gauge",
        "Resident memory that no file is behind.",
        bytes("/anonymous_mib"),
    );
    let mut groups = Table::new();
    for (group, mib) in health["memory_groups_mib"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let resident = mib.as_f64().unwrap_or_default() * f64::from(1 << 20);
        add(&mut groups, &[("group", group)], resident);
    }
    page.table(
        "gemmad_group_resident_bytes",
        "gauge",
        "Resident weights of each parameter group.",
        &groups,
    );
    if let Some(celsius) = number("/soc_temp_c") {
        page.one(
            "gemmad_temperature_celsius",
            "gauge",
            "Hottest thermal zone.",
            celsius,
        );
    }
    let jobs = number("/queues/jobs").unwrap_or_default();
    page.one("gemmad_queue_jobs", "gauge", "Jobs that wait or run.", jobs);
    let mut dropped = Table::new();
    for (kind, path) in [
        ("voice", "/queues/dropped_voice"),
        ("caption", "/queues/dropped_captions"),
        ("request", "/queues/refused_requests"),
        ("timeout", "/queues/timeouts"),
        ("audio_overrun", "/queues/audio_overruns"),
        ("speech", "/queues/dropped_speech"),
    ] {
        add(
            &mut dropped,
            &[("kind", kind)],
            number(path).unwrap_or_default(),
        );
    }
    let refused = shared.counts.refused_clients.load(Ordering::Relaxed);
    add(&mut dropped, &[("kind", "http_client")], refused as f64);
    page.table(
        "gemmad_dropped_total",
        "counter",
        "Work that was dropped, refused or given up.",
        &dropped,
    );
    for (name, help, path) in [
        (
            "gemmad_wake_words_total",
            "Wake words that were heard.",
            "/queues/wake_words",
        ),
        (
            "gemmad_wake_rejects_total",
            "Those of them that the transcript contradicted.",
            "/queues/wake_rejects",
        ),
        (
            "gemmad_wake_yields_total",
            "Those of them that another microphone answered.",
            "/queues/yielded",
        ),
        (
            "gemmad_spoken_total",
            "Texts and sounds that the speaker said.",
            "/queues/spoken",
        ),
        (
            "gemmad_early_answers_total",
            "Utterances that were answered in a pause, as if they had ended.",
            "/queues/early_answers",
        ),
        (
            "gemmad_early_answers_thrown_away_total",
            "Those of them whose speaker went on.",
            "/queues/early_thrown_away",
        ),
        (
            "gemmad_ple_rows_total",
            "Rows of per-layer embeddings that were needed.",
            "/ple_rows",
        ),
        (
            "gemmad_ple_row_reads_total",
            "Those of them that were read from flash.",
            "/ple_row_reads",
        ),
    ] {
        if let Some(count) = number(path) {
            page.one(name, "counter", help, count);
        }
    }
    let mut guesses = Table::new();
    for (what, path) in [
        ("guessed", "/guessed_tokens"),
        ("accepted", "/accepted_tokens"),
    ] {
        let counts = health.pointer(path).and_then(Value::as_object);
        for (source, count) in counts.into_iter().flatten() {
            let labels = [("source", source.as_str()), ("token", what)];
            add(&mut guesses, &labels, count.as_f64().unwrap_or_default());
        }
    }
    page.table(
        "gemmad_guesses_total",
        "counter",
        "Tokens of answers that were guessed, and those of them that the model chose.",
        &guesses,
    );
    fleet::write(&mut page, &health["fleet"]);
    let tables = shared
        .counts
        .tables
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    page.table(
        "gemmad_http_requests_total",
        "counter",
        "Requests over HTTP.",
        &tables.requests,
    );
    page.table(
        "gemmad_jobs_total",
        "counter",
        "Work that has ended.",
        &tables.jobs,
    );
    page.table(
        "gemmad_tokens_total",
        "counter",
        "Tokens of prompts and answers, cached ones read before; passes that answers took.",
        &tables.tokens,
    );
    page.table(
        "gemmad_stage_seconds_total",
        "counter",
        "Seconds of work and waiting by stage.",
        &tables.seconds,
    );
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_prometheus_reads_them() {
        let mut page = Page::default();
        let mut table = Table::new();
        add(&mut table, &[("kind", "a\"b\\c\nd")], 1.0);
        add(&mut table, &[("kind", "a\"b\\c\nd")], 1.5);
        page.table("gemmad_x_total", "counter", "X.", &table);
        page.table("gemmad_none", "gauge", "None.", &Table::new());
        assert_eq!(
            page.0,
            "# HELP gemmad_x_total X.\n# TYPE gemmad_x_total counter\ngemmad_x_total{kind=\"a\\\"b\\\\c\\nd\"} 2.5\n"
        );
    }
}
