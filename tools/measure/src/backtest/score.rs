//! What visitors of a history would have been told, beside what then came.
//!
//! The history is folded twice: once to know who was let in when, and once as a projector folds it,
//! with a look each second, while some of those who wait are told as a node tells them.

use anteroom::queue::estimate::{self, Estimate, Outlook, Turn};
use anteroom::queue::event::{At, Entry, Facts, Seq, Setting, Ticket};
use anteroom::queue::line::Line;
use anteroom::queue::pace::Pace;

/// Visitors of a history whose waits are scored, evenly spread over all who were let in.
const VISITORS: usize = 60;
/// Moments of each wait, evenly spread.
const MOMENTS: usize = 20;
/// Whoever waits for less has hardly seen the page.
const WAIT_NANOS_MIN: i64 = 2_000_000_000;
const SECOND: i64 = 1_000_000_000;

/// One moment of one wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Seconds that the wait still took.
    pub(crate) left: f64,
    /// What was told, if anything; and the range.
    pub(crate) told: Option<(u32, u32, u32)>,
    /// Position by rate, as others reckon.
    pub(crate) naive: f64,
    /// Whether an operator changed something before the wait was over.
    pub(crate) is_cut: bool,
}

/// What a history comes to.
#[derive(Default)]
pub(crate) struct Scores {
    pub(crate) moments: Vec<Moment>,
    /// Waits that were scored, and how often one of them was told a later turn than before.
    pub(crate) waits: usize,
    /// How many were let in, and how many were gone before.
    pub(crate) admitted: usize,
    pub(crate) gone: usize,
    pub(crate) rises: usize,
}

struct Wait {
    ticket: Ticket,
    from: At,
    to: At,
}

/// Scores a history.
pub(crate) fn score(history: &[(At, Entry)]) -> Scores {
    let (waits, acts) = outcome(history);
    let mut moments: Vec<(At, usize)> = Vec::new();
    for (index, wait) in waits.iter().enumerate() {
        let span = (wait.to.0 - wait.from.0) as f64;
        let at = |n: usize| At(wait.from.0 + (span * (n as f64 + 0.5) / MOMENTS as f64) as i64);
        moments.extend((0..MOMENTS).map(|n| (at(n), index)));
    }
    moments.sort_by_key(|(at, _)| *at);
    let mut told = Telling { waits: &waits, turns: vec![None; waits.len()], rises: 0 };
    let mut scores = Scores { waits: waits.len(), ..Scores::default() };
    let (mut line, mut pace, mut outlook) = (Line::default(), Pace::default(), Outlook::default());
    let mut entries = history.iter().peekable();
    let mut moments = moments.into_iter().peekable();
    let mut second = history.first().map_or(At(0), |(at, _)| *at);
    while let Some(&(next, index)) = moments.peek() {
        let entry = entries.peek().map(|(at, _)| *at).filter(|at| *at <= next && *at <= second);
        if let (Some(_), Some((at, entry))) = (entry, entries.next_if(|_| entry.is_some())) {
            let change = line.apply(Seq(line.seq().0 + 1), *at, entry);
            if change.configured {
                outlook = pace.look(&line, *at);
            }
        } else if second <= next {
            outlook = pace.look(&line, second);
            for index in 0..waits.len() {
                told.tell(&line, &outlook, second, index);
            }
            second = At(second.0 + SECOND);
        } else {
            moments.next();
            told.tell(&line, &outlook, next, index);
            let is_cut = acts.iter().any(|act| *act > next && *act < waits[index].to);
            scores.moments.push(told.moment(&line, &outlook, next, index, is_cut));
        }
    }
    scores.rises = told.rises;
    scores.admitted = line.admitted();
    scores.gone = line.places().len() - line.waiting().len() as usize - line.admitted();
    scores
}

/// Who was let in after a wait, some of them; and when an operator changed something.
fn outcome(history: &[(At, Entry)]) -> (Vec<Wait>, Vec<At>) {
    let mut line = Line::default();
    let mut came = Vec::new();
    let (mut waits, mut acts) = (Vec::new(), Vec::new());
    for (at, entry) in history {
        let change = line.apply(Seq(line.seq().0 + 1), *at, entry);
        came.extend((0..change.joined.accepted).map(|_| *at));
        for ticket in change.missed {
            // Who never saw their turn waits again from here.
            came[ticket.0 as usize] = *at;
        }
        for ticket in change.admitted {
            let from = came[ticket.0 as usize];
            waits.push(Wait { ticket, from, to: *at });
        }
        if change.configured && is_act(entry) {
            acts.push(*at);
        }
    }
    waits.retain(|wait| wait.to.since(wait.from) >= WAIT_NANOS_MIN);
    let every = waits.len().div_ceil(VISITORS).max(1);
    (waits.into_iter().step_by(every).collect(), acts)
}

/// Whether an entry is what nobody can foresee: what an operator set, which moves the line.
fn is_act(entry: &Entry) -> bool {
    let Entry::Decided(decision) = entry else { return false };
    let Facts::Configured(facts) = &decision.facts else { return false };
    facts.iter().any(|fact| {
        fact.by != anteroom::queue::admit::SCHEDULE
            && matches!(fact.what, Setting::Policy(_) | Setting::State(..) | Setting::Outage { .. })
    })
}

struct Telling<'a> {
    waits: &'a [Wait],
    turns: Vec<Option<Turn>>,
    rises: usize,
}

impl Telling<'_> {
    fn tell(&mut self, line: &Line, outlook: &Outlook, now: At, index: usize) {
        let ticket = self.waits[index].ticket;
        if !line.waiting().contains(ticket) {
            return;
        }
        let ahead = line.waiting().rank(ticket);
        let new = estimate(line, outlook, now, ahead);
        let before = self.turns[index];
        let turn = new.map(|new| estimate::told(before, now, &new));
        if let (Some(before), Some(turn)) = (before, turn)
            && turn > before
        {
            self.rises += 1;
        }
        self.turns[index] = turn;
    }

    fn moment(
        &self,
        line: &Line,
        outlook: &Outlook,
        now: At,
        index: usize,
        is_cut: bool,
    ) -> Moment {
        let wait = &self.waits[index];
        let ahead = line.waiting().rank(wait.ticket);
        let told = self.turns[index].and_then(|turn| {
            let seconds = turn.whole_seconds(now);
            let (low, high) = estimate(line, outlook, now, ahead)?.range(seconds);
            Some((seconds, low, high))
        });
        Moment {
            left: wait.to.since(now) as f64 / 1e9,
            told,
            naive: f64::from(ahead + 1) * 60.0 / f64::from(line.rate().0),
            is_cut,
        }
    }
}

fn estimate(line: &Line, outlook: &Outlook, now: At, ahead: u32) -> Option<Estimate> {
    outlook.estimate(ahead, estimate::opening(line.state(), line.policy(), now)?)
}

impl Scores {
    /// Adds the scores of another history.
    pub(crate) fn add(&mut self, other: Self) {
        self.moments.extend(other.moments);
        self.waits += other.waits;
        self.rises += other.rises;
        self.admitted += other.admitted;
        self.gone += other.gone;
    }
}

impl Moment {
    /// What was told, in seconds.
    pub(crate) fn estimate(&self) -> Option<f64> {
        self.told.map(|(seconds, ..)| f64::from(seconds))
    }
}

/// The median of |said - left| / left, in percent; of what was not said nothing.
pub(crate) fn median_error(moments: &[&Moment], said: fn(&Moment) -> Option<f64>) -> Option<f64> {
    median(moments, |moment| Some((said(moment)? - moment.left).abs() / moment.left))
}

/// Of what was told, the percentage in which the wait took as long as the range said.
pub(crate) fn within_range(moments: &[&Moment]) -> Option<f64> {
    let ranges = moments.iter().filter_map(|moment| Some((moment.left, moment.told?)));
    let within =
        ranges.map(|(left, (_, low, high))| (f64::from(low)..=f64::from(high)).contains(&left));
    let within: Vec<bool> = within.collect();
    let hits = within.iter().filter(|is_within| **is_within).count();
    (!within.is_empty()).then(|| 100.0 * hits as f64 / within.len() as f64)
}

fn median(moments: &[&Moment], of: impl Fn(&Moment) -> Option<f64>) -> Option<f64> {
    let mut shares: Vec<f64> = moments.iter().filter_map(|moment| of(moment)).collect();
    shares.sort_by(f64::total_cmp);
    shares.get(shares.len() / 2).map(|share| 100.0 * share)
}
