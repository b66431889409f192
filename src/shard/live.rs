//! Reads that leave out what is past its topic's time to live.

use std::rc::Rc;

use millstream_protocol::{Offset, batch::Batches};

use crate::{
    io::{Buffer, Disk, Io},
    shard::partition::PartitionShell,
    storage::{ReadError, Slice},
};

type Slices<I> = Vec<Slice<<I as Disk>::Buffer>>;

/// Reads from an offset on, as [`Log::read_some`](crate::storage::Log::read_some), but no batch whose newest record is too old.
///
/// # Errors
/// [`ReadError`].
pub(super) async fn read_live<I: Io>(
    shell: &Rc<PartitionShell<I>>,
    from: Offset,
    up_to: Offset,
    max_bytes: usize,
) -> Result<(Slices<I>, Offset), ReadError> {
    let log = shell.log();
    let Some(live_from_ms) = shell.live_from_ms() else {
        return log.read_some(from, up_to, max_bytes).await;
    };
    let mut from = from;
    loop {
        let (slices, next) = log.read_some(from, up_to, max_bytes).await?;
        let live: Slices<I> = slices
            .into_iter()
            .filter_map(|slice| live_part(slice, live_from_ms))
            .collect();
        if !live.is_empty() {
            return Ok((live, next));
        }
        // All of that is over. The index of times says where there is something that is not.
        let found = log.find_time(live_from_ms).await?;
        let found = found.map(|(offset, _)| offset.max(next));
        match found.filter(|offset| *offset < up_to) {
            Some(offset) => from = offset,
            // The last one all the same, of which the client shows nothing: so it knows that this is the end.
            None => return log.read_some(Offset(up_to.0 - 1).max(from), up_to, 1).await,
        }
    }
}

/// What is left of a slice without the batches that are over.
fn live_part<B: Buffer>(slice: Slice<B>, live_from_ms: i64) -> Option<Slice<B>> {
    let batches = || Batches::trusted(slice.bytes()).filter_map(Result::ok);
    if batches().all(|(header, _)| header.max_timestamp_ms >= live_from_ms) {
        return Some(slice);
    }
    let live = batches().filter(|(header, _)| header.max_timestamp_ms >= live_from_ms);
    let mut bytes = Vec::new();
    for (_, batch) in live {
        bytes.extend_from_slice(batch);
    }
    (!bytes.is_empty()).then(|| Slice::own(bytes))
}
