//! The disk traits on a simulated disk: each operation takes virtual time and obeys planned faults.

use std::{
    cell::Cell,
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    super::{SimIo, executor::Executor},
    Operation, SimDisk,
    changes::Change,
    fault::Errno,
    state::Inode,
};
use crate::io::{BLOCK_SIZE, Buffer, Disk, DiskFile, DiskInfo, DiskSpace, OpenMode, align_up};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Fresh buffers hold this, so that nobody comes to rely on zeros.
const POISON: u8 = 0xa5;

/// Memory of a simulated disk.
pub struct SimBuffer {
    bytes: Vec<u8>,
    size: usize,
}

impl SimBuffer {
    fn new(size: usize) -> Self {
        assert!(
            size > 0 && size.is_multiple_of(BLOCK_SIZE),
            "buffers are whole blocks: {size}"
        );
        Self {
            bytes: vec![POISON; size],
            size,
        }
    }
}

impl Buffer for SimBuffer {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.size]
    }

    fn shorten(&mut self, size: usize) {
        assert!(
            size <= self.size && size.is_multiple_of(BLOCK_SIZE),
            "cannot shorten to {size}"
        );
        self.size = size;
    }
}

/// One operation on its way: whoever drops it half-way breaks the contract of `io::disk`.
struct InProgress<'a> {
    executor: &'a Executor,
    operation: Operation,
    done: Cell<bool>,
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        let abandoned = !self.done.get() && !self.executor.is_stopping();
        assert!(
            !abandoned || std::thread::panicking(),
            "the future of a disk operation was dropped half-way: {:?}",
            self.operation
        );
    }
}

/// Where operations come from: the disk and the executor whose time they take.
#[derive(Clone)]
struct Access {
    executor: Rc<Executor>,
    disk: SimDisk,
    mount: u64,
}

impl Access {
    fn of(io: &SimIo) -> Self {
        let mount = io.disk.shared.mount.get();
        Self {
            executor: Rc::clone(&io.executor),
            disk: io.disk.clone(),
            mount,
        }
    }

    fn check_mounted(&self) -> io::Result<()> {
        if self.mount == self.disk.shared.mount.get() {
            Ok(())
        } else {
            Err(Errno::Io.into())
        }
    }

    /// Counts the operation, and stops the world if the disk is cut before it.
    async fn admit(&self, operation: Operation) {
        let shared = &self.disk.shared;
        if operation.changes() {
            if shared
                .cut_after
                .get()
                .is_some_and(|last| shared.operations.get() >= last)
            {
                self.executor.halt();
                std::future::pending::<()>().await;
            }
            shared.operations.set(shared.operations.get() + 1);
        }
        *shared.counts.borrow_mut().entry(operation).or_insert(0) += 1;
    }

    fn fault(&self, operation: Operation, path: &Path) -> Option<Errno> {
        let mut faults = self.disk.shared.faults.borrow_mut();
        // Every fault counts every operation, so all are asked.
        faults
            .iter_mut()
            .filter_map(|fault| fault.strikes(operation, path))
            .last()
    }

    async fn take_time(&self, operation: Operation) {
        let guard = InProgress {
            executor: &self.executor,
            operation,
            done: Cell::new(false),
        };
        let (low, high) = self.disk.shared.times.get().of(operation);
        self.executor.note(operation as u64);
        self.executor.sleep(self.executor.between(low, high)).await;
        guard.done.set(true);
    }

    /// An operation that happens at its end, all at once.
    async fn perform<T>(
        &self,
        operation: Operation,
        path: &Path,
        effect: impl FnOnce(&mut super::DiskState) -> io::Result<T>,
    ) -> io::Result<T> {
        self.check_mounted()?;
        self.admit(operation).await;
        let fault = self.fault(operation, path);
        self.take_time(operation).await;
        self.check_mounted()?;
        match fault {
            Some(errno) => Err(errno.into()),
            None => effect(&mut self.disk.shared.state.borrow_mut()),
        }
    }
}

impl Disk for SimIo {
    type Buffer = SimBuffer;
    type File = SimFile;

    fn buffer(&self, size: usize) -> SimBuffer {
        SimBuffer::new(size)
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let access = Access::of(self);
        let operation = if mode == OpenMode::CreateNew {
            Operation::Create
        } else {
            Operation::Open
        };
        let inode = access
            .perform(operation, path, |state| {
                let inode = match mode {
                    OpenMode::CreateNew => state.create(path)?,
                    OpenMode::Read | OpenMode::Write => state.look_up(path)?,
                };
                state.handle_opened(inode)?;
                Ok(inode)
            })
            .await?;
        let writable = mode != OpenMode::Read;
        let path = path.to_path_buf();
        Ok(SimFile {
            handle: Rc::new(Handle {
                access,
                inode,
                path,
                writable,
            }),
        })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let access = Access::of(self);
        access
            .perform(Operation::CreateDir, path, |state| {
                state.create_dir_all(path)
            })
            .await
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Access::of(self)
            .perform(Operation::Read, path, |state| state.read_dir(path))
            .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Access::of(self)
            .perform(Operation::Rename, from, |state| state.rename(from, to))
            .await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        Access::of(self)
            .perform(Operation::Remove, path, |state| state.remove_file(path))
            .await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Access::of(self)
            .perform(Operation::Remove, path, |state| state.remove_dir(path))
            .await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let access = Access::of(self);
        let mark = self.disk.shared.state.borrow().mark();
        let ignore = self.disk.shared.ignore_flushes.get();
        access
            .perform(Operation::SyncDir, path, |state| {
                let inode = state.look_up(path)?;
                if !ignore {
                    state.sync_dir(inode, mark);
                }
                Ok(())
            })
            .await
    }

    async fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let space = |state: &mut super::DiskState| {
            state.look_up(path)?;
            let free = state.capacity.saturating_sub(state.used());
            Ok(DiskSpace {
                free,
                total: state.capacity,
            })
        };
        Access::of(self).perform(Operation::Read, path, space).await
    }

    async fn info(&self, path: &Path) -> io::Result<DiskInfo> {
        let info = |state: &mut super::DiskState| {
            state.look_up(path)?;
            Ok(DiskInfo {
                direct: true,
                file_system: "sim".to_owned(),
            })
        };
        Access::of(self).perform(Operation::Read, path, info).await
    }
}

/// An open file of a simulated disk.
#[derive(Clone)]
pub struct SimFile {
    handle: Rc<Handle>,
}

struct Handle {
    access: Access,
    inode: Inode,
    path: PathBuf,
    writable: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.access.check_mounted().is_ok() {
            self.access
                .disk
                .shared
                .state
                .borrow_mut()
                .handle_closed(self.inode);
        }
    }
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.handle.writable {
            Ok(())
        } else {
            Err(Errno::BadDescriptor.into())
        }
    }

    async fn perform<T>(
        &self,
        operation: Operation,
        effect: impl FnOnce(&mut super::DiskState) -> io::Result<T>,
    ) -> io::Result<T> {
        self.handle
            .access
            .perform(operation, &self.handle.path, effect)
            .await
    }

    fn state(&self) -> std::cell::RefMut<'_, super::DiskState> {
        self.handle.access.disk.shared.state.borrow_mut()
    }
}

impl DiskFile for SimFile {
    type Buffer = SimBuffer;

    async fn write_at(&self, buffer: Rc<SimBuffer>, position: u64) -> io::Result<()> {
        assert!(
            position.is_multiple_of(BLOCK),
            "unaligned write at {position}"
        );
        self.check_writable()?;
        let Handle {
            access,
            inode,
            path,
            ..
        } = &*self.handle;
        access.check_mounted()?;
        access.admit(Operation::Write).await;
        let first = position / BLOCK;
        let blocks: Vec<Rc<[u8]>> = buffer.bytes().chunks(BLOCK_SIZE).map(Rc::from).collect();
        let mut fault = access.fault(Operation::Write, path);
        let begun = {
            let mut state = self.state();
            let growth = state
                .file(*inode)?
                .current()
                .growth_of_write(first, blocks.len() as u64);
            if !state.has_room(growth) {
                fault = fault.or(Some(Errno::NoSpace));
            }
            state.begin(*inode, Change::Write { first, blocks })?
        };
        access.take_time(Operation::Write).await;
        access.check_mounted()?;
        match fault {
            None => self.state().complete(*inode, begun),
            Some(errno) => {
                let mut state = self.state();
                access
                    .executor
                    .random(|random| state.botch(*inode, begun, random));
                Err(errno.into())
            }
        }
    }

    async fn read_at(&self, position: u64, size: usize) -> io::Result<SimBuffer> {
        assert!(
            position.is_multiple_of(BLOCK),
            "unaligned read at {position}"
        );
        let inode = self.handle.inode;
        self.perform(Operation::Read, |state| {
            let mut buffer = SimBuffer::new(size);
            let content = state.file(inode)?.current();
            let rest = content.size().saturating_sub(position).min(size as u64);
            buffer.shorten(align_up(usize::try_from(rest).expect("at most size")));
            for (index, chunk) in
                (position / BLOCK..).zip(buffer.bytes_mut().chunks_mut(BLOCK_SIZE))
            {
                match content.block(index) {
                    Some(block) => chunk.copy_from_slice(block),
                    None => chunk.fill(0),
                }
            }
            Ok(buffer)
        })
        .await
    }

    async fn sync_data(&self) -> io::Result<()> {
        let Handle {
            access,
            inode,
            path,
            ..
        } = &*self.handle;
        access.check_mounted()?;
        access.admit(Operation::SyncData).await;
        let fault = access.fault(Operation::SyncData, path);
        let mark = self.state().mark();
        access.take_time(Operation::SyncData).await;
        access.check_mounted()?;
        if let Some(errno) = fault {
            self.state().forsake(*inode, mark);
            return Err(errno.into());
        }
        if access.disk.shared.ignore_flushes.get() {
            return Ok(());
        }
        self.state().sync_data(*inode, mark)
    }

    async fn allocate(&self, size: u64) -> io::Result<()> {
        self.check_writable()?;
        let inode = self.handle.inode;
        self.perform(Operation::Allocate, |state| {
            let growth = state.file(inode)?.current().growth_of_allocate(size);
            if !state.has_room(growth) {
                return Err(Errno::NoSpace.into());
            }
            let begun = state.begin(inode, Change::Allocate { size })?;
            state.complete(inode, begun)
        })
        .await
    }

    async fn truncate(&self, size: u64) -> io::Result<()> {
        self.check_writable()?;
        let inode = self.handle.inode;
        self.perform(Operation::Truncate, |state| {
            let begun = state.begin(inode, Change::Truncate { size })?;
            state.complete(inode, begun)
        })
        .await
    }

    async fn size(&self) -> io::Result<u64> {
        let inode = self.handle.inode;
        self.perform(Operation::Read, |state| {
            Ok(state.file(inode)?.current().size())
        })
        .await
    }

    async fn physical_size(&self) -> io::Result<u64> {
        let inode = self.handle.inode;
        self.perform(Operation::Read, |state| {
            Ok(state.file(inode)?.current().physical_size())
        })
        .await
    }

    async fn close(self) -> io::Result<()> {
        self.handle.access.check_mounted()
    }
}
