//! Which topics a machine wants looked up again, and when: one look-up at a time for each, with a
//! pause after one that failed.

use std::{collections::BTreeMap, time::Duration};

use millstream_protocol::TopicId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Wanted,
    UnderWay,
    PausedUntil(Duration),
}

/// Topics that are wanted, being looked up, or to be tried again. The rest is not in here.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    states: BTreeMap<TopicId, State>,
}

impl Lookups {
    /// Has a topic looked up again, unless that is under way.
    pub(crate) fn want(&mut self, topic: TopicId) {
        self.states.entry(topic).or_insert(State::Wanted);
    }

    /// The topics to look up now; they are under way from here on.
    pub(crate) fn start_due(&mut self, now: Duration) -> Vec<TopicId> {
        let mut due = Vec::new();
        for (topic, state) in &mut self.states {
            let starts = match state {
                State::Wanted => true,
                State::PausedUntil(until) => *until <= now,
                State::UnderWay => false,
            };
            if starts {
                *state = State::UnderWay;
                due.push(*topic);
            }
        }
        due
    }

    pub(crate) fn failed(&mut self, topic: TopicId, retry_at: Duration) {
        if let Some(state) = self.states.get_mut(&topic) {
            *state = State::PausedUntil(retry_at);
        }
    }

    /// The topic is known afresh, or nobody wants it any more.
    pub(crate) fn done(&mut self, topic: TopicId) {
        self.states.remove(&topic);
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        let pauses = self.states.values().filter_map(|state| match state {
            State::PausedUntil(until) => Some(*until),
            State::Wanted | State::UnderWay => None,
        });
        pauses.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_looked_up_once_at_a_time_and_again_after_a_pause() {
        let topic = TopicId::default();
        let ms = Duration::from_millis;
        let mut lookups = Lookups::default();
        lookups.want(topic);
        assert_eq!(lookups.start_due(ms(0)), [topic]);
        lookups.want(topic);
        assert_eq!(lookups.start_due(ms(0)), []);
        lookups.failed(topic, ms(5));
        lookups.want(topic);
        assert_eq!(lookups.deadline(), Some(ms(5)));
        assert_eq!(lookups.start_due(ms(4)), []);
        assert_eq!(lookups.start_due(ms(5)), [topic]);
        lookups.done(topic);
        assert_eq!(lookups.deadline(), None);
        lookups.want(topic);
        assert_eq!(lookups.start_due(ms(6)), [topic]);
    }
}
