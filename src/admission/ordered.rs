//! What was ordered of a worker, and how much of it goes into one entry.

use crate::admission::command::{Command, Next};
use crate::admission::worker::Worker;
use crate::queue::admit::DECISIONS_PER_ENTRY_MAX;
use crate::queue::event::{Configured, Facts, Setting};

impl Worker {
    /// What was ordered and is not done yet: one entry's worth, of one kind. A redemption is asked of
    /// all workers: it is written by the one whose turn it is, and here only if that is us; whoever
    /// stands by answers it once it is written, and writes it itself when it goes on.
    pub(super) fn ordered(&mut self, is_active: bool) -> Option<(Facts, Vec<Command>)> {
        let (now, kid) = (self.judging(), self.kid());
        let mut entry: Option<Facts> = None;
        let mut taken = Vec::new();
        for command in std::mem::take(&mut self.commands) {
            let (next, command) = command.next(&self.line, now, &kid);
            match (next, command) {
                (Next::Write(Facts::Redeemed(_)), Some(command)) if !is_active => {
                    self.commands.push_back(command);
                }
                (Next::Write(facts), Some(command)) if taken.len() < DECISIONS_PER_ENTRY_MAX => {
                    if merge(&mut entry, facts) {
                        taken.push(command);
                    } else {
                        self.commands.push_back(command);
                    }
                }
                (Next::Write(_) | Next::Wait, Some(command)) => self.commands.push_back(command),
                (_, None) | (Next::Answered, Some(_)) => {}
            }
        }
        entry.map(|facts| (facts, taken))
    }
}

/// Adds facts to an entry of the same kind; false when they have to wait for another one. Two
/// redemptions of one grant never share an entry, since the second is answered from the first; nor do
/// two sets of keys, of which the second is made from the first.
fn merge(entry: &mut Option<Facts>, facts: Facts) -> bool {
    match (entry, facts) {
        (entry @ None, facts) => {
            *entry = Some(facts);
            true
        }
        (Some(Facts::Redeemed(all)), Facts::Redeemed(more)) => {
            let twice = more.iter().any(|fact| all.iter().any(|other| other.jti == fact.jti));
            if !twice {
                all.extend(more);
            }
            !twice
        }
        (Some(Facts::Configured(all)), Facts::Configured(more)) => {
            let sets_keys = |fact: &Configured| matches!(fact.what, Setting::Keys(_));
            let twice = all.iter().any(sets_keys) && more.iter().any(sets_keys);
            if !twice {
                all.extend(more);
            }
            !twice
        }
        (Some(Facts::Released(all)), Facts::Released(more)) => {
            all.extend(more);
            true
        }
        (Some(Facts::Removed(all)), Facts::Removed(more)) => {
            all.extend(more);
            true
        }
        (Some(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::admission::command::What;
    use crate::clock;
    use crate::queue::event::{At, Decision, Entry, Millis, PublicKey, Seq, WorkerId};
    use crate::queue::line::Line;

    fn keys(kids: &str) -> Vec<PublicKey> {
        let key = |kid: &str| PublicKey { kid: kid.to_owned(), x: [0; 32] };
        kids.split_whitespace().map(key).collect()
    }

    fn write(line: &mut Line, facts: Facts) {
        let (prev, basis) = (line.last_decision(), line.seq());
        let (now, worker) = (Millis(0), WorkerId([1; 16]));
        let decision = Decision { prev, basis, now, worker, facts };
        line.apply(Seq(line.seq().0 + 1), At(0), &Entry::Decided(decision));
    }

    fn forget(kid: &str) -> Command {
        let (done, _) = oneshot::channel();
        let (kid, by, asked) = (kid.to_owned(), "operator".to_owned(), clock::monotonic());
        let what = What::Forget { kid, ours: keys("new"), by, done };
        Command { what, asked, until: asked, written: None }
    }

    #[test]
    fn of_two_keys_that_are_taken_out_at_the_same_time_neither_comes_back() {
        let mut line = Line::default();
        let by = "schedule".to_owned();
        let first = Configured { by, what: Setting::Keys(keys("c b a")) };
        write(&mut line, Facts::Configured(vec![first]));
        let mut commands: Vec<Command> = ["a", "b", "c"].map(forget).into();
        let mut left = Vec::new();
        while !commands.is_empty() {
            // As a worker does: what doesn't go into one entry waits for what comes of it.
            let mut entry = None;
            let mut later = Vec::new();
            for command in commands {
                let (Next::Write(facts), Some(command)) = command.next(&line, None, "c") else {
                    panic!("a key that is there was not taken out");
                };
                if !merge(&mut entry, facts) {
                    later.push(command);
                }
            }
            write(&mut line, entry.unwrap());
            let kids = line.keys().iter().map(|key| key.kid.as_str());
            left.push(kids.collect::<Vec<_>>().join(" "));
            commands = later;
        }
        // A queue is never left without a key.
        assert_eq!(left, ["c b", "c", "new"]);
    }
}
