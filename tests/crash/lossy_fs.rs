//! A file system in memory, mounted through FUSE, that loses on command what was not flushed: each block that was
//! written since its file's last flush, and each name that was made, moved or removed since its directory's,
//! by itself.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use millstream::io::Random;

const BLOCK: usize = 4096;
/// Nothing is remembered by the kernel.
const TTL: Duration = Duration::ZERO;

type Names = BTreeMap<OsString, u64>;

/// A file: what is read from it, and what a power cut may put back.
#[derive(Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// What blocks held at the last flush, of those that were written since; none beyond its size then.
    before: BTreeMap<usize, Vec<u8>>,
    flushed_size: usize,
}

#[derive(Debug)]
enum Node {
    File(File),
    /// Names now, and at the last flush.
    Dir(Names, Names),
}

/// What was lost by cuts, for the test to tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lost {
    pub blocks: u64,
    pub names: u64,
    pub flushes: u64,
}

#[derive(Debug)]
struct State {
    nodes: BTreeMap<u64, Node>,
    /// Files that were made under names that end like this cannot be written.
    failing: Option<&'static str>,
    made_as: BTreeMap<u64, OsString>,
    next: u64,
    lost: Lost,
}

/// The file system; clones are the same one.
#[derive(Clone, Debug)]
pub struct LossyFs(Arc<Mutex<State>>);

impl LossyFs {
    pub fn new() -> Self {
        let root = Node::Dir(Names::new(), Names::new());
        Self(Arc::new(Mutex::new(State {
            nodes: BTreeMap::from([(1, root)]),
            failing: None,
            made_as: BTreeMap::new(),
            next: 2,
            lost: Lost::default(),
        })))
    }

    /// Mounts it; dropping what comes back unmounts it.
    pub fn mount(&self, at: &Path) -> std::io::Result<fuser::BackgroundSession> {
        fuser::spawn_mount(self.clone(), at, &fuser::Config::default())
    }

    /// The power goes: of what was not flushed, each block and name stays or goes by chance.
    pub fn cut_power(&self, random: &mut Random, keep_percent: u64) {
        let state = &mut *self.state();
        for node in state.nodes.values_mut() {
            match node {
                Node::File(file) => state.lost.blocks += file.lose(random, keep_percent),
                Node::Dir(now, flushed) => {
                    let all: Names = flushed
                        .iter()
                        .chain(&*now)
                        .map(|(n, i)| (n.clone(), *i))
                        .collect();
                    for name in all.into_keys() {
                        if now.get(&name) == flushed.get(&name) || random.chance(keep_percent) {
                            continue;
                        }
                        state.lost.names += 1;
                        match flushed.get(&name) {
                            Some(old) => now.insert(name, *old),
                            None => now.remove(&name),
                        };
                    }
                    *flushed = now.clone();
                }
            }
        }
    }

    /// From now on files that were made under names that end like this cannot be written, or all can again.
    pub fn fail_writes(&self, names: Option<&'static str>) {
        self.state().failing = names;
    }

    pub fn lost(&self) -> Lost {
        self.state().lost
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no request panics")
    }
}

impl File {
    fn remember(&mut self, from: usize, to: usize) {
        for block in from / BLOCK..to.div_ceil(BLOCK) {
            let at = block * BLOCK;
            if at < self.flushed_size && !self.before.contains_key(&block) {
                let end = (at + BLOCK).min(self.bytes.len());
                let old = self.bytes.get(at..end).unwrap_or_default();
                self.before.insert(block, old.to_vec());
            }
        }
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        let end = at + data.len();
        self.remember(at, end);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(data);
    }

    fn resize(&mut self, size: usize) {
        self.remember(size, self.bytes.len());
        self.bytes.resize(size, 0);
    }

    fn flush(&mut self) {
        self.before.clear();
        self.flushed_size = self.bytes.len();
    }

    /// What was written from one place to another is durable, and the size that it takes; nothing else is.
    fn flush_part(&mut self, from: usize, to: usize) {
        let blocks = from / BLOCK..to.div_ceil(BLOCK);
        for block in self.flushed_size.div_ceil(BLOCK)..blocks.end {
            self.before.entry(block).or_insert_with(|| vec![0; BLOCK]);
        }
        self.flushed_size = self.flushed_size.max(to);
        for block in blocks {
            self.before.remove(&block);
        }
    }

    /// Loses blocks by chance: those with other bytes before get them back, new ones become zeros.
    fn lose(&mut self, random: &mut Random, keep_percent: u64) -> u64 {
        let mut lost = 0;
        if !random.chance(keep_percent) {
            // The size, and so what lies beyond the old one.
            lost += u64::from(self.bytes.len() != self.flushed_size);
            self.bytes.resize(self.flushed_size, 0);
        }
        for (block, old) in std::mem::take(&mut self.before) {
            let at = block * BLOCK;
            if at + old.len() <= self.bytes.len() && !random.chance(keep_percent) {
                lost += u64::from(self.bytes[at..at + old.len()] != old[..]);
                self.bytes[at..at + old.len()].copy_from_slice(&old);
            }
        }
        for at in (self.flushed_size.next_multiple_of(BLOCK)..self.bytes.len()).step_by(BLOCK) {
            let end = (at + BLOCK).min(self.bytes.len());
            if !random.chance(keep_percent) {
                lost += u64::from(self.bytes[at..end].iter().any(|byte| *byte != 0));
                self.bytes[at..end].fill(0);
            }
        }
        self.flush();
        lost
    }
}

impl State {
    fn dir(&mut self, ino: INodeNo) -> Result<&mut Names, Errno> {
        match self.nodes.get_mut(&ino.0) {
            Some(Node::Dir(now, _)) => Ok(now),
            Some(Node::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn file(&mut self, ino: INodeNo) -> Result<&mut File, Errno> {
        match self.nodes.get_mut(&ino.0) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(..)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn find(&mut self, parent: INodeNo, name: &OsStr) -> Result<u64, Errno> {
        self.dir(parent)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn make(&mut self, parent: INodeNo, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        let ino = self.next;
        if self.dir(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.dir(parent)?.insert(name.to_owned(), ino);
        self.made_as.insert(ino, name.to_owned());
        self.next += 1;
        self.nodes.insert(ino, node);
        self.attr(ino)
    }

    fn attr(&self, ino: u64) -> Result<FileAttr, Errno> {
        let (size, kind) = match self.nodes.get(&ino).ok_or(Errno::ENOENT)? {
            Node::File(file) => (file.bytes.len() as u64, FileType::RegularFile),
            Node::Dir(..) => (0, FileType::Directory),
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Takes a name away. What it named stays, for who has it open, and for a cut that brings the name back.
    fn remove(&mut self, parent: INodeNo, name: &OsStr, dir: bool) -> Result<(), Errno> {
        let ino = self.find(parent, name)?;
        if dir && !self.dir(INodeNo(ino))?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.dir(parent)?.remove(name);
        Ok(())
    }
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).expect("64 bits")
}

impl Filesystem for LossyFs {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = &mut *self.state();
        match state.find(parent, name).and_then(|ino| state.attr(ino)) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attr(ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    #[rustfmt::skip]
    fn setattr(
        &self, _: &Request, ino: INodeNo, _: Option<u32>, _: Option<u32>, _: Option<u32>, size: Option<u64>,
        _: Option<TimeOrNow>, _: Option<TimeOrNow>, _: Option<std::time::SystemTime>, _: Option<FileHandle>,
        _: Option<std::time::SystemTime>, _: Option<std::time::SystemTime>, _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>, reply: ReplyAttr,
    ) {
        let state = &mut *self.state();
        if let Some(size) = size {
            match state.file(ino) {
                Ok(file) => file.resize(usize_of(size)),
                Err(error) => return reply.error(error),
            }
        }
        match state.attr(ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = Node::Dir(Names::new(), Names::new());
        match self.state().make(parent, name, made) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    #[rustfmt::skip]
    fn create(
        &self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate,
    ) {
        let made = self.state().make(parent, name, Node::File(File::default()));
        match made {
            Ok(attr) => {
                let direct = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), direct);
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The kernel's cache would hide what was lost.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.state().remove(parent, name, false) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.state().remove(parent, name, true) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    #[rustfmt::skip]
    fn rename(
        &self, _: &Request, parent: INodeNo, name: &OsStr, to: INodeNo, to_name: &OsStr, _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let state = &mut *self.state();
        let moved = state.find(parent, name).and_then(|ino| {
            state.dir(parent)?.remove(name);
            state.dir(to)?.insert(to_name.to_owned(), ino);
            Ok(())
        });
        match moved {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    #[rustfmt::skip]
    fn read(
        &self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, size: u32, _: OpenFlags,
        _: Option<LockOwner>, reply: ReplyData,
    ) {
        match self.state().file(ino) {
            Ok(file) => {
                let from = usize_of(offset).min(file.bytes.len());
                let to = (from + size as usize).min(file.bytes.len());
                reply.data(&file.bytes[from..to]);
            }
            Err(error) => reply.error(error),
        }
    }

    #[rustfmt::skip]
    fn write(
        &self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, data: &[u8], _: WriteFlags, flags: OpenFlags,
        _: Option<LockOwner>, reply: ReplyWrite,
    ) {
        // The kernel sends no flush after a direct write that is to be durable: it says so here.
        const O_DSYNC: i32 = 0o10_000;
        let state = &mut *self.state();
        let made_as = state.made_as.get(&ino.0);
        let fails = |names: &str| made_as.is_some_and(|name| name.as_encoded_bytes().ends_with(names.as_bytes()));
        if state.failing.is_some_and(fails) {
            return reply.error(Errno::EIO);
        }
        let durable = flags.0 & O_DSYNC != 0;
        state.lost.flushes += u64::from(durable);
        match state.file(ino) {
            Ok(file) => {
                file.write(usize_of(offset), data);
                if durable {
                    file.flush_part(usize_of(offset), usize_of(offset) + data.len());
                }
                reply.written(u32::try_from(data.len()).expect("a request is small"));
            }
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A close, which makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let state = &mut *self.state();
        state.lost.flushes += 1;
        match state.file(ino) {
            Ok(file) => {
                file.flush();
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let state = &mut *self.state();
        state.lost.flushes += 1;
        match state.nodes.get_mut(&ino.0) {
            Some(Node::Dir(now, flushed)) => {
                *flushed = now.clone();
                reply.ok();
            }
            Some(Node::File(_)) => reply.error(Errno::ENOTDIR),
            None => reply.error(Errno::ENOENT),
        }
    }

    #[rustfmt::skip]
    fn fallocate(
        &self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty,
    ) {
        const KEEP_SIZE: i32 = 1;
        let state = &mut *self.state();
        match (state.file(ino), mode) {
            (Ok(file), 0) => {
                let end = usize_of(offset + length);
                if file.bytes.len() < end {
                    file.resize(end);
                }
                reply.ok();
            }
            (Ok(_), KEEP_SIZE) => reply.ok(),
            (Ok(_), _) => reply.error(Errno::EOPNOTSUPP),
            (Err(error), _) => reply.error(error),
        }
    }

    #[rustfmt::skip]
    fn readdir(
        &self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory,
    ) {
        let state = &mut *self.state();
        let names = match state.dir(ino) {
            Ok(names) => names.clone(),
            Err(error) => return reply.error(error),
        };
        let dots = [(OsString::from("."), ino.0), (OsString::from(".."), 1)];
        let entries = dots.into_iter().chain(names);
        for ((name, ino), next) in entries.zip(1..).skip(usize_of(offset)) {
            let kind = state.attr(ino).map_or(FileType::RegularFile, |attr| attr.kind);
            if reply.add(INodeNo(ino), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = (64 << 30) / 4096;
        reply.statfs(blocks, blocks, blocks, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
