//! Images: a whole state as one stream of bytes, to be kept in a file and restored from it.
//!
//! `QUORATE1`, then records (the number of the space, the lengths of key and value as 4 bytes
//! each, little endian, key, value), then the byte 0xff and zeros up to a multiple of 512 bytes,
//! then the SHA-256 of all that. The last part is what etcd's tools expect of a snapshot.

use std::io::{self, Read};
use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::backend::{BackendError, Direction, Space, View};

const MAGIC: &[u8; 8] = b"QUORATE1";
const END: u8 = 0xff;
const BLOCK: u64 = 512;
/// Bytes of a chunk, about.
const CHUNK: usize = 256 << 10;

/// Cuts records into the chunks of an image.
struct ImageWriter {
    hash: Sha256,
    written: u64,
    chunk: BytesMut,
}

impl Default for ImageWriter {
    fn default() -> Self {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        chunk.extend_from_slice(MAGIC);
        Self { hash: Sha256::new(), written: 0, chunk }
    }
}

impl ImageWriter {
    /// Adds a record; returns a chunk when one is full.
    fn record(&mut self, space: Space, key: &[u8], value: &[u8]) -> Option<Bytes> {
        self.chunk.put_u8(space as u8);
        // Keys and values are far smaller than 4 GiB.
        self.chunk.put_u32_le(key.len() as u32);
        self.chunk.put_u32_le(value.len() as u32);
        self.chunk.extend_from_slice(key);
        self.chunk.extend_from_slice(value);
        (self.chunk.len() >= CHUNK).then(|| self.cut())
    }

    /// The last chunk.
    fn finish(mut self) -> Bytes {
        self.chunk.put_u8(END);
        let length = self.written + self.chunk.len() as u64;
        let padding = length.next_multiple_of(BLOCK) - length;
        // Less than a block.
        self.chunk.put_bytes(0, padding as usize);
        self.hash.update(&self.chunk);
        self.chunk.extend_from_slice(&self.hash.finalize());
        self.chunk.freeze()
    }

    fn cut(&mut self) -> Bytes {
        let chunk = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK)).freeze();
        self.hash.update(&chunk);
        self.written += chunk.len() as u64;
        chunk
    }
}

/// Writes a view as an image: hands the chunks to `send` in order until it says no.
pub(crate) fn write_image(
    view: &impl View,
    mut send: impl FnMut(Bytes) -> bool,
) -> Result<(), BackendError> {
    let mut image = ImageWriter::default();
    for space in Space::ALL {
        let mut open = true;
        view.scan(space, &[], None, Direction::Forward, &mut |key, value| {
            open = image.record(space, key, value).is_none_or(&mut send);
            if open { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if !open {
            return Ok(());
        }
    }
    send(image.finish());
    Ok(())
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is no intact snapshot: {what}"))
}

/// Counts and hashes what is read through it.
struct Hashed<R> {
    from: R,
    hash: Sha256,
    read: u64,
}

impl<R: Read> Hashed<R> {
    fn exact<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
            _ => error,
        })?;
        self.hash.update(bytes);
        self.read += N as u64;
        Ok(bytes)
    }

    fn bytes(&mut self, length: u32) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        // `take` bounds the allocation by what is really there.
        let read = self.from.by_ref().take(u64::from(length)).read_to_end(&mut bytes)?;
        if read < length as usize {
            return Err(damaged("it ends too early"));
        }
        self.hash.update(&bytes);
        self.read += u64::from(length);
        Ok(bytes.into())
    }
}

/// Reads an image to its end and hands every record to `record`. Only when this returns without
/// an error was the image intact: what `record` has got before counts for nothing.
///
/// # Errors
/// When the image is damaged or cut off, or `record` fails.
pub fn read_image(
    from: impl Read,
    mut record: impl FnMut(Space, Bytes, Bytes) -> io::Result<()>,
) -> io::Result<()> {
    let mut image = Hashed { from, hash: Sha256::new(), read: 0 };
    if image.exact::<8>()? != *MAGIC {
        return Err(damaged("it does not begin as one"));
    }
    loop {
        let [number] = image.exact()?;
        if number == END {
            break;
        }
        let space = Space::ALL.get(usize::from(number)).ok_or_else(|| damaged("unknown space"))?;
        let key = u32::from_le_bytes(image.exact()?);
        let value = u32::from_le_bytes(image.exact()?);
        let (key, value) = (image.bytes(key)?, image.bytes(value)?);
        record(*space, key, value)?;
    }
    while !image.read.is_multiple_of(BLOCK) {
        image.exact::<1>()?;
    }
    let expected = image.hash.clone().finalize();
    if image.exact::<32>()? != *expected {
        return Err(damaged("its checksum is wrong"));
    }
    match image.from.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(damaged("something follows its end")),
    }
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
