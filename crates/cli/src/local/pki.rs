//! Certificates of a local cluster: an authority, and one certificate per role.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::error::{CliError, Result};
use crate::local::file::write_atomically;

/// Roles that get a certificate; the name is the file's and the common name.
pub const ROLES: [&str; 3] = ["master", "node", "admin"];

/// Makes `ca.crt`, `ca.key` and each role's `.crt` and `.key` in `dir`. Does nothing when they
/// are all there.
///
/// # Errors
/// When a certificate cannot be made or written.
pub fn ensure(dir: &Path) -> Result<()> {
    let complete = ROLES.iter().all(|role| dir.join(format!("{role}.key")).exists())
        && dir.join("ca.crt").exists();
    if complete {
        return Ok(());
    }
    fs::create_dir_all(dir)
        .map_err(|e| CliError::local(format!("cannot create {}: {e}", dir.display())))?;
    create(dir).map_err(|e| match e {
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

fn create(dir: &Path) -> Result<(), PkiError> {
    let mut params = base("quorate local cluster authority", Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?;
    write_atomically(&dir.join("ca.crt"), authority.pem().as_bytes(), 0o644)?;
    write_atomically(&dir.join("ca.key"), key.serialize_pem().as_bytes(), 0o600)?;
    let issuer = Issuer::new(params, key);
    for role in ROLES {
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = base(role, hosts)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        // The key comes last: its presence says that the pair is complete.
        write_atomically(&dir.join(format!("{role}.crt")), certificate.pem().as_bytes(), 0o644)?;
        write_atomically(&dir.join(format!("{role}.key")), key.serialize_pem().as_bytes(), 0o600)?;
    }
    Ok(())
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
