#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::backend::{Backend, Batch};
use crate::memory::MemoryBackend;

fn image(records: &[(Space, Bytes, Bytes)]) -> Vec<u8> {
    let backend = MemoryBackend::default();
    let ops = records.iter().map(|(s, k, v)| (*s, k.clone(), Some(v.clone()))).collect();
    backend.commit(Batch { ops }).unwrap();
    let mut bytes = Vec::new();
    write_image(&backend.view(), |chunk| {
        bytes.extend_from_slice(&chunk);
        true
    })
    .unwrap();
    bytes
}

fn records() -> Vec<(Space, Bytes, Bytes)> {
    let large = Bytes::from(vec![7; CHUNK]);
    vec![
        (Space::Latest, "a".into(), Bytes::new()),
        (Space::Latest, "b".into(), large.clone()),
        (Space::History, "".into(), "x".into()),
        (Space::Leases, "z".into(), large),
    ]
}

fn read(image: &[u8]) -> io::Result<Vec<(Space, Bytes, Bytes)>> {
    let mut found = Vec::new();
    read_image(image, |space, key, value| {
        found.push((space, key, value));
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn an_image_comes_back_as_it_was() {
    assert_eq!(read(&image(&records())).unwrap(), records());
    assert_eq!(read(&image(&[])).unwrap(), Vec::new());
    // What etcd's tools look for: a SHA-256 behind whole blocks.
    assert_eq!(image(&records()).len() % 512, 32);
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let whole = image(&[(Space::Latest, "key".into(), "value".into())]);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert!(read(&damaged).is_err(), "a flipped bit at {at}");
        assert!(read(&whole[..at]).is_err(), "cut off at {at}");
    }
    let longer = [whole.as_slice(), b"x"].concat();
    assert!(read(&longer).is_err());
}
