//! SPDY/3.1 frames, as far as kubectl speaks them: streams with headers, data, pings.
//!
//! Pure: bytes in, bytes out. Described by draft-mbelshe-httpbis-spdy-00. Its windows are left
//! out: kubectl's implementation neither grants nor observes any, so TCP's is the only one.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Largest frame taken: kubectl's are at most 64 KiB.
const MAX_FRAME: usize = 1 << 20;
/// Largest block of headers after decompression.
const MAX_HEADERS: usize = 64 * 1024;
const VERSION: u16 = 0x8003;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// What is wrong with what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpdyError {
    #[error("a frame of {0} bytes is too large")]
    TooLarge(usize),
    #[error("a frame is malformed: {0}")]
    Malformed(&'static str),
    #[error("headers cannot be decompressed")]
    Headers,
}

/// Headers in the order in which they came.
pub(super) type Headers = Vec<(String, String)>;

/// A frame that means something to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The client opens a stream.
    Open {
        stream: u32,
        headers: Headers,
        fin: bool,
    },
    Data {
        stream: u32,
        data: Bytes,
        fin: bool,
    },
    Reset {
        stream: u32,
    },
    /// Wants the same number back.
    Ping {
        id: u32,
    },
    GoAway,
}

/// Takes frames out of bytes. Blocks of headers share one compression context.
pub(super) struct Decoder {
    buffer: BytesMut,
    inflate: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), inflate: Decompress::new(true) }
    }
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame; frames that mean nothing to us are skipped.
    ///
    /// # Errors
    /// When the connection is not to be gone on with.
    pub fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        while self.buffer.len() >= 8 {
            let length = usize::from(self.buffer[5]) << 16
                | usize::from(self.buffer[6]) << 8
                | usize::from(self.buffer[7]);
            if length > MAX_FRAME {
                return Err(SpdyError::TooLarge(length));
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            let mut head = self.buffer.split_to(8);
            let body = self.buffer.split_to(length).freeze();
            let first = head.get_u32();
            let flags = head.get_u8();
            let fin = flags & FIN != 0;
            if first >> 31 == 0 {
                return Ok(Some(Frame::Data { stream: first, data: body, fin }));
            }
            if (first >> 16) as u16 != VERSION {
                return Err(SpdyError::Malformed("it is not of SPDY version 3"));
            }
            if let Some(frame) = self.control((first & 0xffff) as u16, fin, body)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn control(
        &mut self,
        kind: u16,
        fin: bool,
        mut body: Bytes,
    ) -> Result<Option<Frame>, SpdyError> {
        let number = |body: &mut Bytes| {
            body.try_get_u32().map_err(|_| SpdyError::Malformed("it is too short"))
        };
        Ok(Some(match kind {
            SYN_STREAM => {
                let stream = number(&mut body)? & 0x7fff_ffff;
                number(&mut body)?;
                body.try_get_u16().map_err(|_| SpdyError::Malformed("it is too short"))?;
                Frame::Open { stream, headers: self.headers(&body)?, fin }
            }
            HEADERS | SYN_REPLY => {
                number(&mut body)?;
                // Not of interest, but part of the compression context.
                self.headers(&body)?;
                return Ok(None);
            }
            RST_STREAM => Frame::Reset { stream: number(&mut body)? },
            PING => Frame::Ping { id: number(&mut body)? },
            GOAWAY => Frame::GoAway,
            _ => return Ok(None),
        }))
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        let plain = self.inflate(block)?;
        let mut plain = plain.as_slice();
        let short = |_| SpdyError::Malformed("its headers are too short");
        let count = plain.try_get_u32().map_err(short)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let mut text = || {
                let length = plain.try_get_u32().map_err(short)? as usize;
                let (text, rest) = plain
                    .split_at_checked(length)
                    .ok_or(SpdyError::Malformed("its headers are too short"))?;
                plain = rest;
                Ok(String::from_utf8_lossy(text).into_owned())
            };
            headers.push((text()?, text()?));
        }
        Ok(headers)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut plain = Vec::new();
        let mut chunk = vec![0; 4096];
        loop {
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(input, &mut chunk, FlushDecompress::Sync);
            let count = |total: u64, before: u64| usize::try_from(total - before).unwrap_or(0);
            let read = count(self.inflate.total_in(), read);
            let written = count(self.inflate.total_out(), written);
            input = input.get(read..).unwrap_or_default();
            plain.extend_from_slice(&chunk[..written]);
            if plain.len() > MAX_HEADERS {
                return Err(SpdyError::Headers);
            }
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&dictionary()).map_err(|_| SpdyError::Headers)?;
                }
                Err(_) => return Err(SpdyError::Headers),
                Ok(Status::StreamEnd) => return Ok(plain),
                Ok(_) if input.is_empty() && written < chunk.len() => return Ok(plain),
                Ok(_) if read == 0 && written == 0 => return Ok(plain),
                Ok(_) => {}
            }
        }
    }
}

/// Makes frames.
pub(super) struct Encoder {
    deflate: Compress,
    begun: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { deflate: Compress::new(Compression::fast(), true), begun: false }
    }
}

impl Encoder {
    /// Accepts a stream.
    ///
    /// # Errors
    /// When the headers cannot be compressed.
    pub fn reply(&mut self, stream: u32) -> Result<Bytes, SpdyError> {
        if !std::mem::replace(&mut self.begun, true) {
            self.deflate.set_dictionary(&dictionary()).map_err(|_| SpdyError::Headers)?;
        }
        // No headers: their number alone.
        let mut block = Vec::with_capacity(256);
        self.deflate
            .compress_vec(&0_u32.to_be_bytes(), &mut block, FlushCompress::Sync)
            .map_err(|_| SpdyError::Headers)?;
        let mut body = BytesMut::new();
        body.put_u32(stream);
        body.extend_from_slice(&block);
        Ok(control(SYN_REPLY, 0, &body))
    }
}

pub(super) fn data(stream: u32, data: &[u8], fin: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + data.len());
    frame.put_u32(stream);
    frame.put_u32(head(if fin { FIN } else { 0 }, data.len()));
    frame.extend_from_slice(data);
    frame.freeze()
}

pub(super) fn reset(stream: u32) -> Bytes {
    /// The stream is of no use any more.
    const CANCEL: u32 = 5;
    let mut body = BytesMut::with_capacity(8);
    body.put_u32(stream);
    body.put_u32(CANCEL);
    control(RST_STREAM, 0, &body)
}

pub(super) fn ping(id: u32) -> Bytes {
    control(PING, 0, &id.to_be_bytes())
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + body.len());
    frame.put_u16(VERSION);
    frame.put_u16(kind);
    frame.put_u32(head(flags, body.len()));
    frame.extend_from_slice(body);
    frame.freeze()
}

/// Flags and length. Nothing that we send is longer than its 24 bits.
fn head(flags: u8, length: usize) -> u32 {
    u32::from(flags) << 24 | (u32::try_from(length).unwrap_or(0) & 0x00ff_ffff)
}

/// The words that both sides know before the first header: each with its length, then a tail
/// without lengths.
fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS {
        bytes.put_u32(u32::try_from(word.len()).unwrap_or(0));
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TAIL.as_bytes());
    bytes
}

#[rustfmt::skip]
const WORDS: &[&str] = &[
    "options", "head", "post", "put", "delete", "trace", "accept", "accept-charset",
    "accept-encoding", "accept-language", "accept-ranges", "age", "allow", "authorization",
    "cache-control", "connection", "content-base", "content-encoding", "content-language",
    "content-length", "content-location", "content-md5", "content-range", "content-type", "date",
    "etag", "expect", "expires", "from", "host", "if-match", "if-modified-since", "if-none-match",
    "if-range", "if-unmodified-since", "last-modified", "location", "max-forwards", "pragma",
    "proxy-authenticate", "proxy-authorization", "range", "referer", "retry-after", "server", "te",
    "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning",
    "www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url",
    "public", "set-cookie", "keep-alive", "origin",
];
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416\
    417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad \
    Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not \
    Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 \
    Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,\
    deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

#[cfg(test)]
#[path = "spdy_test.rs"]
pub(super) mod tests;
