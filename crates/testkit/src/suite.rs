//! Runs the cases of one test file against one cluster, in order, and reports as libtest does.
//!
//! libtest cannot share a cluster between tests and still stop it at the end; starting one per
//! test would cost a minute per file. Test files that use this set `harness = false`.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::cluster::{Options, TestCluster};

/// Longest time that one case may take.
const CASE_LIMIT: Duration = Duration::from_secs(150);

/// Longest time for a start or a stop of the cluster.
const CLUSTER_LIMIT: Duration = Duration::from_secs(90);

/// The future of one case.
pub type CaseFuture = Pin<Box<dyn Future<Output = Result<()>>>>;

/// One test: a name, and what to do with the cluster.
pub struct Case {
    /// Name, as printed and as matched by filters.
    pub name: &'static str,
    /// The test.
    pub run: fn(Arc<TestCluster>) -> CaseFuture,
}

/// Makes a `Vec<Case>` of async functions that take an `Arc<TestCluster>`.
#[macro_export]
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        vec![$($crate::suite::Case {
            name: stringify!($case),
            run: |cluster| Box::pin($case(cluster)),
        }),+]
    };
}

/// What the command line asks for; libtest's options that do not matter here are accepted.
#[derive(Default)]
struct Arguments {
    filters: Vec<String>,
    exact: bool,
    list: bool,
}

impl Arguments {
    fn parse(args: impl Iterator<Item = String>) -> Self {
        let mut parsed = Self::default();
        let mut args = args.skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                "--test-threads" | "--format" | "--color" | "--skip" => drop(args.next()),
                option if option.starts_with('-') => {}
                filter => parsed.filters.push(filter.to_owned()),
            }
        }
        parsed
    }

    fn wants(&self, name: &str) -> bool {
        let hit = |filter: &String| if self.exact { filter == name } else { name.contains(filter) };
        self.filters.is_empty() || self.filters.iter().any(hit)
    }
}

/// The `main` of a test file: starts a cluster, runs the cases, stops the cluster.
#[must_use]
pub fn main(options: Options, cases: Vec<Case>) -> ExitCode {
    let arguments = Arguments::parse(std::env::args());
    if arguments.list {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let total = cases.len();
    let wanted: Vec<Case> = cases.into_iter().filter(|case| arguments.wants(case.name)).collect();
    println!("\nrunning {} tests", wanted.len());
    let start = Instant::now();
    let (count, filtered) = (wanted.len(), total - wanted.len());
    let outcome = if wanted.is_empty() { Outcome::default() } else { run_all(options, wanted) };
    report(&outcome, count, filtered, start.elapsed())
}

/// What came of a run. A case that was not reached has not passed.
#[derive(Default)]
struct Outcome {
    passed: usize,
    /// Case, or step of the suite, and what went wrong.
    failures: Vec<(&'static str, String)>,
}

impl Outcome {
    /// libtest's closing line for `count` cases that were wanted.
    fn summary(&self, count: usize, filtered: usize, elapsed: Duration) -> String {
        let (passed, failed) = (self.passed, count - self.passed);
        let word = if failed == 0 { "ok" } else { "FAILED" };
        format!(
            "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
             {filtered} filtered out; finished in {:.2}s",
            elapsed.as_secs_f64()
        )
    }
}

fn run_all(options: Options, cases: Vec<Case>) -> Outcome {
    let all_failed =
        |error: String| Outcome { passed: 0, failures: vec![("(start of the cluster)", error)] };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return all_failed(error.to_string()),
    };
    // Local: the cases' futures borrow conditions that need not be `Send`.
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let started = tokio::time::timeout(CLUSTER_LIMIT, TestCluster::start(options)).await;
        let cluster = match started {
            Ok(Ok(cluster)) => Arc::new(cluster),
            Ok(Err(error)) => return all_failed(format!("{error:#}")),
            Err(_) => return all_failed(format!("not up within {CLUSTER_LIMIT:?}")),
        };
        let mut outcome = Outcome::default();
        for case in cases {
            let Err(error) = run_one(&case, &cluster).await else {
                outcome.passed += 1;
                continue;
            };
            outcome.failures.push((case.name, format!("{error:#}")));
            // The next case shall not suffer from what this one left behind.
            if let Err(error) = cluster.heal().await {
                outcome.failures.push(("(healing the cluster)", format!("{error:#}")));
                break;
            }
        }
        outcome
    })
}

async fn run_one(case: &Case, cluster: &Arc<TestCluster>) -> Result<()> {
    let start = Instant::now();
    // A task of its own, so that a panic fails this case and not the whole run.
    let mut task = tokio::task::spawn_local((case.run)(Arc::clone(cluster)));
    let result = match tokio::time::timeout(CASE_LIMIT, &mut task).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(anyhow!("{panic}")),
        Err(_) => {
            task.abort();
            Err(anyhow!("not done within {CASE_LIMIT:?}"))
        }
    };
    let word = if result.is_ok() { "ok" } else { "FAILED" };
    println!("test {} ... {word} ({:.1}s)", case.name, start.elapsed().as_secs_f64());
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(anyhow!("{error:#}\n{}", cluster.describe().await)),
    }
}

fn report(outcome: &Outcome, count: usize, filtered: usize, elapsed: Duration) -> ExitCode {
    for (name, error) in &outcome.failures {
        println!("\n---- {name} ----\n{error}");
    }
    println!("\n{}\n", outcome.summary(count, filtered, elapsed));
    if outcome.passed == count { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

#[cfg(test)]
#[path = "suite_test.rs"]
mod tests;
