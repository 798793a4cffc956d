//! Who may depend on whom. The table is ARCHITECTURE.md's; the check reads `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Crates of ours, and the crates of ours that each may depend on directly.
const LAYERS: &[(&str, &[&str])] = &[
    // Put in the place of openraft's histograms; nobody of ours uses it.
    ("base2histogram", &[]),
    ("quorate-clock", &[]),
    ("quorate-objects", &["quorate-clock"]),
    ("quorate-proto", &[]),
    ("quorate-store", &["quorate-clock"]),
    ("quorate-raftstore", &["quorate-clock", "quorate-store", "quorate-proto"]),
    ("quorate-registry", &["quorate-store", "quorate-objects"]),
    ("quorate-scheduler", &["quorate-registry", "quorate-objects", "quorate-store"]),
    (
        "quorate-controllers",
        &["quorate-registry", "quorate-objects", "quorate-scheduler", "quorate-store"],
    ),
    ("quorate-api", &["quorate-registry", "quorate-objects", "quorate-proto", "quorate-store"]),
    ("quorate-client", &["quorate-proto", "quorate-objects"]),
    ("quorate-agent", &["quorate-client", "quorate-objects", "quorate-proto"]),
    ("quorate-cli", &["quorate-client", "quorate-objects", "quorate-proto"]),
    ("quorate-testkit", &["quorate-client", "quorate-objects", "quorate-proto"]),
    ("quorate-chaos", &["quorate-client", "quorate-objects", "quorate-proto", "quorate-testkit"]),
    ("quorate-tests", &["quorate-client", "quorate-objects", "quorate-testkit"]),
    (
        "quorate",
        &[
            "quorate-agent",
            "quorate-api",
            "quorate-cli",
            "quorate-client",
            "quorate-clock",
            "quorate-controllers",
            "quorate-objects",
            "quorate-proto",
            "quorate-raftstore",
            "quorate-registry",
            "quorate-scheduler",
            "quorate-store",
        ],
    ),
];

/// What tests inside a crate may use beyond that.
const TESTS_ONLY: &[(&str, &str)] = &[("quorate-api", "quorate-client")];

/// Crates from elsewhere that only some of ours may depend on.
const RESERVED: &[(&str, &[&str])] = &[
    ("openraft", &["quorate-raftstore"]),
    ("rocksdb", &["quorate-raftstore"]),
    ("bollard", &["quorate-agent"]),
    ("axum", &["quorate-api"]),
    ("tonic-reflection", &["quorate-api"]),
    // The service in api; its client in the agent, for gRPC probes; both in the bench, as the call
    // that costs least.
    ("tonic-health", &["quorate-api", "quorate-agent", "quorate-testkit"]),
    // Servers in api and raftstore, clients in raftstore, client, agent, and testkit's bench.
    (
        "tonic",
        &[
            "quorate-api",
            "quorate-raftstore",
            "quorate-proto",
            "quorate-chaos",
            "quorate-client",
            "quorate-agent",
            "quorate-testkit",
        ],
    ),
];

/// One direct dependency.
#[derive(Debug, Clone)]
struct Edge {
    from: String,
    to: String,
    test: bool,
}

/// What is wrong with a graph; empty when nothing is.
fn violations(crates: &BTreeSet<String>, edges: &[Edge]) -> Vec<String> {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for name in crates.iter().filter(|name| !layers.contains_key(name.as_str())) {
        wrong.push(format!("{name} is not in the table of layers"));
    }
    for Edge { from, to, test } in edges {
        let allowed = layers.get(from.as_str()).copied().unwrap_or_default();
        let excepted = *test && TESTS_ONLY.contains(&(from, to));
        if crates.contains(to) && !allowed.contains(&to.as_str()) && !excepted {
            wrong.push(format!("{from} must not depend on {to}"));
        }
        let reserved = RESERVED.iter().find(|(name, _)| name == to);
        if let Some((_, owners)) = reserved
            && !owners.contains(&from.as_str())
        {
            wrong.push(format!("{from} must not depend on {to}: only {owners:?} may"));
        }
    }
    wrong
}

fn workspace() -> anyhow::Result<(BTreeSet<String>, Vec<Edge>)> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
    let packages = metadata.workspace_packages();
    let crates = packages.iter().map(|package| package.name.to_string()).collect();
    let edges = packages.iter().flat_map(|package| {
        package.dependencies.iter().map(|dependency| Edge {
            from: package.name.to_string(),
            to: dependency.name.clone(),
            test: dependency.kind == DependencyKind::Development,
        })
    });
    Ok((crates, edges.collect()))
}

#[test]
fn every_crate_keeps_to_its_layer() -> anyhow::Result<()> {
    let (crates, edges) = workspace()?;
    assert_eq!(violations(&crates, &edges), Vec::<String>::new());
    assert_eq!(crates.len(), LAYERS.len(), "a crate of the table is gone");
    Ok(())
}

#[test]
fn the_check_finds_what_is_wrong() -> anyhow::Result<()> {
    let edge = |from: &str, to: &str, test| Edge { from: from.into(), to: to.into(), test };
    let (mut crates, mut edges) = workspace()?;
    let good = violations(&crates, &edges).len();
    edges.push(edge("quorate-registry", "quorate-raftstore", false));
    edges.push(edge("quorate-objects", "openraft", true));
    edges.push(edge("quorate-cli", "bollard", false));
    edges.push(edge("quorate-api", "quorate-client", false));
    edges.push(edge("quorate-testkit", "quorate", true));
    edges.push(edge("quorate-api", "quorate-controllers", true));
    crates.insert("quorate-new".into());
    let wrong = violations(&crates, &edges);
    assert_eq!(wrong.len() - good, 7, "{wrong:#?}");
    Ok(())
}
