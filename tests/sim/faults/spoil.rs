//! A disk that gives a wrong bit for a while: at one start of the broker a byte of some file is not what was
//! written, and at the next it is again. Everything acknowledged is sealed by then, so nothing may be cut
//! away for it: the broker refuses to start, or the partition is read-only, and the next start has it all.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use millstream::io::{BLOCK_SIZE, Buffer as _, Clock as _, Disk as _, DiskFile as _, OpenMode};

use super::any_policy;
use crate::world::World;

/// Longer than a log and a journal wait before they seal what is durable.
const SEALED_AFTER: Duration = Duration::from_millis(600);
/// Longer than a start takes, or a refusal.
const STARTED_AFTER: Duration = Duration::from_secs(3);

pub async fn strike(world: &mut World) {
    world.broker.ready().await;
    // Nobody sees what the broker makes of it, and nothing is added.
    world.block_clients();
    world.io.sleep(SEALED_AFTER).await;
    let policy = any_policy(world);
    world.broker.cut_power(policy);
    let flipped = flip(world).await;
    world.broker.may_refuse(true);
    world.start();
    world.io.sleep(STARTED_AFTER).await;
    let policy = any_policy(world);
    world.broker.cut_power(policy);
    world.broker.may_refuse(false);
    if let Some(flipped) = flipped {
        flipped.put_right(world).await;
    }
    world.io.sim_net().unblock_all();
    world.start();
}

/// A byte that was changed, and its block as it is now.
struct Flipped {
    path: PathBuf,
    position: u64,
    mask: u8,
    block: Vec<u8>,
}

async fn flip(world: &mut World) -> Option<Flipped> {
    let dir = ["/data/journal", "/data/topics"][world.random.index(2)];
    let files = files(world, dir.into()).await;
    if files.is_empty() {
        return None;
    }
    let path = files[world.random.index(files.len())].clone();
    let position = position_in(world, &path).await?;
    let mask = 1 << world.random.below(8);
    let said = format!("{} is wrong at {position}", path.display());
    world.recorder.say(said);
    let disk = world.broker.disk().clone();
    let spoiled = disk.corrupt(&path, position, mask);
    spoiled.expect("the file is there");
    let block = block_of(world, &path, position).await.unwrap_or_default();
    Some(Flipped {
        path,
        position,
        mask,
        block,
    })
}

/// Somewhere in a file where something was written.
async fn position_in(world: &mut World, path: &Path) -> Option<u64> {
    let file = world.clients.open(path, OpenMode::Read).await.ok()?;
    let size = usize::try_from(file.size().await.ok()?).ok()?;
    let whole = file.read_at(0, size.next_multiple_of(BLOCK_SIZE).max(BLOCK_SIZE));
    let whole = whole.await.ok()?;
    let written = |block: &&[u8]| block.iter().any(|byte| *byte != 0);
    let blocks: Vec<usize> = (0..)
        .zip(whole.bytes().chunks(BLOCK_SIZE))
        .filter(|(_, block)| written(block))
        .map(|(index, _)| index)
        .collect();
    let block = blocks.get(world.random.index(blocks.len().max(1)))? * BLOCK_SIZE;
    let bytes = &whole.bytes()[block..(block + BLOCK_SIZE).min(size)];
    let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    // The beginning of a block says most about it.
    let within = match world.random.chance(50) {
        true => used.min(64),
        false => used,
    };
    Some((block + world.random.index(within)) as u64)
}

impl Flipped {
    /// Right again, unless it was written anew or is gone.
    async fn put_right(&self, world: &World) {
        let now = block_of(world, &self.path, self.position).await;
        if now.as_ref() == Some(&self.block) {
            let disk = world.broker.disk();
            let put = disk.corrupt(&self.path, self.position, self.mask);
            put.expect("the file is there");
            world.recorder.say("it is right again");
        }
    }
}

async fn files(world: &World, dir: PathBuf) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir];
    while let Some(dir) = dirs.pop() {
        for path in world.clients.read_dir(&dir).await.unwrap_or_default() {
            match path.extension() {
                Some(_) => files.push(path),
                None => dirs.push(path),
            }
        }
    }
    files
}

/// The block that holds a byte, if the file is there.
async fn block_of(world: &World, path: &Path, position: u64) -> Option<Vec<u8>> {
    let start = position - position % BLOCK_SIZE as u64;
    let file = world.clients.open(path, OpenMode::Read).await.ok()?;
    let buffer = file.read_at(start, BLOCK_SIZE).await.ok()?;
    Some(buffer.bytes().to_vec())
}
