//! What a container leaves as its last words: the file at `terminationMessagePath`, or the end of
//! its log.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Container;

use super::volumes::pod_dir;
use super::worker::Context;
use crate::runtime::{LogQuery, Record};

/// Kubernetes' default path in the container.
pub const PATH: &str = "/dev/termination-log";
/// Kubernetes' limits: bytes of the file, bytes and lines of the log.
const FILE_MAX: u64 = 4096;
const LOG_MAX: usize = 2048;
const LOG_LINES: u64 = 80;

fn file(data_dir: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    pod_dir(data_dir, uid).join("containers").join(container).join(attempt.to_string())
}

/// Makes the file for a new container, and removes the one before those that are still shown.
///
/// # Errors
/// When the disk refuses.
pub fn prepare(data_dir: &Path, uid: &str, container: &str, attempt: u32) -> io::Result<PathBuf> {
    if let Some(old) = attempt.checked_sub(2) {
        let _ = fs::remove_file(file(data_dir, uid, container, old));
    }
    let path = file(data_dir, uid, container, attempt);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, [])?;
    // Any user of the container may write.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

/// What the container of a record that has ended left; empty when it said nothing.
pub async fn message(context: &Context, container: &Container, record: &Record) -> String {
    let Some(folder) = &context.data_dir else { return String::new() };
    let path = file(folder, &record.pod.uid, &record.container, record.attempt);
    let said = tokio::task::spawn_blocking(move || read(&path)).await.unwrap_or_default();
    let fallback = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if !said.is_empty() || !fallback || record.exit_code == 0 {
        return said;
    }
    let query = LogQuery { tail: Some(LOG_LINES), ..LogQuery::default() };
    let Ok(mut log) = context.runtime.logs(&record.id, &query).await else { return said };
    let mut all = Vec::new();
    while let Some(Ok(piece)) = log.next().await {
        all.extend_from_slice(&piece);
    }
    let end = &all[all.len().saturating_sub(LOG_MAX)..];
    String::from_utf8_lossy(end).into_owned()
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_last_words_are_read_up_to_their_limit_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let first = prepare(folder.path(), "u", "c", 0).unwrap();
        assert_eq!(read(&first), "");
        fs::write(&first, vec![b'x'; 10_000]).unwrap();
        assert_eq!(read(&first).len(), 4096);
        prepare(folder.path(), "u", "c", 1).unwrap();
        assert!(first.exists(), "it is still shown as the last state");
        prepare(folder.path(), "u", "c", 2).unwrap();
        assert!(!first.exists());
    }
}
