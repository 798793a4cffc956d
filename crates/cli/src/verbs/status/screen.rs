//! The screen.

use super::report::{Master, Node, Report};
use crate::output::table;

pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |parts: &str| {
        text.push_str(parts);
        text.push('\n');
    };
    let id = if report.cluster_id.is_empty() { "unknown" } else { &report.cluster_id };
    line(&format!("Cluster {id}: {}", report.health));
    let leader = match report.leader.as_str() {
        "" => "none".to_owned(),
        name => format!("{name} (term {})", report.term),
    };
    line(&format!("Leader:    {leader}"));
    let reachable = report.masters.iter().filter(|master| master.reachable).count();
    line(&format!("Masters:   {reachable} of {} answer", report.masters.len()));
    line(&format!("Nodes:     {} of {} ready", report.nodes_ready, report.nodes_total));
    line(&format!("Tolerance: {}", tolerance(report)));
    line("");
    let headings = ["MASTER", "ROLE", "URL", "TERM", "LAG", "REVISION", "DISK", "MEMORY", "PID"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    rows.extend(report.masters.iter().map(master));
    text.push_str(&table::render(&rows));
    if !report.nodes.is_empty() {
        let mut rows =
            vec![["NODE", "STATUS", "ADDRESS", "PODS READY", "PID"].map(str::to_owned).to_vec()];
        rows.extend(report.nodes.iter().map(node));
        text.push('\n');
        text.push_str(&table::render(&rows));
    }
    if !report.problems.is_empty() {
        text.push_str("\nWhat is wrong:\n");
        for problem in &report.problems {
            text.push_str(&format!("  - {problem}\n"));
        }
    }
    text
}

fn tolerance(report: &Report) -> String {
    match (report.quorum, report.tolerance) {
        (false, _) => "none: there is no majority".into(),
        (true, 0) => "no further master may die".into(),
        (true, 1) => "1 more master may die".into(),
        (true, n) => format!("{n} more masters may die"),
    }
}

fn master(master: &Master) -> Vec<String> {
    let number = |value: u64| if master.reachable { value.to_string() } else { "-".into() };
    let size = |value: u64| if master.reachable { bytes(value) } else { "-".into() };
    vec![
        master.name.clone(),
        if master.reachable { master.role.clone() } else { "unreachable".into() },
        master.url.clone(),
        number(master.term),
        master.lag.map_or_else(|| "-".into(), |lag| lag.to_string()),
        number(master.revision),
        size(master.disk_bytes),
        size(master.resident_bytes),
        pid(master.pid),
    ]
}

fn node(node: &Node) -> Vec<String> {
    let pods = format!("{}/{}", node.pods_ready, node.pods);
    vec![node.name.clone(), node.status.clone(), node.address.clone(), pods, pid(node.pid)]
}

fn pid(pid: Option<u32>) -> String {
    pid.map_or_else(|| "-".into(), |pid| pid.to_string())
}

/// `512 B`, `1.5 MiB`
fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut amount = value as f64;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(50 << 20), "50.0 MiB");
    }
}
