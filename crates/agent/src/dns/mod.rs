//! The pods' name server: answers for the cluster's names from what the node knows, with or
//! without masters, and passes everything else on to the node's own name servers.

pub mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::zone::{Answer, Zone};

const PORT: u16 = 53;
/// Seconds for which an answer may be kept: services change at any moment.
const TTL: u32 = 5;
/// Questions answered at once; more are not heard.
const AT_ONCE: usize = 256;
/// A name server of the node answers within this time.
const UPSTREAM: Duration = Duration::from_secs(3);
/// A connection without a question ends.
const IDLE: Duration = Duration::from_secs(10);
/// Before trying again to listen.
const RETRY: Duration = Duration::from_secs(2);
/// A UDP answer to those that say nothing else.
const UDP_ANSWER: usize = 512;
const LARGEST: usize = 65_535;

/// Address of the name server in a range of pod addresses: that of the node's bridge.
#[must_use]
pub fn address(cidr: &str) -> Option<Ipv4Addr> {
    let network: Ipv4Addr = cidr.split_once('/')?.0.parse().ok()?;
    Some(Ipv4Addr::from(u32::from(network) + 1))
}

/// Serves names for as long as the agent runs, on the bridge of whichever range it has.
pub async fn run(
    mut range: watch::Receiver<Option<String>>,
    zone: watch::Receiver<Arc<Zone>>,
    cancel: CancellationToken,
) {
    let mut told = false;
    loop {
        let wanted = range.borrow_and_update().as_deref().and_then(address);
        let serving = async {
            let Some(ip) = wanted else { return std::future::pending().await };
            loop {
                // The bridge may not be there yet.
                let address = SocketAddr::new(IpAddr::V4(ip), PORT);
                match bind(address).await {
                    Ok(sockets) => serve(sockets, zone.clone()).await,
                    Err(error) if !told => {
                        told = error.kind() != io::ErrorKind::AddrNotAvailable;
                        debug!(%address, %error, "cannot serve names yet");
                        if told {
                            warn!(%address, %error, "pods cannot look up names");
                        }
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = range.changed() => if changed.is_err() { return },
            () = serving => {}
        }
    }
}

type Sockets = (Arc<UdpSocket>, TcpListener);

/// Both transports of one address; of the same port where it is left open.
async fn bind(address: SocketAddr) -> io::Result<Sockets> {
    let udp = UdpSocket::bind(address).await?;
    let tcp = TcpListener::bind(udp.local_addr()?).await?;
    info!(%address, "serving names");
    Ok((Arc::new(udp), tcp))
}

/// Answers for as long as it is polled.
async fn serve((udp, tcp): Sockets, zone: watch::Receiver<Arc<Zone>>) {
    let limit = Arc::new(Semaphore::new(AT_ONCE));
    let mut buffer = vec![0; LARGEST];
    loop {
        tokio::select! {
            received = udp.recv_from(&mut buffer) => {
                let Ok((length, from)) = received else { continue };
                let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else { continue };
                let (question, zone, udp) = (buffer[..length].to_vec(), zone.clone(), udp.clone());
                // Task "dns question": ends with its answer; without one the asker asks again.
                tokio::spawn(async move {
                    if let Some(answer) = answer(&question, &zone, Transport::Udp).await {
                        let _ = udp.send_to(&answer, from).await;
                    }
                    drop(permit);
                });
            }
            accepted = tcp.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else { continue };
                let zone = zone.clone();
                // Task "dns connection": ends when it is idle or broken.
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &zone).await {
                        debug!(%error, "a connection for names ended");
                    }
                    drop(permit);
                });
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// Over TCP each message has its length in front.
async fn converse(mut stream: TcpStream, zone: &watch::Receiver<Arc<Zone>>) -> io::Result<()> {
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
            Ok(length) => length?,
            Err(_) => return Ok(()),
        };
        let mut question = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut question)).await??;
        let Some(answer) = answer(&question, zone, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

/// The answer to a message; none to what is no question.
async fn answer(
    question: &[u8],
    zone: &watch::Receiver<Arc<Zone>>,
    transport: Transport,
) -> Option<Vec<u8>> {
    let request = Message::from_vec(question).ok()?;
    let query = request.queries.first()?;
    let name = query.name().to_utf8();
    let found = zone.borrow().clone().look_up(name.trim_end_matches('.'));
    if found == Answer::Foreign {
        if let Some(answer) = forward(question, transport).await {
            return Some(answer);
        }
        return fill(&request, ResponseCode::ServFail, Vec::new()).to_vec().ok();
    }
    let code =
        if found == Answer::Missing { ResponseCode::NXDomain } else { ResponseCode::NoError };
    let mut response = fill(&request, code, records(query.name(), query.query_type(), found));
    let largest = match transport {
        Transport::Tcp => LARGEST,
        Transport::Udp => usize::from(request.max_payload()).max(UDP_ANSWER),
    };
    let bytes = response.to_vec().ok()?;
    if bytes.len() <= largest {
        return Some(bytes);
    }
    // The asker comes again over TCP.
    response.answers.clear();
    response.metadata.truncation = true;
    response.to_vec().ok()
}

fn fill(request: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.authoritative = code != ResponseCode::ServFail;
    response.metadata.response_code = code;
    response.queries.clone_from(&request.queries);
    response.answers = answers;
    response
}

fn records(name: &Name, kind: RecordType, found: Answer) -> Vec<Record> {
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    let wants = |kinds: &[RecordType]| kinds.contains(&kind) || kind == RecordType::ANY;
    match found {
        Answer::Addresses(all) if wants(&[RecordType::A]) => {
            all.into_iter().map(|ip| record(RData::A(A(ip)))).collect()
        }
        Answer::Ports(all) if wants(&[RecordType::SRV]) => all
            .into_iter()
            .filter_map(|srv| {
                let target = Name::from_utf8(format!("{}.", srv.target)).ok()?;
                Some(record(RData::SRV(SRV::new(0, 100, srv.port, target))))
            })
            .collect(),
        Answer::Alias(alias) => Name::from_utf8(format!("{}.", alias.trim_end_matches('.')))
            .map(|alias| vec![record(RData::CNAME(CNAME(alias)))])
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Asks the node's name servers, one after the other.
async fn forward(question: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let config = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
    for server in servers(&config) {
        let asked = async {
            match transport {
                Transport::Udp => ask_udp(server, question).await,
                Transport::Tcp => ask_tcp(server, question).await,
            }
        };
        match tokio::time::timeout(UPSTREAM, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => debug!(%server, %error, "a name server does not answer"),
            Err(_) => debug!(%server, "a name server does not answer in time"),
        }
    }
    None
}

fn servers(config: &str) -> Vec<SocketAddr> {
    let lines = config.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|text| Some(SocketAddr::new(text.trim().parse().ok()?, PORT))).collect()
}

async fn ask_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Only the answer to this very question counts.
        if buffer[..length].get(..2) == question.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(u16::try_from(question.len()).map_err(io::Error::other)?).await?;
    stream.write_all(question).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
#[path = "dns_test.rs"]
mod tests;
