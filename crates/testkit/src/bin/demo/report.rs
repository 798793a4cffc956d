//! The table at the end.

use std::fmt;
use std::time::Duration;

use quorate_testkit::load::Counts;

/// What the demo has measured.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests of the whole run.
    pub total: Counts,
    /// Requests from the leader's death until a new leader's work was running and a while after.
    pub during_failover: Counts,
    /// Requests from the node's death until all replicas were back.
    pub during_replacement: Counts,
    /// Writes acknowledged.
    pub writes: usize,
    /// Writes whose outcome the answer called unknown.
    pub unknown: usize,
    /// SIGKILL of the leader to the next acknowledged write.
    pub failover: Duration,
    /// SIGKILL of the node to five ready replicas elsewhere.
    pub replacement: Duration,
    /// Containers that are not the same, running since the same moment, as before the leader died.
    pub restarted: usize,
    /// How many of them there were.
    pub watched: usize,
    /// Ready replicas at the end, and how many there should be.
    pub ready: (usize, usize),
    /// Time of the whole demo.
    pub elapsed: Duration,
    /// First errors of requests.
    pub messages: Vec<String>,
}

impl Report {
    /// Is every replica there, and was no container touched by the leader's death?
    pub fn good(&self) -> bool {
        self.restarted == 0 && self.ready.0 == self.ready.1 && self.total.sent > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = "─".repeat(72);
        writeln!(f, "{line}")?;
        let mut row = |name: &str, value: String| writeln!(f, " {name:<46}{value}");
        row("requests sent", self.total.sent.to_string())?;
        row("  failed", self.total.failed.to_string())?;
        row("  answered at the second node's address", self.total.retried.to_string())?;
        row("  failed around the leader's death", self.during_failover.failed.to_string())?;
        row("  failed around the node's death", self.during_replacement.failed.to_string())?;
        row("writes acknowledged, all found again", self.writes.to_string())?;
        row("  outcome unknown (and reported so)", self.unknown.to_string())?;
        row(
            "leader killed to next acknowledged write",
            format!("{} ms", self.failover.as_millis()),
        )?;
        let replacement = format!("{:.1} s", self.replacement.as_secs_f64());
        row("node killed to all replicas ready again", replacement)?;
        let restarted = format!("{} of {}", self.restarted, self.watched);
        row("containers restarted by the master's death", restarted)?;
        row("replicas ready at the end", format!("{} of {}", self.ready.0, self.ready.1))?;
        row("time of the whole demo", format!("{:.0} s", self.elapsed.as_secs_f64()))?;
        write!(f, "{line}")?;
        for message in &self.messages {
            write!(f, "\n failed request: {message}")?;
        }
        Ok(())
    }
}
