//! One visitor's story: where they stood, and why that changed.

use crate::audit::decided::level_words;
use crate::audit::judge::state_word;
use crate::audit::reading::{Coming, Ending, Move, Person, Reading, Standing, Step};
use crate::audit::source::{Source, SourceError};
use crate::audit::times::SECOND;
use crate::audit::who::presence_words;
use crate::queue::event::{At, Setting, VisitorId};

/// Something that happened to a visitor, or to the number of people ahead of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The entries that it came of, the first and the last.
    pub entries: (u64, u64),
    /// When the first was: by the log's time, or by its own where that stood still.
    pub at: At,
    /// What happened, as a sentence.
    pub what: String,
    /// How many are ahead after it, while the visitor waits.
    pub ahead: Option<usize>,
}

/// Where a visitor stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// After this entry.
    pub sequence: u64,
    /// Its time.
    pub at: At,
    /// One word: `waiting`, `granted`, `inside`, or how the place ended.
    pub standing: &'static str,
    /// Whether they were there.
    pub present: bool,
    /// How many were ahead, for one who waits.
    pub ahead: Option<usize>,
    /// How many waited in all.
    pub waiting: usize,
}

/// Up to where a log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// To its end, or to where the source ends.
    End,
    /// To the last entry before the first that is shown with a later time.
    Time(At),
}

/// Tells the story of a visitor. Empty for one who never joined.
pub async fn history(mut source: Source, visitor: VisitorId) -> Result<Vec<Event>, SourceError> {
    let (queue, newest) = (source.queue().clone(), source.newest());
    let mut reading = Reading::default();
    let mut story =
        Story { visitor, ticket: None, ahead: 0, waits: false, gone: None, events: Vec::new() };
    loop {
        let records = source.next().await?;
        if records.is_empty() {
            return Ok(story.events);
        }
        for record in records {
            let written = record.read(&queue, newest)?;
            let step = reading.next(&record, &written, newest)?;
            story.step(&reading, &step);
        }
    }
}

/// Where a visitor stood after everything up to a point; `None` for one who had not joined.
pub async fn position(
    mut source: Source,
    visitor: VisitorId,
    until: Until,
) -> Result<Option<Stand>, SourceError> {
    let (queue, newest) = (source.queue().clone(), source.newest());
    let mut reading = Reading::default();
    'log: loop {
        let records = source.next().await?;
        if records.is_empty() {
            break;
        }
        for record in records {
            let written = record.read(&queue, newest)?;
            let shown = reading.shown_after(&record, &written);
            if matches!(until, Until::Time(time) if shown > time.0) {
                break 'log;
            }
            reading.next(&record, &written, newest)?;
        }
    }
    let stand = |(ticket, person): (usize, &Person)| Stand {
        sequence: reading.seq,
        at: At(reading.times.shown()),
        standing: standing_word(person.standing),
        present: person.absent.is_none(),
        ahead: (person.standing == Standing::Waiting).then(|| reading.ahead_of(ticket)),
        waiting: reading.waiting(),
    };
    let found = reading.ticket(visitor).and_then(|ticket| Some((ticket, reading.person(ticket)?)));
    Ok(found.map(stand))
}

struct Story {
    visitor: VisitorId,
    ticket: Option<usize>,
    ahead: usize,
    waits: bool,
    /// The last event, if it tells of people ahead: why there are more or fewer, and by how many.
    gone: Option<(Cause, usize)>,
    events: Vec<Event>,
}

/// Why someone ahead is no longer ahead, or is again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Missed,
    Admitted,
    Left,
    Expired,
    Removed,
}

impl Story {
    fn step(&mut self, reading: &Reading, step: &Step) {
        if self.ticket.is_none() {
            self.ticket = reading.ticket(self.visitor);
            if let Some(ticket) = self.ticket {
                // Nobody of this entry who joined before them has moved since.
                self.ahead = reading.ahead_of(ticket);
                self.waits = true;
                let what = match self.ahead {
                    0 => "joined, first in line".to_owned(),
                    ahead => format!("joined behind {}", people(ahead)),
                };
                self.tell(reading, what);
            }
        }
        let Some(ticket) = self.ticket else { return };
        if self.waits {
            self.people_ahead(ticket, reading, step);
            self.queue(reading, step);
        }
        for (_, moved) in step.moves.iter().filter(|(who, _)| *who == ticket) {
            self.own(*moved, ticket, reading);
        }
    }

    fn people_ahead(&mut self, ticket: usize, reading: &Reading, step: &Step) {
        use Cause::{Admitted, Expired, Left, Missed, Removed};
        for cause in [Missed, Admitted, Left, Expired, Removed] {
            let moved =
                |(who, moved): &&(usize, Move)| *who < ticket && cause_of(*moved) == Some(cause);
            // Of those who ended, only they were ahead who still waited.
            let waited = |(who, moved): &&(usize, Move)| {
                *moved == Move::Admitted
                    || reading.person(*who).is_some_and(|person| person.grant.is_none())
            };
            let people = step.moves.iter().filter(moved).filter(waited).count();
            if people > 0 {
                self.ahead = match cause {
                    Missed => self.ahead + people,
                    Admitted | Left | Expired | Removed => self.ahead - people,
                };
                self.tell_gone(reading, people, cause);
            }
        }
    }

    /// What was set for everyone, as far as it explains why the number moves or does not.
    fn queue(&mut self, reading: &Reading, step: &Step) {
        if let Some(told) = &step.shift {
            self.tell(reading, told.words(""));
        }
        if let Some((level, by)) = &step.raised {
            self.tell(reading, format!("{}, by {by}", level_words(*level)));
        }
        for fact in &step.settings {
            let what = match &fact.what {
                Setting::State(state, reason) => {
                    let reason = reason.as_ref().map(|reason| format!(" ({reason})"));
                    let state = state_word(*state);
                    format!("the queue is {state} now{}", reason.unwrap_or_default())
                }
                Setting::Policy(policy) => {
                    let rate = policy.rate_per_minute;
                    let ceiling = policy.max_inside;
                    let ceiling = ceiling.map(|max| format!(", at most {max} inside at once"));
                    format!("the policy is {rate} a minute now{}", ceiling.unwrap_or_default())
                }
                Setting::Outage { seconds } => {
                    format!("nobody could be served for {seconds} s; graces are longer by that")
                }
                Setting::Rate { per_minute: Some(rate), .. } => {
                    format!("the site bears {rate} a minute now, by what it reports")
                }
                Setting::Rate { per_minute: None, .. } => {
                    let rate = reading.rate();
                    format!("the rate follows the site's load no more: {rate} a minute")
                }
                Setting::Presence(presence) => presence_words(*presence).to_owned(),
                Setting::Keys(_) | Setting::Secret(_) | Setting::Time => continue,
            };
            self.tell(reading, format!("{what}, by {}", fact.by));
        }
    }

    fn own(&mut self, moved: Move, ticket: usize, reading: &Reading) {
        let what = match moved {
            // Told already, with how many are ahead.
            Move::Joined => return,
            Move::Came(Coming::Back) => "came back, with the same place".to_owned(),
            Move::Came(Coming::Carried) => "the place was carried to another device".to_owned(),
            Move::Came(Coming::Asserted) => "is here, as their node says".to_owned(),
            Move::Came(Coming::Assumed) => "counts as present".to_owned(),
            Move::Yielded => {
                "the seat at another node yielded: they had come elsewhere since".to_owned()
            }
            Move::Went => {
                let grace = reading.grace_seconds(reading.times.running());
                format!("is absent; the place is kept for {grace} s")
            }
            Move::Missed => {
                self.waits = true;
                self.ahead = reading.ahead_of(ticket);
                "was not here when their turn came; waits again, first when back".to_owned()
            }
            Move::Admitted => {
                let grant = reading.person(ticket).and_then(|person| person.grant.as_ref());
                let seconds = grant.map_or(0, |grant| grant.seconds);
                format!("was let in; the token is good for {seconds} s")
            }
            Move::Entered => "entered".to_owned(),
            Move::Ended(ending) => ended_words(ending).to_owned(),
        };
        self.waits &= !matches!(moved, Move::Admitted | Move::Ended(_));
        self.tell(reading, what);
    }

    fn tell(&mut self, reading: &Reading, what: String) {
        let ahead = self.waits.then_some(self.ahead);
        let entries = (reading.seq, reading.seq);
        self.events.push(Event { entries, at: At(reading.times.shown()), what, ahead });
        self.gone = None;
    }

    /// One line for all who moved for one cause within one second.
    fn tell_gone(&mut self, reading: &Reading, gone: usize, cause: Cause) {
        let (before, last) = (self.gone, self.events.last_mut());
        if let (Some((before, count)), Some(last)) = (before, last)
            && before == cause
            && last.at.0 / SECOND == reading.times.shown() / SECOND
        {
            last.what = gone_words(count + gone, cause);
            last.entries.1 = reading.seq;
            last.ahead = Some(self.ahead);
            self.gone = Some((cause, count + gone));
            return;
        }
        self.tell(reading, gone_words(gone, cause));
        self.gone = Some((cause, gone));
    }
}

fn gone_words(count: usize, cause: Cause) -> String {
    let were = if count == 1 { "was" } else { "were" };
    let who = people(count);
    match cause {
        Cause::Missed if count == 1 => format!("{who} ahead missed their turn and waits again"),
        Cause::Missed => format!("{who} ahead missed their turn and wait again"),
        Cause::Admitted => format!("{who} ahead {were} let in"),
        Cause::Left => format!("{who} ahead gave up their place"),
        Cause::Expired => format!("{who} ahead {were} absent for too long"),
        Cause::Removed => format!("{who} ahead {were} taken out by an operator"),
    }
}

fn people(count: usize) -> String {
    if count == 1 { "1 person".to_owned() } else { format!("{count} people") }
}

fn cause_of(moved: Move) -> Option<Cause> {
    match moved {
        Move::Missed => Some(Cause::Missed),
        Move::Admitted => Some(Cause::Admitted),
        Move::Ended(Ending::Left) => Some(Cause::Left),
        Move::Ended(Ending::Expired) => Some(Cause::Expired),
        Move::Ended(Ending::Removed) => Some(Cause::Removed),
        Move::Ended(Ending::Lapsed | Ending::Released | Ending::SessionOver)
        | Move::Joined
        | Move::Came(_)
        | Move::Went
        | Move::Yielded
        | Move::Entered => None,
    }
}

fn ended_words(ending: Ending) -> &'static str {
    match ending {
        Ending::Left => "gave the place up",
        Ending::Expired => "was absent for too long and lost the place",
        Ending::Removed => "was taken out by an operator",
        Ending::Lapsed => "did not use the token in time",
        Ending::Released => "is done",
        Ending::SessionOver => "was inside until the session was over",
    }
}

fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Waiting => "waiting",
        Standing::Granted => "granted",
        Standing::Inside => "inside",
        Standing::Ended(Ending::Left) => "left",
        Standing::Ended(Ending::Expired) => "expired",
        Standing::Ended(Ending::Removed) => "removed",
        Standing::Ended(Ending::Lapsed) => "lapsed",
        Standing::Ended(Ending::Released) => "released",
        Standing::Ended(Ending::SessionOver) => "session_over",
    }
}
