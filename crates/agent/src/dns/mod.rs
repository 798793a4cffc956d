//! The pods' name server: answers for the cluster's names from what the node knows, with or
//! without masters, and passes everything else on to the node's own name servers.

pub mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::zone::{Answer, Zone};

const PORT: u16 = 53;
/// Seconds for which an answer may be kept: services change at any moment.
const TTL: u32 = 5;
/// Questions that wait for the node's name servers at once; more are not heard.
const AT_ONCE: usize = 256;
/// Connections at once: those that wait for the node's name servers leave as many to others.
const CONNECTIONS: usize = 2 * AT_ONCE;
/// Names that an alias leads to, one after the other.
const ALIASES: usize = 8;
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
    let names = Names::new(zone);
    let mut told = false;
    loop {
        let wanted = range.borrow_and_update().as_deref().and_then(address);
        let serving = async {
            let Some(ip) = wanted else { return std::future::pending().await };
            loop {
                // The bridge may not be there yet.
                let address = SocketAddr::new(IpAddr::V4(ip), PORT);
                match bind(address).await {
                    Ok(sockets) => serve(sockets, names.clone()).await,
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

/// What answers are made from.
#[derive(Clone)]
struct Names {
    zone: watch::Receiver<Arc<Zone>>,
    upstream: Arc<Upstream>,
}

impl Names {
    fn new(zone: watch::Receiver<Arc<Zone>>) -> Self {
        Self { zone, upstream: Arc::default() }
    }
}

/// Answers for as long as it is polled. What the cluster knows itself is answered whatever others
/// do.
async fn serve((udp, tcp): Sockets, names: Names) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut buffer = vec![0; LARGEST];
    loop {
        tokio::select! {
            received = udp.recv_from(&mut buffer) => {
                let Ok((length, from)) = received else { continue };
                let zone = names.zone.borrow().clone();
                let Some(question) = Question::read(&buffer[..length], &zone) else { continue };
                if question.foreign.is_none() {
                    if let Some(answer) = question.answer(Transport::Udp) {
                        let _ = udp.send_to(&answer, from).await;
                    }
                    continue;
                }
                let Some(permit) = names.upstream.permit() else { continue };
                let (names, udp) = (names.clone(), udp.clone());
                // Task "dns question": ends with its answer; without one the asker asks again.
                tokio::spawn(async move {
                    if let Some(answer) = question.ask(&names.upstream, Transport::Udp).await {
                        let _ = udp.send_to(&answer, from).await;
                    }
                    drop(permit);
                });
            }
            accepted = tcp.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
                let names = names.clone();
                // Task "dns connection": ends when it is idle or broken.
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &names).await {
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
async fn converse(mut stream: TcpStream, names: &Names) -> io::Result<()> {
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
            Ok(length) => length?,
            Err(_) => return Ok(()),
        };
        let mut question = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut question)).await??;
        let Some(answer) = answer(&question, names, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

/// The answer to a message; none to what is no question, and to one more that would have to wait
/// for others.
async fn answer(question: &[u8], names: &Names, transport: Transport) -> Option<Vec<u8>> {
    let zone = names.zone.borrow().clone();
    let question = Question::read(question, &zone)?;
    if question.foreign.is_none() {
        return question.answer(transport);
    }
    let _permit = names.upstream.permit()?;
    question.ask(&names.upstream, transport).await
}

/// A question, and what is known of its answer.
struct Question {
    /// As it came.
    bytes: Vec<u8>,
    request: Message,
    code: ResponseCode,
    records: Vec<Record>,
    /// There is more than the records.
    truncated: bool,
    /// The name, or the one that it leads to, that only others know.
    foreign: Option<Name>,
}

impl Question {
    /// Takes from the zone what that knows; none: it is no question.
    fn read(bytes: &[u8], zone: &Zone) -> Option<Self> {
        let request = Message::from_vec(bytes).ok()?;
        let query = request.queries.first()?;
        let (mut name, kind) = (query.name().clone(), query.query_type());
        let (mut code, mut records, mut foreign) = (ResponseCode::NoError, Vec::new(), None);
        // Most programs follow no alias: whoever answers has to.
        let follows = ![RecordType::CNAME, RecordType::ANY].contains(&kind);
        for _ in 0..ALIASES {
            let found = zone.look_up(name.to_utf8().trim_end_matches('.'));
            let mut next = None;
            match &found {
                Answer::Foreign => foreign = Some(name.clone()),
                Answer::Missing => code = ResponseCode::NXDomain,
                Answer::Alias(alias) if follows => next = absolute(alias),
                _ => {}
            }
            records.extend(self::records(&name, kind, found));
            let Some(next) = next else { break };
            name = next;
        }
        let bytes = bytes.to_vec();
        Some(Self { bytes, request, code, records, truncated: false, foreign })
    }

    /// The answer, with what others say.
    async fn ask(mut self, upstream: &Upstream, transport: Transport) -> Option<Vec<u8>> {
        let name = self.foreign.take()?;
        if self.records.is_empty() {
            // Not the cluster's at all: it is passed on as it came, and so is the answer.
            if let Some(answer) = upstream.forward(&self.bytes, transport).await {
                return Some(answer);
            }
            self.code = ResponseCode::ServFail;
            return self.answer(transport);
        }
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, self.request.queries.first()?.query_type()));
        let answer = upstream.forward(&message.to_vec().ok()?, transport).await;
        match answer.and_then(|answer| Message::from_vec(&answer).ok()) {
            Some(answer) => {
                self.code = answer.metadata.response_code;
                self.truncated = answer.metadata.truncation;
                self.records.extend(answer.answers);
            }
            None => self.code = ResponseCode::ServFail,
        }
        self.answer(transport)
    }

    /// The answer as far as it is known.
    fn answer(self, transport: Transport) -> Option<Vec<u8>> {
        let mut response = fill(&self.request, self.code, self.records);
        let largest = match transport {
            Transport::Tcp => LARGEST,
            Transport::Udp => usize::from(self.request.max_payload()).max(UDP_ANSWER),
        };
        let bytes = response.to_vec().ok()?;
        if bytes.len() <= largest && !self.truncated {
            return Some(bytes);
        }
        // The asker comes again over TCP.
        response.answers.clear();
        response.metadata.truncation = true;
        response.to_vec().ok()
    }
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

fn absolute(name: &str) -> Option<Name> {
    Name::from_utf8(format!("{}.", name.trim_end_matches('.'))).ok()
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
                let target = absolute(&srv.target)?;
                Some(record(RData::SRV(SRV::new(0, 100, srv.port, target))))
            })
            .collect(),
        Answer::Alias(alias) => {
            absolute(&alias).map(|alias| record(RData::CNAME(CNAME(alias)))).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// The node's own name servers.
struct Upstream {
    /// Names them.
    config: PathBuf,
    /// At which they listen.
    port: u16,
    /// Questions may wait for them; more are not heard.
    waiting: Arc<Semaphore>,
}

impl Default for Upstream {
    fn default() -> Self {
        let waiting = Arc::new(Semaphore::new(AT_ONCE));
        Self { config: "/etc/resolv.conf".into(), port: PORT, waiting }
    }
}

impl Upstream {
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    /// Asks them, one after the other.
    async fn forward(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let config = tokio::fs::read_to_string(&self.config).await.unwrap_or_default();
        for server in servers(&config, self.port) {
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
}

fn servers(config: &str, port: u16) -> Vec<SocketAddr> {
    let lines = config.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|text| Some(SocketAddr::new(text.trim().parse().ok()?, port))).collect()
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
