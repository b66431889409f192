//! Memory of one shard's connections: receive buffers, recycled, in a few sizes, and budgets for what
//! requests and replies take besides.

use std::{cell::RefCell, rc::Rc};

use crate::io::{Budget, Permit};

/// The buffer a connection begins with when bytes arrive: enough for requests and small produces.
pub const SMALL: usize = 16 << 10;
/// The buffer of a connection that moves record batches: several of the default size.
pub const MEDIUM: usize = 256 << 10;

/// Buffers of each recycled size that are kept for the next connection ...
const SPARE: usize = 64;
/// ... and at most this part of the memory.
const SPARE_PART: usize = 8;

/// A frame larger than this part of the memory for large ones must show that it is coming.
const CLAIM_PART: usize = 4;

/// How the memory is divided, in sixteenths: small, medium and large buffers, produces that wait for
/// the disk, other requests that wait for their answer, and replies that wait to be sent.
const PARTS: [usize; 6] = [4, 4, 4, 1, 2, 1];

/// Where connections get their memory.
///
/// Each size of buffers has a budget of its own: clients that send large frames slowly can hold up one
/// another for a while, and nobody else.
#[derive(Debug)]
pub struct Buffers {
    small: Rc<Budget>,
    medium: Rc<Budget>,
    large: Rc<Budget>,
    /// Produces that were set aside.
    pub(super) aside: Rc<Budget>,
    /// Bodies of requests that are owed an answer.
    pub(super) asked: Rc<Budget>,
    /// Replies, without their record batches, from when they are made until they are sent.
    pub(super) heads: Rc<Budget>,
    small_spare: RefCell<Vec<Vec<u8>>>,
    medium_spare: RefCell<Vec<Vec<u8>>>,
}

/// A receive buffer; dropping it gives the memory back.
#[derive(Debug)]
pub struct ReceiveBuffer {
    /// The memory.
    pub bytes: Vec<u8>,
    home: Rc<Buffers>,
    _permit: Permit,
}

impl ReceiveBuffer {
    /// Whether frames may share it. A large one, or one that others wait for, ends with the frame that it
    /// is for: then it is empty, and can be given back.
    pub fn may_be_shared(&self) -> bool {
        self.bytes.len() <= MEDIUM && !self.is_wanted()
    }

    /// Somebody waits for memory of this kind.
    pub fn is_wanted(&self) -> bool {
        self.home.budget(self.bytes.len()).is_wanted()
    }
}

impl Buffers {
    /// Memory within `budget` bytes.
    #[must_use]
    pub fn new(budget: usize) -> Rc<Self> {
        let [small, medium, large, aside, asked, heads] =
            PARTS.map(|part| Budget::new(budget / 16 * part));
        Rc::new(Self {
            small,
            medium,
            large,
            aside,
            asked,
            heads,
            small_spare: RefCell::default(),
            medium_spare: RefCell::default(),
        })
    }

    /// A buffer of at least `size` bytes, when there is memory for it.
    pub async fn take(self: &Rc<Self>, size: usize) -> ReceiveBuffer {
        let size = if size <= SMALL {
            SMALL
        } else {
            size.max(MEDIUM)
        };
        let permit = self.budget(size).take(size).await;
        let spare = self.spare(size).and_then(|spare| spare.borrow_mut().pop());
        let bytes = spare.unwrap_or_else(|| vec![0; size]);
        ReceiveBuffer {
            bytes,
            home: Rc::clone(self),
            _permit: permit,
        }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        let budgets = [
            &self.small,
            &self.medium,
            &self.large,
            &self.aside,
            &self.asked,
            &self.heads,
        ];
        budgets.into_iter().map(|budget| budget.used()).sum()
    }

    /// A buffer for a large frame of which nothing has been seen but the announcement: only if there
    /// is plenty, and nobody waits.
    pub fn claim(self: &Rc<Self>, size: usize) -> Option<ReceiveBuffer> {
        if size > self.large.total() / CLAIM_PART {
            return None;
        }
        Some(ReceiveBuffer {
            _permit: self.large.try_take(size)?,
            bytes: vec![0; size],
            home: Rc::clone(self),
        })
    }

    fn budget(&self, size: usize) -> &Rc<Budget> {
        if size <= SMALL {
            &self.small
        } else if size <= MEDIUM {
            &self.medium
        } else {
            &self.large
        }
    }

    fn spare(&self, size: usize) -> Option<&RefCell<Vec<Vec<u8>>>> {
        match size {
            SMALL => Some(&self.small_spare),
            MEDIUM => Some(&self.medium_spare),
            _ => None,
        }
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if let Some(spare) = self.home.spare(bytes.len()) {
            let mut spare = spare.borrow_mut();
            let room = self.home.budget(bytes.len()).total() / SPARE_PART / bytes.len();
            if spare.len() < SPARE.min(room) {
                spare.push(bytes);
            }
        }
    }
}
