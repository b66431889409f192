//! One file between two flushes: what it is, what is durable, what lies between, and what a crash
//! leaves of it.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    content::{Block, Content},
    fault::CrashPolicy,
};
use crate::io::{BLOCK_SIZE, Random};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// Something done to a file.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { first: u64, blocks: Vec<Block> },
    Allocate { size: u64 },
    Truncate { size: u64 },
}

impl Change {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { first, blocks } => {
                for (index, block) in (*first..).zip(blocks) {
                    content.put(index, Rc::clone(block));
                }
                content.extend((*first + blocks.len() as u64) * BLOCK);
            }
            Self::Allocate { size } => content.allocate(*size),
            Self::Truncate { size } => content.truncate(*size),
        }
    }

    /// Lets each sector of a write arrive or not.
    pub(super) fn tear(&self, content: &mut Content, random: &mut Random) {
        let Self::Write { first, blocks } = self else {
            return;
        };
        for (index, block) in (*first..).zip(blocks) {
            let sectors = random.next_u64().to_le_bytes()[0];
            content.put_sectors(index, block, sectors);
        }
    }

    fn end(&self) -> Option<u64> {
        match self {
            Self::Write { first, blocks } => Some((*first + blocks.len() as u64) * BLOCK),
            Self::Allocate { .. } | Self::Truncate { .. } => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) change: Change,
    /// A flush that should have covered it failed: no later one does, as in a kernel that marks
    /// pages clean after a failed write-back.
    pub(super) forsaken: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    pub(super) durable: Rc<Content>,
    pub(super) current: Rc<Content>,
    pub(super) pending: Vec<Pending>,
    /// Begun and not completed: invisible, but a crash may keep it.
    pub(super) in_flight: BTreeMap<u64, Change>,
    pub(super) handle_count: u64,
    pub(super) linked: bool,
}

impl FileState {
    pub(super) fn current(&self) -> &Content {
        &self.current
    }

    /// What a crash leaves of it.
    pub(super) fn survive(&mut self, policy: &mut Survival) {
        let mut content = (*self.durable).clone();
        let pending = std::mem::take(&mut self.pending)
            .into_iter()
            .map(|pending| pending.change);
        let in_flight = std::mem::take(&mut self.in_flight).into_values();
        for change in pending.chain(in_flight) {
            match policy.fate() {
                Fate::Keep => change.apply(&mut content),
                Fate::Tear => {
                    change.tear(&mut content, &mut policy.random);
                    if let Some(end) = change.end()
                        && policy.random.chance(50)
                    {
                        content.extend(end);
                    }
                }
                // Writes after a lost truncation went to blocks that durable metadata does not name.
                Fate::Drop if matches!(change, Change::Truncate { .. }) => break,
                Fate::Drop => {
                    // The size may have been written back without the bytes: zeros.
                    if let Some(end) = change.end()
                        && policy.metadata_alone()
                    {
                        content.extend(end);
                    }
                }
            }
        }
        content.trim();
        self.durable = Rc::new(content);
        self.current = Rc::clone(&self.durable);
        self.handle_count = 0;
    }
}

enum Fate {
    Keep,
    Drop,
    Tear,
}

/// The choices of one crash.
pub(super) struct Survival {
    policy: CrashPolicy,
    random: Random,
    /// How much this crash keeps, in percent: some lose almost all, some almost nothing.
    keep_percent: u64,
}

impl Survival {
    pub(super) fn new(policy: CrashPolicy) -> Self {
        let mut random = Random::new(match policy {
            CrashPolicy::Random { seed } => seed,
            CrashPolicy::DropAll | CrashPolicy::KeepAll => 0,
        });
        let keep_percent = [5, 33, 66, 95][random.index(4)];
        Self {
            policy,
            random,
            keep_percent,
        }
    }

    fn fate(&mut self) -> Fate {
        match self.policy {
            CrashPolicy::DropAll => Fate::Drop,
            CrashPolicy::KeepAll => Fate::Keep,
            CrashPolicy::Random { .. } if self.random.chance(self.keep_percent) => Fate::Keep,
            CrashPolicy::Random { .. } if self.random.chance(50) => Fate::Tear,
            CrashPolicy::Random { .. } => Fate::Drop,
        }
    }

    pub(super) fn keeps_name(&mut self) -> bool {
        matches!(self.fate(), Fate::Keep)
    }

    /// Whether the metadata of a lost write survives without its data.
    fn metadata_alone(&mut self) -> bool {
        matches!(self.policy, CrashPolicy::Random { .. }) && self.random.chance(50)
    }
}
