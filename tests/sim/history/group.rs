//! What members of consumer groups do and hear, as far as invariants judge it.

use std::{fmt::Write as _, rc::Rc, time::Duration};

use millstream_protocol::{ErrorCode, Offset, TopicPartition};

use super::{History, RecordId};

/// Numbers commits, over all groups; it goes with each as its metadata.
pub type CommitId = u64;

/// One life of one member, by the name that it has for the broker.
pub type MemberName = Rc<str>;

/// Something of one group. `who` is the life of the member whose doing it is.
#[derive(Clone, Debug)]
pub struct GroupEvent {
    pub group: u32,
    pub who: MemberName,
    pub what: GroupWhat,
}

/// See [`GroupEvent`].
#[derive(Clone, Debug)]
pub enum GroupWhat {
    /// A heartbeat goes out, with the member's terms.
    HeartbeatSent {
        number: u64,
        session: Duration,
        instance: Option<Rc<str>>,
        /// It says that the member leaves.
        leaves: bool,
    },
    /// It is answered well: the epoch of the newest assignment, and that, if it is news.
    HeartbeatAnswered {
        number: u64,
        epoch: i64,
        assignment: Option<Vec<TopicPartition>>,
    },
    /// It is answered with an error.
    HeartbeatRefused {
        number: u64,
        error: ErrorCode,
    },
    /// The member asks where to go on.
    Asks(TopicPartition),
    /// It hears what was committed, and by which commit.
    Hears(TopicPartition, Option<(Offset, CommitId)>),
    /// It begins to read.
    Takes(TopicPartition, Offset),
    /// It does not read any more, and is about to say so.
    LetsGo(TopicPartition),
    Reads(TopicPartition, Offset, RecordId),
    Commits {
        id: CommitId,
        epoch: i64,
        at: TopicPartition,
        offset: Offset,
    },
    /// `None` is success.
    CommitAnswered(CommitId, ErrorCode),
    /// It does nothing but send heartbeats, for a while.
    Hangs,
    Wakes,
    /// It says that it leaves.
    Leaves,
    /// Its process is killed.
    Dies,
    /// It died its session timeout and a second ago, and nothing else went wrong since: what it had is
    /// to be others' by now.
    TakeoverDue,
}

impl History {
    pub(super) fn group_line(&self, event: &GroupEvent, text: &mut String) {
        let GroupEvent { group, who, what } = event;
        let _ = write!(text, "group {group}, {who} ");
        let _ = match what {
            GroupWhat::HeartbeatSent {
                number,
                leaves: false,
                ..
            } => writeln!(text, "sends heartbeat {number}"),
            GroupWhat::HeartbeatSent { number, .. } => {
                writeln!(text, "sends heartbeat {number} to leave")
            }
            GroupWhat::HeartbeatAnswered {
                number,
                epoch,
                assignment,
            } => {
                let (leader, count) = (epoch >> 32, epoch & 0xffff_ffff);
                let _ = write!(text, "is answered {number}: epoch {leader}.{count}");
                for at in assignment.iter().flatten() {
                    let _ = write!(text, " {}", self.place(*at));
                }
                writeln!(text)
            }
            GroupWhat::HeartbeatRefused { number, error } => {
                writeln!(text, "is refused {number}: {error:?}")
            }
            GroupWhat::Asks(at) => writeln!(text, "asks for {}", self.place(*at)),
            GroupWhat::Hears(at, None) => {
                writeln!(text, "hears of no commit of {}", self.place(*at))
            }
            GroupWhat::Hears(at, Some((offset, id))) => {
                writeln!(
                    text,
                    "hears of commit {id}: {} at {offset}",
                    self.place(*at)
                )
            }
            GroupWhat::Takes(at, offset) => {
                writeln!(text, "reads {} from {offset} on", self.place(*at))
            }
            GroupWhat::LetsGo(at) => writeln!(text, "lets {} go", self.place(*at)),
            GroupWhat::Reads(at, offset, id) => {
                writeln!(text, "reads {} {offset}: record {id}", self.place(*at))
            }
            GroupWhat::Commits {
                id,
                epoch,
                at,
                offset,
            } => {
                let (leader, count) = (epoch >> 32, epoch & 0xffff_ffff);
                let place = self.place(*at);
                writeln!(
                    text,
                    "commits {id}: {place} at {offset}, epoch {leader}.{count}"
                )
            }
            GroupWhat::CommitAnswered(id, error) => {
                writeln!(text, "hears of its commit {id}: {error:?}")
            }
            GroupWhat::Hangs => writeln!(text, "hangs"),
            GroupWhat::Wakes => writeln!(text, "wakes"),
            GroupWhat::Leaves => writeln!(text, "leaves"),
            GroupWhat::Dies => writeln!(text, "dies"),
            GroupWhat::TakeoverDue => writeln!(text, "is to have been replaced"),
        };
    }
}

impl GroupEvent {
    pub(super) fn partition(&self) -> Option<TopicPartition> {
        match &self.what {
            GroupWhat::Asks(at)
            | GroupWhat::Hears(at, _)
            | GroupWhat::Takes(at, _)
            | GroupWhat::LetsGo(at)
            | GroupWhat::Reads(at, ..)
            | GroupWhat::Commits { at, .. } => Some(*at),
            _ => None,
        }
    }
}
