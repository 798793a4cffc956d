//! A SPDY session with a client: the streams it opens, over any connection of bytes.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::spdy::{self, Decoder, Encoder, Frame, Headers};

/// Pieces of one stream that wait for whoever reads it; then the whole session waits.
const PIECES: usize = 32;
/// Frames that wait to be sent; then whoever sends waits.
const FRAMES: usize = 32;
/// Streams open at once; a client that opens more is cut off.
const MAX_STREAMS: usize = 512;
/// Bytes in one frame that we send.
const MAX_DATA: usize = 32 * 1024;
/// A client reads what was sent last within this time.
const FINISH: Duration = Duration::from_secs(10);

/// A stream that the client has opened.
pub(super) struct SpdyStream {
    pub headers: Headers,
    /// What the client sends, until it ends its side.
    pub data: mpsc::Receiver<Bytes>,
    pub writer: Writer,
}

impl SpdyStream {
    /// A header, whatever the case of its name.
    pub fn header(&self, name: &str) -> &str {
        let named = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map_or("", |(_, value)| value)
    }
}

/// Our side of a stream. Sending fails silently when the session is over: its end is told by the
/// client's side.
#[derive(Clone)]
pub(super) struct Writer {
    stream: u32,
    frames: mpsc::Sender<Bytes>,
}

impl Writer {
    pub async fn send(&self, data: &[u8]) {
        for piece in data.chunks(MAX_DATA) {
            let _ = self.frames.send(spdy::data(self.stream, piece, false)).await;
        }
    }

    /// Nothing more comes from us.
    pub async fn finish(&self) {
        let _ = self.frames.send(spdy::data(self.stream, &[], true)).await;
    }

    /// The stream is of no use any more.
    pub async fn reset(&self) {
        let _ = self.frames.send(spdy::reset(self.stream)).await;
    }
}

/// A session; dropping it ends the connection.
pub(super) struct Session {
    opened: mpsc::Receiver<SpdyStream>,
    reader: AbortOnDropHandle<()>,
    writer: AbortOnDropHandle<()>,
}

impl Session {
    /// Speaks SPDY over a connection.
    pub fn start<I, E, O>(input: I, output: O) -> Self
    where
        I: Stream<Item = Result<Bytes, E>> + Unpin + Send + 'static,
        E: Send,
        O: Sink<Bytes> + Unpin + Send + 'static,
    {
        let (frames, queue) = mpsc::channel(FRAMES);
        let (sender, opened) = mpsc::channel(PIECES);
        // Tasks "SPDY in" and "SPDY out": end with the connection or the session; what fails is
        // the peer's matter, and whoever reads streams sees them end.
        let reader = tokio::spawn(async move {
            if let Err(error) = read(input, &frames, &sender).await {
                tracing::debug!("a SPDY session was ended: {error}");
            }
        });
        let writer = tokio::spawn(write(queue, output));
        let (reader, writer) = (AbortOnDropHandle::new(reader), AbortOnDropHandle::new(writer));
        Self { opened, reader, writer }
    }

    /// The next stream that the client opens; none when the connection is over.
    pub async fn accept(&mut self) -> Option<SpdyStream> {
        self.opened.recv().await
    }

    /// Ends the session when everything is sent that waits. All streams must be dropped before.
    pub async fn finish(self) {
        let Self { opened, reader, writer } = self;
        drop((opened, reader));
        let _ = tokio::time::timeout(FINISH, writer).await;
    }
}

async fn write<O: Sink<Bytes> + Unpin>(mut queue: mpsc::Receiver<Bytes>, mut output: O) {
    while let Some(frame) = queue.recv().await {
        if output.send(frame).await.is_err() {
            return;
        }
    }
    // Best effort: the client has all that was to be said.
    let _ = output.close().await;
}

async fn read<I, E>(
    mut input: I,
    frames: &mpsc::Sender<Bytes>,
    opened: &mpsc::Sender<SpdyStream>,
) -> Result<(), spdy::SpdyError>
where
    I: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let mut decoder = Decoder::default();
    let mut encoder = Encoder::default();
    let mut streams: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    while let Some(Ok(bytes)) = input.next().await {
        decoder.push(&bytes);
        while let Some(frame) = decoder.next()? {
            match frame {
                Frame::Open { stream, headers, fin } => {
                    streams.retain(|_, sender| !sender.is_closed());
                    if streams.len() >= MAX_STREAMS {
                        return Err(spdy::SpdyError::Malformed("it opens one stream too many"));
                    }
                    let (sender, data) = mpsc::channel(PIECES);
                    if !fin {
                        streams.insert(stream, sender);
                    }
                    let _ = frames.send(encoder.reply(stream)?).await;
                    let writer = Writer { stream, frames: frames.clone() };
                    if opened.send(SpdyStream { headers, data, writer }).await.is_err() {
                        return Ok(());
                    }
                }
                Frame::Data { stream, data, fin } => {
                    if let Some(sender) = streams.get(&stream)
                        && !data.is_empty()
                    {
                        // Whoever read it may have stopped: then it is nobody's.
                        let _ = sender.send(data).await;
                    }
                    if fin {
                        streams.remove(&stream);
                    }
                }
                Frame::Reset { stream } => drop(streams.remove(&stream)),
                Frame::Ping { id } => drop(frames.send(spdy::ping(id)).await),
                Frame::GoAway => return Ok(()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
