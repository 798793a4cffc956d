//! Names and files of one disk: as programs see them, and as a crash would leave them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use rand::Rng;

use super::contents::Contents;
use crate::plan::Torn;

/// Number of the topmost directory.
pub(super) const ROOT: u64 = 1;

type Entries = BTreeMap<OsString, u64>;

/// A file or a directory.
#[derive(Debug)]
pub(super) struct Node {
    pub kind: Kind,
    pub mode: u16,
    pub changed: SystemTime,
    /// How often it is open.
    opens: u32,
}

#[derive(Debug)]
pub(super) enum Kind {
    File(Contents),
    Directory {
        /// As programs see it.
        now: Entries,
        /// As of the last sync of the directory.
        on_disk: Entries,
    },
}

/// When a new name is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// When its directory was synced, or the file itself: what the file systems of Linux do.
    WithFile,
    /// When its directory was synced, and not before: all that POSIX promises.
    WithDirectory,
}

/// A whole disk. The bytes of its files lie in a folder, one file each, by number.
#[derive(Debug)]
pub(super) struct Tree {
    folder: PathBuf,
    promised: Names,
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

type Result<T> = std::result::Result<T, Errno>;

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn directory() -> Kind {
    Kind::Directory { now: Entries::new(), on_disk: Entries::new() }
}

impl Tree {
    /// An empty disk, whose files lie in `folder`.
    pub(super) fn new(folder: &Path, promised: Names) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let nodes = BTreeMap::new();
        let mut tree = Self { folder: folder.to_owned(), promised, nodes, next: ROOT };
        tree.insert(directory(), 0o755);
        Ok(tree)
    }

    /// Takes everything over that is in `from`, as on the disk.
    pub(super) fn import(&mut self, from: &Path) -> io::Result<()> {
        self.import_into(ROOT, from)?;
        self.sync_all();
        Ok(())
    }

    fn import_into(&mut self, parent: u64, from: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                let number = self.make(parent, &name, directory(), 0o755)?;
                self.import_into(number, &entry.path())?;
            } else {
                let number = self.create(parent, &name, 0o644)?;
                self.write(number, 0, &fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, kind: Kind, mode: u16) -> u64 {
        let number = self.next;
        self.next += 1;
        let node = Node { kind, mode, changed: now(), opens: 0 };
        self.nodes.insert(number, node);
        number
    }

    pub(super) fn node(&self, number: u64) -> Result<&Node> {
        self.nodes.get(&number).ok_or(Errno::ENOENT)
    }

    fn node_mut(&mut self, number: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    fn contents(&mut self, number: u64) -> Result<&mut Contents> {
        match &mut self.node_mut(number)?.kind {
            Kind::File(contents) => Ok(contents),
            Kind::Directory { .. } => Err(Errno::EISDIR),
        }
    }

    pub(super) fn names(&self, number: u64) -> Result<&Entries> {
        match &self.node(number)?.kind {
            Kind::Directory { now, .. } => Ok(now),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn names_mut(&mut self, number: u64) -> Result<&mut Entries> {
        match &mut self.node_mut(number)?.kind {
            Kind::Directory { now, .. } => Ok(now),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64> {
        self.names(parent)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// By how many names a node is known.
    pub(super) fn links(&self, number: u64) -> u32 {
        let names = self.nodes.values().filter_map(|node| match &node.kind {
            Kind::Directory { now, .. } => Some(now.values()),
            Kind::File(_) => None,
        });
        u32::try_from(names.flatten().filter(|named| **named == number).count()).unwrap_or(1)
    }

    /// Bytes of all files.
    pub(super) fn used(&self) -> u64 {
        let sizes = self.nodes.values().map(|node| match &node.kind {
            Kind::File(contents) => contents.size(),
            Kind::Directory { .. } => 0,
        });
        sizes.sum()
    }

    fn make(&mut self, parent: u64, name: &OsStr, kind: Kind, mode: u16) -> Result<u64> {
        if self.names(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let number = self.insert(kind, mode);
        self.names_mut(parent)?.insert(name.to_owned(), number);
        Ok(number)
    }

    pub(super) fn create(&mut self, parent: u64, name: &OsStr, mode: u16) -> Result<u64> {
        let path = self.folder.join(self.next.to_string());
        let contents = Contents::create(&path).map_err(|error| errno(&error))?;
        self.make(parent, name, Kind::File(contents), mode)
    }

    pub(super) fn make_directory(&mut self, parent: u64, name: &OsStr, mode: u16) -> Result<u64> {
        self.make(parent, name, directory(), mode)
    }

    pub(super) fn link(&mut self, number: u64, parent: u64, name: &OsStr) -> Result<()> {
        self.contents(number)?;
        if self.names(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.names_mut(parent)?.insert(name.to_owned(), number);
        Ok(())
    }

    pub(super) fn unlink(&mut self, parent: u64, name: &OsStr) -> Result<()> {
        let number = self.lookup(parent, name)?;
        self.contents(number)?;
        self.names_mut(parent)?.remove(name);
        self.collect();
        Ok(())
    }

    pub(super) fn remove_directory(&mut self, parent: u64, name: &OsStr) -> Result<()> {
        let number = self.lookup(parent, name)?;
        if !self.names(number)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.names_mut(parent)?.remove(name);
        self.collect();
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<()> {
        let number = self.lookup(from.0, from.1)?;
        if let Ok(replaced) = self.lookup(to.0, to.1)
            && self.names(replaced).is_ok_and(|names| !names.is_empty())
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.names_mut(from.0)?.remove(from.1);
        self.names_mut(to.0)?.insert(to.1.to_owned(), number);
        self.collect();
        Ok(())
    }

    pub(super) fn read(&mut self, number: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        self.contents(number)?.read(offset, size).map_err(|error| errno(&error))
    }

    pub(super) fn write(&mut self, number: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        self.contents(number)?.write(offset, bytes).map_err(|error| errno(&error))?;
        self.node_mut(number)?.changed = now();
        Ok(())
    }

    pub(super) fn set_size(&mut self, number: u64, size: u64) -> Result<()> {
        self.contents(number)?.set_size(size).map_err(|error| errno(&error))?;
        self.node_mut(number)?.changed = now();
        Ok(())
    }

    pub(super) fn set_mode(&mut self, number: u64, mode: u16) -> Result<()> {
        self.node_mut(number)?.mode = mode;
        Ok(())
    }

    pub(super) fn open(&mut self, number: u64) -> Result<()> {
        self.node_mut(number)?.opens += 1;
        Ok(())
    }

    pub(super) fn close(&mut self, number: u64) {
        if let Ok(node) = self.node_mut(number) {
            node.opens = node.opens.saturating_sub(1);
            if node.opens == 0 {
                self.collect();
            }
        }
    }

    /// Bytes of a file, or names of a directory, as they are now, are on the disk.
    pub(super) fn sync(&mut self, number: u64) -> Result<()> {
        match &mut self.node_mut(number)?.kind {
            Kind::File(contents) => contents.sync(),
            Kind::Directory { now, on_disk } => on_disk.clone_from(now),
        }
        if self.promised == Names::WithFile {
            self.sync_name(number);
        }
        self.collect();
        Ok(())
    }

    /// A node's names, and those of the directories above it, are on the disk.
    fn sync_name(&mut self, number: u64) {
        let mut above = Vec::new();
        for (parent, node) in &mut self.nodes {
            let Kind::Directory { now, on_disk } = &mut node.kind else { continue };
            on_disk.retain(|name, at| *at != number || now.get(name) == Some(at));
            let own: Vec<_> = now.iter().filter(|(_, at)| **at == number).collect();
            if !own.is_empty() {
                on_disk.extend(own.into_iter().map(|(name, at)| (name.clone(), *at)));
                above.push(*parent);
            }
        }
        above.into_iter().filter(|parent| *parent != ROOT).for_each(|parent| {
            self.sync_name(parent);
        });
    }

    /// The sync of a file fails, and loses what it should have written. Names stay as they are.
    pub(super) fn fail_sync(&mut self, number: u64) -> Result<()> {
        if let Kind::File(contents) = &mut self.node_mut(number)?.kind {
            contents.fail_sync();
        }
        Ok(())
    }

    /// Everything is on the disk.
    pub(super) fn sync_all(&mut self) {
        for node in self.nodes.values_mut() {
            match &mut node.kind {
                Kind::File(contents) => contents.sync(),
                Kind::Directory { now, on_disk } => on_disk.clone_from(now),
            }
        }
        self.collect();
    }

    /// The power fails: see [`Contents::crash`]. With torn writes, a directory that was not synced
    /// may be on the disk all the same.
    pub(super) fn crash(&mut self, torn: Torn, random: &mut impl Rng) -> io::Result<()> {
        for node in self.nodes.values_mut() {
            node.opens = 0;
            match &mut node.kind {
                Kind::File(contents) => contents.crash(torn, random)?,
                Kind::Directory { now, on_disk } => {
                    if torn != Torn::No && random.random() {
                        on_disk.clone_from(now);
                    } else {
                        now.clone_from(on_disk);
                    }
                }
            }
        }
        self.collect();
        Ok(())
    }

    /// Flips a bit in one of the larger files; says which.
    pub(super) fn rot(&mut self, random: &mut impl Rng) -> io::Result<Option<String>> {
        use rand::seq::IteratorRandom as _;
        let names = self.nodes.values().filter_map(|node| match &node.kind {
            Kind::Directory { now, .. } => Some(now.iter()),
            Kind::File(_) => None,
        });
        let files: BTreeMap<u64, OsString> = names
            .flatten()
            .filter(|(name, _)| is_data(name))
            .map(|(name, number)| (*number, name.clone()))
            .collect();
        let Some((number, name)) = files.into_iter().choose(random) else { return Ok(None) };
        let contents = self.contents(number)?;
        if contents.size() == 0 {
            return Ok(None);
        }
        let offset = contents.rot(random)?;
        Ok(Some(format!("byte {offset} of {}", name.to_string_lossy())))
    }

    /// Forgets what has no name, neither now nor on the disk, and is not open.
    fn collect(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut look: Vec<u64> = vec![ROOT];
        look.extend(self.nodes.iter().filter(|(_, node)| node.opens > 0).map(|(n, _)| *n));
        while let Some(number) = look.pop() {
            reached.insert(number);
            let Some(Node { kind: Kind::Directory { now, on_disk }, .. }) = self.nodes.get(&number)
            else {
                continue;
            };
            let below = now.values().chain(on_disk.values());
            look.extend(below.filter(|number| !reached.contains(number)));
        }
        let folder = self.folder.clone();
        self.nodes.retain(|number, _| {
            let keep = reached.contains(number);
            if !keep {
                // A directory has no file here; one that cannot be removed goes with the folder.
                let _ = fs::remove_file(folder.join(number.to_string()));
            }
            keep
        });
    }
}

/// Where a database keeps what it must not lose: tables, logs and manifests.
fn is_data(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.ends_with(".sst") || name.ends_with(".log") || name.starts_with("MANIFEST")
}

#[expect(clippy::disallowed_methods, reason = "of files that nobody judges by their times")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tests;
