//! `quorate port-forward`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use clap::Args;
use quorate_client::v1::PortForwardOptions;
use quorate_client::v1::output::Data;
use quorate_client::{Client, Object, PodStream};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::output::print;
use crate::{duration, json, pods, resource};

/// Connections at the same time.
const CONNECTIONS: usize = 512;
const PIECE: usize = 64 * 1024;

/// Forwards local ports to a pod.
#[derive(Args, Debug)]
pub struct PortForward {
    /// POD · pod/NAME · deploy/NAME · service/NAME
    #[arg(value_name = "POD|TYPE/NAME")]
    what: String,
    /// [LOCAL:]REMOTE, numbers or names; :REMOTE takes any free local port
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<String>,
    /// Local addresses to listen on; "localhost" is 127.0.0.1 and ::1
    #[arg(long, default_value = "localhost", value_delimiter = ',')]
    address: Vec<String>,
    /// Wait so long for the pod to run
    #[arg(long, value_parser = duration::parse, default_value = "60s")]
    pod_running_timeout: Duration,
}

/// A pod's port, and the local one for it.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    local: u16,
    remote: u16,
}

/// Where connections go.
struct Destination {
    client: Client,
    namespace: String,
    pod: String,
}

impl PortForward {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let client = context.client()?;
        let pod = pods::one(context, &client, &self.what).await?;
        let service = self.service(context, &client).await?;
        let pairs: Vec<Pair> = self
            .ports
            .iter()
            .map(|text| pair(text, &pod.value, service.as_ref().map(|s| &s.value)))
            .collect::<Result<_>>()?;
        let first = pods::container(&pod, None)?;
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        pods::wait_begun(&client, &namespace, &name, &first, self.pod_running_timeout).await?;
        let to = Arc::new(Destination { client, namespace, pod: name });
        let mut listeners = Vec::new();
        for pair in &pairs {
            listeners.extend(self.listen(pair).await?);
        }
        let limit = Arc::new(Semaphore::new(CONNECTIONS));
        let serving = listeners
            .into_iter()
            .map(|(listener, port)| serve(listener, port, Arc::clone(&to), Arc::clone(&limit)));
        tokio::select! {
            () = async { drop(futures::future::join_all(serving).await) } => {}
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The service, when one is forwarded to: its ports are others than its pods'.
    async fn service(&self, context: &Context, client: &Client) -> Result<Option<Object>> {
        let Some((kind, name)) = self.what.split_once('/') else { return Ok(None) };
        let kind = resource::by_name(kind)?;
        if kind.kind != "Service" {
            return Ok(None);
        }
        Ok(Some(client.get(kind, context.namespace(), name).await?))
    }

    async fn listen(&self, pair: &Pair) -> Result<Vec<(TcpListener, u16)>> {
        let mut listeners: Vec<(TcpListener, u16)> = Vec::new();
        let mut problem = String::new();
        // Of a free port, all addresses take the same.
        let mut local = pair.local;
        for ip in self.addresses()? {
            let address = SocketAddr::new(ip, local);
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let address = listener.local_addr()?;
                    local = address.port();
                    print::line(&format!("Forwarding from {address} -> {}", pair.remote))?;
                    listeners.push((listener, pair.remote));
                }
                Err(e) => problem = format!("unable to listen on {address}: {e}"),
            }
        }
        if listeners.is_empty() { Err(CliError::local(problem)) } else { Ok(listeners) }
    }

    fn addresses(&self) -> Result<Vec<IpAddr>> {
        let mut all = Vec::new();
        for text in &self.address {
            if text == "localhost" {
                all.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
            } else {
                let wrong = |_| CliError::local(format!("--address {text:?} is not an IP address"));
                all.push(text.parse().map_err(wrong)?);
            }
        }
        Ok(all)
    }
}

/// Reads "LOCAL:REMOTE", ":REMOTE" or "REMOTE".
fn pair(text: &str, pod: &Value, service: Option<&Value>) -> Result<Pair> {
    let wrong = || CliError::local(format!("{text:?} is not [LOCAL:]REMOTE with ports"));
    let (local, remote) = match text.split_once(':') {
        Some((local, remote)) => (Some(local), remote),
        None => (None, text),
    };
    let asked = remote.parse::<u16>().ok();
    let remote = match service {
        Some(service) => service_port(service, pod, remote).ok_or_else(wrong)?,
        None => asked.or_else(|| pod_port(pod, remote)).ok_or_else(wrong)?,
    };
    let local = match local {
        Some("") => 0,
        Some(local) => local.parse().map_err(|_| wrong())?,
        None => asked.unwrap_or(remote),
    };
    if remote == 0 { Err(wrong()) } else { Ok(Pair { local, remote }) }
}

/// The number of a container's named port.
fn pod_port(pod: &Value, name: &str) -> Option<u16> {
    let containers = json::list(pod, "/spec/containers").iter();
    let mut ports = containers.flat_map(|container| json::list(container, "/ports"));
    let port = ports.find(|port| json::text(port, "/name") == name)?;
    port.get("containerPort")?.as_u64()?.try_into().ok()
}

/// The pod's port behind a port of a service, which is named or numbered.
fn service_port(service: &Value, pod: &Value, wanted: &str) -> Option<u16> {
    let port = json::list(service, "/spec/ports").iter().find(|port| {
        let number = port.get("port").and_then(Value::as_u64);
        json::text(port, "/name") == wanted || number.is_some_and(|n| n.to_string() == wanted)
    })?;
    match port.get("targetPort") {
        Some(Value::String(name)) => name.parse().ok().or_else(|| pod_port(pod, name)),
        Some(number) => number.as_u64()?.try_into().ok(),
        None => port.get("port")?.as_u64()?.try_into().ok(),
    }
}

async fn serve(listener: TcpListener, port: u16, to: Arc<Destination>, limit: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                eprintln!("error: cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        println!("Handling connection for {}", listener.local_addr().map_or(port, |a| a.port()));
        let to = Arc::clone(&to);
        // Task "forwarded connection": its failure is said and ends it alone.
        tokio::spawn(async move {
            if let Err(error) = forward(connection, port, &to).await {
                eprintln!("{error}");
            }
            drop(permit);
        });
    }
}

async fn forward(connection: TcpStream, port: u16, to: &Destination) -> Result<()> {
    let options = PortForwardOptions { port: port.into() };
    let opened = to.client.port_forward(&to.namespace, &to.pod, options).await;
    let PodStream { input, mut output } = opened?;
    let (mut reader, mut writer) = connection.into_split();
    let upwards = async {
        let mut buffer = BytesMut::with_capacity(PIECE);
        while reader.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
            if input.write(buffer.split().freeze()).await.is_err() {
                return;
            }
            buffer.reserve(PIECE);
        }
        let _ = input.end().await;
        // The pod may still have something to say.
        std::future::pending::<()>().await;
    };
    let downwards = async {
        while let Some(data) = output.next().await? {
            if let Data::Stdout(data) = data
                && writer.write_all(&data).await.is_err()
            {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        result = downwards => result,
        () = upwards => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_numbers_or_names_of_pod_or_service() {
        let pod = json!({"spec": {"containers": [
            {"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"spec": {"ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"port": 90, "targetPort": 9090}]}});
        let of = |text, service| pair(text, &pod, service).unwrap();
        assert_eq!(of("80", None), Pair { local: 80, remote: 80 });
        assert_eq!(of("81:http", None), Pair { local: 81, remote: 8080 });
        assert_eq!(of(":80", None), Pair { local: 0, remote: 80 });
        assert_eq!(of("http", None), Pair { local: 8080, remote: 8080 });
        assert_eq!(of("80", Some(&service)), Pair { local: 80, remote: 8080 });
        assert_eq!(of("7000:web", Some(&service)), Pair { local: 7000, remote: 8080 });
        assert_eq!(of("90", Some(&service)), Pair { local: 90, remote: 9090 });
        for wrong in ["", "x", "0", "1:2:3", "70000", "x:80"] {
            assert!(pair(wrong, &pod, None).is_err(), "{wrong}");
        }
        assert!(pair("81", &pod, Some(&service)).is_err());
    }
}
