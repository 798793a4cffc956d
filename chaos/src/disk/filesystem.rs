//! What the kernel asks of the disk: each call is one of the [`Tree`], unless the disk is in
//! trouble.

use std::ffi::OsStr;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;

use super::Shared;
use super::tree::{Kind, Tree};

/// The kernel remembers nothing: after a crash, names and sizes are others.
const FORGET: Duration = Duration::ZERO;
/// Size of a block of the disk.
const BLOCK: u32 = 4096;
/// Blocks of the disk.
const BLOCKS: u64 = 16 << 20;

/// A [`Tree`] for the kernel.
pub(super) struct Served(pub(super) Arc<Shared>);

type Result<T> = std::result::Result<T, Errno>;

fn code(errno: Errno) -> fuser::Errno {
    fuser::Errno::from(io::Error::from(errno))
}

fn attributes(tree: &Tree, number: u64) -> Result<FileAttr> {
    let node = tree.node(number)?;
    let (kind, size) = match &node.kind {
        Kind::File(contents) => (FileType::RegularFile, contents.size()),
        Kind::Directory { .. } => (FileType::Directory, 0),
    };
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: node.changed,
        mtime: node.changed,
        ctime: node.changed,
        crtime: node.changed,
        kind,
        perm: node.mode,
        nlink: tree.links(number),
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    })
}

impl Served {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        // A panic in one call leaves the tree between two changes at worst, as a crash would.
        self.0.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers with what a node is.
    fn entry(&self, reply: ReplyEntry, change: impl FnOnce(&mut Tree) -> Result<u64>) {
        let mut tree = self.tree();
        match change(&mut tree).and_then(|number| attributes(&tree, number)) {
            Ok(attributes) => reply.entry(&FORGET, &attributes, Generation(0)),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn done(&self, reply: ReplyEmpty, change: impl FnOnce(&mut Tree) -> Result<()>) {
        match change(&mut self.tree()) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(code(errno)),
        }
    }

    /// Takes `bytes` of the room that is left.
    fn take_room(&self, bytes: u64) -> Result<()> {
        let room = &self.0.room;
        let taken = room.fetch_update(Relaxed, Relaxed, |left| match left {
            u64::MAX => Some(left),
            _ => left.checked_sub(bytes),
        });
        taken.map(drop).map_err(|_| Errno::ENOSPC)
    }

    fn write_to(&self, number: u64, offset: u64, data: &[u8]) -> Result<()> {
        if self.0.writes_fail.load(Relaxed) {
            return Err(Errno::EIO);
        }
        let mut tree = self.tree();
        let size = match &tree.node(number)?.kind {
            Kind::File(contents) => contents.size(),
            Kind::Directory { .. } => return Err(Errno::EISDIR),
        };
        self.take_room((offset + data.len() as u64).saturating_sub(size))?;
        tree.write(number, offset, data)
    }

    fn sync(&self, number: u64) -> Result<()> {
        let delay = self.0.sync_delay_ms.load(Relaxed);
        if delay > 0 {
            std::thread::sleep(Duration::from_millis(delay));
        }
        self.0.syncs.fetch_add(1, Relaxed);
        if self.0.syncs_fail.load(Relaxed) {
            self.tree().fail_sync(number)?;
            return Err(Errno::EIO);
        }
        self.tree().sync(number)
    }
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0o600)
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, |tree| tree.lookup(parent.0, name));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.tree(), number.0) {
            Ok(attributes) => reply.attr(&FORGET, &attributes),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = self.tree();
        let sized = size.map_or(Ok(()), |size| tree.set_size(number.0, size));
        let changed = sized
            .and_then(|()| mode.map_or(Ok(()), |mode| tree.set_mode(number.0, permissions(mode))));
        match changed.and_then(|()| attributes(&tree, number.0)) {
            Ok(attributes) => reply.attr(&FORGET, &attributes),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.entry(reply, |tree| tree.make_directory(parent.0, name, permissions(mode)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(reply, |tree| tree.unlink(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(reply, |tree| tree.remove_directory(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(code(Errno::EINVAL));
        }
        self.done(reply, |tree| tree.rename((parent.0, name), (new_parent.0, new_name)));
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, |tree| tree.link(number.0, parent.0, name).map(|()| number.0));
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.tree().open(number.0) {
            // What the kernel has cached of a file is forgotten when it is opened.
            Ok(()) => reply.opened(FileHandle(number.0), FopenFlags::empty()),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut tree = self.tree();
        let created = tree.create(parent.0, name, permissions(mode)).and_then(|number| {
            tree.open(number)?;
            attributes(&tree, number)
        });
        match created {
            Ok(attributes) => {
                let (handle, flags) = (FileHandle(attributes.ino.0), FopenFlags::empty());
                reply.created(&FORGET, &attributes, Generation(0), handle, flags);
            }
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.tree().read(number.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_to(number.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.tree().close(number.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.sync(number.0) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn fsyncdir(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        data: bool,
        reply: ReplyEmpty,
    ) {
        self.fsync(request, number, handle, data, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = self.tree();
        let names = match tree.names(number.0) {
            Ok(names) => names,
            Err(errno) => return reply.error(code(errno)),
        };
        let own = [(".".as_ref(), number.0), ("..".as_ref(), number.0)];
        let all = own.into_iter().chain(names.iter().map(|(name, at)| (name.as_os_str(), *at)));
        let rest = (1..).zip(all).skip(usize::try_from(offset).unwrap_or(usize::MAX));
        for (position, (name, at)) in rest {
            let kind = match tree.node(at).map(|node| &node.kind) {
                Ok(Kind::File(_)) => FileType::RegularFile,
                _ => FileType::Directory,
            };
            if reply.add(INodeNo(at), position, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let used = self.tree().used().div_ceil(u64::from(BLOCK));
        let room = self.0.room.load(Relaxed) / u64::from(BLOCK);
        let free = BLOCKS.saturating_sub(used).min(room);
        reply.statfs(BLOCKS, free, free, 1 << 20, 1 << 20, BLOCK, 255, BLOCK);
    }
}
