//! [`Lenient`]: takes HTTP/2 requests whose `:authority` is a whole URL.
//!
//! clientv3 3.4, and with it Debian's etcdctl, sends "http://127.0.0.1:7001" there in calls that
//! go to one endpoint (status, defragment, hashes). Go's server takes that; ours refuses the
//! request, as RFC 9113 demands. So the value is replaced before hyper sees it. A connection
//! whose first request has a proper authority is left alone from then on: such a client uses one
//! authority all the time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Longer frames are refused by hyper (the default of SETTINGS_MAX_FRAME_SIZE).
const MAX_FRAME: usize = 16_384;
/// Index of `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;
/// What stands in for the URL: an HPACK string of 9 bytes, not Huffman coded.
const REPLACEMENT: &[u8] = b"\x09localhost";
/// Bytes read at once while a connection is looked at.
const CHUNK: usize = 8 * 1024;

/// What is known of a connection.
enum Mode {
    /// Nothing yet.
    Preface,
    /// HTTP/2; so many bytes of a frame without interest are still to come.
    Frames { passing: usize, first: bool },
    /// Nothing more to look for.
    Pass,
}

/// A connection, read through what this module does.
pub(crate) struct Lenient<I> {
    inner: I,
    mode: Mode,
    /// Read, not looked at yet.
    input: BytesMut,
    /// Looked at, not handed out yet.
    output: BytesMut,
}

impl<I> Lenient<I> {
    pub(crate) fn new(inner: I) -> Self {
        Self { inner, mode: Mode::Preface, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Moves what can be judged from the input to the output.
    fn look(&mut self) {
        while let Some(length) = self.judge() {
            let judged = self.input.split_to(length);
            self.output.unsplit(judged);
        }
    }

    /// How many bytes of the input are done; `None` when more must come first.
    fn judge(&mut self) -> Option<usize> {
        let available = self.input.len();
        if available == 0 {
            return None;
        }
        match &mut self.mode {
            Mode::Pass => Some(available),
            Mode::Preface if self.input.starts_with(PREFACE) => {
                self.mode = Mode::Frames { passing: 0, first: true };
                Some(PREFACE.len())
            }
            Mode::Preface if PREFACE.starts_with(&self.input) => None,
            Mode::Preface => {
                self.mode = Mode::Pass;
                Some(available)
            }
            Mode::Frames { passing, .. } if *passing > 0 => {
                let now = available.min(*passing);
                *passing -= now;
                Some(now)
            }
            Mode::Frames { passing, first } => {
                let header = self.input.first_chunk::<FRAME_HEADER>()?;
                let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                if header[3] != HEADERS || length > MAX_FRAME {
                    *passing = length;
                    return Some(FRAME_HEADER);
                }
                if available < FRAME_HEADER + length {
                    return None;
                }
                let frame = self.input.split_to(FRAME_HEADER + length);
                match rewritten(&frame) {
                    Some(better) => {
                        *first = false;
                        self.output.extend_from_slice(&better);
                    }
                    None => {
                        if *first {
                            self.mode = Mode::Pass;
                        }
                        self.output.extend_from_slice(&frame);
                    }
                }
                // What the frame was is out already; go on behind it.
                Some(0)
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Lenient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.output.is_empty() {
                let length = this.output.len().min(buffer.remaining());
                buffer.put_slice(&this.output[..length]);
                this.output.advance(length);
                return Poll::Ready(Ok(()));
            }
            if matches!(this.mode, Mode::Pass) && this.input.is_empty() {
                return Pin::new(&mut this.inner).poll_read(context, buffer);
            }
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                // The end: what was held back is handed out as it is.
                this.mode = Mode::Pass;
                if this.input.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            this.input.extend_from_slice(read.filled());
            this.look();
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Lenient<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// A HEADERS frame with a proper authority, when it had a URL there.
fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = frame[4];
    let mut at = FRAME_HEADER + usize::from(flags & PADDED != 0);
    if flags & PRIORITY != 0 {
        at += 5;
    }
    let mut block = Block { bytes: frame, at };
    let (from, to) = block.find_url()?;
    let mut better = [&frame[..from], REPLACEMENT, &frame[to..]].concat();
    let length = u32::try_from(better.len() - FRAME_HEADER).ok()?;
    better[..3].copy_from_slice(&length.to_be_bytes()[1..]);
    Some(better)
}

/// A reader of HPACK fields (RFC 7541) that skips what it reads.
struct Block<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Block<'_> {
    /// Where the value of `:authority` is, when it is a URL.
    fn find_url(&mut self) -> Option<(usize, usize)> {
        loop {
            let kind = *self.bytes.get(self.at)?;
            let (prefix, literal) = match kind {
                0x80.. => (7, false),
                0x40.. => (6, true),
                0x20.. => (5, false),
                _ => (4, true),
            };
            let index = self.integer(prefix)?;
            if !literal {
                continue;
            }
            if index == 0 {
                self.string()?;
            }
            let from = self.at;
            let (huffman, text) = self.string()?;
            if index == AUTHORITY && is_url(huffman, text) {
                return Some((from, self.at));
            }
        }
    }

    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let mask = (1_usize << prefix) - 1;
        let mut value = usize::from(*self.bytes.get(self.at)?) & mask;
        self.at += 1;
        if value < mask {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = usize::from(*self.bytes.get(self.at)?);
            self.at += 1;
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Is it Huffman coded, and its bytes.
    fn string(&mut self) -> Option<(bool, &[u8])> {
        let huffman = *self.bytes.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let from = self.at;
        self.at = from.checked_add(length)?;
        Some((huffman, self.bytes.get(from..self.at)?))
    }
}

/// Begins the value with "http://" or "https://"? Huffman coded these are 41 and 46 bits long.
fn is_url(huffman: bool, text: &[u8]) -> bool {
    if !huffman {
        return text.starts_with(b"http://") || text.starts_with(b"https://");
    }
    match text {
        [0x9d, 0x29, 0xae, 0xe3, 0x0c, rest, ..] => rest & 0x80 == 0,
        [0x9d, 0x29, 0xad, 0x17, 0x18, rest, ..] => rest & 0xfc == 0x60,
        _ => false,
    }
}

#[cfg(test)]
#[path = "authority_test.rs"]
mod tests;
