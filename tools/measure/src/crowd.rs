//! People who do what people do, so that no fact of theirs is void and no promise to them is broken:
//! each entry is made from what the fold says so far, and folded in its turn.

use std::collections::{BTreeSet, VecDeque};

use anteroom::queue::event::{
    Admitted, At, Configured, Decision, Disconnected, Entry, Facts, Join, Joined, Jti, Left,
    Millis, NodeId, PublicKey, Reconnected, Redeemed, ReleaseReason, Released, Return, Seq,
    Setting, State, Ticket, VisitorId, WorkerId,
};
use anteroom::queue::line::{Line, Place};
use anteroom::queue::policy::Policy;

const NODES: u8 = 4;
const WORKER: WorkerId = WorkerId([9; 16]);
const KEY: &str = "2026-01";
const TOKEN_SECONDS: u32 = 120;
const PASS_SECONDS: u32 = 1_800;
/// People a minute that may be let in: as many as a policy can say.
pub(crate) const RATE_PER_MINUTE: u32 = 600_000;

/// The visitor with this number.
pub(crate) fn visitor(number: u32) -> VisitorId {
    VisitorId(spread(u64::from(number)))
}

fn jti(ticket: Ticket) -> Jti {
    Jti(spread(u64::from(ticket.0) | 1 << 40))
}

fn node(number: u8) -> NodeId {
    NodeId([number % NODES + 1; 16])
}

/// Bytes that look random, as those of real ids do (splitmix64).
fn spread(seed: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mixed(2 * seed).to_le_bytes());
    bytes[8..].copy_from_slice(&mixed(2 * seed + 1).to_le_bytes());
    bytes
}

fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// What happens next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Open,
    Configure,
    Join,
    Leave,
    Go,
    ComeBack,
    Admit,
    Redeem,
    Release,
}

/// The people of one queue.
#[derive(Default)]
pub(crate) struct Crowd {
    line: Line,
    entries: u64,
    dice: u64,
    absent: VecDeque<Ticket>,
}

impl Crowd {
    /// Joins and other facts so far.
    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// The next entry: `count` people do this.
    pub(crate) fn act(&mut self, act: Act, count: usize) -> Entry {
        let entry = self.entry(act, count);
        self.entries += 1;
        let change = self.line.apply(Seq(self.entries), At(self.time()), &entry);
        assert!(change.void.is_empty() && change.void_entry.is_none(), "{act:?}: {change:?}");
        entry
    }

    /// A millisecond an entry.
    fn time(&self) -> i64 {
        1_000_000 * i64::try_from(self.entries).unwrap_or(i64::MAX)
    }

    fn entry(&mut self, act: Act, count: usize) -> Entry {
        let here = node(u8::try_from(self.entries % 251).unwrap_or(0));
        match act {
            Act::Open => self.decided(Facts::Configured(vec![
                configured(Setting::Policy(self.policy())),
                configured(Setting::Keys(vec![PublicKey { kid: KEY.to_owned(), x: [7; 32] }])),
                configured(Setting::State(State::Open, None)),
            ])),
            Act::Configure => {
                self.decided(Facts::Configured(vec![configured(Setting::Policy(self.policy()))]))
            }
            Act::Join => {
                let first = self.people();
                let last = first + u32::try_from(count).unwrap_or(0);
                let join =
                    |number| Join { opened: 1, ..Join::plain(visitor(number), number.into()) };
                Entry::Joined(Joined { node: here, visitors: (first..last).map(join).collect() })
            }
            Act::Leave => {
                let who = self.some(count, |line, ticket| line.waiting().contains(ticket));
                let left = |visitor| Left { visitor, hand: 0 };
                Entry::Left(self.visitors(&who).map(left).collect())
            }
            Act::Go => {
                let index = self.line.nodes().find(here);
                let who = self.some(count, |line, ticket| {
                    let is_here = line.place(ticket).map(|place| place.node) == index;
                    is_here && line.present().contains(ticket)
                });
                self.absent.extend(&who);
                let places = who.iter().filter_map(|ticket| self.line.place(*ticket));
                let visitors = places.map(|place| (place.visitor, place.socket)).collect();
                Entry::Disconnected(Disconnected { node: here, visitors })
            }
            Act::ComeBack => {
                let who = self.absent(count);
                let places = who.iter().filter_map(|ticket| self.line.place(*ticket));
                let back = |(n, place): (u64, &Place)| {
                    let back = Return::plain(place.visitor, n << 32 | self.entries);
                    Return { opened: place.opened + 1, ..back }
                };
                let visitors = (0..).zip(places).map(back).collect();
                Entry::Reconnected(Reconnected { node: here, basis: None, visitors })
            }
            Act::Admit => {
                let who: Vec<Ticket> = self.line.present().iter().take(count).collect();
                let facts = who.into_iter().filter_map(|ticket| {
                    let visitor = self.line.place(ticket)?.visitor;
                    let kid = KEY.to_owned();
                    Some(Admitted { visitor, jti: jti(ticket), kid, seconds: TOKEN_SECONDS })
                });
                self.decided(Facts::Admitted(facts.collect()))
            }
            Act::Redeem => {
                let facts = self.line.unused().iter().take(count).filter_map(|(_, ticket)| {
                    let visitor = self.line.place(*ticket)?.visitor;
                    let (kid, seconds) = (KEY.to_owned(), PASS_SECONDS);
                    // Every other site names its request.
                    let key = (ticket.0 % 2 == 0).then_some([9; 32]);
                    Some(Redeemed { visitor, jti: jti(*ticket), kid, seconds, key })
                });
                self.decided(Facts::Redeemed(facts.collect()))
            }
            Act::Release => {
                let who = self.line.inside().iter().take(count).map(|(_, ticket)| *ticket);
                self.released(who.collect())
            }
        }
    }

    /// Another one each time.
    fn policy(&self) -> Policy {
        let session_seconds = 1_800 + u32::try_from(self.entries % 1_000).unwrap_or(0);
        Policy { rate_per_minute: RATE_PER_MINUTE, session_seconds, ..Policy::default() }
    }

    fn decided(&self, facts: Facts) -> Entry {
        let (prev, basis) = (self.line.last_decision(), self.line.seq());
        let now = Millis::from(At(self.time()));
        Entry::Decided(Decision { prev, basis, now, worker: WORKER, facts })
    }

    fn released(&self, who: Vec<Ticket>) -> Entry {
        let reason = ReleaseReason::Released;
        let facts = who.into_iter().filter_map(|ticket| {
            let visitor = self.line.place(ticket)?.visitor;
            Some(Released { visitor, jti: jti(ticket), reason, by: "shop".to_owned() })
        });
        self.decided(Facts::Released(facts.collect()))
    }

    fn visitors(&self, tickets: &[Ticket]) -> impl Iterator<Item = VisitorId> {
        tickets.iter().filter_map(|ticket| Some(self.line.place(*ticket)?.visitor))
    }

    fn people(&self) -> u32 {
        u32::try_from(self.line.places().len()).unwrap_or(u32::MAX)
    }

    /// Different people of whom this is true, anywhere in the line. There must be enough of them.
    fn some(&mut self, count: usize, is_one: impl Fn(&Line, Ticket) -> bool) -> Vec<Ticket> {
        let mut taken = BTreeSet::new();
        let mut some = Vec::with_capacity(count);
        while some.len() < count {
            self.dice += 1;
            let ticket = Ticket((mixed(self.dice) % u64::from(self.people().max(1))) as u32);
            if is_one(&self.line, ticket) && taken.insert(ticket) {
                some.push(ticket);
            }
        }
        some
    }

    /// The longest absent, of those who still have a place.
    fn absent(&mut self, count: usize) -> Vec<Ticket> {
        let mut some = Vec::with_capacity(count);
        while some.len() < count {
            let Some(ticket) = self.absent.pop_front() else { return some };
            if self.line.waiting().contains(ticket) && !self.line.present().contains(ticket) {
                some.push(ticket);
            }
        }
        some
    }
}

fn configured(what: Setting) -> Configured {
    Configured { by: "shop".to_owned(), what }
}
