use quorate_client::{EndpointEntry, MasterEntry};

use super::*;

#[test]
fn contexts_are_the_endpoint_and_every_master() {
    let master = |n: u16| MasterEntry {
        name: format!("m{n}"),
        url: format!("http://127.0.0.1:{}", 7000 + n),
        ..MasterEntry::default()
    };
    let mut file = ClusterFile { masters: vec![master(1), master(2)], ..ClusterFile::default() };
    let config = of(&file, None).unwrap();
    assert_eq!(config["clusters"][0]["cluster"]["server"], "http://127.0.0.1:7001");
    file.endpoint = Some(EndpointEntry { pid: None, url: "http://127.0.0.1:7000".into() });
    let config = of(&file, None).unwrap();
    assert_eq!(config["current-context"], "quorate");
    assert_eq!(config["clusters"][0]["cluster"]["server"], "http://127.0.0.1:7000");
    assert_eq!(config["contexts"][2]["name"], "quorate-m2");
    let config = of(&file, Some("https://elsewhere:6443")).unwrap();
    assert_eq!(config["clusters"][0]["cluster"]["server"], "https://elsewhere:6443");
    assert!(of(&ClusterFile::default(), None).is_err());
}
