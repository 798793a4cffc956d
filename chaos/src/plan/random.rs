//! Plans by chance.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::{Abilities, Direction, Fault, From, Step, Torn, Who};

/// A step whose faults need nothing else than `abilities`.
pub(super) fn step(random: &mut StdRng, abilities: &Abilities) -> Step {
    let mut faults = vec![fault(random, abilities)];
    if random.random_bool(0.2) {
        let other = fault(random, abilities);
        if go_together(&faults[0], &other) {
            faults.push(other);
        }
    }
    Step {
        faults,
        hold_ms: random.random_range(300..2_500),
        rest_ms: random.random_range(500..2_500),
    }
}

/// A cluster bears the loss of one member's data at a time. A flipped bit counts as that even
/// where nobody notices it, so nobody else may be missing meanwhile.
fn go_together(one: &Fault, other: &Fault) -> bool {
    let flips = |fault: &Fault| matches!(fault, Fault::FlipBit(_));
    let both = one.replaces().is_some() && other.replaces().is_some();
    !both && !flips(one) && !flips(other)
}

fn fault(random: &mut StdRng, abilities: &Abilities) -> Fault {
    let groups = [
        processes(random),
        network(random),
        disks(random),
        members(random),
        nodes(),
        docker(),
        clocks(random),
    ];
    let possible = |fault: &Fault| fault.needs().iter().all(|need| abilities.contains(need));
    let mut groups = Vec::from(groups);
    groups.iter_mut().for_each(|group| group.retain(possible));
    groups.retain(|group| !group.is_empty());
    let fault = groups.choose(random).and_then(|group| group.choose(random).cloned());
    fault.unwrap_or(Fault::Transfer)
}

fn who(random: &mut StdRng) -> Who {
    match random.random_range(0..10) {
        0..5 => Who::Leader,
        5..8 => Who::Follower,
        8 => Who::Any,
        _ => Who::Majority,
    }
}

fn one(random: &mut StdRng) -> Who {
    if random.random_bool(0.4) { Who::Leader } else { Who::Follower }
}

fn processes(random: &mut StdRng) -> Vec<Fault> {
    vec![
        Fault::Transfer,
        Fault::Kill(who(random)),
        Fault::Kill(Who::Leader),
        Fault::Kill(if random.random_bool(0.3) { Who::All } else { Who::Follower }),
        Fault::Pause(who(random)),
        Fault::Terminate(Who::Leader),
    ]
}

fn network(random: &mut StdRng) -> Vec<Fault> {
    let from =
        *[From::Masters, From::Clients, From::Everybody].choose(random).unwrap_or(&From::Everybody);
    let direction = *[Direction::Both, Direction::In, Direction::Out]
        .choose(random)
        .unwrap_or(&Direction::Both);
    let delay_ms = random.random_range(5..150);
    let loss = f64::from(random.random_range(0..20_u32)) / 100.0;
    vec![
        Fault::Cut { who: who(random), from, direction },
        Fault::Cut { who: Who::Leader, from: From::Everybody, direction: Direction::Both },
        Fault::Bridge,
        Fault::Slow { who: who(random), delay_ms, loss },
    ]
}

fn disks(random: &mut StdRng) -> Vec<Fault> {
    let all_or = |random: &mut StdRng| {
        if random.random_bool(0.3) { Who::All } else { who(random) }
    };
    vec![
        // With zeros: `--scenario torn-zeros`.
        Fault::PowerCut { who: all_or(random), torn: Torn::No },
        Fault::PowerCut { who: all_or(random), torn: Torn::Prefix },
        Fault::FailSyncs(all_or(random)),
        Fault::FailWrites(who(random)),
        Fault::FullDisk { who: who(random), room_mb: random.random_range(0..3) },
        Fault::SlowDisk { who: all_or(random), delay_ms: random.random_range(10..200) },
        Fault::FlipBit(one(random)),
    ]
}

fn members(random: &mut StdRng) -> Vec<Fault> {
    vec![Fault::Wipe(one(random)), Fault::Replace(one(random)), Fault::Grow]
}

fn nodes() -> Vec<Fault> {
    vec![Fault::KillAgent, Fault::KillNode, Fault::CutNode, Fault::DeletePod, Fault::Drain]
}

fn docker() -> Vec<Fault> {
    vec![Fault::KillDocker(Who::Node), Fault::PauseDocker(Who::Node)]
}

fn clocks(random: &mut StdRng) -> Vec<Fault> {
    // From what daylight saving and a wrong time zone do, to what a dead battery does.
    let seconds = *[90, 3_600, 7_200, 86_400].choose(random).unwrap_or(&3_600);
    let by_seconds = if random.random_bool(0.5) { seconds } else { -seconds };
    vec![
        Fault::Clock { who: who(random), by_seconds },
        Fault::Clock { who: Who::Leader, by_seconds },
        Fault::Clock { who: Who::All, by_seconds },
        Fault::Clock { who: Who::Node, by_seconds },
    ]
}
