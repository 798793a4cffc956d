//! The chaos harness: a short run keeps every promise, and each deliberately broken build is
//! caught. A harness that cannot fail proves nothing.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_testkit::process::{self, Output};
use serde_json::Value;
use tokio::sync::Mutex;

/// Longest time of one run: hosts with Docker daemons of their own take a while to come back.
const LIMIT: Duration = Duration::from_secs(300);

/// One run at a time: two would take the time from each other that their verdicts count.
static ONE: Mutex<()> = Mutex::const_new(());

/// Runs the harness; returns what it printed, and its report.
async fn chaos(args: &[&str], defect: Option<&str>) -> Result<(Output, Value)> {
    let _turn = ONE.lock().await;
    let folder = tempfile::Builder::new().prefix("quorate-chaos-test-").tempdir()?;
    let out = folder.path().join("out");
    let args = [&["chaos", "run", "--out", path(&out)?][..], args].concat();
    let env: Vec<(&str, &OsStr)> =
        defect.iter().map(|defect| ("QUORATE_DEFECT", OsStr::new(*defect))).collect();
    let output = process::run_within(LIMIT, process::binary()?, &args, &env, None).await?;
    let text = std::fs::read(out.join("report.json")).with_context(|| output.to_string())?;
    Ok((output, serde_json::from_slice(&text)?))
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

/// Outcome and number of things checked of one promise.
fn verdict(report: &Value, name: &str) -> Result<(Value, u64)> {
    let verdicts = report["verdicts"].as_array().context("verdicts")?;
    let verdict = verdicts.iter().find(|verdict| verdict["name"] == name);
    let verdict = verdict.with_context(|| format!("no verdict {name:?}"))?;
    Ok((verdict["outcome"].clone(), verdict["checked"].as_u64().unwrap_or(0)))
}

#[tokio::test]
async fn a_short_run_keeps_every_promise() -> Result<()> {
    let (output, report) = chaos(&["--scenario", "short", "--seed", "1"], None).await?;
    ensure!(output.code == Some(0), "{output}");
    for (name, least) in [
        ("linearizable registers", 200),
        ("linearizable lists of objects", 100),
        ("linearizable appends", 50),
        ("no lost acknowledged write", 100),
        ("watch: reliable", 300),
        ("one leader per term", 10),
        ("members agree", 10),
        ("bounded convergence", 5),
    ] {
        let (outcome, checked) = verdict(&report, name)?;
        ensure!(outcome == "kept" && checked >= least, "{name}: {outcome}, {checked}\n{output}");
    }
    Ok(())
}

/// That these promises were checked, and kept.
fn kept(output: &Output, report: &Value, promises: &[&str]) -> Result<()> {
    for name in promises {
        let (outcome, checked) = verdict(report, name)?;
        ensure!(outcome == "kept" && checked > 0, "{name}: {outcome}, {checked}\n{output}");
    }
    Ok(())
}

/// Runs a scenario: all its faults are carried out, and these promises are kept.
async fn keeps(args: &[&str], faults: usize, promises: &[&str]) -> Result<Value> {
    let (output, report) = chaos(args, None).await?;
    ensure!(output.code == Some(0), "{output}");
    let struck = report["faults"].as_array().context("faults")?;
    let skipped: Vec<_> = struck.iter().filter(|fault| !fault["skipped"].is_null()).collect();
    ensure!(struck.len() == faults && skipped.is_empty(), "{} faults, {skipped:?}", struck.len());
    kept(&output, &report, promises)?;
    Ok(report)
}

/// Masters on disks that lose what was not synced, and masters that are replaced.
#[tokio::test]
async fn power_cuts_and_new_members_keep_every_promise() -> Result<()> {
    for (scenario, faults) in [("power", 3), ("members", 7)] {
        let (output, report) = chaos(&["--scenario", scenario, "--seed", "1"], None).await?;
        ensure!(output.code == Some(0), "{scenario}: {output}");
        let struck = report["faults"].as_array().context("faults")?;
        let happened = struck.iter().filter(|fault| fault["skipped"].is_null()).count();
        ensure!(happened >= faults, "{scenario}: {happened} faults\n{output}");
        let promises = ["no lost acknowledged write", "members agree", "locks are fenced"];
        kept(&output, &report, &promises)?;
    }
    Ok(())
}

/// Nodes on hosts of their own, whose Docker daemons die and hang.
#[tokio::test]
async fn daemons_that_die_and_hang_keep_every_promise() -> Result<()> {
    let promises = [
        "no pod on two nodes",
        "no container notices a master's death",
        "no orphan containers",
        "bounded convergence",
    ];
    keeps(&["--scenario", "docker", "--nodes", "2", "--seed", "1"], 8, &promises).await.map(drop)
}

/// A leader that no node reaches, though the other masters hear them: it judges nobody, and gives
/// way to one that hears them.
#[tokio::test]
async fn a_deaf_leader_keeps_every_promise() -> Result<()> {
    let promises = [
        "no container notices a master's death",
        "services serve without masters",
        "bounded convergence",
    ];
    let args = ["--scenario", "deaf", "--nodes", "2", "--seed", "1"];
    let report = keeps(&args, 3, &promises).await?;
    let leaders = report["leaders"].as_array().context("leaders")?.len();
    ensure!(leaders > 1, "nobody gave way");
    Ok(())
}

/// Clocks that jump by hours and a day.
#[tokio::test]
async fn clocks_that_jump_keep_every_promise() -> Result<()> {
    let promises = ["no burst of cron runs", "leases live their time", "one leader per term"];
    keeps(&["--scenario", "clocks", "--hollow", "3", "--seed", "1"], 10, &promises).await.map(drop)
}

/// Runs until the harness has caught the defect: a few times at most, for some defects show only
/// when something is on its way at the wrong moment.
async fn is_caught(defect: &str, args: &[&str], by: &str) -> Result<()> {
    let mut last = String::new();
    for seed in ["1", "2", "3"] {
        let args = [args, &["--seed", seed]].concat();
        let (output, report) = chaos(&args, Some(defect)).await?;
        let (outcome, _) = verdict(&report, by)?;
        if output.code == Some(1) && outcome.get("violated").is_some() {
            return Ok(());
        }
        last = format!("{by}: {outcome}\n{output}");
    }
    anyhow::bail!("not caught: {last}")
}

#[tokio::test]
async fn an_early_acknowledgement_is_caught() -> Result<()> {
    // Whenever the power fails, something has been acknowledged that is not on a disk yet.
    let plan = ["--scenario", "power"];
    is_caught("early-acknowledgement", &plan, "no lost acknowledged write").await
}

#[tokio::test]
async fn a_log_that_is_not_synced_is_caught() -> Result<()> {
    is_caught("skip-sync", &["--scenario", "power"], "no lost acknowledged write").await
}

#[tokio::test]
async fn an_ignored_fence_is_caught() -> Result<()> {
    let plan = ["--scenario", "transfers", "--nodes", "1"];
    is_caught("ignore-fence", &plan, "deposed leaders decide nothing").await
}
