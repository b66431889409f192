use millstream_protocol::PartitionIndex;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn topic(number: u8) -> TopicId {
    TopicId(Uuid::from_u128(u128::from(number)))
}

fn table(counts: &[u32]) -> Topics {
    let topics = counts.iter().zip(0..);
    Topics::new(topics.map(|(count, number)| (format!("t{number}"), topic(number), *count)))
}

fn run(assignor: Assignor, wants: &[Vec<u8>], before: &Assignment, topics: &Topics) -> Assignment {
    let wants: Vec<BTreeSet<TopicId>> = wants
        .iter()
        .map(|it| it.iter().map(|number| topic(*number)).collect())
        .collect();
    let members: Vec<Subscriber<'_>> = wants
        .iter()
        .zip(before)
        .map(|(topics, holds)| Subscriber { topics, holds })
        .collect();
    assign(assignor, &members, topics)
}

fn numbers(assignment: &Assignment) -> Vec<Vec<(u128, u32)>> {
    let of = |it: &BTreeSet<TopicPartition>| {
        let pairs = it.iter();
        pairs
            .map(|it| (it.topic.0.as_u128(), it.partition.0))
            .collect()
    };
    assignment.iter().map(of).collect()
}

#[test]
fn range_puts_equal_numbers_together() {
    let before = vec![BTreeSet::new(); 2];
    let wants = [vec![0, 1], vec![0, 1]];
    let assignment = run(Assignor::Range, &wants, &before, &table(&[3, 3]));
    let first = vec![(0, 0), (0, 1), (1, 0), (1, 1)];
    assert_eq!(numbers(&assignment), [first, vec![(0, 2), (1, 2)]]);
}

#[test]
fn a_member_more_moves_only_its_share() {
    let topics = table(&[6]);
    let none = vec![BTreeSet::new(); 2];
    let mut before = run(Assignor::Sticky, &[vec![0], vec![0]], &none, &topics);
    before.push(BTreeSet::new());
    let after = run(Assignor::Sticky, &vec![vec![0]; 3], &before, &topics);
    let sizes: Vec<usize> = after.iter().map(BTreeSet::len).collect();
    assert_eq!(sizes, [2, 2, 2]);
    assert!(after[0].is_subset(&before[0]) && after[1].is_subset(&before[1]));
}

#[test]
fn who_alone_wants_a_topic_gets_less_of_the_others() {
    let before = vec![BTreeSet::new(); 2];
    let topics = table(&[4, 4]);
    let assignment = run(Assignor::Uniform, &[vec![0, 1], vec![1]], &before, &topics);
    let sizes: Vec<usize> = assignment.iter().map(BTreeSet::len).collect();
    assert_eq!(sizes, [4, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Everyone's subscriptions and a past of any kind.
    #[test]
    fn every_partition_has_one_subscriber_and_counts_are_even(
        counts in proptest::collection::vec(0..9u32, 1..5),
        wants in proptest::collection::vec(proptest::collection::vec(0..4u8, 0..4), 1..7),
        past in proptest::collection::vec(0..7usize, 0..40),
        which in 0..3usize,
    ) {
        let topics = table(&counts);
        let mut wants = wants;
        for member in &mut wants {
            member.retain(|number| usize::from(*number) < counts.len());
        }
        let every = (0u8..).zip(&counts).flat_map(|(number, count)| {
            (0..*count).map(move |partition| TopicPartition {
                topic: topic(number),
                partition: PartitionIndex(partition),
            })
        });
        let mut before = vec![BTreeSet::new(); wants.len()];
        for (partition, who) in every.clone().zip(&past) {
            if *who < before.len() {
                before[*who].insert(partition);
            }
        }
        let assignor = Assignor::ALL[which];
        let after = run(assignor, &wants, &before, &topics);
        let mut seen = BTreeSet::new();
        for (member, partitions) in wants.iter().zip(&after) {
            for partition in partitions {
                prop_assert!(member.iter().any(|it| topic(*it) == partition.topic));
                prop_assert!(seen.insert(*partition), "two owners");
            }
        }
        let wanted = |it: &TopicPartition| wants.iter().flatten().any(|w| topic(*w) == it.topic);
        prop_assert_eq!(seen, every.filter(wanted).collect::<BTreeSet<_>>());
        if assignor != Assignor::Range {
            for (from, has) in after.iter().enumerate() {
                for (to, less) in after.iter().enumerate() {
                    let may_move = has
                        .iter()
                        .any(|it| wants[to].iter().any(|w| topic(*w) == it.topic));
                    let even = has.len() <= less.len() + 1 || !may_move;
                    prop_assert!(even, "{} could give to {}", from, to);
                }
            }
        }
        // Nothing changed, so nothing moves.
        if assignor == Assignor::Sticky {
            prop_assert_eq!(run(assignor, &wants, &after, &topics), after);
        }
    }
}
