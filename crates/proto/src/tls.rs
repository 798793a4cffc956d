//! One way to speak TLS for everyone: both sides show a certificate of the cluster's own
//! authority. What its subject says is who the caller is: [`Subject`].

use std::io;
use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// The organisation of those who may do everything: masters and administrators.
pub const MASTERS: &str = "system:masters";

/// Whom a certificate is about. Its signature is not looked at: TLS has verified it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The name of a user.
    pub common_name: String,
    /// The groups of a user.
    pub organisations: Vec<String>,
}

impl Subject {
    /// The subject of a certificate in DER; `None` when it cannot be read or has no common name.
    #[must_use]
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = parsed.subject();
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            value.as_str().ok().map(str::to_owned)
        };
        let common_name = subject.iter_common_name().find_map(text)?;
        let organisations = subject.iter_organization().filter_map(text).collect();
        (!common_name.is_empty()).then_some(Self { common_name, organisations })
    }

    /// May it do everything?
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.organisations.iter().any(|one| one == MASTERS)
    }
}

/// Certificate authority, certificate and private key, all as PEM text.
#[derive(Clone)]
pub struct Tls {
    /// The cluster's certificate authority.
    pub ca: String,
    /// Our certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls { key: <secret> }")
    }
}

impl Tls {
    /// Reads `ca.crt`, `NAME.crt` and `NAME.key` from a folder.
    ///
    /// # Errors
    /// When a file cannot be read; the message names it.
    pub fn load(folder: &Path, name: &str) -> io::Result<Self> {
        let read = |file: String| {
            let path = folder.join(file);
            std::fs::read_to_string(&path).map_err(|e| {
                io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display()))
            })
        };
        Ok(Self {
            ca: read("ca.crt".into())?,
            cert: read(format!("{name}.crt"))?,
            key: read(format!("{name}.key"))?,
        })
    }

    /// For a server that takes only callers with a certificate of the same authority.
    #[must_use]
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.cert, &self.key))
            .client_ca_root(Certificate::from_pem(&self.ca))
    }

    /// For a caller; the server's certificate must name the host in its URL.
    #[must_use]
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca))
            .identity(Identity::from_pem(&self.cert, &self.key))
    }
}
