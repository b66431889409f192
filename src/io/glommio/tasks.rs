//! The tasks of a shard and how they end with it.
//!
//! glommio forgets the tasks that are still waiting when its executor goes: what they own, sockets
//! and listeners too, stays open for the life of the process. It also gives memory back that a read
//! still writes to, and a blocking call that finishes later panics. So a shard first lets its disk
//! operations finish, then drops its tasks, then closes the sockets they held.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    time::Duration,
};

use glommio::{Task, TaskQueueHandle, timer::sleep};

use super::Shard;

/// How often the end of a shard looks whether what it waits for has happened.
const CHECK_PERIOD: Duration = Duration::from_millis(1);
/// How many times: half a minute, after which the disk does not answer.
const CHECK_COUNT_MAX: u32 = 30_000;

/// What of a shard must end before its executor may.
#[derive(Default)]
pub(super) struct TaskList {
    slots: RefCell<Slots>,
    operation_count: Cell<usize>,
    ended: Cell<bool>,
}

#[derive(Default)]
struct Slots {
    tasks: Vec<Option<Task<()>>>,
    free: Vec<usize>,
}

/// A disk operation on its way.
pub(super) struct Operation<'a> {
    list: &'a TaskList,
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.list
            .operation_count
            .set(self.list.operation_count.get() - 1);
    }
}

impl TaskList {
    /// Admits a disk operation; once the shard ends, none begins any more.
    pub(super) async fn operation(&self) -> Operation<'_> {
        if self.ended.get() {
            std::future::pending::<()>().await;
        }
        self.operation_count.set(self.operation_count.get() + 1);
        Operation { list: self }
    }

    fn reserve(&self) -> usize {
        let mut slots = self.slots.borrow_mut();
        slots.free.pop().unwrap_or_else(|| {
            slots.tasks.push(None);
            slots.tasks.len() - 1
        })
    }

    fn finished(&self, slot: usize) {
        let task = {
            let mut slots = self.slots.borrow_mut();
            slots.free.push(slot);
            slots.tasks[slot].take()
        };
        // Absent while the shard ends, which has taken all of them.
        if let Some(task) = task {
            task.detach();
        }
    }

    async fn drop_all(&self) {
        let tasks = std::mem::take(&mut self.slots.borrow_mut().tasks);
        for task in tasks.into_iter().flatten() {
            task.cancel().await;
        }
    }
}

impl Shard {
    pub(super) fn spawn(
        self: &Rc<Self>,
        queue: TaskQueueHandle,
        task: impl Future<Output = ()> + 'static,
    ) {
        if self.tasks.ended.get() {
            return;
        }
        let slot = self.tasks.reserve();
        let shard = Rc::clone(self);
        let task = async move {
            task.await;
            shard.tasks.finished(slot);
        };
        // It does not run before this returns, so it finds its slot.
        let task = glommio::spawn_local_into(task, queue).expect("a queue of this shard");
        self.tasks.slots.borrow_mut().tasks[slot] = Some(task);
    }

    /// Ends what `main` left behind.
    pub(super) async fn end(&self) {
        self.tasks.ended.set(true);
        let mut checks = 0;
        while self.tasks.operation_count.get() > 0 && checks < CHECK_COUNT_MAX {
            sleep(CHECK_PERIOD).await;
            checks += 1;
        }
        let left = self.tasks.operation_count.get();
        if left > 0 {
            tracing::error!("{left} disk operations did not finish; the shard ends without them");
        }
        self.tasks.drop_all().await;
        while self.closing.is_running() && checks < CHECK_COUNT_MAX {
            sleep(CHECK_PERIOD).await;
            checks += 1;
        }
        self.closing.end();
    }
}
