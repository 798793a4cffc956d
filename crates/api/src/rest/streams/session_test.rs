use std::convert::Infallible;

use super::*;

type Input = mpsc::Sender<Result<Bytes, Infallible>>;

fn session() -> (Session, Input, mpsc::Receiver<Bytes>) {
    let (input, receiver) = mpsc::channel(64);
    let (sender, output) = mpsc::channel(64);
    let input_stream = Box::pin(futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    }));
    let sink = Box::pin(futures::sink::unfold(sender, |sender, frame: Bytes| async {
        let _ = sender.send(frame).await;
        Ok::<_, Infallible>(sender)
    }));
    (Session::start(input_stream, sink), input, output)
}

#[tokio::test]
async fn pings_are_answered_and_data_finds_its_stream() {
    let (mut session, input, mut output) = session();
    input.send(Ok(spdy::ping(7))).await.unwrap();
    assert_eq!(output.recv().await.unwrap(), spdy::ping(7));
    let open = spdy::tests::open_for_test(&[("streamType", "data")]);
    input.send(Ok(open)).await.unwrap();
    input.send(Ok(spdy::data(1, b"to", false))).await.unwrap();
    input.send(Ok(spdy::data(9, b"nobody", false))).await.unwrap();
    input.send(Ok(spdy::data(1, b"", true))).await.unwrap();
    let mut stream = session.accept().await.unwrap();
    assert_eq!((stream.header("streamtype"), stream.header("port")), ("data", ""));
    assert_eq!(stream.data.recv().await.unwrap(), "to");
    assert!(stream.data.recv().await.is_none());
    output.recv().await.unwrap(); // the reply
    stream.writer.send(b"back").await;
    stream.writer.finish().await;
    assert_eq!(output.recv().await.unwrap(), spdy::data(1, b"back", false));
    drop(stream);
    session.finish().await;
    assert_eq!(output.recv().await.unwrap(), spdy::data(1, b"", true));
    assert!(output.recv().await.is_none());
}

#[tokio::test]
async fn nonsense_ends_the_session() {
    let (mut session, input, _output) = session();
    input.send(Ok(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"))).await.unwrap();
    assert!(session.accept().await.is_none());
}
