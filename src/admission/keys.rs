//! Which key signs, and how a new one is taken up while everything runs.
//!
//! A new key is published first and rests for a while before it signs: whoever verifies passes by
//! themselves keeps the keys for some minutes, and must have met it before the first pass under it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::admission::signer::Signer;
use crate::queue::event::{At, PublicKey};
use crate::shutdown::Shutdown;
use crate::wire::event::KEYS_MAX;

/// The file with the keys is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The keys of this process.
#[derive(Clone)]
pub(super) struct Keys(watch::Receiver<Held>);

#[derive(Clone)]
struct Held {
    signer: Arc<Signer>,
    /// Why the file can't be taken up as it is now.
    fault: Option<String>,
}

/// What tokens and passes are signed with.
#[derive(Clone)]
pub(super) struct Signing {
    pub(super) keys: Keys,
    /// For how many seconds a key is published before it signs.
    pub(super) rest: u32,
}

/// When each key of a queue came into its log, and which of them were taken out again.
#[derive(Debug, Default)]
pub(super) struct Published {
    since: BTreeMap<String, At>,
    taken_out: BTreeSet<String>,
}

impl Keys {
    /// The keys of this signer, and from now on those that the file comes to hold.
    pub(super) fn follow(signer: Signer, file: PathBuf, shutdown: &Shutdown) -> Self {
        let held = Held { signer: Arc::new(signer), fault: None };
        let (told, keys) = watch::channel(held);
        shutdown.spawn(look_again(file, told, shutdown.clone()));
        Self(keys)
    }

    /// The signer, as it is now.
    pub(super) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.0.borrow().signer)
    }

    /// Why the file can't be taken up as it is now.
    pub(super) fn fault(&self) -> Option<String> {
        self.0.borrow().fault.clone()
    }
}

async fn look_again(file: PathBuf, told: watch::Sender<Held>, shutdown: Shutdown) {
    let mut known = None;
    loop {
        let read = std::fs::read_to_string(&file).map_err(|error| error.to_string());
        if known.as_ref() != Some(&read) {
            told.send_modify(|held| take_up(held, read.as_deref()));
            known = Some(read);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.stopped() => return,
        }
    }
}

/// Takes up what the file holds now.
fn take_up(held: &mut Held, read: Result<&str, &String>) {
    let taken = read.map_err(Clone::clone);
    match taken.and_then(|pem| held.signer.with_keys(pem).map_err(|error| error.to_string())) {
        Ok(signer) => {
            let kids: Vec<&str> = signer.public_keys().iter().map(|key| key.kid.as_str()).collect();
            if held.fault.take().is_some() || held.signer.public_keys() != signer.public_keys() {
                tracing::info!(?kids, "signing keys were taken up");
            }
            held.signer = Arc::new(signer);
        }
        Err(fault) => {
            tracing::error!(fault, "the signing keys stay as they were");
            held.fault = Some(fault);
        }
    }
}

impl Published {
    /// Notes the keys that stand in the log since this time, or longer.
    pub(super) fn note(&mut self, keys: &[PublicKey], at: At) {
        let Self { since, taken_out } = self;
        let is_there = |kid: &str| keys.iter().any(|key| key.kid == kid);
        taken_out.extend(since.keys().filter(|kid| !is_there(kid)).cloned());
        taken_out.retain(|kid| !is_there(kid));
        since.retain(|kid, _| is_there(kid));
        for key in keys {
            since.entry(key.kid.clone()).or_insert(at);
        }
    }

    /// Those of our keys that are to stand in the log. One that was taken out of it stays out: an operator
    /// did so, and a worker that was not given its new file yet must not undo it. Where we have no other,
    /// nobody could be let in without.
    pub(super) fn to_stand<'a>(&self, ours: &'a [PublicKey]) -> Vec<&'a PublicKey> {
        let (out, left): (Vec<_>, Vec<_>) =
            ours.iter().partition(|key| self.taken_out.contains(&key.kid));
        if left.is_empty() { out } else { left }
    }

    /// The key that is to sign: the first of ours that has rested for so many seconds. Where none has,
    /// the one that has stood there longest, and of several the last in the file: the keys of a new queue
    /// all came with it, and the oldest are those that other queues have published longest.
    pub(super) fn signing(&self, ours: &[PublicKey], now: At, rest: u32) -> Option<String> {
        let since = |key: &PublicKey| self.since.get(&key.kid).copied();
        let rested =
            ours.iter().find(|key| since(key).is_some_and(|at| at.plus_seconds(rest) <= now));
        let longest = || ours.iter().rev().min_by_key(|key| since(key).unwrap_or(At(i64::MAX)));
        rested.or_else(longest).map(|key| key.kid.clone())
    }
}

/// These keys in front of those that are known, and no more than the log takes.
pub(super) fn with_ours(known: &[PublicKey], ours: &[&PublicKey]) -> Vec<PublicKey> {
    let others = known.iter().filter(|key| !ours.contains(key));
    ours.iter().copied().chain(others).take(KEYS_MAX).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(kids: &str) -> Vec<PublicKey> {
        let key = |kid: &str| PublicKey { kid: kid.to_owned(), x: [kid.as_bytes()[0]; 32] };
        kids.split_whitespace().map(key).collect()
    }

    /// Which of our keys signs at each of these seconds; `told` is when which keys came into the log.
    fn signs(ours: &str, told: &[(u32, &str)], seconds: &[u32]) -> String {
        let at = |second: u32| At(0).plus_seconds(second);
        let signs = seconds.iter().map(|second| {
            let mut published = Published::default();
            for (when, kids) in told.iter().filter(|(when, _)| when <= second) {
                published.note(&keys(kids), at(*when));
            }
            published.signing(&keys(ours), at(*second), 300).unwrap_or_default()
        });
        signs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_new_key_signs_when_it_has_rested_and_the_one_before_until_then() {
        let rotated = [(0, "old"), (1_000, "new old")];
        assert_eq!(signs("new old", &rotated, &[999, 1_000, 1_299, 1_300]), "old old old new");
        // Another worker that has not been given the new one yet.
        assert_eq!(signs("old", &rotated, &[1_300]), "old");
        // Taken out and put in again, it rests anew.
        let again = [(0, "old"), (10, "new old"), (400, "old"), (500, "new old")];
        assert_eq!(signs("new old", &again, &[350, 799, 800]), "new old new");
    }

    #[test]
    fn where_no_key_has_rested_there_is_no_waiting_for_one() {
        assert_eq!(signs("only", &[(0, "only")], &[0]), "only");
        assert_eq!(signs("new old", &[(0, "new old")], &[0, 299, 300]), "old old new");
        // All that signed before are lost.
        assert_eq!(signs("new", &[(0, "lost"), (1_000, "new lost")], &[1_000]), "new");
        // Nothing is known of a queue that has no configuration yet.
        assert_eq!(signs("new old", &[], &[0]), "old");
    }

    #[test]
    fn a_key_that_was_taken_out_stays_out_unless_there_is_no_other() {
        let mut published = Published::default();
        published.note(&keys("new old"), At(0));
        published.note(&keys("new"), At(1));
        let stand = |published: &Published, ours: &str| {
            let ours = keys(ours);
            let stand = published.to_stand(&ours).into_iter().map(|key| key.kid.as_str());
            stand.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(stand(&published, "newer new old"), "newer new");
        assert_eq!(stand(&published, "old"), "old");
        assert_eq!(published.signing(&keys("old new"), At(1), 300).as_deref(), Some("new"));
        // Put in again by hand.
        published.note(&keys("old new"), At(2));
        assert_eq!(stand(&published, "old new"), "old new");
    }

    #[test]
    fn ours_come_first_and_the_oldest_of_others_are_dropped() {
        let known: Vec<String> = (0..KEYS_MAX).map(|number| format!("k{number}")).collect();
        let ours = keys("new k0");
        let ours: Vec<&PublicKey> = ours.iter().collect();
        let merged = with_ours(&keys(&known.join(" ")), &ours);
        let kids: Vec<&str> = merged.iter().map(|key| key.kid.as_str()).collect();
        assert_eq!(kids.len(), KEYS_MAX);
        assert_eq!((kids[0], kids[1], kids[2], kids[15]), ("new", "k0", "k1", "k14"));
    }
}
