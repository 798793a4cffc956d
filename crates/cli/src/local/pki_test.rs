use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn keys_are_private_and_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    ensure(&pki, &["n1"]).unwrap();
    let read = || fs::read_to_string(pki.join("master.key")).unwrap();
    let first = read();
    for role in ["ca", "master", "node", "admin", "node-n1"] {
        let mode = fs::metadata(pki.join(format!("{role}.key"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{role}.key");
    }
    // A node that comes later gets its own from the same authority.
    let authority = fs::read_to_string(pki.join("ca.crt")).unwrap();
    ensure(&pki, &["n1", "n2"]).unwrap();
    assert_eq!(read(), first);
    assert_eq!(fs::read_to_string(pki.join("ca.crt")).unwrap(), authority);
    for role in ["master", "node", "admin", "node-n1", "node-n2"] {
        quorate_proto::Tls::load(&pki, role).unwrap();
    }
}
