//! One run: a cluster, clients, faults, and in the end a judgement. A long run is judged in
//! windows, so that it needs no more memory and disk than a short one.

mod cron;
mod interrupt;
mod pods;
mod settle;
mod stalls;
mod window;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use quorate_testkit::Options;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use crate::disk::Names;
use crate::evidence::Evidence;
use crate::fences;
use crate::history::Clock;
use crate::meter::Meter;
use crate::plan::{Abilities, Plan, Step};
use crate::progress::Progress;
use crate::report::{self, Report};
use crate::target::Target;
use crate::verdicts;
pub(crate) use pods::STATEFUL;
use window::Window;

/// Which cluster.
#[derive(Debug)]
pub enum Cluster {
    /// One that is started for the purpose.
    Own {
        /// How.
        options: Options,
        /// Put the masters' data on disks that can be broken, which keep names like this.
        disks: Option<Names>,
    },
    /// One that runs already.
    Running {
        /// Its folder.
        folder: PathBuf,
        /// What may be broken.
        allowed: Abilities,
    },
}

/// What to run.
#[derive(Debug)]
pub struct Config {
    /// Where.
    pub cluster: Cluster,
    /// What is broken.
    pub plan: Plan,
    /// Number of clients.
    pub clients: u32,
    /// Steps after which everything is judged and forgotten.
    pub window: usize,
    /// After a violation, go on with a new cluster.
    pub keep_going: bool,
    /// Where report, evidence and (after a violation) logs go.
    pub out: PathBuf,
    /// Keep the logs even when all is well.
    pub keep_logs: bool,
}

/// Runs, judges, and writes the report into `config.out`: anew after each window, so that a run
/// that is killed leaves what it knew. SIGINT and SIGTERM end it early, with a judgement.
///
/// # Errors
/// When the cluster does not start, or the report cannot be written; not when a promise is
/// broken: the report says that.
pub async fn run(config: Config) -> Result<Report> {
    std::fs::create_dir_all(&config.out)
        .with_context(|| format!("making the folder {}", config.out.display()))?;
    let interrupted = interrupt::token()?;
    let mut progress = Progress::new(config.plan.steps.len());
    progress.line("starting the cluster");
    let target = start(&config).await?;
    let plan = config.plan.clone().within(&target.abilities());
    let mut run = Run {
        random: StdRng::seed_from_u64(plan.seed),
        report: Report::new(plan.clone(), &target),
        started: Instant::now(),
        clock: Clock::start(),
        meter: Meter::shared(),
        seen: Evidence::default(),
        progress,
        config,
    };
    let ended = run.windows(target, &plan, &interrupted).await;
    run.progress.end();
    ended?;
    Ok(run.report)
}

async fn start(config: &Config) -> Result<Target> {
    match &config.cluster {
        Cluster::Own { options, disks } => {
            let mut options = options.clone();
            options.clocks = true;
            options.environment.push(("QUORATE_LOG".to_owned(), fences::LOG.to_owned()));
            Target::start(options, *disks).await
        }
        Cluster::Running { folder, allowed } => Target::attach(folder, allowed),
    }
}

/// What outlives a window.
struct Run {
    config: Config,
    random: StdRng,
    report: Report,
    started: Instant,
    clock: Clock,
    meter: std::sync::Arc<Meter>,
    /// What earlier windows know of terms: see [`report::remember`].
    seen: Evidence,
    progress: Progress,
}

impl Run {
    async fn windows(
        &mut self,
        mut target: Target,
        plan: &Plan,
        interrupted: &CancellationToken,
    ) -> Result<()> {
        let size = self.config.window.max(1);
        let count = plan.steps.len().div_ceil(size);
        for (number, steps) in plan.steps.chunks(size).enumerate() {
            let first = number * size;
            let failed = self.window(&target, (number, first), steps, interrupted).await?;
            let last = number + 1 == count || interrupted.is_cancelled();
            let go_on = self.config.keep_going && target.is_ours();
            if last || failed && !go_on {
                break;
            }
            if failed {
                self.progress.line("going on with a new cluster");
                drop(target);
                target = start(&self.config).await?;
                self.seen = Evidence::default();
            }
        }
        Ok(())
    }

    /// Runs and judges one window, and writes the report so far. Did it fail?
    async fn window(
        &mut self,
        target: &Target,
        (number, first): (usize, usize),
        steps: &[Step],
        interrupted: &CancellationToken,
    ) -> Result<bool> {
        let mut window = Window::new(self, target, number);
        window.evidence.masters = std::mem::take(&mut window.run.seen.masters);
        let ended = window.all_steps(steps, first, interrupted).await;
        let Window { mut evidence, struck, .. } = window;
        let folder = target.folder();
        evidence.fenced = fences::read(folder);
        self.progress.line("judging");
        // It may take seconds, and everything else of this process waits on its own threads.
        let verdicts = tokio::task::block_in_place(|| verdicts::judge(&evidence));
        let failed = ended.is_err() || verdicts::any_violation(&verdicts);
        self.seen.masters = report::remember(&evidence.masters);
        let report = &mut self.report;
        report.leaders.extend(report::leaders(&evidence.masters));
        report.faults.extend(struck);
        report.add(number, verdicts, ended.err());
        report.set_buckets(self.meter.buckets());
        report.seconds = self.started.elapsed().as_secs();
        report.interrupted = interrupted.is_cancelled();
        self.progress.line(&report.line(number));
        report.write(&self.config.out, &evidence)?;
        if failed || self.config.keep_logs {
            let kept = self.keep(number, failed);
            std::fs::create_dir_all(&kept)?;
            if failed && kept != self.config.out {
                std::fs::copy(self.config.out.join("evidence.json"), kept.join("evidence.json"))?;
            }
            report::keep_logs(folder, &kept.join("logs"))?;
        }
        if target.is_ours() {
            report::empty_logs(folder)?;
        }
        Ok(failed)
    }

    /// Where logs and evidence of a window go that must outlive the next one.
    fn keep(&self, number: usize, failed: bool) -> PathBuf {
        let out: &Path = &self.config.out;
        let more = self.config.plan.steps.len() > self.config.window.max(1);
        if failed && more { out.join(format!("window-{}", number + 1)) } else { out.to_owned() }
    }
}
