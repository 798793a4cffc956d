//! Sessions of a fake agent.

use quorate_client::v1::agent_frame::Frame;
use quorate_client::v1::agent_message::Message as ToMaster;
use quorate_client::v1::master_message::Message as FromMaster;
use quorate_client::v1::nodes_client::NodesClient;
use quorate_client::v1::stream_request::Kind;
use quorate_client::v1::{input, output};
use quorate_client::{Code, NodeSession, v1};
use quorate_objects::kinds;
use quorate_registry::{Consistency, WriteOptions};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::master::{CLUSTER, Master, config_map, pod, soon};

fn register(node: &str, incarnation: u64) -> v1::Register {
    let node_json = json!({
        "metadata": {"labels": {"zone": "a"}},
        "status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}},
    });
    v1::Register {
        node_name: node.into(),
        cluster_id: CLUSTER.into(),
        node_json: node_json.to_string().into(),
        incarnation,
        ..Default::default()
    }
}

async fn session(master: &Master, incarnation: u64) -> NodeSession {
    master.client().node_session(&master.url(), register("n1", incarnation)).await.unwrap()
}

async fn assignments(session: &mut NodeSession) -> v1::Assignments {
    loop {
        if let FromMaster::Assignments(a) = soon("assignments", session.next()).await.unwrap() {
            return a;
        }
    }
}

/// Reads on until `wanted` is among what is set.
async fn set(session: &mut NodeSession, wanted: &str) -> v1::Object {
    loop {
        let assignments = assignments(session).await;
        if let Some(object) = assignments.set.into_iter().find(|object| object.name == wanted) {
            return object;
        }
    }
}

async fn removed(session: &mut NodeSession, wanted: &str) {
    loop {
        let assignments = assignments(session).await;
        if assignments.removed.iter().any(|key| key.name == wanted) {
            return;
        }
    }
}

#[tokio::test]
async fn a_node_registers_and_hears_its_full_set_then_changes() {
    let master = Master::start().await;
    let registry = &master.registry;
    let options = WriteOptions::default();
    registry.create(config_map("used", "1"), &options).await.unwrap();
    registry.create(config_map("unused", "1"), &options).await.unwrap();
    registry.create(pod("other", Some("n2")), &options).await.unwrap();
    let mut own = pod("own", Some("n1"));
    own["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "used"}}]);
    registry.create(own, &options).await.unwrap();

    let mut session = session(&master, 1).await;
    assert_eq!(session.welcome.cluster_id, CLUSTER);
    let full = assignments(&mut session).await;
    assert!(full.full && full.term == 1);
    let names: Vec<_> = full.set.iter().map(|object| object.name.as_str()).collect();
    assert!(["used", "own", "n1"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(!names.contains(&"unused") && !names.contains(&"other"), "{names:?}");
    let node = registry.get(&kinds::NODE, "", "n1", Consistency::Linearizable).await.unwrap();
    assert_eq!(node.labels()["zone"], "a");
    assert_eq!(node.value()["status"]["capacity"]["cpu"], "2");

    registry.create(pod("later", Some("n1")), &options).await.unwrap();
    set(&mut session, "later").await;
    let mut changed = config_map("used", "2");
    changed["metadata"]["labels"] = json!({});
    registry.update(changed, &options).await.unwrap();
    set(&mut session, "used").await;
    let now = quorate_registry::DeleteOptions { grace_seconds: Some(0), ..Default::default() };
    registry.delete(&kinds::POD, "default", "own", &now).await.unwrap();
    removed(&mut session, "own").await;
    assert!(registry.heartbeats().last("n1").is_some());
}

#[tokio::test]
async fn an_agent_that_says_what_it_holds_hears_the_differences() {
    let master = Master::start().await;
    let registry = &master.registry;
    let options = WriteOptions::default();
    for name in ["used", "deleted", "unused"] {
        registry.create(config_map(name, "1"), &options).await.unwrap();
    }
    let mut own = pod("own", Some("n1"));
    own["spec"]["volumes"] = json!([
        {"name": "v", "configMap": {"name": "used"}},
        {"name": "w", "configMap": {"name": "deleted"}},
    ]);
    registry.create(own, &options).await.unwrap();
    registry.create(pod("moved", Some("n2")), &options).await.unwrap();
    registry.create(pod("changed", Some("n1")), &options).await.unwrap();
    registry.create(pod("new", Some("n1")), &options).await.unwrap();
    let read = |kind, name| registry.get(kind, "default", name, Consistency::Linearizable);
    let mut objects = Vec::new();
    for (kind, name) in [
        (&kinds::POD, "own"),
        (&kinds::POD, "moved"),
        (&kinds::POD, "changed"),
        (&kinds::CONFIG_MAP, "used"),
        (&kinds::CONFIG_MAP, "deleted"),
        (&kinds::CONFIG_MAP, "unused"),
    ] {
        let object = read(kind, name).await.unwrap();
        objects.push(v1::Held {
            kind: Some(v1::KindRef { api_version: "v1".into(), kind: kind.kind.into() }),
            namespace: "default".into(),
            name: name.into(),
            uid: object.uid().into(),
            revision: object.revision,
        });
    }
    objects.push(v1::Held { name: "gone".into(), uid: "of-gone".into(), ..objects[0].clone() });
    registry.delete(&kinds::CONFIG_MAP, "default", "deleted", &Default::default()).await.unwrap();
    let mut changed = read(&kinds::POD, "changed").await.unwrap().value();
    changed["metadata"]["labels"] = json!({"a": "b"});
    registry.update(changed, &options).await.unwrap();

    let mut incarnation = 0;
    let first = loop {
        incarnation += 1;
        let register = v1::Register { tells_holding: true, ..register("n1", incarnation) };
        let mut session = master.client().node_session(&master.url(), register).await.unwrap();
        let holding = v1::Holding { term: 1, objects: objects.clone() };
        session.send(ToMaster::Holding(holding)).await.unwrap();
        let first = assignments(&mut session).await;
        // A master that has not heard in time what an agent holds tells it everything.
        if !first.full || incarnation == 5 {
            break first;
        }
    };
    assert!(first.complete && !first.full);
    let mut set: Vec<_> = first.set.iter().map(|object| object.name.as_str()).collect();
    set.sort_unstable();
    assert_eq!(set, ["changed", "n1", "new"]);
    let mut removed: Vec<_> = first.removed.iter().map(|key| key.name.as_str()).collect();
    removed.sort_unstable();
    assert_eq!(removed, ["deleted", "gone", "moved", "unused"]);
}

#[tokio::test]
async fn an_agent_that_does_not_say_what_it_holds_hears_everything() {
    let master = Master::start().await;
    let register = v1::Register { tells_holding: true, ..register("n1", 1) };
    let mut session = master.client().node_session(&master.url(), register).await.unwrap();
    let first = assignments(&mut session).await;
    assert!(first.complete && first.full);
}

#[tokio::test]
async fn statuses_are_written_and_acknowledged_and_terminated_pods_go() {
    let master = Master::start().await;
    let registry = &master.registry;
    registry.create(pod("p", Some("n1")), &WriteOptions::default()).await.unwrap();
    let mut session = session(&master, 1).await;
    let uid = set(&mut session, "p").await.uid;
    let report = |uid: &str, terminated| v1::PodStatus {
        namespace: "default".into(),
        name: "p".into(),
        uid: uid.into(),
        status_json: json!({"phase": "Running"}).to_string().into(),
        terminated,
    };
    let pods = vec![report(&uid, false), report("of-an-older-pod", false)];
    assert_eq!(acknowledged(&mut session, 1, pods).await, Vec::<String>::new());
    let pod = registry.get(&kinds::POD, "default", "p", Consistency::Linearizable).await.unwrap();
    assert_eq!(pod.value()["status"]["phase"], "Running");

    // Being deleted it stays until its node says that nothing is left of it.
    let deleted = registry.delete(&kinds::POD, "default", "p", &Default::default()).await.unwrap();
    assert!(!deleted.gone);
    assert_eq!(acknowledged(&mut session, 2, vec![report(&uid, true)]).await, Vec::<String>::new());
    let gone = registry.get(&kinds::POD, "default", "p", Consistency::Linearizable).await;
    assert!(gone.unwrap_err().is_not_found());

    // Without leadership nothing is written.
    master.store.step_down();
    let retry = acknowledged(&mut session, 3, vec![report(&uid, false)]).await;
    assert_eq!(retry, vec![uid]);
}

async fn acknowledged(
    session: &mut NodeSession,
    sequence: u64,
    pods: Vec<v1::PodStatus>,
) -> Vec<String> {
    let batch = v1::StatusBatch { sequence, pods, ..Default::default() };
    session.send(ToMaster::Status(batch)).await.unwrap();
    loop {
        if let FromMaster::StatusAck(ack) = soon("ack", session.next()).await.unwrap() {
            assert_eq!(ack.sequence, sequence);
            return ack.retry_uids;
        }
    }
}

#[tokio::test]
async fn a_new_term_brings_a_new_full_set() {
    let master = Master::start().await;
    let mut session = session(&master, 1).await;
    assert_eq!(assignments(&mut session).await.term, 1);
    master.store.step_down();
    master.store.set_term(7);
    loop {
        let next = assignments(&mut session).await;
        if next.term == 7 {
            assert!(next.full, "the first of a term is full");
            return;
        }
    }
}

#[tokio::test]
async fn the_newer_agent_wins_and_a_foreign_one_is_refused() {
    let master = Master::start().await;
    let mut old = session(&master, 1).await;
    let _new = session(&master, 2).await;
    let error = loop {
        if let Err(error) = soon("the end", old.next()).await {
            break error;
        }
    };
    assert_eq!((error.code, error.reason.as_str()), (Code::Aborted, "Displaced"), "{error:?}");
    assert!(error.message.contains("newer agent"), "{error}");
    let client = master.client();
    let late = client.node_session(&master.url(), register("n1", 1)).await.err().unwrap();
    assert_eq!(late.reason, "Displaced", "{late:?}");

    let foreign = v1::Register { cluster_id: "another".into(), ..register("n9", 1) };
    let error = client.node_session(&master.url(), foreign).await.err().unwrap();
    assert_eq!(error.code, Code::FailedPrecondition, "{error:?}");
    assert!(error.message.contains("another") && error.message.contains(CLUSTER), "{error}");
}

/// An agent's end of the next stream that its master asks for.
struct Stream {
    request: v1::StreamRequest,
    frames: mpsc::Sender<v1::AgentFrame>,
    input: Streaming<v1::Input>,
}

impl Stream {
    async fn open(master: &Master, session: &mut NodeSession) -> Self {
        let request = loop {
            let message = soon("a stream", session.next()).await.unwrap();
            if let FromMaster::StreamRequest(request) = message {
                break request;
            }
        };
        let channel = tonic::transport::Endpoint::from_shared(master.url()).unwrap();
        let mut client = NodesClient::new(channel.connect().await.unwrap());
        let (frames, receiver) = mpsc::channel(8);
        let open = v1::StreamOpen { node_name: "n1".into(), id: request.id };
        frames.send(frame(Frame::Open(open))).await.unwrap();
        let input = client.stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { request, frames, input }
    }

    async fn say(&self, data: output::Data) {
        let output = v1::Output { data: Some(data) };
        self.frames.send(frame(Frame::Output(output))).await.unwrap();
    }

    async fn hear(&mut self) -> Option<input::Data> {
        let input = soon("input", self.input.message()).await.unwrap()?;
        input.data
    }
}

fn frame(frame: Frame) -> v1::AgentFrame {
    v1::AgentFrame { frame: Some(frame) }
}

async fn with_pod() -> (Master, NodeSession) {
    let master = Master::start().await;
    let registry = &master.registry;
    registry.create(pod("p", Some("n1")), &WriteOptions::default()).await.unwrap();
    registry.create(pod("waiting", None), &WriteOptions::default()).await.unwrap();
    registry.create(pod("far", Some("n2")), &WriteOptions::default()).await.unwrap();
    let session = session(&master, 1).await;
    (master, session)
}

#[tokio::test]
async fn logs_come_through_the_agents_stream_and_end_with_their_reader() {
    let (master, mut session) = with_pod().await;
    let client = master.client();
    let read = client.logs("default", "p", v1::LogOptions::default());
    let (log, stream) = tokio::join!(read, Stream::open(&master, &mut session));
    let (mut log, mut stream) = (log.unwrap(), stream);
    let Some(Kind::Logs(options)) = &stream.request.kind else { panic!("{:?}", stream.request) };
    assert_eq!((stream.request.pod.as_str(), options.container.as_str()), ("p", "main"));
    stream.say(output::Data::Stdout("one\n".into())).await;
    assert_eq!(soon("one", log.next()).await.unwrap().unwrap(), "one\n");
    drop(log);
    assert_eq!(stream.hear().await, None, "the reader has gone");

    let read = client.logs("default", "p", v1::LogOptions::default());
    let (log, stream) = tokio::join!(read, Stream::open(&master, &mut session));
    let mut log = log.unwrap();
    drop(stream);
    assert_eq!(soon("the end", log.next()).await.unwrap(), None);
}

#[tokio::test]
async fn a_stream_that_cannot_be_says_why() {
    let (master, mut session) = with_pod().await;
    let client = master.client();
    let refused = |pod: &'static str, container: &str| {
        let client = client.clone();
        let options = v1::LogOptions { container: container.into(), ..Default::default() };
        async move { client.logs("default", pod, options).await.err().unwrap() }
    };
    assert!(refused("none", "").await.is_not_found());
    assert!(refused("p", "sidecar").await.message.contains("main"));
    assert!(refused("waiting", "").await.message.contains("not scheduled"));
    let far = refused("far", "").await;
    assert!(far.message.contains("n2") && far.reason == "NodeNotConnected", "{far:?}");
    let nothing = client.exec("default", "p", v1::ExecOptions::default()).await.err().unwrap();
    assert!(nothing.message.contains("no command"), "{nothing}");
    let port = v1::PortForwardOptions { port: 70_000 };
    let port = client.port_forward("default", "p", port).await.err().unwrap();
    assert!(port.message.contains("70000"), "{port}");

    let attach = client.attach("default", "p", v1::AttachOptions::default());
    let (attached, stream) = tokio::join!(attach, Stream::open(&master, &mut session));
    let failure = v1::StreamFailure { reason: "NotFound".into(), message: "no such".into() };
    stream.frames.send(frame(Frame::Failure(failure))).await.unwrap();
    let error = soon("an error", attached.unwrap().output.next()).await.unwrap_err();
    assert!(error.is_not_found() && error.message == "no such", "{error:?}");
}

#[tokio::test]
async fn exec_carries_input_output_and_the_exit_code() {
    let (master, mut session) = with_pod().await;
    let client = master.client();
    let options =
        v1::ExecOptions { command: vec!["cat".into()], stdin: true, ..Default::default() };
    let exec = client.exec("default", "p", options);
    let (exec, mut stream) = tokio::join!(exec, Stream::open(&master, &mut session));
    let mut exec = exec.unwrap();
    let Some(Kind::Exec(options)) = &stream.request.kind else { panic!("{:?}", stream.request) };
    assert_eq!((options.container.as_str(), options.command.len()), ("main", 1));

    exec.input.write("hello".into()).await.unwrap();
    assert_eq!(stream.hear().await, Some(input::Data::Stdin("hello".into())));
    exec.input.resize(80, 25).await.unwrap();
    let size = v1::TerminalSize { columns: 80, rows: 25 };
    assert_eq!(stream.hear().await, Some(input::Data::Resize(size)));
    exec.input.end().await.unwrap();
    assert_eq!(stream.hear().await, Some(input::Data::End(true)));
    stream.say(output::Data::Stderr("oops".into())).await;
    stream.say(output::Data::Exit(v1::Exit { code: 3 })).await;
    let next = soon("stderr", exec.output.next()).await.unwrap();
    assert_eq!(next, Some(output::Data::Stderr("oops".into())));
    let next = soon("the exit", exec.output.next()).await.unwrap();
    assert_eq!(next, Some(output::Data::Exit(v1::Exit { code: 3 })));
    drop(stream);
    assert_eq!(soon("the end", exec.output.next()).await.unwrap(), None);
}

#[tokio::test]
async fn either_side_that_goes_ends_the_other() {
    let (master, mut session) = with_pod().await;
    let client = master.client();
    let options = v1::PortForwardOptions { port: 80 };
    let forward = client.port_forward("default", "p", options);
    let (forward, mut stream) = tokio::join!(forward, Stream::open(&master, &mut session));
    drop(forward.unwrap());
    assert_eq!(stream.hear().await, None, "the caller has gone");

    let forward = client.port_forward("default", "p", options);
    let (forward, _stream) = tokio::join!(forward, Stream::open(&master, &mut session));
    drop(session);
    let error = soon("an error", forward.unwrap().output.next()).await.unwrap_err();
    assert!(error.message.contains("connection to node"), "{error}");
}

#[tokio::test]
async fn whatever_one_node_says_counts_for_all_nodes_of_its_process() {
    let master = Master::start().await;
    let client = master.client();
    let of = |node: &str| v1::Register { process: "p".into(), ..register(node, 1) };
    let one = client.node_session(&master.url(), of("h-0")).await.unwrap();
    let _two = client.node_session(&master.url(), of("h-1")).await.unwrap();
    let _other = client.node_session(&master.url(), register("n1", 1)).await.unwrap();
    let last = |node: &str| master.registry.heartbeats().last(node).unwrap();
    let other = last("n1");
    let beat = ToMaster::Heartbeat(v1::Heartbeat { sequence: 1 });
    for said in [beat, ToMaster::Usage(v1::UsageReport::default())] {
        let before = last("h-1");
        let heard = async {
            while last("h-1") == before {
                one.send(said.clone()).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        soon("the other node of the process was heard", heard).await;
    }
    assert_eq!(last("n1"), other);
}

#[tokio::test]
async fn measurements_are_kept_until_their_node_goes() {
    let master = Master::start().await;
    let session = session(&master, 1).await;
    let usage = |cpu| Some(v1::Usage { cpu_nanocores: cpu, memory_bytes: 7 });
    let container = v1::ContainerUsage { name: "main".into(), usage: usage(5) };
    let pod = v1::PodUsage {
        namespace: "default".into(),
        name: "p".into(),
        containers: vec![container],
        ..Default::default()
    };
    let report = v1::UsageReport { node: usage(9), pods: vec![pod], ..Default::default() };
    session.send(ToMaster::Usage(report)).await.unwrap();
    let metrics = master.registry.metrics();
    let until = async |there: bool| {
        while metrics.pod("default", "p").is_some() != there {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon("a measurement", until(true)).await;
    let (pod, node) = metrics.pod("default", "p").unwrap();
    assert_eq!((pod.containers[0].1.cpu_nanocores, node.node.cpu_nanocores), (5, 9));
    let told = master.client().usage().await.unwrap();
    assert_eq!((told[0].name.as_str(), told.len()), ("n1", 1));
    assert_eq!(told[0].report.as_ref().unwrap().pods[0].containers[0].usage, usage(5));
    drop(session);
    soon("no measurement", until(false)).await;
}
