//! Some steps of a run, with clients, watchers and observers of their own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_testkit::host::Host;
use quorate_testkit::load::{Counts, Load};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cron::Cron;
use super::stalls::Stalls;
use super::{Run, pods};
use crate::evidence::{
    Container, CronRuns, Evidence, QuietStep, SteadyWindow, StepEnds, TrafficWindow,
};
use crate::faults::{self, Mend, Struck};
use crate::observer::Observer;
use crate::plan::{Fault, Step};
use crate::target::Target;
use crate::verdicts::STALL_MS;
use crate::workload::{self, Book, Running};

/// Work without faults before the first one.
const WARM_UP: Duration = Duration::from_secs(1);
/// A window of a run.
pub(super) struct Window<'a> {
    pub(super) run: &'a mut Run,
    pub(super) target: Target,
    pub(super) book: Arc<Book>,
    pub(super) evidence: Evidence,
    pub(super) struck: Vec<Struck>,
    number: usize,
    cron: Option<Cron>,
    /// Requests to a service.
    load: Option<Load>,
    stalls: Stalls,
    /// How late a sleeper was woken in the last step.
    late_ms: u64,
    /// Did the last step spare the nodes?
    calm: bool,
    /// Had no container a reason to notice it?
    spared_containers: bool,
    /// Did it spare the disks?
    spared_disks: bool,
    /// Had nobody a reason to want another leader?
    quiet: bool,
}

impl<'a> Window<'a> {
    pub(super) fn new(run: &'a mut Run, target: &Target, number: usize) -> Self {
        let book = Book::new(run.clock, Arc::clone(&run.meter), number);
        let (target, evidence) = (target.clone(), Evidence::default());
        Self {
            run,
            target,
            book,
            evidence,
            struck: Vec::new(),
            number,
            cron: None,
            load: None,
            stalls: Stalls::watch(),
            late_ms: 0,
            calm: true,
            spared_containers: true,
            spared_disks: true,
            quiet: false,
        }
    }

    /// `first`: number of the first step in the whole plan.
    pub(super) async fn all_steps(
        &mut self,
        steps: &[Step],
        first: usize,
        interrupted: &CancellationToken,
    ) -> Result<()> {
        let pods = self.target.is_ours() && !self.target.nodes.is_empty();
        if pods {
            pods::deploy(&self.target).await?;
        }
        self.cron = Cron::start(&self.target, self.number, self.run.clock.now()).await?;
        self.load = pods::traffic(&self.target)?;
        let observer = Observer::start(&self.target, self.run.clock);
        let load =
            workload::Load { clients: self.run.config.clients, pods, ..workload::Load::default() };
        let target = self.target.clone();
        let (client, etcd) = (|number| target.client(number), |number| target.etcd(number));
        let seed = self.run.report.seed.wrapping_add(first as u64);
        let mut running = Running::start(load, seed, &self.book, client, etcd).await?;
        self.stalls.take_ms();
        sleep(WARM_UP).await;
        let mut result = Ok(());
        for (number, step) in (first..).zip(steps) {
            if interrupted.is_cancelled() {
                break;
            }
            result = self.step(number, step, &observer, interrupted).await;
            if result.is_err() {
                break;
            }
        }
        self.run.progress.line("mending and converging");
        let settled = self.settle(&mut running).await;
        running.stop().await;
        observer.stop(&mut self.evidence).await;
        if let Some(load) = self.load.take() {
            load.stop().await;
        }
        self.book.hand_over(&mut self.evidence);
        result.and(settled)?;
        if let Some(cron) = self.cron.take() {
            self.evidence.cron = Some(self.cron_runs(&cron).await?);
            cron.remove(&self.target).await?;
        }
        pods::remove_jobs(&self.target.client(0)?).await?;
        self.book.clean_up(&self.target.client(0)?, self.target.etcd(0)?).await
    }

    async fn cron_runs(&self, cron: &Cron) -> Result<CronRuns> {
        let turned = self.struck.iter().filter(|s| s.turns_clock && s.skipped.is_none());
        cron.runs(&self.target, self.run.clock.now(), turned.count() as u64).await
    }

    /// Carries the faults of a step out; says how they are mended.
    async fn strike(&mut self, step: &Step) -> Vec<Mend> {
        let mut mends = Vec::new();
        for fault in &step.faults {
            let from = self.run.clock.now();
            let target = self.target.clone();
            let struck = faults::strike(&target, fault, &mut self.run.random, &mut mends).await;
            let (victims, skipped) = match struck {
                Ok(victims) => (victims, None),
                Err(error) => (Vec::new(), Some(format!("{error:#}"))),
            };
            self.struck.push(Struck {
                fault: fault.to_string(),
                victims,
                from,
                until: from,
                spares_nodes: fault.spares_nodes(),
                turns_clock: matches!(fault, Fault::Clock { .. }),
                skipped,
            });
        }
        mends
    }

    async fn step(
        &mut self,
        number: usize,
        step: &Step,
        observer: &Observer,
        interrupted: &CancellationToken,
    ) -> Result<()> {
        // What an earlier fault has begun may go on for a while.
        let containers =
            if self.spared_containers { pods::steady(&self.target).await } else { None };
        let asked = self.load.as_ref().map(Load::counts);
        let first = self.struck.len();
        let mut before = Before { containers, asked, term: observer.leadership().0 };
        let mends = self.strike(step).await;
        let spares = step.faults.iter().zip(&self.struck[first..]).all(|(fault, struck)| {
            fault.spares_containers() || daemons_keep_containers(&self.target, fault, struck)
        });
        self.spared_containers = spares;
        before.containers = before.containers.filter(|_| spares);
        let names: Vec<String> = self.struck[first..].iter().map(Struck::title).collect();
        let names = names.join(" and ");
        let totals = self.run.meter.totals();
        self.run.progress.step(number + 1, &names, totals, observer.leadership());
        let job = format!("job-{number}");
        pods::churn(&self.target, &mut self.run.random, &job).await;
        if let Some(cron) = &self.cron {
            cron.touch(&self.target, number).await;
        }
        pause(step.hold_ms, interrupted).await;
        faults::mend(&self.target, mends, &mut self.run.random)
            .await
            .with_context(|| format!("mending: {names}"))?;
        let now = self.run.clock.now();
        self.struck[first..].iter_mut().for_each(|struck| struck.until = now);
        pause(step.rest_ms, interrupted).await;
        // As a supervisor does: a master that ended later because of its disk runs again.
        let ended = self.target.revive().await?;
        for name in &ended {
            self.run.progress.line(&format!("{name} had ended by itself after: {names}"));
        }
        let spares_disks = !step.faults.iter().any(Fault::damages_disks);
        if std::mem::replace(&mut self.spared_disks, spares_disks) && spares_disks {
            self.evidence.ends.push(StepEnds { faults: names.clone(), ended });
        }
        self.note(step, names, before, observer).await;
        Ok(())
    }

    /// Notes what has come of a step for those whom it spared.
    async fn note(&mut self, step: &Step, faults: String, before: Before, observer: &Observer) {
        let (term, _) = observer.leadership();
        let after = match &before.containers {
            Some(_) => pods::steady(&self.target).await,
            None => None,
        };
        // What the step before has begun may show in this one.
        let late = self.stalls.take_ms();
        let late_ms = late.max(std::mem::replace(&mut self.late_ms, late));
        if late_ms >= STALL_MS {
            let text = format!("the machine stood still for {late_ms} ms around: {faults}");
            self.run.progress.line(&text);
        }
        // An election that an earlier fault has caused may come late.
        if std::mem::replace(&mut self.quiet, step.is_quiet()) && step.is_quiet() {
            let (faults, before) = (faults.clone(), before.term);
            self.evidence.quiet.push(QuietStep { faults, before, after: term, late_ms });
        }
        let spares_nodes = step.faults.iter().all(|fault| fault.spares_nodes());
        let calm = std::mem::replace(&mut self.calm, spares_nodes) && spares_nodes;
        if let (Some(load), Some(asked), true) = (&self.load, before.asked, calm) {
            let counts = load.counts().since(asked);
            let messages = if counts.failed > 0 { load.messages() } else { Vec::new() };
            let (faults, sent, failed) = (faults.clone(), counts.sent, counts.failed);
            let window = TrafficWindow { faults, sent, failed, messages, late_ms };
            self.evidence.traffic.push(window);
        }
        if let (Some(before), Some(after)) = (before.containers, after) {
            self.evidence.steady.push(SteadyWindow { faults, before, after, late_ms });
        }
    }
}

/// How things stood before a step.
struct Before {
    /// Those that nobody changes, unless an earlier fault may have touched them.
    containers: Option<Vec<Container>>,
    /// Requests to the service so far.
    asked: Option<Counts>,
    /// The newest one.
    term: u64,
}

/// Did a daemon die that finds its containers again, and keeps them?
fn daemons_keep_containers(target: &Target, fault: &Fault, struck: &Struck) -> bool {
    let keeps = |node: &String| target.cluster().host(node).is_ok_and(Host::keeps_containers);
    matches!(fault, Fault::KillDocker(_)) && struck.victims.iter().all(keeps)
}

async fn pause(millis: u64, interrupted: &CancellationToken) {
    // Whether it was interrupted is asked where it matters.
    let _ = interrupted.run_until_cancelled(sleep(Duration::from_millis(millis))).await;
}
