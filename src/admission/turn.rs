//! Whose turn it is to decide, where several workers run. One decides and the others stand by with a
//! hot fold; whoever decides says so with each beat, and when it is silent another goes on.
//!
//! None of this is needed for safety: two that decide at once are kept apart by the fence alone. It
//! keeps them from deciding everything twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::queue::event::NodeId;

/// How often a worker says that it is there. Not once a second, as was planned (until 2026-11-25): whoever
/// begins must hear of the one that decides before it decides itself, and a queue should not wait for that.
pub(super) const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Whoever is not heard for so long is gone: twelve beats.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Whoever has just begun to hear listens for so long before it decides: two beats, and some.
const LISTEN_MIN: Duration = Duration::from_millis(600);
/// Of several who stand by the one with the lowest id goes on; each further one waits longer by this,
/// and hears of the one before.
const STAGGER: Duration = Duration::from_millis(500);
/// Whoever has not read the log up to its end yet, or is stuck with a decision, waits so much longer: one
/// that stands by with a hot fold goes on before that.
const COMES_LAST_WAIT: Duration = Duration::from_secs(4);
/// Whoever has not looked for so long was stopped, and does not know whose turn it is: four beats.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// What one worker knows of whose turn it is.
pub(super) struct Turn {
    own: NodeId,
    is_active: bool,
    looked: Option<Instant>,
    /// Since when we hear; not while our own beats don't come back.
    hears_since: Option<Instant>,
    /// Since when nobody is heard who decides.
    free_since: Option<Instant>,
    others: BTreeMap<NodeId, Other>,
}

struct Other {
    heard: Instant,
    is_active: bool,
}

impl Turn {
    /// A worker that has not heard anything yet.
    pub(super) fn new(own: NodeId) -> Self {
        Self {
            own,
            is_active: false,
            looked: None,
            hears_since: None,
            free_since: None,
            others: BTreeMap::new(),
        }
    }

    /// Whether it is this one's turn, as far as is known.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        let is_fresh = |looked: Instant| now.duration_since(looked) <= LOOK_MAX;
        self.is_active && self.looked.is_some_and(is_fresh)
    }

    /// Whether another is heard that decides.
    pub(super) fn is_another_active(&self, now: Instant) -> bool {
        let is_heard = |other: &Other| now.duration_since(other.heard) <= SILENCE_MAX;
        self.others.values().any(|other| other.is_active && is_heard(other))
    }

    /// Another worker is there.
    pub(super) fn hear(&mut self, other: NodeId, is_active: bool, now: Instant) {
        self.others.insert(other, Other { heard: now, is_active });
        self.yield_to_lower();
    }

    /// Lets another go on, if there is one.
    pub(super) fn give_up(&mut self, now: Instant) {
        self.others.retain(|_, other| now.duration_since(other.heard) <= SILENCE_MAX);
        if !self.others.is_empty() {
            (self.is_active, self.free_since) = (false, None);
        }
    }

    /// Sees whose turn it is now; `hears` says whether our own beats come back, and `comes_last` whether
    /// we are still reading what the log held when we began, or could not write a decision.
    pub(super) fn look(&mut self, hears: bool, comes_last: bool, now: Instant) {
        self.looked = Some(now);
        if !hears {
            // Another may go on meanwhile, and we would not know.
            (self.is_active, self.hears_since, self.free_since) = (false, None, None);
            return;
        }
        let since = *self.hears_since.get_or_insert(now);
        self.others.retain(|_, other| now.duration_since(other.heard) <= SILENCE_MAX);
        self.yield_to_lower();
        if self.is_active || self.is_another_active(now) {
            self.free_since = None;
            return;
        }
        let free_since = *self.free_since.get_or_insert(now);
        let lower = u32::try_from(self.others.range(..self.own).count()).unwrap_or(u32::MAX);
        let later = if comes_last { COMES_LAST_WAIT } else { Duration::ZERO };
        let is_listening = now.duration_since(since) < LISTEN_MIN;
        self.is_active = !is_listening
            && now.duration_since(free_since) >= STAGGER.saturating_mul(lower) + later;
    }

    /// Of two who decide, the one with the lower id goes on.
    fn yield_to_lower(&mut self) {
        let mut lower = self.others.range(..self.own);
        if lower.any(|(_, other)| other.is_active) {
            self.is_active = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// What happens at which millisecond to the worker with id 5, and whether it is its turn then.
    fn turns(story: &str) -> String {
        let begun = clock::monotonic();
        let mut turn = Turn::new(NodeId([5; 16]));
        let mut told = Vec::new();
        for words in story.split(", ") {
            let (millis, what) = words.split_once(' ').unwrap();
            let now = begun + Duration::from_millis(millis.parse().unwrap());
            match what.split_once(' ') {
                Some((id, how)) => {
                    turn.hear(NodeId([id.parse().unwrap(); 16]), how == "decides", now);
                }
                None if what == "ask" => {}
                None if what == "stuck" => turn.give_up(now),
                None => turn.look(what != "deaf", what == "read", now),
            }
            told.push(if turn.is_active(now) { "yes" } else { "no" });
        }
        told.join(" ")
    }

    #[test]
    fn whoever_is_stuck_lets_another_go_on_and_goes_on_itself_where_there_is_none() {
        assert_eq!(turns("0 look, 600 look, 700 stuck, 750 look"), "no yes yes yes");
        let story = "0 look, 600 look, 650 9 waits, 700 stuck, 750 read, 800 9 decides, 3700 read";
        assert_eq!(turns(story), "no yes yes no no no no");
        // The other does not: whoever is stuck comes last, and comes.
        let story = "0 look, 600 look, 650 9 waits, 700 stuck, 750 read, 4700 read, 4750 read";
        assert_eq!(turns(story), "no yes yes no no no yes");
    }

    #[test]
    fn one_alone_decides_after_it_has_listened() {
        assert_eq!(turns("0 look, 599 look, 600 look, 5000 look"), "no no yes yes");
    }

    #[test]
    fn while_another_decides_nobody_else_does_and_three_seconds_after_its_last_beat_one_goes_on() {
        let story = "0 look, 250 9 decides, 1000 look, 2500 look, 3250 look, 3251 look";
        assert_eq!(turns(story), "no no no no no yes");
        assert_eq!(
            turns("0 look, 900 9 decides, 1000 look, 1100 9 goes, 1250 look"),
            "no no no no yes"
        );
    }

    #[test]
    fn of_several_who_stand_by_the_lowest_goes_on_and_the_next_only_when_it_does_not() {
        assert_eq!(turns("0 look, 499 3 stands, 499 look, 600 look"), "no no no yes");
        let late = "0 look, 10 9 decides, 20 3 stands, 600 look, 700 9 goes, 700 look, 1199 look, 1200 look";
        assert_eq!(turns(late), "no no no no no no no yes");
        let both = "0 look, 400 3 stands, 450 look, 480 3 decides, 1500 look";
        assert_eq!(turns(both), "no no no no no");
        assert_eq!(turns("0 look, 400 9 stands, 600 look"), "no no yes");
    }

    #[test]
    fn who_still_reads_the_log_lets_one_go_on_that_has_read_it() {
        assert_eq!(
            turns("0 read, 600 read, 2900 read, 3100 9 decides, 4000 read"),
            "no no no no no"
        );
        assert_eq!(turns("0 read, 600 read, 700 look"), "no no yes");
        assert_eq!(turns("0 read, 3999 read, 4000 read"), "no no yes");
    }

    #[test]
    fn who_was_heard_before_we_were_deaf_is_not_heard() {
        let begun = clock::monotonic();
        let mut turn = Turn::new(NodeId([5; 16]));
        turn.hear(NodeId([9; 16]), true, begun);
        turn.look(false, false, begun + Duration::from_secs(1));
        assert!(turn.is_another_active(begun + Duration::from_secs(3)));
        assert!(!turn.is_another_active(begun + Duration::from_secs(600)));
    }

    #[test]
    fn who_was_stopped_does_not_decide_before_it_has_looked() {
        assert_eq!(turns("0 look, 600 look, 1600 ask, 1601 ask"), "no yes yes no");
    }

    #[test]
    fn of_two_who_decide_the_lower_goes_on() {
        assert_eq!(turns("0 look, 600 look, 700 3 decides"), "no yes no");
        assert_eq!(turns("0 look, 600 look, 700 9 decides, 800 look"), "no yes yes yes");
    }

    #[test]
    fn who_does_not_hear_its_own_beats_stands_back_and_listens_anew() {
        assert_eq!(
            turns("0 look, 600 look, 700 deaf, 800 look, 1399 look, 1400 look"),
            "no yes no no no yes"
        );
    }
}
