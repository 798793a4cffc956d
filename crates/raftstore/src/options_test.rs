use super::*;

fn options(election: u64, heartbeat: u64) -> Options {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let member = InitialMember {
        name: "m1".into(),
        peer_url: "http://127.0.0.1:7101".into(),
        client_url: "http://127.0.0.1:7001".into(),
    };
    Options {
        election_timeout: Duration::from_millis(election),
        heartbeat: Duration::from_millis(heartbeat),
        ..Options::new("/nowhere", "c", "m1", address, vec![member])
    }
}

#[test]
fn a_silent_leader_is_replaced_after_the_time_that_the_option_says() {
    let config = options(1_000, 100).raft_config().expect("a configuration");
    // A follower waits for the lease, which is the greatest timeout, and for a random one.
    let (least, most) = (config.election_timeout_min, config.election_timeout_max);
    assert_eq!((most + least, most + most), (1_000, 1_200));
    assert!(config.quorum_loss_probe_interval >= Some(2 * most));
}

#[test]
fn every_time_that_is_allowed_makes_a_configuration() {
    for (election, heartbeat) in [(50, 10), (300, 100), (60_000, 5_000)] {
        let options = options(election, heartbeat);
        options.validate().expect("allowed");
        options.raft_config().expect("a configuration");
    }
    let error = options(250, 100).validate().expect_err("too short").to_string();
    assert!(error.contains("three heartbeats"), "{error}");
}
