//! `make bench`: three members of Debian's etcd and three masters of ours, in turn, on the same
//! disk, under the same client program, over the same protocol (etcd v3). Prints medians over
//! the rounds and the ratios, and writes them as JSON and as a chart.

mod chart;
mod client;
mod large;
mod report;
mod servers;
mod workload;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

use report::{Probe, Report};
use servers::{Kind, Servers};
use workload::Workload;

/// Compares Quorate's etcd API with etcd.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; each starts both systems anew, in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that each load lasts
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Numbers of clients
    #[arg(long, value_delimiter = ',', default_value = "1,64,512")]
    clients: Vec<usize>,
    /// Watchers, all on one key
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
    /// The same, all at one server; 0 leaves it out
    #[arg(long, default_value_t = 10_000)]
    watchers_on_one: usize,
    /// Keys that the large-store part writes; 0 leaves it out
    #[arg(long, default_value_t = 50_000)]
    keys: usize,
    /// Only this system
    #[arg(long, value_enum)]
    only: Option<Kind>,
    /// Where bench.json and bench.svg are written
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let systems: Vec<Kind> = match args.only {
        Some(kind) => vec![kind],
        None => vec![Kind::Etcd, Kind::Quorate],
    };
    let start = Instant::now();
    let mut report = Report::new(Probe::measure(&args.out).await?);
    for round in 0..args.rounds {
        // Neither always goes first.
        let mut order = systems.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        for kind in order {
            eprintln!("round {} of {}: {kind}", round + 1, args.rounds);
            run(kind, &args, &mut report).await.with_context(|| format!("measuring {kind}"))?;
        }
    }
    println!("{report}");
    println!("{:.0} s in all", start.elapsed().as_secs_f64());
    report.write(&args.out)
}

/// One system in one round.
async fn run(kind: Kind, args: &Args, report: &mut Report) -> Result<()> {
    let mut servers = Servers::start(kind).await?;
    report.add(kind, "memory at rest, three servers", "MB", servers.resident_mb());
    let time = Duration::from_secs_f64(args.seconds);
    for workload in [Workload::Put, Workload::LinearizableGet, Workload::SerializableGet] {
        for clients in &args.clients {
            let before = servers.cpu_seconds();
            let done = workload::run(&servers.urls, workload, *clients, time).await?;
            let cpu = servers.cpu_seconds() - before;
            report.load(kind, workload, *clients, &done, cpu);
        }
    }
    if args.watchers > 0 {
        let resident = || servers.resident_mb();
        let watched = workload::watch(&servers.urls, args.watchers, resident).await?;
        report.watch(kind, &format!("{} watchers of one key", args.watchers), &watched.delays);
    }
    report.add(kind, "memory after that, three servers", "MB", servers.resident_mb());
    if args.watchers_on_one > 0 {
        let resident = || servers.resident_mb();
        let watched = workload::watch(&servers.urls[..1], args.watchers_on_one, resident).await?;
        let name = format!("{} watchers of one key at one server", args.watchers_on_one);
        report.watch(kind, &name, &watched.delays);
        report.add(kind, &format!("{name}: more memory"), "MB", watched.more_mb);
    }
    if args.keys > 0 {
        large::measure(&mut servers, args.keys, time, report).await?;
    }
    servers.stop().await
}
