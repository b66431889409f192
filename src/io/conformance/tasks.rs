//! Rules of tasks and time.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    path::PathBuf,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use crate::io::{Io, TaskClass};

pub async fn sleep_keeps_order<I: Io>(io: I, _directory: PathBuf) {
    let order = Rc::new(RefCell::new(Vec::new()));
    for wait_ms in [40_u64, 10, 25] {
        let (io_of_task, order) = (io.clone(), Rc::clone(&order));
        io.spawn(TaskClass::Foreground, async move {
            io_of_task.sleep(Duration::from_millis(wait_ms)).await;
            order.borrow_mut().push(wait_ms);
        });
    }
    let start = io.now();
    {
        // Dropped, it ends without a trace.
        let mut sleep = pin!(io.sleep(Duration::from_secs(3600)));
        let polled = poll_fn(|context| Poll::Ready(sleep.as_mut().poll(context))).await;
        assert!(polled.is_pending());
    }
    io.sleep(Duration::from_millis(60)).await;
    let elapsed = io.now().since(start);
    assert!(elapsed >= Duration::from_millis(60) && elapsed < Duration::from_secs(60));
    assert_eq!(*order.borrow(), [10, 25, 40]);
    io.sleep_until(start).await;
    assert!(io.wall_ms() > 1_700_000_000_000, "milliseconds since 1970");
}

pub async fn tasks_of_every_class_run<I: Io>(io: I, _directory: PathBuf) {
    let done = Rc::new(Cell::new(0));
    for class in [
        TaskClass::Background,
        TaskClass::CatchUp,
        TaskClass::Foreground,
    ] {
        let (io_of_task, done_count) = (io.clone(), Rc::clone(&done));
        io.spawn(class, async move {
            for _ in 0..1_000 {
                io_of_task.yield_if_needed().await;
            }
            done_count.set(done_count.get() + 1);
        });
    }
    while done.get() < 3 {
        io.sleep(Duration::from_millis(1)).await;
    }
    assert_ne!(io.random_u64(), io.random_u64());
}
