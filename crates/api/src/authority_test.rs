#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// `:method: POST`, `:authority`, and something after it.
fn headers(authority: &[u8]) -> Vec<u8> {
    let length = u8::try_from(authority.len()).unwrap();
    [&[0x83, 0x41, length], authority, &[0x86]].concat()
}

/// "http://a.b", Huffman coded ('a' 00011, '.' 010111, 'b' 100011, then ones).
const CODED: [u8; 8] = [0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x0d, 0x78, 0xff];

fn coded() -> Vec<u8> {
    [&[0x83, 0x41, 0x80 | 8][..], &CODED, &[0x86]].concat()
}

/// What hyper reads when the bytes come in pieces of this size.
async fn read(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut builder = tokio_test_io(bytes, piece);
    let mut all = Vec::new();
    builder.read_to_end(&mut all).await.unwrap();
    all
}

fn tokio_test_io(bytes: &[u8], piece: usize) -> Lenient<impl AsyncRead + Unpin + use<>> {
    let pieces: Vec<_> = bytes
        .chunks(piece)
        .map(|chunk| Ok::<_, io::Error>(bytes::Bytes::copy_from_slice(chunk)))
        .collect();
    Lenient::new(tokio_util::io::StreamReader::new(futures::stream::iter(pieces)))
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE, &frames.concat()].concat()
}

#[tokio::test]
async fn urls_become_authorities_in_every_request_of_the_connection() {
    let good = headers(b"localhost");
    let settings = frame(4, 0, &[0; 18]);
    for bad in [headers(b"http://127.0.0.1:7001"), headers(b"https://m1:7001"), coded()] {
        let padded = |block: &[u8]| [&[2], block, &[0, 0]].concat();
        let sent = connection(&[
            settings.clone(),
            frame(1, 4, &bad),
            frame(0, 1, &[1; 300]),
            frame(1, 4 | PADDED, &padded(&bad)),
            frame(1, 4, &good),
        ]);
        let expected = connection(&[
            settings.clone(),
            frame(1, 4, &good),
            frame(0, 1, &[1; 300]),
            frame(1, 4 | PADDED, &padded(&good)),
            frame(1, 4, &good),
        ]);
        for piece in [1, 7, 10_000] {
            assert_eq!(read(&sent, piece).await, expected, "in pieces of {piece}");
        }
    }
}

#[tokio::test]
async fn all_else_passes_unchanged() {
    let proper = connection(&[
        frame(1, 4, &headers(b"127.0.0.1:7001")),
        // Not looked at any more.
        frame(1, 4, &headers(b"http://late")),
    ]);
    let path = [&[0x04, 7][..], b"http://", &[0x86]].concat();
    let url_elsewhere = connection(&[frame(1, 4, &path)]);
    let cut = connection(&[frame(1, 4, &headers(b"http://a"))[..15].to_vec()]);
    for sent in
        [proper, url_elsewhere, cut, b"GET /healthz HTTP/1.1\r\n\r\n".to_vec(), b"PR".to_vec()]
    {
        for piece in [1, 5, 10_000] {
            assert_eq!(read(&sent, piece).await, sent, "in pieces of {piece}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        block in any::<bool>(),
        flags in any::<u8>(),
        piece in 1usize..50,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sent = if block { connection(&[frame(1, flags, &bytes)]) } else { connection(&[bytes]) };
        let seen = runtime.block_on(read(&sent, piece));
        prop_assert!(seen.starts_with(PREFACE));
    }
}
