//! How often a visitor is told where they stand.
//!
//! Near the front every change is told at once. Further back numbers move faster than anyone reads
//! them, so there is a pause between two of them; a visitor who was told nothing for that long hears
//! the next change at once. Nobody's number is older than their pause, its jitter, and
//! [`WALK_EVERY_MILLIS`].

use crate::node::places::Standpoint;
use crate::queue::event::Ticket;

/// The whole line is walked no more often than this while it moves without a stop; only the front is,
/// with each frame of the feed. It bounds what a walk costs to some 3 % of a core for 10,000 sockets.
pub(super) const WALK_EVERY_MILLIS: u32 = 100;

/// Up to so many places ahead, every change is told at once: these people watch the number.
pub(super) const FRONT_PLACES: u32 = 100;
/// Pauses further back: for so many places ahead at most, so many milliseconds.
const PAUSES: [(u32, u32); 2] = [(1_000, 250), (10_000, 1_000)];
/// The pause behind all of these.
const PAUSE_MILLIS_MAX: u32 = 2_000;
/// What does not move the visitor (how many wait in all, the estimate) is told with the next number,
/// or by itself after this; up to twice this, since nobody waits for it: while others join, everyone who
/// waits is told, and within a quarter of the pause (until 2026-11-25) that came as a burst, in which a
/// join was acknowledged late.
const ASIDE_MILLIS: u32 = 5_000;
const ASIDE_JITTER_MILLIS: u32 = 5_000;
/// The other pauses are up to a quarter longer, differently for each visitor: those who were told in one
/// moment are not all due in one moment again.
const JITTER: u32 = 4;

/// What a visitor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Where they stand.
    pub(super) point: Standpoint,
    /// Which version of what all are told alike: state, reason, staleness.
    pub(super) words: u32,
}

/// Whether a visitor is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing is new.
    Never,
    /// There is news, but they heard some only just now.
    Later,
    /// It is time.
    Now,
}

/// For how many milliseconds a visitor has known what they were told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    /// Their place.
    pub(super) place: u32,
    /// Anything.
    pub(super) any: u32,
}

/// Whether a visitor who was told `told` is to be told `now`.
pub(super) fn due(ticket: Ticket, told: &Numbers, now: &Numbers, since: Since) -> Due {
    if told == now {
        return Due::Never;
    }
    let (pause, since) = if told.words != now.words {
        // What the operator says, and whether the numbers can be trusted, is news for everyone.
        (0, since.any)
    } else if told.point.ahead != now.point.ahead {
        (with_jitter(pause(now.point.ahead), ticket), since.place)
    } else {
        (ASIDE_MILLIS + spread(ASIDE_JITTER_MILLIS, ticket), since.any)
    };
    if since >= pause { Due::Now } else { Due::Later }
}

fn pause(ahead: u32) -> u32 {
    if ahead <= FRONT_PLACES {
        return 0;
    }
    let nearer = PAUSES.iter().find(|(places, _)| ahead <= *places);
    nearer.map_or(PAUSE_MILLIS_MAX, |(_, millis)| *millis)
}

/// `millis` and up to a quarter more, always the same for one ticket.
pub(super) fn with_jitter(millis: u32, ticket: Ticket) -> u32 {
    millis + spread(millis / JITTER, ticket)
}

/// From none to all of `millis`, always the same for one ticket.
fn spread(millis: u32, ticket: Ticket) -> u32 {
    // Fibonacci hashing: neighbours get values far apart.
    let hash = ticket.0.wrapping_mul(0x9e37_79b9) >> 24;
    millis * hash / 255
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::estimate::{self, Estimate};
    use crate::queue::event::At;

    fn numbers(ahead: u32) -> Numbers {
        let wait = Estimate { seconds: 60.0, deviation: 0.0 };
        let turn = Some(estimate::told(None, At(0), &wait));
        let point = Standpoint { ahead, waiting: 50_000, turn };
        Numbers { point, words: 1 }
    }

    fn since(millis: u32) -> Since {
        Since { place: millis, any: millis }
    }

    /// For how many milliseconds the one with this ticket is not told of the change.
    fn pause_of(ticket: u32, told: Numbers, now: Numbers) -> u32 {
        (0..).find(|millis| due(Ticket(ticket), &told, &now, since(*millis)) == Due::Now).unwrap()
    }

    #[test]
    fn the_front_hears_every_change_and_the_rest_no_later_than_stated() {
        for (ahead, least, most) in [
            (0, 0, 0),
            (100, 0, 0),
            (101, 250, 312),
            (1_000, 250, 312),
            (1_001, 1_000, 1_250),
            (10_000, 1_000, 1_250),
            (10_001, 2_000, 2_500),
            (u32::MAX - 1, 2_000, 2_500),
        ] {
            let pauses =
                (0..300).map(|ticket| pause_of(ticket, numbers(ahead + 1), numbers(ahead)));
            let pauses: Vec<u32> = pauses.collect();
            assert!(pauses.iter().all(|pause| (least..=most).contains(pause)), "{ahead} ahead");
            let different: std::collections::BTreeSet<u32> = pauses.into_iter().collect();
            assert!(least == 0 || different.len() > 50, "{ahead} ahead: spread");
        }
    }

    #[test]
    fn what_all_are_told_alike_comes_at_once_and_what_moves_nobody_comes_aside() {
        let told = numbers(20_000);
        assert_eq!(pause_of(1, told, Numbers { words: 2, ..told }), 0);
        let front = numbers(3);
        let aside = Standpoint { waiting: 50_001, ..front.point };
        let aside = Numbers { point: aside, ..front };
        let pauses: Vec<u32> = (0..300).map(|ticket| pause_of(ticket, front, aside)).collect();
        assert!(pauses.iter().all(|pause| (5_000..=10_000).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause > 9_500), "they are spread");
        // What was told aside does not put the next place off.
        let (moved, since_any) = (numbers(19_999), Since { place: 5_000, any: 0 });
        assert_eq!(due(Ticket(1), &told, &moved, since_any), Due::Now);
        assert_eq!(due(Ticket(1), &told, &told, since(u32::MAX)), Due::Never);
    }
}
