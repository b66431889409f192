//! A commit that was acknowledged is found by whoever asks after that, or a later one; what was refused
//! is never found. So a group goes on where it was, and never at the beginning because it is being loaded.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{ErrorCode, TopicId, TopicPartition};

use super::Findings;
use crate::history::{CommitId, Facts, GroupEvent, GroupWhat, MemberName, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut seen = Seen::default();
    for (index, event) in facts.history.events.iter().enumerate() {
        match &event.what {
            What::Deleting(topic) => _ = seen.deleted.insert(*topic),
            What::Group(event) => seen.learn(index, event, findings),
            _ => {}
        }
    }
}

/// Of one partition, by one group.
type Place = (u32, TopicPartition);

#[derive(Default)]
struct Commit {
    sent: usize,
    /// When its answer came, and what it was.
    ended: Option<(usize, ErrorCode)>,
}

#[derive(Default)]
struct Seen {
    commits: BTreeMap<CommitId, Commit>,
    by_place: BTreeMap<Place, Vec<CommitId>>,
    asked: BTreeMap<(MemberName, Place), usize>,
    deleted: BTreeSet<TopicId>,
}

impl Seen {
    fn learn(&mut self, index: usize, event: &GroupEvent, findings: &mut Findings<'_>) {
        let place = |at: &TopicPartition| (event.group, *at);
        match &event.what {
            GroupWhat::Commits { id, at, .. } => {
                let commit = Commit {
                    sent: index,
                    ended: None,
                };
                self.commits.insert(*id, commit);
                self.by_place.entry(place(at)).or_default().push(*id);
            }
            GroupWhat::CommitAnswered(id, error) => {
                let commit = self.commits.get_mut(id).expect("it was sent");
                commit.ended = Some((index, *error));
            }
            GroupWhat::Asks(at) => {
                self.asked.insert((event.who.clone(), place(at)), index);
            }
            GroupWhat::Hears(at, heard) => {
                let asked = self.asked[&(event.who.clone(), place(at))];
                let wrong = match heard {
                    Some((_, id)) => self.wrong(*id, place(at), asked),
                    None if self.deleted.contains(&at.topic) => None,
                    None => {
                        let kept = self.kept(place(at), asked);
                        kept.map(|id| format!("commit {id} was acknowledged, and is lost"))
                    }
                };
                if let Some(wrong) = wrong {
                    findings.add(
                        *at,
                        format!("{} of group {}: {wrong}", event.who, event.group),
                    );
                }
            }
            _ => {}
        }
    }

    /// Commits of a place that were acknowledged before.
    fn acknowledged(
        &self,
        place: Place,
        before: usize,
    ) -> impl Iterator<Item = (CommitId, &Commit)> {
        let ids = self.by_place.get(&place).into_iter().flatten();
        let all = ids.map(|id| (*id, &self.commits[id]));
        all.filter(move |(_, commit)| {
            commit
                .ended
                .is_some_and(|(at, error)| at < before && error == ErrorCode::None)
        })
    }

    fn kept(&self, place: Place, before: usize) -> Option<CommitId> {
        self.acknowledged(place, before).map(|(id, _)| id).last()
    }

    /// What is wrong with finding this commit.
    fn wrong(&self, id: CommitId, place: Place, asked: usize) -> Option<String> {
        let here = self
            .by_place
            .get(&place)
            .is_some_and(|ids| ids.contains(&id));
        if !here {
            return Some(format!("commit {id} was not of this partition"));
        }
        let (ended, error) = self.commits[&id].ended?;
        if is_refusal(error) {
            return Some(format!("commit {id} was refused ({error:?}), and counts"));
        }
        let mut later = self.acknowledged(place, asked);
        let later = later.find(|(_, commit)| commit.sent > ended);
        later.map(|(later, _)| {
            format!("commit {id} is found, and {later}, which was acknowledged after it, is lost")
        })
    }
}

/// The coordinator judged it, and did not take it.
fn is_refusal(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch | ErrorCode::StaleMemberEpoch
    )
}
