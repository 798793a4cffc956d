use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn keys_are_private_and_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    ensure(&pki).unwrap();
    let read = || fs::read_to_string(pki.join("master.key")).unwrap();
    let first = read();
    for role in ["ca", "master", "node", "admin"] {
        let mode = fs::metadata(pki.join(format!("{role}.key"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{role}.key");
    }
    ensure(&pki).unwrap();
    assert_eq!(read(), first);
    for role in ROLES {
        quorate_proto::Tls::load(&pki, role).unwrap();
    }
}
