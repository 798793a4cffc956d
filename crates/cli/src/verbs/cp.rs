//! `quorate cp`: files and folders into and out of containers, by the container's `tar`.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use bytes::{Buf as _, Bytes};
use clap::Args;
use quorate_client::v1::ExecOptions;
use quorate_client::v1::output::Data;
use quorate_client::{Client, PodStream};
use tokio::sync::mpsc;

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::pods;

const PIECE: usize = 64 * 1024;
/// Bytes of a container's complaints that are kept.
const COMPLAINTS: usize = 4096;

/// Copies files and folders to and from containers, which need `tar` for it.
#[derive(Args, Debug)]
pub struct Cp {
    /// PATH, or [NAMESPACE/]POD:PATH
    source: String,
    /// PATH, or [NAMESPACE/]POD:PATH
    destination: String,
    /// Name of the container [default: the pod's default container]
    #[arg(long, short)]
    container: Option<String>,
    /// Do not keep owners and permissions
    #[arg(long)]
    no_preserve: bool,
}

/// One side.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    Pod { namespace: Option<String>, pod: String, path: String },
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        // A local file may have a colon in its name: ./a:b.
        let Some((pod, path)) =
            text.split_once(':').filter(|(pod, _)| !pod.starts_with(['.', '/']))
        else {
            return Ok(Self::Here(PathBuf::from(text)));
        };
        let (namespace, pod) = match pod.split_once('/') {
            Some((namespace, pod)) => (Some(namespace.to_owned()), pod),
            None => (None, pod),
        };
        if pod.is_empty() || pod.contains('/') || path.is_empty() {
            return Err(CliError::local(format!("{text:?} is not [NAMESPACE/]POD:PATH")));
        }
        Ok(Self::Pod { namespace, pod: pod.to_owned(), path: path.to_owned() })
    }
}

/// A container to copy to or from.
struct Container {
    client: Client,
    namespace: String,
    pod: String,
    name: String,
}

impl Cp {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        match (Place::parse(&self.source)?, Place::parse(&self.destination)?) {
            (Place::Here(source), Place::Pod { namespace, pod, path }) => {
                let container = self.find(context, namespace, &pod).await?;
                container.upload(&source, &path, self.no_preserve).await?;
            }
            (Place::Pod { namespace, pod, path }, Place::Here(destination)) => {
                let container = self.find(context, namespace, &pod).await?;
                container.download(&path, &destination, self.no_preserve).await?;
            }
            _ => {
                let text = "one of the two must be [NAMESPACE/]POD:PATH, the other a local path";
                return Err(CliError::local(text));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn find(
        &self,
        context: &Context,
        namespace: Option<String>,
        pod: &str,
    ) -> Result<Container> {
        let client = context.client()?;
        let namespace = namespace.unwrap_or_else(|| context.namespace().to_owned());
        let object = client.get(crate::resource::by_name("pods")?, &namespace, pod).await?;
        let name = pods::container(&object, self.container.as_deref())?;
        Ok(Container { client, namespace, pod: pod.to_owned(), name })
    }
}

impl Container {
    async fn exec(&self, command: &[&str], stdin: bool) -> Result<PodStream> {
        let options = ExecOptions {
            container: self.name.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdin,
            stdout: true,
            stderr: true,
            tty: false,
        };
        Ok(self.client.exec(&self.namespace, &self.pod, options).await?)
    }

    /// Does a command end well? Its output is of no interest.
    async fn succeeds(&self, command: &[&str]) -> Result<bool> {
        let PodStream { input: _input, mut output } = self.exec(command, false).await?;
        while let Some(data) = output.next().await? {
            if let Data::Exit(exit) = data {
                return Ok(exit.code == 0);
            }
        }
        Ok(false)
    }

    async fn upload(&self, source: &Path, path: &str, no_preserve: bool) -> Result<()> {
        let failed = |e: io::Error| CliError::local(format!("{}: {e}", source.display()));
        let source = source.canonicalize().map_err(failed)?;
        let name = source.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| CliError::local("the whole file system cannot be copied"))?;
        let target = PathBuf::from(path);
        let target = if path.ends_with('/') || self.succeeds(&["test", "-d", path]).await? {
            target.join(name)
        } else {
            target
        };
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_string_lossy().into_owned();
        let inside = PathBuf::from(target.file_name().unwrap_or_default());
        let mut command = vec!["tar", "-xmf", "-", "-C", &folder];
        if no_preserve {
            command.extend(["--no-same-permissions", "--no-same-owner"]);
        }
        let PodStream { input, mut output } = self.exec(&command, true).await?;
        let (sender, mut pieces) = mpsc::channel(4);
        // Reads the disk; its failure is the copy's.
        let packing = tokio::task::spawn_blocking(move || pack(&source, &inside, sender));
        let sending = async {
            while let Some(piece) = pieces.recv().await {
                // When the container has stopped reading, it says why.
                if input.write(piece).await.is_err() {
                    break;
                }
            }
            drop(pieces);
            let _ = input.end().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = outcome(&mut output, None) => result?,
            () = sending => {}
        }
        match packing.await {
            Ok(Err(e)) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
            _ => Ok(()),
        }
    }

    async fn download(&self, path: &str, destination: &Path, no_preserve: bool) -> Result<()> {
        let path = path.trim_end_matches('/');
        let name = Path::new(path).file_name().map(PathBuf::from);
        let name = name.ok_or_else(|| CliError::local("name a file or a folder to copy"))?;
        let target =
            if destination.is_dir() { destination.join(&name) } else { destination.to_owned() };
        let PodStream { input: _input, mut output } =
            self.exec(&["tar", "-cf", "-", path], false).await?;
        let (sender, pieces) = mpsc::channel(4);
        let prefix = normal(Path::new(path));
        let unpacking = tokio::task::spawn_blocking(move || {
            unpack(Pieces { pieces, present: Bytes::new() }, &prefix, &target, !no_preserve)
        });
        let result = outcome(&mut output, Some(sender)).await;
        let unpacked = unpacking.await.map_err(|e| CliError::local(e.to_string()))?;
        result?;
        unpacked.map_err(|e| CliError::local(format!("cannot unpack {path}: {e}")))
    }
}

/// Passes output on until the end; an error when the program failed.
async fn outcome(
    output: &mut quorate_client::PodOutput,
    sink: Option<mpsc::Sender<Bytes>>,
) -> Result<()> {
    let mut complaints = Vec::new();
    while let Some(data) = output.next().await? {
        match data {
            Data::Stdout(data) => {
                if let Some(sink) = &sink
                    && sink.send(data).await.is_err()
                {
                    return Ok(());
                }
            }
            Data::Stderr(data) => {
                let room = COMPLAINTS.saturating_sub(complaints.len());
                complaints.extend_from_slice(&data[..data.len().min(room)]);
            }
            Data::Exit(exit) if exit.code == 0 => return Ok(()),
            Data::Exit(exit) => {
                let text = String::from_utf8_lossy(&complaints);
                return Err(CliError::local(format!(
                    "tar in the container ended with exit code {}: {}",
                    exit.code,
                    text.trim()
                )));
            }
        }
    }
    Err(CliError::local("the connection ended before everything was copied"))
}

/// Packs a file or folder under another name.
fn pack(source: &Path, name: &Path, sender: mpsc::Sender<Bytes>) -> io::Result<()> {
    let sink = io::BufWriter::with_capacity(PIECE, Sink(sender));
    let mut archive = tar::Builder::new(sink);
    archive.follow_symlinks(false);
    if source.is_dir() {
        archive.append_dir_all(name, source)?;
    } else {
        archive.append_path_with_name(source, name)?;
    }
    archive.into_inner()?.flush()
}

struct Sink(mpsc::Sender<Bytes>);

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(data));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What comes from a container, for a reader that waits.
struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    present: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.present = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.present.len());
        self.present.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// A path without root and dots, as `tar` writes it.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// Unpacks what is below `prefix` to `target`. Nothing is written outside of it: entries with
/// ".." and links are left out, as the container is not trusted.
fn unpack(source: impl Read, prefix: &Path, target: &Path, preserve: bool) -> io::Result<()> {
    let mut archive = tar::Archive::new(source);
    archive.set_preserve_permissions(preserve);
    let mut found = false;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let outside = path.components().any(|part| matches!(part, Component::ParentDir));
        let Ok(rest) = normal(&path).strip_prefix(prefix).map(Path::to_owned) else { continue };
        let kind = entry.header().entry_type();
        if outside || !(kind.is_file() || kind.is_dir()) {
            eprintln!("warning: skipping {}: only files and folders are copied", path.display());
            continue;
        }
        found = true;
        let place = if rest.as_os_str().is_empty() { target.to_owned() } else { target.join(rest) };
        if kind.is_dir() {
            std::fs::create_dir_all(&place)?;
            continue;
        }
        if let Some(folder) = place.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        entry.unpack(&place)?;
    }
    if found { Ok(()) } else { Err(io::Error::other("nothing came from the container")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_local_or_in_a_pod() {
        let pod = |text: &str| Place::parse(text).unwrap();
        let in_pod = |namespace: Option<&str>| Place::Pod {
            namespace: namespace.map(str::to_owned),
            pod: "p".into(),
            path: "/a:b".into(),
        };
        assert_eq!(pod("p:/a:b"), in_pod(None));
        assert_eq!(pod("ns/p:/a:b"), in_pod(Some("ns")));
        for local in ["./p:a", "/p:a", "file"] {
            assert_eq!(pod(local), Place::Here(local.into()));
        }
        assert!(Place::parse("p:").is_err() && Place::parse("a/b/p:/x").is_err());
    }

    fn archive(entries: &[(&str, tar::EntryType)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(if kind.is_file() { 2 } else { 0 });
            // `set_path` refuses what an evil container may send.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            if kind.is_symlink() {
                header.set_link_name("/etc").unwrap();
            }
            header.set_cksum();
            let data: &[u8] = if kind.is_file() { b"hi" } else { b"" };
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn what_a_container_sends_stays_below_its_target() {
        use tar::EntryType::{Directory, Regular, Symlink};
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("got");
        let data = archive(&[
            ("data/", Directory),
            ("data/a/b", Regular),
            ("data/../evil", Regular),
            ("data/link", Symlink),
            ("other", Regular),
        ]);
        unpack(data.as_slice(), Path::new("data"), &target, true).unwrap();
        assert_eq!(std::fs::read(target.join("a/b")).unwrap(), b"hi");
        assert!(!parent.path().join("evil").exists() && !target.join("link").exists());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
        assert!(unpack(data.as_slice(), Path::new("none"), &target, true).is_err());
    }

    #[test]
    fn a_folder_is_packed_under_its_new_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), vec![7; 200_000]).unwrap();
        let (sender, pieces) = mpsc::channel(64);
        pack(folder.path(), Path::new("new"), sender).unwrap();
        let target = folder.path().join("out");
        let pieces = Pieces { pieces, present: Bytes::new() };
        unpack(pieces, Path::new("new"), &target, true).unwrap();
        assert_eq!(std::fs::read(target.join("f")).unwrap().len(), 200_000);
    }
}
