use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::local::file::NodeSpec;

fn cluster(nodes: &[(&str, u32)]) -> ClusterSpec {
    let node = |(name, hollow): &(&str, u32)| NodeSpec {
        name: (*name).to_owned(),
        pid: 0,
        data_dir: name.into(),
        address: String::new(),
        hollow: *hollow,
    };
    let nodes = nodes.iter().map(node).collect();
    ClusterSpec { nodes, service_cidr: "10.208.0.0/16".to_owned(), ..ClusterSpec::default() }
}

fn subject(pki: &Path, file: &str) -> (String, Vec<String>) {
    let pem = fs::read(pki.join(format!("{file}.crt"))).unwrap();
    let base64: String =
        String::from_utf8(pem).unwrap().lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).unwrap();
    let subject = quorate_proto::Subject::of(&der).unwrap();
    (subject.common_name, subject.organisations)
}

#[test]
fn a_certificate_says_who_bears_it() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &cluster(&[("n1", 0), ("hollow", 9)])).unwrap();
    for (file, name, organisation) in [
        ("master", "system:quorate:master", "system:masters"),
        ("admin", "kubernetes-admin", "system:masters"),
        ("node", "system:quorate:endpoint", "system:quorate:endpoints"),
        ("node-n1", "system:node:n1", "system:nodes"),
        ("node-hollow", "system:node:hollow", "system:masters"),
    ] {
        let wanted = (name.to_owned(), vec![organisation.to_owned()]);
        assert_eq!(subject(dir.path(), file), wanted, "{file}");
    }
    // An authority whose key is lost can sign nothing more: all are made anew.
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let before = fs::read(dir.path().join("master.crt")).unwrap();
    ensure(dir.path(), &cluster(&[("n1", 0)])).unwrap();
    assert_ne!(fs::read(dir.path().join("master.crt")).unwrap(), before);
}

#[test]
fn keys_are_private_and_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    ensure(&pki, &cluster(&[("n1", 0)])).unwrap();
    let read = || fs::read_to_string(pki.join("master.key")).unwrap();
    let first = read();
    for role in ["ca", "master", "node", "admin", "node-n1"] {
        let mode = fs::metadata(pki.join(format!("{role}.key"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{role}.key");
    }
    // A node that comes later gets its own from the same authority.
    let authority = fs::read_to_string(pki.join("ca.crt")).unwrap();
    ensure(&pki, &cluster(&[("n1", 0), ("n2", 0)])).unwrap();
    assert_eq!(read(), first);
    assert_eq!(fs::read_to_string(pki.join("ca.crt")).unwrap(), authority);
    for role in ["master", "node", "admin", "node-n1", "node-n2"] {
        quorate_proto::Tls::load(&pki, role).unwrap();
    }
}
