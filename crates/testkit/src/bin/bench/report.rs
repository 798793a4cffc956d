//! What was measured: medians, ratios, files.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::chart;
use crate::client;
use crate::servers::Kind;
use crate::workload::{Done, Latencies, Workload};

/// Syncs that the disk is measured with.
const SYNCS: usize = 200;

/// Calls that the network is measured with.
const CALLS: usize = 500;

/// What the machine can do at best.
pub struct Probe {
    /// Median of writing and syncing 4 KiB, in ms.
    fdatasync_ms: f64,
    /// Median of a gRPC call over loopback to a server that does nothing, in ms.
    round_trip_ms: f64,
    processors: usize,
}

impl Probe {
    /// Measures the disk that `out` is on.
    pub async fn measure(out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
        // Where the servers keep their data.
        let mut file = tempfile::tempfile()?;
        let mut times = Vec::new();
        for _ in 0..SYNCS {
            let start = Instant::now();
            file.write_all(&[7; 4096])?;
            file.sync_data()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let round_trip_ms = round_trip().await?;
        Ok(Self { fdatasync_ms: median(&mut times), round_trip_ms, processors })
    }

    /// What a single put costs at least, in ms: the call of the client, the call of a peer, and
    /// one sync.
    fn least_put_ms(&self) -> f64 {
        2.0 * self.round_trip_ms + self.fdatasync_ms
    }
}

async fn round_trip() -> Result<f64> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (_reporter, service) = tonic_health::server::health_reporter();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    // Task "bench echo": ends with this function; without it the calls fail.
    let server = tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming),
    );
    let mut client = HealthClient::new(client::connect(&url).await?);
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let start = Instant::now();
        client.check(HealthCheckRequest::default()).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    server.abort();
    Ok(median(&mut times))
}

/// One line of the table: a figure of each system in each round.
struct Figure {
    name: String,
    unit: &'static str,
    values: BTreeMap<Kind, Vec<f64>>,
}

impl Figure {
    fn median(&self, kind: Kind) -> Option<f64> {
        let mut values = self.values.get(&kind)?.clone();
        Some(median(&mut values))
    }

    /// How much better Quorate is: 2 means twice as fast, or half the time.
    fn advantage(&self) -> Option<f64> {
        let (ours, theirs) = (self.median(Kind::Quorate)?, self.median(Kind::Etcd)?);
        Some(if self.unit == "/s" { ours / theirs } else { theirs / ours })
    }
}

/// All figures.
pub struct Report {
    probe: Probe,
    figures: Vec<Figure>,
}

impl Report {
    pub fn new(probe: Probe) -> Self {
        Self { probe, figures: Vec::new() }
    }

    pub fn add(&mut self, kind: Kind, name: &str, unit: &'static str, value: f64) {
        eprintln!("  {name}: {value:.3} {unit}");
        let at = self.figures.iter().position(|figure| figure.name == name);
        let at = at.unwrap_or_else(|| {
            let values = BTreeMap::new();
            self.figures.push(Figure { name: name.to_owned(), unit, values });
            self.figures.len() - 1
        });
        self.figures[at].values.entry(kind).or_default().push(value);
    }

    pub fn load(&mut self, kind: Kind, what: Workload, clients: usize, done: &Done, cpu: f64) {
        let name = |of: &str| format!("{what}, {clients} clients: {of}");
        self.add(kind, &name("rate"), "/s", done.per_second());
        self.add(kind, &name("median"), "ms", done.latencies.quantile(0.5));
        self.add(kind, &name("p99"), "ms", done.latencies.quantile(0.99));
        let per_operation = cpu / done.all as f64 * 1e6;
        self.add(kind, &name("processor time each, three servers"), "µs", per_operation);
    }

    pub fn watch(&mut self, kind: Kind, what: &str, delays: &Latencies) {
        let name = |of: &str| format!("{what}: delay, {of}");
        self.add(kind, &name("median"), "ms", delays.quantile(0.5));
        self.add(kind, &name("p99"), "ms", delays.quantile(0.99));
    }

    /// Writes `bench.json` and `bench.svg`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let figures: Vec<Value> = self.figures.iter().map(json_of).collect();
        let all = json!({
            "processors": self.probe.processors,
            "fdatasync_ms": self.probe.fdatasync_ms,
            "round_trip_ms": self.probe.round_trip_ms,
            "figures": figures,
        });
        let rows: Vec<(String, f64)> = self
            .figures
            .iter()
            .filter_map(|figure| Some((figure.name.clone(), figure.advantage()?)))
            .collect();
        let files = [
            ("bench.json", serde_json::to_string_pretty(&all)?),
            ("bench.svg", chart::advantages(&rows)),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            println!("wrote {}", path.display());
        }
        Ok(())
    }
}

fn json_of(figure: &Figure) -> Value {
    let rounds = |kind| figure.values.get(&kind).cloned().unwrap_or_default();
    json!({
        "name": figure.name,
        "unit": figure.unit,
        "etcd": figure.median(Kind::Etcd),
        "quorate": figure.median(Kind::Quorate),
        "times_better": figure.advantage(),
        "etcd_rounds": rounds(Kind::Etcd),
        "quorate_rounds": rounds(Kind::Quorate),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = "─".repeat(104);
        writeln!(f, "{line}")?;
        writeln!(
            f,
            " {} processors, shared by servers and clients; write and fdatasync of 4 KiB: {:.2} ms, \
             empty gRPC call: {:.2} ms, so a put at least {:.2} ms",
            self.probe.processors,
            self.probe.fdatasync_ms,
            self.probe.round_trip_ms,
            self.probe.least_put_ms()
        )?;
        writeln!(
            f,
            " {:<62}{:>12}{:>12}   times better",
            "median over the rounds", "etcd", "quorate"
        )?;
        for figure in &self.figures {
            let value = |kind| figure.median(kind).map_or("-".to_owned(), number);
            let better = figure.advantage().map_or("-".to_owned(), |x| format!("{x:.2}"));
            let name = format!("{} [{}]", figure.name, figure.unit);
            let (etcd, quorate) = (value(Kind::Etcd), value(Kind::Quorate));
            writeln!(f, " {name:<62}{etcd:>12}{quorate:>12}{better:>15}")?;
        }
        write!(f, "{line}")
    }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
