//! Certificates of a local cluster: an authority, and one certificate per role.

use std::fs;
use std::path::Path;

use quorate_objects::net::Ipv4Net;
use quorate_proto::MASTERS;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::error::{CliError, Result};
use crate::local::file::{ClusterSpec, write_atomically};

/// How masters of this machine are called, and how they are called in pods.
const MASTER_HOSTS: [&str; 6] = [
    "localhost",
    "127.0.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
/// The organisation of agents.
const NODES: &str = "system:nodes";

/// A certificate: its subject is who the bearer is to the masters, user and groups.
struct Wanted {
    /// Name of the files.
    file: String,
    common_name: String,
    organisation: &'static str,
    /// The names and addresses under which it may serve: a master's, nobody else's.
    hosts: Vec<String>,
}

/// The certificates of a cluster. `node` is the endpoint's; each node's agent has its own,
/// `node-NAME`. A process of hollow nodes speaks for all of them and is an administrator: it is
/// there for tests only.
fn wanted(spec: &ClusterSpec) -> Vec<Wanted> {
    let role = |file: &str, common_name: &str, organisation| Wanted {
        file: file.to_owned(),
        common_name: common_name.to_owned(),
        organisation,
        hosts: Vec::new(),
    };
    let mut hosts: Vec<String> = MASTER_HOSTS.iter().map(|host| (*host).to_owned()).collect();
    // Of the Service `kubernetes`.
    let services = spec.service_cidr.parse::<Ipv4Net>().ok();
    hosts.extend(services.and_then(|net| net.nth(1)).map(|address| address.to_string()));
    let mut all = vec![
        Wanted { hosts, ..role("master", "system:quorate:master", MASTERS) },
        role("node", "system:quorate:endpoint", "system:quorate:endpoints"),
        role("admin", "kubernetes-admin", MASTERS),
    ];
    all.extend(spec.nodes.iter().map(|node| {
        let organisation = if node.hollow > 0 { MASTERS } else { NODES };
        let (file, name) = (format!("node-{}", node.name), format!("system:node:{}", node.name));
        role(&file, &name, organisation)
    }));
    all
}

/// Makes `ca.crt`, `ca.key` and the `.crt` and `.key` of each role and node in `dir`, as far as
/// they are missing.
///
/// # Errors
/// When a certificate cannot be made or written.
pub fn ensure(dir: &Path, spec: &ClusterSpec) -> Result<()> {
    let mut missing = wanted(spec);
    // Without its key nothing can be added to an authority: then all are made anew.
    if ["ca.crt", "ca.key"].iter().all(|file| dir.join(file).exists()) {
        missing.retain(|one| !dir.join(format!("{}.key", one.file)).exists());
        if missing.is_empty() {
            return Ok(());
        }
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

fn create(dir: &Path, certificates: &[Wanted]) -> Result<(), PkiError> {
    let issuer = authority(dir)?;
    for Wanted { file, common_name, organisation, hosts } in certificates {
        let mut params = base(common_name, hosts.clone())?;
        params.distinguished_name.push(DnType::OrganizationName, *organisation);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
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
