use std::io;

use anyhow::{Context, Result, ensure};

use super::*;
use crate::closed::closed_address;

/// Far beyond what loopback takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that sends back what it gets.
async fn echo(address: SocketAddr) -> Result<JoinSet<()>> {
    let listener = TcpListener::bind(address).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    Ok(tasks)
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let (stream, _) =
        crate::wait_for("a connection", PATIENCE, async || Ok(TcpStream::connect(address).await?))
            .await?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream, text: &str) -> Result<()> {
    stream.write_all(text.as_bytes()).await?;
    answer(stream, text).await
}

async fn answer(stream: &mut TcpStream, text: &str) -> Result<()> {
    let mut buffer = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut buffer)).await.context("no answer")??;
    ensure!(buffer == text.as_bytes());
    Ok(())
}

async fn silent(stream: &mut TcpStream) -> Result<()> {
    let mut byte = [0];
    let read = timeout(Duration::from_millis(200), stream.read(&mut byte)).await;
    ensure!(read.is_err(), "something came: {read:?}");
    Ok(())
}

fn links(advertised: SocketAddr, real: SocketAddr) -> Links {
    let destination = Destination { name: "m1".into(), advertised, real };
    Links::start(vec![destination], Arc::new(BTreeMap::new), Arc::default())
}

#[tokio::test]
async fn what_is_cut_arrives_when_it_heals() -> Result<()> {
    let (advertised, real) = (closed_address()?, closed_address()?);
    let _server = echo(real).await?;
    let links = links(advertised, real);
    let mut stream = connect(advertised).await?;
    exchange(&mut stream, "one").await?;
    links.set(CLIENTS, "m1", Rule { cut: true, ..Rule::default() });
    stream.write_all(b"two").await?;
    silent(&mut stream).await?;
    // A new connection is neither refused nor served.
    let mut second = connect(advertised).await?;
    second.write_all(b"second").await?;
    silent(&mut second).await?;
    links.heal();
    answer(&mut stream, "two").await?;
    answer(&mut second, "second").await?;
    // The other direction alone.
    links.set("m1", CLIENTS, Rule { cut: true, ..Rule::default() });
    stream.write_all(b"three").await?;
    silent(&mut stream).await?;
    links.heal();
    answer(&mut stream, "three").await
}

#[tokio::test]
async fn delay_and_loss_keep_the_order() -> Result<()> {
    let (advertised, real) = (closed_address()?, closed_address()?);
    let _server = echo(real).await?;
    let links = links(advertised, real);
    let mut stream = connect(advertised).await?;
    let rule = Rule { delay: Duration::from_millis(30), loss: 0.5, ..Rule::default() };
    links.set_both(CLIENTS, "m1", rule);
    let start = Instant::now();
    for text in ["a", "b", "c"] {
        exchange(&mut stream, text).await?;
    }
    ensure!(start.elapsed() >= Duration::from_millis(180), "{:?}", start.elapsed());
    // Pieces that are on their way together: some are lost at first, and those behind them wait.
    stream.set_nodelay(true)?;
    let sent = "abcdefgh";
    for piece in sent.as_bytes().chunks(1) {
        stream.write_all(piece).await?;
        sleep(Duration::from_millis(5)).await;
    }
    answer(&mut stream, sent).await
}

#[tokio::test]
async fn a_dead_server_refuses_through_the_proxy_too() -> Result<()> {
    let (advertised, real) = (closed_address()?, closed_address()?);
    let server = echo(real).await?;
    let _links = links(advertised, real);
    let mut stream = connect(advertised).await?;
    exchange(&mut stream, "one").await?;
    drop(server);
    let end = timeout(PATIENCE, stream.read(&mut [0])).await.context("the connection stays")?;
    ensure!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    // From the moment that the connection has broken, not some time later.
    let refused = TcpStream::connect(advertised).await;
    ensure!(refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused));
    let _server = echo(real).await?;
    let mut stream = connect(advertised).await?;
    exchange(&mut stream, "two").await
}
