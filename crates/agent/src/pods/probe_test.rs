#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::pods::fake::Fake;

fn probe(value: serde_json::Value) -> Probe {
    serde_json::from_value(value).unwrap()
}

fn target(port: u16) -> (Arc<Fake>, Target) {
    let fake = Arc::new(Fake::default());
    let container = serde_json::from_value(json!({
        "name": "c", "ports": [{"name": "web", "containerPort": port}],
    }));
    let target = Target {
        runtime: fake.clone(),
        id: "id".into(),
        ip: "127.0.0.1".parse().unwrap(),
        container: Arc::new(container.unwrap()),
    };
    (fake, target)
}

/// A server that answers every request with these words; the requests come back.
async fn server(answer: &'static str) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, receiver)
}

const LIMIT: Duration = Duration::from_secs(5);

/// What is held against the container.
fn bad(result: Result<(), Fault>) -> String {
    match result {
        Err(Fault::Container(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rhythms_have_kubernetes_defaults() {
    let seconds = Duration::from_secs;
    let plain = Rhythm::of(&probe(json!({})));
    let defaults = Rhythm {
        delay: seconds(0),
        period: seconds(10),
        timeout: seconds(1),
        successes: 1,
        failures: 3,
    };
    assert_eq!(plain, defaults);
    let given = Rhythm::of(&probe(json!({"initialDelaySeconds": 4, "periodSeconds": 2,
        "timeoutSeconds": 3, "successThreshold": 2, "failureThreshold": 5})));
    assert_eq!((given.delay, given.period, given.timeout), (seconds(4), seconds(2), seconds(3)));
    assert_eq!((given.successes, given.failures), (2, 5));
}

#[test]
fn a_verdict_needs_enough_results_in_a_row() {
    let rhythm = Rhythm::of(&probe(json!({"successThreshold": 2, "failureThreshold": 3})));
    let mut counter = Counter::new(rhythm);
    let results = [false, false, true, false, false, false, false, true, true];
    let verdicts: Vec<_> = results.into_iter().map(|good| counter.count(good)).collect();
    let no = Some(false);
    assert_eq!(verdicts, [None, None, None, None, None, no, no, None, Some(true)]);
}

#[tokio::test]
async fn http_probes_judge_by_the_status() {
    for (answer, good) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", false),
        ("nonsense\r\n\r\n", false),
    ] {
        let (port, mut requests) = server(answer).await;
        let (_, target) = target(port);
        let probe = probe(json!({"httpGet": {"path": "ok", "port": "web",
            "httpHeaders": [{"name": "X-A", "value": "b"}]}}));
        let result = once(&target, &probe, LIMIT).await;
        assert_eq!(result.is_ok(), good, "{answer:?}: {result:?}");
        assert!(!matches!(result, Err(Fault::Engine(_))), "{result:?}");
        let request = requests.recv().await.unwrap().to_lowercase();
        assert!(request.starts_with("get /ok http/1.1"), "{request}");
        assert!(request.contains("x-a: b") && request.contains("host: 127.0.0.1"), "{request}");
    }
}

#[tokio::test]
async fn tcp_and_exec_probes_and_what_takes_too_long() {
    let (port, _requests) = server("").await;
    let (fake, to) = target(port);
    let tcp = probe(json!({"tcpSocket": {"port": port}}));
    assert_eq!(once(&to, &tcp, LIMIT).await, Ok(()));
    let nobody = probe(json!({"tcpSocket": {"port": "nobody"}}));
    assert!(bad(once(&to, &nobody, LIMIT).await).contains("nobody"));
    let exec = probe(json!({"exec": {"command": ["true"]}}));
    assert_eq!(once(&to, &exec, LIMIT).await, Ok(()));
    fake.state.lock().exec_code = 4;
    assert!(bad(once(&to, &exec, LIMIT).await).contains("exit code 4"));
    fake.state.lock().exec_runs = true;
    let late = bad(once(&to, &exec, Duration::from_millis(50)).await);
    assert!(late.contains("no answer within"), "{late}");
    // Nothing can be started in the container; that is its own fault if all else works.
    fake.state.lock().exec_stuck = true;
    assert!(bad(once(&to, &exec, LIMIT).await).contains("no program can be started"));
    // Accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap().port();
    let http = probe(json!({"httpGet": {"port": silent}}));
    let late = bad(once(&to, &http, Duration::from_millis(50)).await);
    assert!(late.contains("no answer within"), "{late}");
}

#[tokio::test(start_paused = true)]
async fn it_is_watched_until_the_verdict_is_enough() {
    let (fake, to) = target(1);
    fake.state.lock().exec_code = 1;
    let probe = probe(json!({"exec": {"command": ["x"]}, "periodSeconds": 5,
        "initialDelaySeconds": 7, "failureThreshold": 3}));
    let verdicts = AtomicUsize::new(0);
    let begun = tokio::time::Instant::now();
    let heard = AtomicUsize::new(0);
    let failed = |message: &str| {
        assert!(message.contains("exit code 1"), "{message}");
        heard.fetch_add(1, Ordering::Relaxed);
    };
    watch(&to, &probe, failed, |result| {
        assert!(result.is_err());
        verdicts.fetch_add(1, Ordering::Relaxed) == 1
    })
    .await;
    // After the delay, three to the first verdict and one more to the second.
    assert_eq!(begun.elapsed().as_secs(), 7 + 3 * 5);
    assert_eq!(verdicts.load(Ordering::Relaxed), 2);
    assert_eq!(heard.load(Ordering::Relaxed), 4, "every failure is heard of");
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_cannot_say_is_not_held_against_the_container() {
    let (fake, to) = target(1);
    fake.state.lock().down = true;
    let probe = probe(json!({"exec": {"command": ["x"]}, "periodSeconds": 5,
        "failureThreshold": 3}));
    let (verdicts, heard) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = |_: &str| {
        heard.fetch_add(1, Ordering::Relaxed);
    };
    let verdict = |_| verdicts.fetch_add(1, Ordering::Relaxed) == 0;
    let begun = tokio::time::Instant::now();
    let mut watching = std::pin::pin!(watch(&to, &probe, failed, verdict));
    // At 0, 5, 10 and 15 seconds.
    let away = timeout(Duration::from_secs(17), &mut watching).await;
    assert!(away.is_err(), "a verdict without any answer");
    assert_eq!(heard.load(Ordering::Relaxed), 0);
    {
        let mut state = fake.state.lock();
        (state.down, state.exec_code) = (false, 1);
    }
    watching.await;
    assert_eq!(begun.elapsed().as_secs(), 30, "the three that count begin when it is back");
    assert_eq!(verdicts.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_goes_while_a_program_runs_says_nothing_of_it() {
    let (fake, to) = target(1);
    fake.state.lock().exec_runs = true;
    let probe = probe(json!({"exec": {"command": ["x"]}}));
    let mut probing = std::pin::pin!(once(&to, &probe, LIMIT));
    let running = timeout(LIMIT / 2, &mut probing).await;
    assert!(running.is_err(), "{running:?}");
    fake.state.lock().down = true;
    assert_eq!(probing.await, Err(Fault::Engine("down".into())));
}
