use super::*;

/// A client's SYN_STREAM with these headers; the compressor goes on from stream to stream.
fn open(deflate: &mut Compress, stream: u32, headers: &[(&str, &str)], fin: bool) -> Bytes {
    let mut plain = Vec::new();
    plain.put_u32(headers.len() as u32);
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        plain.put_u32(text.len() as u32);
        plain.extend_from_slice(text.as_bytes());
    }
    let mut block = Vec::with_capacity(plain.len() + 1024);
    deflate.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
    let mut body = BytesMut::new();
    body.put_u32(stream);
    body.put_u32(0);
    body.put_u16(0);
    body.extend_from_slice(&block);
    control(SYN_STREAM, if fin { FIN } else { 0 }, &body)
}

/// The first stream of a client.
pub(in super::super) fn open_for_test(headers: &[(&str, &str)]) -> Bytes {
    open(&mut client(), 1, headers, false)
}

fn client() -> Compress {
    let mut deflate = Compress::new(Compression::best(), true);
    deflate.set_dictionary(&dictionary()).unwrap();
    deflate
}

#[test]
fn the_dictionary_is_the_one_of_version_3() {
    let bytes = dictionary();
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in &bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    assert_eq!((bytes.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
}

#[test]
fn streams_open_with_their_headers_however_the_bytes_come() {
    let mut deflate = client();
    let headers = [("streamtype", "data"), ("port", "8080"), ("requestid", "0")];
    let mut bytes = open(&mut deflate, 1, &headers, false).to_vec();
    bytes.extend_from_slice(&open(&mut deflate, 3, &headers[..1], true));
    bytes.extend_from_slice(&data(1, b"hello", true));
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for byte in bytes {
        decoder.push(&[byte]);
        frames.extend(decoder.next().unwrap());
    }
    let owned = |headers: &[(&str, &str)]| -> Headers {
        headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    assert_eq!(
        frames,
        [
            Frame::Open { stream: 1, headers: owned(&headers), fin: false },
            Frame::Open { stream: 3, headers: owned(&headers[..1]), fin: true },
            Frame::Data { stream: 1, data: Bytes::from_static(b"hello"), fin: true },
        ]
    );
}

#[test]
fn what_we_send_can_be_read() {
    let mut encoder = Encoder::default();
    let mut decoder = Decoder::default();
    for stream in [1, 3] {
        decoder.push(&encoder.reply(stream).unwrap());
    }
    for frame in [data(3, b"x", false), reset(1), control(9, 0, &[0; 8]), ping(9)] {
        decoder.push(&frame);
    }
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next().unwrap() {
        frames.push(frame);
    }
    assert_eq!(
        frames,
        [
            Frame::Data { stream: 3, data: Bytes::from_static(b"x"), fin: false },
            Frame::Reset { stream: 1 },
            Frame::Ping { id: 9 },
        ]
    );
}

#[test]
fn what_is_no_spdy_is_refused() {
    let mut decoder = Decoder::default();
    decoder.push(b"GET / HTTP/1.1\r\n\r\n");
    // Read as a data frame of 0x202f20 bytes.
    assert!(matches!(decoder.next(), Err(SpdyError::TooLarge(_))));
    let mut decoder = Decoder::default();
    decoder.push(&[0x80, 2, 0, 1, 0, 0, 0, 0]);
    assert!(decoder.next().is_err());
    let mut decoder = Decoder::default();
    decoder.push(&control(SYN_STREAM, 0, b"\0\0\0\x01\0\0\0\0\0\0not compressed"));
    assert_eq!(decoder.next(), Err(SpdyError::Headers));
    let mut decoder = Decoder::default();
    decoder.push(&control(PING, 0, b"\0"));
    assert!(decoder.next().is_err());
}

#[test]
fn damaged_frames_are_errors_at_most() {
    use rand::{Rng as _, SeedableRng as _};
    let headers = [("streamtype", "data"), ("port", "8080")];
    for seed in 0..3_000 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut deflate = client();
        let mut bytes = open(&mut deflate, 1, &headers, false).to_vec();
        bytes.extend_from_slice(&data(1, b"hello", false));
        bytes.extend_from_slice(&open(&mut deflate, 3, &headers, true));
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        let mut decoder = Decoder::default();
        let mut frames = 0;
        for piece in bytes.chunks(random.random_range(1..64)) {
            decoder.push(piece);
            while let Ok(Some(_)) = decoder.next() {
                frames += 1;
            }
        }
        assert!(frames <= bytes.len() / 8, "seed {seed}");
    }
}
