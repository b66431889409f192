//! What becomes of members of consumer groups: they die, hang, are cut off, leave, come.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use millstream::io::{Clock as _, sim::DiskTimes};

use super::pause;
use crate::{
    broker::BROKER,
    history::{GroupEvent, GroupWhat, What},
    member::Member,
    world::World,
};

/// The most members of one group at a time.
const MEMBERS_MAX: usize = 4;
/// Beyond the session timeout: who dies is replaced by then.
const TAKEOVER_BEYOND: Duration = Duration::from_secs(1);
/// A group that is left alone comes to rest in this time.
const AT_REST_WITHIN: Duration = Duration::from_secs(60);

/// Something happens to one of them.
pub async fn strike(world: &mut World) {
    world.bury_members();
    let Some(member) = any_member(world) else {
        return;
    };
    let session = member.plan.session;
    match world.random.below(6) {
        0 => {
            die(world, &member);
            pause(world, 4_000).await;
            replace(world, &member);
        }
        1 => {
            // Its next life comes at once, perhaps with the same name.
            die(world, &member);
            replace(world, &member);
        }
        2 => {
            member.stop.set(true);
            pause(world, 1_000).await;
            replace(world, &member);
        }
        3 => {
            let most = u64::try_from(session.as_millis() * 4).expect("short");
            let hang = Duration::from_millis(world.random.below(most));
            let now = Duration::from_nanos(world.io.now().0);
            member.hang_until.set(now + hang);
        }
        4 => {
            world.io.sim_net().block(BROKER, member.node());
            let most = u64::try_from(session.as_millis() * 2).expect("short");
            pause(world, most).await;
            world.io.sim_net().unblock_all();
        }
        _ => {
            let group = member.plan.group;
            let count = world.members.iter();
            let count = count.filter(|it| it.plan.group == group).count();
            if count < MEMBERS_MAX {
                world.add_member(group, None);
            } else {
                member.stop.set(true);
            }
        }
    }
}

/// A member dies while all else is well: others have what it had within its session timeout and a second.
pub async fn takeover(world: &mut World) {
    world.bury_members();
    world.io.sim_net().unblock_all();
    world.broker.disk().set_times(DiskTimes::default());
    world.broker.ready().await;
    if !at_rest(world).await {
        return;
    }
    let with_others = |it: &Rc<Member>| {
        let mut others = world.members.iter();
        let more = others.any(|other| other.plan.group == it.plan.group && !Rc::ptr_eq(it, other));
        more && !it.holds().is_empty()
    };
    let victims: Vec<Rc<Member>> = world
        .members
        .iter()
        .filter(|it| with_others(it))
        .cloned()
        .collect();
    if victims.is_empty() {
        return;
    }
    let victim = Rc::clone(&victims[world.random.index(victims.len())]);
    let (group, who) = (victim.plan.group, victim.who());
    die(world, &victim);
    world.io.sleep(victim.plan.session + TAKEOVER_BEYOND).await;
    let what = GroupWhat::TakeoverDue;
    world
        .recorder
        .note(What::Group(GroupEvent { group, who, what }));
}

/// Waits until every partition is read by somebody, and nobody has anything to let go or to take.
async fn at_rest(world: &World) -> bool {
    let deadline = world.io.now() + AT_REST_WITHIN;
    while world.io.now() < deadline {
        let now = Duration::from_nanos(world.io.now().0);
        let awake = world.members.iter().all(|it| it.hang_until.get() <= now);
        if awake && world.groups_are_whole() {
            return true;
        }
        world.io.sleep(Duration::from_millis(20)).await;
    }
    false
}

fn any_member(world: &mut World) -> Option<Rc<Member>> {
    let count = world.members.len();
    (count > 0).then(|| Rc::clone(&world.members[world.random.index(count)]))
}

fn die(world: &mut World, member: &Rc<Member>) {
    // A host that goes with it closes nothing.
    let closes = world.random.chance(50);
    if !closes {
        world.io.sim_net().block(BROKER, member.node());
    }
    member.kill(closes);
    world.members.retain(|it| !Rc::ptr_eq(it, member));
}

/// Its next life, or someone else.
fn replace(world: &mut World, member: &Rc<Member>) {
    world.add_member(member.plan.group, member.plan.instance.clone());
}

impl World {
    /// Forgets members that have left.
    fn bury_members(&mut self) {
        self.members.retain(|it| !it.done.get() && !it.stop.get());
    }

    /// Whether in each group every partition is read by exactly one member, and each is at rest.
    pub fn groups_are_whole(&self) -> bool {
        let topics = self.topics();
        let names: Vec<&str> = self
            .scenario
            .topics
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        let wanted: usize = topics
            .iter()
            .filter(|topic| names.contains(&topic.name.as_str()))
            .map(|topic| topic.partitions.len())
            .sum();
        (0..self.scenario.groups).all(|group| {
            let members: Vec<&Rc<Member>> = self
                .members
                .iter()
                .filter(|it| it.plan.group == group && !it.done.get())
                .collect();
            let held: Vec<_> = members.iter().flat_map(|it| it.holds()).collect();
            let distinct: BTreeSet<_> = held.iter().collect();
            let each_once = held.len() == wanted && distinct.len() == wanted;
            members.is_empty() || each_once && members.iter().all(|it| it.is_settled())
        })
    }
}
