//! A disk that gives a wrong bit for a while: at one start of the broker a byte of some file is not what was
//! written, and at the next it is again. Everything acknowledged is sealed by then, so nothing may be cut
//! away for it: the broker refuses to start, or the partition is read-only, and the next start has it all.

use std::{path::PathBuf, time::Duration};

use millstream::io::{BLOCK_SIZE, Buffer as _, Clock as _, Disk as _, DiskFile as _, OpenMode};

use super::any_policy;
use crate::{
    broker::{BROKER, CLIENTS},
    world::World,
};

/// Longer than a log and a journal wait before they seal what is durable.
const SEALED_AFTER: Duration = Duration::from_millis(600);
/// Longer than a start takes, or a refusal.
const STARTED_AFTER: Duration = Duration::from_secs(3);

pub async fn strike(world: &mut World) {
    world.broker.ready().await;
    // Nobody sees what the broker makes of it, and nothing is added.
    world.io.sim_net().block(BROKER, CLIENTS);
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
    let files = files(world, "/data".into()).await;
    if files.is_empty() {
        return None;
    }
    let path = files[world.random.index(files.len())].clone();
    let size = size_of(world, &path).await;
    if size == 0 {
        return None;
    }
    // The beginning of a block says most about it.
    let position = world.random.below(size);
    let position = match world.random.chance(50) {
        true => position - position % BLOCK_SIZE as u64 + position % 64,
        false => position,
    };
    let position = position.min(size - 1);
    let mask = 1 << world.random.below(8);
    world
        .recorder
        .say(format!("{} is wrong at {position}", path.display()));
    let disk = world.broker.disk().clone();
    disk.corrupt(&path, position, mask)
        .expect("the file is there");
    let block = block_of(world, &path, position).await.unwrap_or_default();
    Some(Flipped {
        path,
        position,
        mask,
        block,
    })
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

async fn size_of(world: &World, path: &std::path::Path) -> u64 {
    match world.clients.open(path, OpenMode::Read).await {
        Ok(file) => file.size().await.unwrap_or(0),
        Err(_) => 0,
    }
}

/// The block that holds a byte, if the file is there.
async fn block_of(world: &World, path: &std::path::Path, position: u64) -> Option<Vec<u8>> {
    let start = position - position % BLOCK_SIZE as u64;
    let file = world.clients.open(path, OpenMode::Read).await.ok()?;
    let buffer = file.read_at(start, BLOCK_SIZE).await.ok()?;
    Some(buffer.bytes().to_vec())
}
