//! Masters that are not there, requests that are too large, and what tools ask a server.

use std::time::{Duration, Instant};

use quorate_client::{Client, ClientOptions, Code, WriteOptions};
use quorate_objects::kinds;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::master::{Master, config_map, free_address, soon};

/// An address where nothing listens.
fn nowhere() -> String {
    format!("http://{}", free_address())
}

#[tokio::test]
async fn no_master_at_all_is_said_promptly_and_by_name() {
    let urls = vec![nowhere(), nowhere(), nowhere()];
    let client = Client::new(urls.clone(), ClientOptions::default()).unwrap();
    let start = Instant::now();
    let error = soon("error", client.get(&kinds::POD, "default", "p")).await.unwrap_err();
    // The deadline of a call is 10 s.
    assert!(start.elapsed() < Duration::from_secs(8), "took {:?}", start.elapsed());
    assert_eq!(error.reason, "Unreachable");
    assert!(error.message.contains("none of 3 masters answered"), "{error}");
    assert!(error.message.contains("connection refused"), "{error}");
    for url in urls {
        assert!(error.message.contains(&url), "{error}");
    }
}

#[tokio::test]
async fn the_remaining_master_is_found_and_kept() {
    let master = Master::start().await;
    let urls = vec![nowhere(), nowhere(), master.url()];
    let client = Client::new(urls, ClientOptions::default()).unwrap();
    client.create(&config_map("a", "1"), &WriteOptions::default()).await.unwrap();
    client.get(&kinds::CONFIG_MAP, "default", "a").await.unwrap();
}

#[tokio::test]
async fn clients_move_on_when_their_master_ends() {
    let mut first = Master::start().await;
    let second = Master::on(first.store.clone()).await;
    let urls = vec![first.url(), second.url()];
    let client = Client::new(urls, ClientOptions::default()).unwrap();
    client.create(&config_map("a", "1"), &WriteOptions::default()).await.unwrap();
    first.stop_server().await;
    client.create(&config_map("b", "1"), &WriteOptions::default()).await.unwrap();
    client.get(&kinds::CONFIG_MAP, "default", "a").await.unwrap();
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_with_the_limit() {
    let master = Master::start().await;
    let large = config_map("large", &"x".repeat(quorate_api::MAX_REQUEST_BYTES + 1));
    let error = master.client().create(&large, &WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted, "{error:?}");
    assert_eq!(error.reason, "RequestEntityTooLarge");
    assert!(error.message.contains("2097152"), "{error}");
    // Below gRPC's limit, above the store's.
    let large = config_map("large", &"x".repeat(quorate_store::MAX_COMMAND_BYTES + 1));
    let error = master.client().create(&large, &WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.reason, "RequestEntityTooLarge", "{error:?}");
}

async fn channel(master: &Master) -> Channel {
    Channel::from_shared(master.url()).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn health_is_serving_for_all_services() {
    let master = Master::start().await;
    let mut health = HealthClient::new(channel(&master).await);
    for service in ["", "quorate.v1.Objects", "quorate.v1.Nodes", "quorate.v1.Cluster"] {
        let serving = async {
            loop {
                let request = HealthCheckRequest { service: service.into() };
                let response = health.check(request).await.unwrap().into_inner();
                if response.status == i32::from(tonic_health::ServingStatus::Serving as u8) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        soon("serving", serving).await;
    }
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let master = Master::start().await;
    let mut reflection = ServerReflectionClient::new(channel(&master).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut answers = reflection.server_reflection_info(requests).await.unwrap().into_inner();
    let answer = soon("answer", answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["quorate.v1.Objects", "quorate.v1.Nodes", "quorate.v1.Cluster"] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
}

#[tokio::test]
async fn status_describes_the_master() {
    let master = Master::start().await;
    let client = master.client();
    let status = client.status().await.unwrap();
    assert_eq!((status.role.as_str(), status.cluster_id.as_str()), ("leader", "test-cluster"));
    assert!(status.resident_bytes > 0 && status.revision > 0);
    assert_eq!(client.members().await.unwrap().len(), 1);
    let error = client.transfer_leader(None).await.unwrap_err();
    assert_eq!(error.code, Code::Unimplemented, "{error:?}");
}

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: master\r\nConnection: close\r\n\r\n";

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    soon("an answer", stream.read_to_string(&mut text)).await.unwrap();
    text
}

#[tokio::test]
async fn a_master_that_ends_takes_nothing_new_and_answers_what_it_has_begun() {
    let mut master = Master::start().await;
    let mut begun = TcpStream::connect(master.address).await.unwrap();
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: master\r\n\
                Content-Type: application/json\r\nConnection: close\r\nContent-Length: ";
    let body = config_map("begun", "v").to_string();
    begun.write_all(format!("{head}{}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    // It has been heard: this one comes after it and has an answer.
    let mut later = TcpStream::connect(master.address).await.unwrap();
    later.write_all(HEALTHZ).await.unwrap();
    assert!(answer(later).await.starts_with("HTTP/1.1 200"));
    let ended = master.end_server();
    let refused = async {
        while TcpStream::connect(master.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("connections are refused", refused).await;
    begun.write_all(body.as_bytes()).await.unwrap();
    let answer = answer(begun).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    soon("the end", ended).await.unwrap();
}

#[tokio::test]
async fn what_was_sent_before_a_master_ends_is_answered() {
    let mut master = Master::start().await;
    // The server has had no chance to see either of them: this test has one thread.
    let mut stream = std::net::TcpStream::connect(master.address).unwrap();
    std::io::Write::write_all(&mut stream, HEALTHZ).unwrap();
    let ended = master.end_server();
    stream.set_nonblocking(true).unwrap();
    let answer = answer(TcpStream::from_std(stream).unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1"), "{answer}");
    soon("the end", ended).await.unwrap();
}
