use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::ClientOptions;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that says its name on every connection, until it is dropped.
async fn server(name: &'static str) -> (String, tokio::task::AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(name.as_bytes()).await.unwrap();
        }
    });
    (address, task.abort_handle())
}

async fn ask(endpoint: &str) -> String {
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    let mut text = [0; 2];
    match stream.read_exact(&mut text).await {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

#[tokio::test]
async fn connections_go_to_whoever_takes_them_even_if_none_answers_as_a_master() {
    let (first, one) = server("m1").await;
    let (second, _two) = server("m2").await;
    let urls = vec![format!("http://{first}"), format!("http://{second}")];
    let options =
        ClientOptions { attempt_timeout: Duration::from_millis(100), ..Default::default() };
    let client = Client::new(urls, options).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let forward = tokio::spawn(forward(listener, client));
    // As soon as it is known that neither answers as a master, what is open is closed once.
    let named = async || {
        loop {
            let answer = ask(&endpoint).await;
            if !answer.is_empty() {
                return answer;
            }
        }
    };
    let answers = timeout(PATIENCE, async { [named().await, named().await] });
    let answers = answers.await.expect("nobody takes connections");
    assert!(answers.iter().all(|answer| answer == "m1" || answer == "m2"), "{answers:?}");
    one.abort();
    let left = async { while ask(&endpoint).await != "m2" || ask(&endpoint).await != "m2" {} };
    timeout(PATIENCE, left).await.expect("never only the living one");
    forward.abort();
}

#[test]
fn addresses_are_what_urls_say() {
    assert_eq!(address("https://127.0.0.1:7001/"), "127.0.0.1:7001");
    assert_eq!(address("http://m1:7001"), "m1:7001");
}
