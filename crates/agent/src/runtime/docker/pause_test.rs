#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::program;

#[test]
fn the_set_of_signals_lies_where_the_code_looks() {
    // lea rsi: 14 bytes of code before the next instruction, and 41 from there.
    let file = program("amd64").unwrap();
    assert_eq!(&file[120 + 14 + 41..], 0x4002u64.to_le_bytes());
    let file = program("arm64").unwrap();
    assert_eq!(&file[120 + 4 + 60..], 0x4002u64.to_le_bytes());
    assert_eq!(&file[120 + 24 + 40..], 0x4002u64.to_le_bytes());
}

#[test]
fn every_architecture_has_a_program_or_is_refused() {
    for name in ["amd64", "x86_64", "arm64", "aarch64"] {
        assert!(program(name).unwrap().starts_with(b"\x7fELF"));
    }
    assert!(program("riscv64").is_none());
}

/// Runs it, so a wrong byte shows.
#[test]
fn it_waits_and_leaves_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pause");
    std::fs::write(&path, program(std::env::consts::ARCH).unwrap()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = Command::new(&path).stdin(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    // Once it sleeps in sigtimedwait its state is S; until then it must not have ended.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let wchan = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        assert!(!stat.contains(") Z "), "it ended by itself");
        if stat.contains(") S ") && !wchan.starts_with("running") {
            break;
        }
        assert!(Instant::now() < deadline, "it never slept: {stat}");
        std::thread::yield_now();
    }
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}
