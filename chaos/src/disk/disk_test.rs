//! With a real mount: needs `/dev/fuse` and the right to mount.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;

/// Who has neither says so, and checks nothing.
const WITHOUT: &str = "QUORATE_WITHOUT_FUSE";

/// `None` where nothing can be mounted, and that is known.
fn disk() -> Option<(tempfile::TempDir, Disk)> {
    let folder = tempfile::tempdir().expect("a folder");
    if !(nix::unistd::geteuid().is_root() && Path::new("/dev/fuse").exists()) {
        let known = std::env::var_os(WITHOUT).is_some();
        assert!(known, "mounting needs root and /dev/fuse: set {WITHOUT}=1 to go without");
        return None;
    }
    fs::write(folder.path().join("there before"), "text").expect("written");
    let disk = Disk::mount(folder.path(), Names::WithDirectory).expect("mounted");
    Some((folder, disk))
}

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("open")
}

#[test]
fn files_are_files_until_the_power_fails() {
    let Some((folder, disk)) = disk() else { return };
    let at = folder.path();
    assert_eq!(fs::read_to_string(at.join("there before")).expect("read"), "text");
    fs::create_dir(at.join("d")).expect("made");
    let path = at.join("d/log");
    let mut file = append(&path);
    file.write_all(b"synced").expect("written");
    file.sync_data().expect("synced");
    File::open(at.join("d")).and_then(|d| d.sync_all()).expect("synced");
    File::open(at).and_then(|d| d.sync_all()).expect("synced");
    file.write_all(b" and not").expect("written");
    fs::hard_link(&path, at.join("d/second")).expect("linked");
    fs::rename(at.join("there before"), at.join("later")).expect("renamed");
    assert_eq!(fs::read_to_string(at.join("d/second")).expect("read"), "synced and not");
    drop(file);
    assert_eq!(disk.syncs(), 3);
    disk.crash(Torn::No, &mut StdRng::seed_from_u64(0)).expect("crashed");
    assert_eq!(fs::read_to_string(&path).expect("read"), "synced");
    assert!(at.join("there before").exists() && !at.join("later").exists());
    assert!(!at.join("d/second").exists());
}

#[test]
fn troubles_come_and_go() {
    let Some((folder, disk)) = disk() else { return };
    let mut file = append(&folder.path().join("f"));
    let code = |result: std::io::Result<()>| result.map_err(|error| error.raw_os_error());
    disk.trouble(Trouble::SyncsFail);
    file.write_all(b"lost").expect("written");
    assert_eq!(code(file.sync_all()), Err(Some(5)), "EIO");
    disk.trouble(Trouble::WritesFail);
    assert_eq!(code(file.write_all(b"x")), Err(Some(5)), "EIO");
    disk.heal();
    disk.trouble(Trouble::Full { room: 3 });
    file.write_all(b"abc").expect("fits");
    assert_eq!(code(file.write_all(b"d")), Err(Some(28)), "ENOSPC");
    let free = nix::sys::statvfs::statvfs(folder.path()).expect("statfs").blocks_available();
    assert_eq!(free, 0);
    disk.heal();
    disk.trouble(Trouble::SlowSyncs(Duration::from_millis(60)));
    let start = std::time::Instant::now();
    file.sync_all().expect("synced");
    assert!(start.elapsed() >= Duration::from_millis(60));
}

#[test]
fn a_disk_that_is_dropped_is_unmounted_even_while_files_are_open() {
    let Some((folder, disk)) = disk() else { return };
    let _file = append(&folder.path().join("f"));
    drop(disk);
    assert!(!folder.path().join("f").exists());
    assert_eq!(fs::read_to_string(folder.path().join("there before")).expect("read"), "text");
}
