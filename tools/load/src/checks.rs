//! Whether everyone has what they were promised.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::visitor::Role;

/// So many of what is wrong are told in words; the rest is counted.
const WORDS_MAX: usize = 20;

/// What is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violations {
    /// How many.
    pub count: usize,
    /// The first of them, in words.
    pub words: Vec<String>,
}

impl Violations {
    /// Takes note of one.
    pub fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.words.len() < WORDS_MAX {
            self.words.push(what());
        }
    }

    /// Adds those of another process.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.words.extend(other.words);
        self.words.truncate(WORDS_MAX);
    }
}

/// Where everyone stands at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Census {
    /// Those who said JOIN.
    pub joined: usize,
    /// Of them, those who never were told JOINED.
    pub unacknowledged: usize,
    /// A hash of each connection id.
    pub ids: Vec<u64>,
    /// Of each who waits: places ahead, waiting in all.
    pub places: Vec<(u32, u32)>,
    /// Those who have a place, but read nothing, so that it is not known which.
    pub unread: usize,
    /// For how long each hostile socket is open that has not been closed.
    pub hostile_open: Vec<(Role, u64)>,
    /// Those whose turn it was.
    pub admitted: usize,
    /// Those who were told that their place is gone.
    pub ended: usize,
}

impl Census {
    /// Adds those of another process.
    pub fn merge(&mut self, other: Self) {
        self.joined += other.joined;
        self.unacknowledged += other.unacknowledged;
        self.ids.extend(other.ids);
        self.places.extend(other.places);
        self.unread += other.unread;
        self.hostile_open.extend(other.hostile_open);
        self.admitted += other.admitted;
        self.ended += other.ended;
    }

    /// Those who said JOIN, and have neither a place nor been told that it is over.
    pub fn lost(&self) -> usize {
        let found = self.places.len() + self.admitted + self.ended;
        self.unacknowledged.max(self.joined.saturating_sub(found))
    }

    /// Places that somebody else has, too, by their connection id.
    pub fn doubled(&self) -> usize {
        self.ids.len() - self.ids.iter().collect::<BTreeSet<_>>().len()
    }

    /// What does not hold. The queue must have no visitors but these.
    pub fn judge(&self) -> Violations {
        let mut violations = Violations::default();
        for _ in 0..self.lost() {
            violations.add(|| "one who said JOIN was lost".to_owned());
        }
        for _ in 0..self.doubled() {
            violations.add(|| "two have the same connectionId".to_owned());
        }
        let mut counts: Vec<u32> = self.places.iter().map(|(count, _)| *count).collect();
        counts.sort_unstable();
        let twice = counts.windows(2).find(|two| two[0] == two[1]);
        if let Some([count, _]) = twice {
            violations.add(|| format!("position {} is told to two", count + 1));
        }
        let gap = counts.iter().zip(0..).find(|(count, place)| *count != place);
        if let Some((count, place)) = gap
            && twice.is_none()
            && self.unread == 0
        {
            violations.add(|| format!("after position {place} comes {}", count + 1));
        }
        let all = self.places.len() + self.unread;
        for (count, waiting) in &self.places {
            if usize::try_from(*waiting) != Ok(all) {
                let position = count + 1;
                violations.add(|| format!("{all} wait, but position {position} is told {waiting}"));
            }
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(counts: &[u32]) -> Census {
        let waiting = u32::try_from(counts.len()).unwrap();
        Census {
            joined: counts.len() + 2,
            unacknowledged: 0,
            ids: (0..counts.len() as u64 + 2).collect(),
            unread: 0,
            hostile_open: Vec::new(),
            places: counts.iter().map(|count| (*count, waiting)).collect(),
            admitted: 1,
            ended: 1,
        }
    }

    #[track_caller]
    fn rejects(census: &Census, word: &str) {
        let violations = census.judge();
        assert!(violations.words.iter().any(|words| words.contains(word)), "{violations:?}");
    }

    #[test]
    fn a_line_in_order_is_right_wherever_it_is_held() {
        let mut whole = census(&[2, 0]);
        let mut other = census(&[3, 1]);
        for place in whole.places.iter_mut().chain(&mut other.places) {
            place.1 = 4;
        }
        other.ids = (100..104).collect();
        whole.merge(other);
        assert_eq!(whole.judge(), Violations::default());
    }

    #[test]
    fn a_gap_is_seen() {
        rejects(&census(&[0, 1, 3]), "after position 2 comes 4");
    }

    #[test]
    fn a_double_position_is_seen() {
        rejects(&census(&[0, 1, 1]), "position 2 is told to two");
    }

    #[test]
    fn a_double_id_is_seen() {
        let mut census = census(&[0, 1, 2]);
        census.ids[4] = 0;
        rejects(&census, "same connectionId");
        assert_eq!(census.doubled(), 1);
    }

    #[test]
    fn one_who_is_lost_is_seen() {
        let mut census = census(&[0, 1, 2]);
        census.joined += 1;
        rejects(&census, "lost");
        census.joined -= 1;
        census.unacknowledged = 1;
        rejects(&census, "lost");
    }

    #[test]
    fn those_who_read_nothing_may_be_anywhere_but_count() {
        let mut census = census(&[0, 2, 5]);
        census.unread = 3;
        rejects(&census, "6 wait, but");
        for place in &mut census.places {
            place.1 = 6;
        }
        assert_eq!(census.judge(), Violations::default());
        census.places[1].0 = 0;
        rejects(&census, "position 1 is told to two");
    }

    #[test]
    fn a_wrong_sum_is_seen() {
        let mut census = census(&[0, 1, 2]);
        census.places[1].1 = 4;
        rejects(&census, "position 2 is told 4");
    }

    #[test]
    fn violations_are_counted_beyond_those_in_words() {
        let mut violations = Violations::default();
        for number in 0..50 {
            violations.add(|| number.to_string());
        }
        let mut both = violations.clone();
        both.merge(violations);
        assert_eq!((both.count, both.words.len()), (100, WORDS_MAX));
        assert_eq!(both.words.last().unwrap(), "19");
    }
}
