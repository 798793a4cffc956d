use std::collections::BTreeSet;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;

fn lose_all(file: &mut Contents) {
    file.crash(Torn::No, &mut StdRng::seed_from_u64(0)).expect("crashed");
}

fn file() -> (tempfile::TempDir, Contents) {
    let folder = tempfile::tempdir().expect("a folder");
    let contents = Contents::create(&folder.path().join("1")).expect("a file");
    (folder, contents)
}

fn text(contents: &Contents) -> String {
    String::from_utf8(contents.read(0, 1_000).expect("read")).expect("text")
}

#[test]
fn a_crash_loses_what_was_not_synced_and_nothing_else() {
    let (_folder, mut file) = file();
    file.write(0, b"synced").expect("written");
    file.sync();
    file.write(6, b" and not").expect("written");
    file.write(0, b"XX").expect("written");
    file.write(1, b"YYY").expect("written");
    assert_eq!(text(&file), "XYYYed and not");
    lose_all(&mut file);
    assert_eq!(text(&file), "synced");
}

#[test]
fn a_truncation_that_was_not_synced_is_undone_even_when_it_was_written_over() {
    let (_folder, mut file) = file();
    file.write(0, b"0123456789").expect("written");
    file.sync();
    file.set_size(3).expect("cut");
    file.write(3, b"abc").expect("written");
    assert_eq!(text(&file), "012abc");
    lose_all(&mut file);
    assert_eq!(text(&file), "0123456789");
    file.set_size(3).expect("cut");
    file.sync();
    lose_all(&mut file);
    assert_eq!(text(&file), "012");
}

#[test]
fn what_a_failed_sync_lost_is_shown_until_the_crash_and_saved_by_no_later_sync() {
    let (_folder, mut file) = file();
    file.write(0, b"good").expect("written");
    file.sync();
    file.write(4, b"doomed").expect("written");
    file.fail_sync();
    file.write(10, b"later").expect("written");
    file.sync();
    assert_eq!(text(&file), "gooddoomedlater");
    lose_all(&mut file);
    assert_eq!(text(&file), "good\0\0\0\0\0\0later");
}

/// What is left of 4 synced bytes and `write`, for many seeds: lengths of the beginning, and sizes.
fn torn(torn: Torn, write: &[u8]) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let whole = [b"kept", write].concat();
    let (mut kept, mut sizes) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..60 {
        let (_folder, mut file) = file();
        file.write(0, b"kept").expect("written");
        file.sync();
        file.write(4, write).expect("written");
        file.crash(torn, &mut StdRng::seed_from_u64(seed)).expect("crashed");
        let text = text(&file);
        let beginning = text.trim_end_matches('\0').as_bytes();
        assert!(whole.starts_with(beginning) && beginning.starts_with(b"kept"), "{text:?}");
        kept.insert(beginning.len());
        sizes.insert(text.len());
        lose_all(&mut file);
        assert_eq!(text, self::text(&file), "what survived is on the disk");
    }
    (kept, sizes)
}

#[test]
fn a_torn_write_leaves_a_beginning_of_it() {
    let (kept, sizes) = torn(Torn::Prefix, b"abcd");
    assert_eq!(kept, (4..=8).collect());
    assert_eq!(sizes, kept);
}

#[test]
fn a_torn_write_leaves_whole_sectors_and_zeros() {
    let (kept, sizes) = torn(Torn::Zeros, &[b'x'; 900]);
    assert!(kept.is_subset(&[4, 512, 904].into()), "{kept:?}");
    assert!(kept.len() >= 2, "{kept:?}");
    assert_eq!(sizes, [904].into());
}
