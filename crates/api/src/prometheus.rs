//! `GET /metrics`: the master's condition as Prometheus text. Where the meaning is that of one of
//! etcd's metrics, so is the name: etcd's dashboards and alerts work.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use quorate_store::{Role, SharedStore, StoreStatus};

use crate::gate::Metrics;

/// The text format's version.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Ticks of processor time per second in /proc (Linux' USER_HZ, the same on all machines).
const TICKS: f64 = 100.0;

/// Adds the route.
pub(crate) fn route(router: Router, store: SharedStore, metrics: Arc<Metrics>) -> Router {
    let answer = move || {
        let mut text = render(&store.status(), &metrics);
        store.write_metrics(&mut text);
        std::future::ready(([(CONTENT_TYPE, FORMAT)], text).into_response())
    };
    router.route("/metrics", get(answer))
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// Text in the making.
#[derive(Default)]
struct Text(String);

impl Text {
    fn add(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.add(name, Kind::Gauge, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.add(name, Kind::Counter, help, value);
    }
}

fn render(status: &StoreStatus, metrics: &Metrics) -> String {
    let mut text = Text::default();
    store(&mut text, status);
    requests(&mut text, metrics);
    process(&mut text);
    text.0
}

fn store(text: &mut Text, s: &StoreStatus) {
    let bit = u8::from;
    let has_leader = s.leadership.leader.is_some();
    text.gauge("etcd_server_has_leader", "1 when this master knows a leader.", bit(has_leader));
    text.gauge("etcd_server_is_leader", "1 when this master leads.", bit(s.role == Role::Leader));
    let learner = s.role == Role::Learner;
    text.gauge("etcd_server_is_learner", "1 when this master has no vote.", bit(learner));
    let ready = s.leadership.ready.is_some();
    text.gauge(
        "quorate_leader_work_running",
        "1 when scheduler and controllers run here.",
        bit(ready),
    );
    text.gauge("quorate_raft_term", "The newest term known.", s.leadership.term);
    text.gauge("quorate_raft_last_index", "Last index in the log.", s.last_index);
    text.gauge("etcd_server_proposals_applied_total", "Last index applied.", s.applied_index);
    text.gauge("etcd_debugging_mvcc_current_revision", "Revision applied.", s.revision);
    let help = "Revision up to which history is compacted.";
    text.gauge("etcd_debugging_mvcc_compact_revision", help, s.compact_revision);
    let help = "Bytes on disk of the state.";
    text.gauge("etcd_mvcc_db_total_size_in_bytes", help, s.state_bytes);
    let help = "Bytes of the state that are not deleted or compacted, about.";
    text.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", help, s.state_bytes_in_use);
    let help = "Bytes on disk of state and log.";
    text.gauge("quorate_store_disk_bytes", help, s.disk_bytes);
    let help = "The size budget of the state; 0 for none.";
    text.gauge("etcd_server_quota_backend_bytes", help, s.budget_bytes);
    text.gauge("quorate_store_alarms", "Alarms that are on.", s.alarms.len());
    if let Some(ms) = s.quorum_ack_ms {
        let seconds = ms as f64 / 1e3;
        let help = "Time since a quorum last answered this leader.";
        text.gauge("quorate_leader_quorum_age_seconds", help, seconds);
    }
}

fn requests(text: &mut Text, metrics: &Metrics) {
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    text.counter("quorate_api_requests_total", "Requests taken.", of(&metrics.requests));
    let help = "Requests refused because too many were in flight.";
    text.counter("quorate_api_requests_shed_total", help, of(&metrics.shed));
    let help = "Requests answered at once with an error.";
    text.counter("quorate_api_requests_failed_total", help, of(&metrics.failed));
    let help = "Requests being carried out, without streams.";
    text.gauge("quorate_api_requests_in_flight", help, metrics.in_flight());
    text.gauge("quorate_api_streams_open", "Watches, sessions and logs.", metrics.open_streams());
}

/// The names that Prometheus' own libraries use.
fn process(text: &mut Text) {
    let resident = crate::cluster::resident_bytes();
    text.gauge("process_resident_memory_bytes", "Resident memory.", resident);
    if let Some(seconds) = cpu_seconds() {
        text.counter("process_cpu_seconds_total", "Processor time, user and system.", seconds);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        text.gauge("process_open_fds", "Open file descriptors.", files.count());
    }
}

/// utime and stime: fields 14 and 15 of /proc/self/stat, counted behind the name in brackets.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

#[cfg(test)]
#[path = "prometheus_test.rs"]
mod tests;
