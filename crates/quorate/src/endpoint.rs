//! `quorate endpoint`: one address that fails over between the masters.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use quorate_client::{Client, ClientOptions, forward};
use quorate_proto::Tls;
use tokio::net::TcpListener;

use crate::listen::bind;
use crate::shutdown;

/// A master that is silent for this long counts as dead.
const SILENCE: Duration = Duration::from_secs(1);

/// Passes connections to a master that lives, in the foreground: for kubectl and other clients
/// that know one server only. TLS is between the client and the master.
#[derive(Args, Debug)]
pub struct EndpointArgs {
    /// Where clients connect
    #[arg(long, default_value = "127.0.0.1:7000")]
    listen: SocketAddr,
    /// URLs of the masters
    #[arg(long, value_delimiter = ',', required = true)]
    masters: Vec<String>,
    /// Folder with ca.crt, node.crt and node.key
    #[arg(long, required_unless_present = "insecure", conflicts_with = "insecure")]
    tls_dir: Option<PathBuf>,
    /// The masters speak plain HTTP
    #[arg(long)]
    insecure: bool,
    /// Tells this process from others; nothing is kept there
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Runs until a signal.
///
/// # Errors
/// What keeps it from starting, in words for an operator.
pub async fn run(args: EndpointArgs) -> anyhow::Result<()> {
    let cancel = shutdown::on_signal()?;
    let tls = args.tls_dir.as_deref().map(|folder| Tls::load(folder, "node")).transpose()?;
    let serve = prepare(args.listen, "--listen", args.masters, tls)?;
    tracing::info!(listen = %args.listen, "connections are passed to the masters");
    cancel.run_until_cancelled(serve).await;
    Ok(())
}

/// Binds the address, and returns what passes its connections on for as long as it is polled.
///
/// # Errors
/// When the address cannot be bound, or a URL is wrong.
pub fn prepare(
    listen: SocketAddr,
    flag: &str,
    masters: Vec<String>,
    tls: Option<Tls>,
) -> anyhow::Result<impl Future<Output = ()> + Send> {
    let options = ClientOptions { attempt_timeout: SILENCE, tls, ..ClientOptions::default() };
    let client = Client::new(masters, options).context("--masters")?;
    let listener = TcpListener::from_std(bind(flag, listen)?)?;
    Ok(forward(listener, client))
}
