//! Certificates of a local cluster: an authority, and one certificate per role.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::error::{CliError, Result};
use crate::local::file::write_atomically;

/// Certificates that every cluster has: name of the file, common name, organisation. Common name
/// and organisation are who the bearer is to the masters: user and group. `node` is what the
/// endpoint uses; each node's agent has its own, `node-NAME`.
const ROLES: [(&str, &str, &str); 3] = [
    ("master", "system:quorate:master", "system:masters"),
    ("node", "system:quorate:endpoint", "system:quorate:endpoints"),
    ("admin", "kubernetes-admin", "system:masters"),
];

/// Makes `ca.crt`, `ca.key` and the `.crt` and `.key` of each role and node in `dir`. Does
/// nothing when they are all there.
///
/// # Errors
/// When a certificate cannot be made or written.
pub fn ensure(dir: &Path, nodes: &[&str]) -> Result<()> {
    let roles = ROLES.map(|(file, name, group)| [file, name, group].map(str::to_owned));
    let nodes = nodes.iter().map(|node| {
        [format!("node-{node}"), format!("system:node:{node}"), "system:nodes".to_owned()]
    });
    let mut missing: Vec<_> = roles.into_iter().chain(nodes).collect();
    missing.retain(|[file, ..]| !dir.join(format!("{file}.key")).exists());
    if missing.is_empty() && dir.join("ca.crt").exists() {
        return Ok(());
    }
    fs::create_dir_all(dir)
        .map_err(|e| CliError::local(format!("cannot create {}: {e}", dir.display())))?;
    create(dir, &missing).map_err(|e| match e {
        PkiError::Make(e) => CliError::local(format!("cannot make certificates: {e}")),
        PkiError::Write(e) => e,
    })
}

enum PkiError {
    Make(rcgen::Error),
    Write(CliError),
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error)
    }
}

impl From<CliError> for PkiError {
    fn from(error: CliError) -> Self {
        Self::Write(error)
    }
}

fn create(dir: &Path, certificates: &[[String; 3]]) -> Result<(), PkiError> {
    let issuer = authority(dir)?;
    for [file, name, group] in certificates {
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = base(name, hosts)?;
        params.distinguished_name.push(DnType::OrganizationName, group.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        // The key comes last: its presence says that the pair is complete.
        write_atomically(&dir.join(format!("{file}.crt")), certificate.pem().as_bytes(), 0o644)?;
        write_atomically(&dir.join(format!("{file}.key")), key.serialize_pem().as_bytes(), 0o600)?;
    }
    Ok(())
}

/// The cluster's authority; made when there is none.
fn authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, PkiError> {
    let mut params = base("quorate local cluster authority", Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    if let (true, Ok(pem)) = (certificate.exists(), fs::read_to_string(&key)) {
        // Its subject and key are always those above, so its certificate need not be parsed.
        return Ok(Issuer::new(params, KeyPair::from_pem(&pem)?));
    }
    let pair = KeyPair::generate()?;
    let signed = params.self_signed(&pair)?;
    write_atomically(&certificate, signed.pem().as_bytes(), 0o644)?;
    write_atomically(&key, pair.serialize_pem().as_bytes(), 0o600)?;
    Ok(Issuer::new(params, pair))
}

fn base(common_name: &str, hosts: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    // A local cluster's life is short, but a forgotten one shall not die of its certificates.
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2044, 1, 1);
    Ok(params)
}

#[cfg(test)]
#[path = "pki_test.rs"]
mod tests;
