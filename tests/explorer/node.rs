//! What comes of a step. A node is modelled as `src/node` has it; what it believes of its seats is the real
//! `Claim`.

use anteroom::queue::event::{Disconnected, Entry, Join, Joined, Reconnected, Return, Seq, Socket};
use anteroom::queue::seat::{Claim, Found, Verdict};

use crate::log::{Spot, Visitor, name};
use crate::steps::{BEHIND_MAX, Step};
use crate::world::{BrowserSocket, Fact, Hello, Node, Seat, Stage, What, World, is_of};

/// What the log is to be told of somebody who takes a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// Nothing: it has them here.
    None,
    Back,
    Carried,
}

impl World {
    /// Takes a step.
    pub(crate) fn take(&mut self, step: Step) {
        self.step(step);
        for node in 0..u8::try_from(self.nodes.len()).unwrap_or(u8::MAX) {
            self.hurry(node);
        }
    }

    /// What can as well happen at once: the delay that follows is as good. Only what is written if a socket
    /// is still there makes a difference by waiting.
    fn hurry(&mut self, node: u8) {
        loop {
            let at = &self.nodes[usize::from(node)];
            let is_sure = |fact: &Fact| !matches!(fact.what, What::Back { .. });
            let is_gone = |fact: &Fact| fact.what == What::Gone;
            if at.stored_at.is_some() && at.under_way.iter().all(is_gone) {
                self.acknowledge(node);
            } else if at.under_way.is_empty() && at.waiting.front().is_some_and(is_sure) {
                self.send(node);
            } else {
                return;
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Hear { visitor, node, hello, browser, hand, opened } => {
                self.left.sockets -= 1;
                self.left.carries -= u8::from(hello == Hello::Carry);
                let stage = Stage::Ended;
                let socket = BrowserSocket { visitor, node, opened, hand, browser, stage };
                self.sockets.push(socket);
                self.hear(u8::try_from(self.sockets.len() - 1).unwrap_or(u8::MAX), hello);
            }
            Step::Found(socket, seq) => self.found(socket, seq),
            Step::Sit(socket) => self.joined(socket),
            Step::Forget(socket) => {
                let at = usize::from(self.sockets[usize::from(socket)].node);
                let Stage::Joined(own, seq) = self.sockets[usize::from(socket)].stage else {
                    return;
                };
                self.left.delays -= u8::from(self.nodes[at].told < seq);
                self.ask(socket, seq, Some(own));
            }
            Step::End(socket) => self.end(socket),
            Step::Clear(node, visitor) => self.clear(node, visitor),
            Step::Send(node) => self.send(node),
            Step::Store(node) => self.store(node),
            Step::Refuse(node) => self.refuse(node),
            Step::Acknowledge(node) => self.acknowledge(node),
            Step::Retry(node) => self.retry(node),
            Step::Feed(node, entries) => self.feed(node, entries),
            Step::Snapshot(node, seq) => self.snapshot(node, seq),
            Step::CaughtUp(node, seq) => self.caught_up(node, seq),
            Step::Lose(id) => {
                self.left.losses -= u8::from(self.is_alive(id));
                let entry = self.log.node_lost(id);
                self.append(entry);
            }
        }
    }

    fn hear(&mut self, socket: u8, hello: Hello) {
        let BrowserSocket { visitor, node, opened, .. } = self.sockets[usize::from(socket)];
        let at = &mut self.nodes[usize::from(node)];
        if hello != Hello::Join || at.seat(visitor).is_some() {
            return self.resume(socket, hello);
        }
        let own = at.next_socket(node);
        let what = What::Joined { opened, by: socket };
        at.waiting.push_back(Fact { visitor, socket: own, what });
        self.sockets[usize::from(socket)].stage = Stage::Joining(own);
    }

    /// Takes over the seat that the visitor has here; otherwise they are looked up.
    fn resume(&mut self, socket: u8, hello: Hello) {
        let BrowserSocket { visitor, node, opened, hand, .. } = self.sockets[usize::from(socket)];
        if hello != Hello::Carry
            && let Some(seat) = self.nodes[usize::from(node)].seat(visitor)
            && seat.hand == hand
        {
            if !seat.claim.take_over(opened) {
                return self.replace(socket);
            }
            let before = std::mem::replace(&mut seat.sitting, socket);
            let was_taken = std::mem::replace(&mut seat.is_taken, true);
            self.sockets[usize::from(socket)].stage = Stage::Here;
            if was_taken {
                self.replace(before);
            }
            return;
        }
        self.ask(socket, Seq(0), None);
    }

    fn ask(&mut self, socket: u8, at_least: Seq, join: Option<Socket>) {
        let visitor = self.sockets[usize::from(socket)].visitor;
        let end = self.log.end();
        let has_place = |seq: &Seq| self.log.spot(visitor, *seq).is_some();
        // Where the projector knows of no place, it makes sure that it has come to the end.
        let Some(first) = self.from(Seq(1)).find(has_place) else {
            self.sockets[usize::from(socket)].stage = Stage::Ended;
            return;
        };
        let from = at_least.max(first).max(Seq(end.0.saturating_sub(BEHIND_MAX)));
        self.sockets[usize::from(socket)].stage = Stage::Asking(from, join);
    }

    fn found(&mut self, socket: u8, through: Seq) {
        let BrowserSocket { visitor, node, opened, hand, stage, .. } =
            self.sockets[usize::from(socket)];
        let Stage::Asking(_, join) = stage else { return };
        let Some(spot) = self.log.spot(visitor, through) else { return };
        // An id with the next hand is given out only for a carry.
        let is_carry = hand == spot.hand + 1;
        let is_newer = hand == spot.hand && 0 < opened && opened < spot.opened;
        if is_newer || (hand != spot.hand && !is_carry) {
            if is_newer {
                self.replace(socket);
            } else {
                self.sockets[usize::from(socket)].stage = Stage::Ended;
            }
        } else if join.is_some_and(|own| spot.is_present && spot.last == own) {
            // The join gave a place after all.
            self.sit(socket, Claim::joined(spot.last, opened, spot.came), through, News::None);
        } else {
            let own = self.nodes[usize::from(node)].next_socket(node);
            let news = if is_carry { News::Carried } else { News::Back };
            self.sit(socket, Claim::returned(own, opened, spot.came), through, news);
        }
        // Should it have been a new place after all, nobody is on it now.
        if let Some(own) = join {
            self.or_gone(socket, own);
        }
    }

    /// Where this socket has not come to sit, the one that it has in the log is gone.
    fn or_gone(&mut self, socket: u8, own: Socket) {
        let BrowserSocket { visitor, node, stage, .. } = self.sockets[usize::from(socket)];
        if stage != Stage::Here {
            let fact = Fact { visitor, socket: own, what: What::Gone };
            self.nodes[usize::from(node)].waiting.push_back(fact);
        }
    }

    fn joined(&mut self, socket: u8) {
        let BrowserSocket { visitor, opened, stage, .. } = self.sockets[usize::from(socket)];
        let Stage::Joined(own, seq) = stage else { return };
        let is_accepted =
            self.log.outcome(seq).is_some_and(|outcome| outcome.joined.contains(&visitor));
        if is_accepted {
            self.sit(socket, Claim::joined(own, opened, seq), seq, News::None);
            self.or_gone(socket, own);
        } else {
            self.ask(socket, seq, Some(own));
        }
    }

    /// Takes a seat for someone who was found as of the entry `through`.
    fn sit(&mut self, socket: u8, mut claim: Claim, through: Seq, news: News) {
        self.sockets[usize::from(socket)].stage = Stage::Ended;
        let BrowserSocket { visitor, node, hand, .. } = self.sockets[usize::from(socket)];
        let index = usize::from(node);
        let at = &mut self.nodes[index];
        if let Some(before) = at.seat(visitor) {
            let (here, there) = (claim.socket(), before.claim.socket());
            let is_later = here.node == there.node && here.number < there.number;
            let is_newer = claim.opened() > 0 && claim.opened() < before.claim.opened();
            if hand < before.hand {
                // The place was carried; the socket has ended already.
                return;
            }
            if hand == before.hand && (is_later || is_newer) {
                return self.replace(socket);
            }
        }
        let seen = claim.basis(Seq(0));
        let came = at.came[usize::from(visitor)];
        if through < came {
            claim.miss(came);
            at.asked.push((visitor, came));
        }
        // A carry is one only without a basis; and it counts once, however often it is said.
        let again = (news == News::Back).then(|| claim.basis(at.told));
        let back = What::Back { basis: None, again, opened: claim.opened(), hand, seen };
        let fact = Fact { visitor, socket: claim.socket(), what: back };
        let seat = Seat { claim, hand, sitting: socket, is_taken: true, seen };
        let before = at.seats[usize::from(visitor)].replace(seat);
        if let Some(before) = &before {
            // What is to be said of the new socket may never be written.
            let socket = before.claim.socket();
            at.waiting.push_back(Fact { visitor, socket, what: What::Gone });
        }
        if news != News::None {
            at.waiting.push_back(fact);
        }
        self.sockets[usize::from(socket)].stage = Stage::Here;
        if let Some(before) = before.filter(|before| before.is_taken) {
            self.replace(before.sitting);
        }
        if fact.socket.node != self.nodes[index].id(node) {
            self.claim_seats(node);
        }
    }

    /// The log is told of every seat that it knows under another id than the node's own.
    fn claim_seats(&mut self, node: u8) {
        let at = &self.nodes[usize::from(node)];
        let (own, told) = (at.id(node), at.told);
        for visitor in self.visitors() {
            self.judge(node, visitor, |claim| {
                if claim.socket().node == own { Verdict::Keep } else { claim.called(told) }
            });
        }
    }

    fn visitors(&self) -> std::ops::Range<u8> {
        0..u8::try_from(self.nodes[0].seats.len()).unwrap_or(u8::MAX)
    }

    fn end(&mut self, socket: u8) {
        self.left.ends -= 1;
        let BrowserSocket { visitor, node, stage, .. } = self.sockets[usize::from(socket)];
        let is_joining = if let Stage::Joining(own) = stage { Some(own) } else { None };
        let stage_now = is_joining.map_or(Stage::Ended, Stage::Leaving);
        self.sockets[usize::from(socket)].stage = stage_now;
        if stage == Stage::Here
            && let Some(seat) = self.nodes[usize::from(node)].seat(visitor)
        {
            seat.is_taken = false;
        }
    }

    fn clear(&mut self, node: u8, visitor: Visitor) {
        let at = &mut self.nodes[usize::from(node)];
        if let Some(seat) = at.seats[usize::from(visitor)].take() {
            let fact = Fact { visitor, socket: seat.claim.socket(), what: What::Gone };
            at.waiting.push_back(fact);
        }
    }

    /// The next facts of one kind, in order, but none that would overtake another of its visitor.
    fn send(&mut self, node: u8) {
        let at = &mut self.nodes[usize::from(node)];
        let kind = |fact: &Fact| match fact.what {
            What::Joined { .. } => (0, fact.socket.node, None),
            What::Back { basis, .. } => (1, fact.socket.node, basis),
            What::Gone => (2, fact.socket.node, None),
        };
        let Some(first) = at.waiting.front().map(kind) else { return };
        let (mut batch, mut held_back) = (Vec::new(), Vec::new());
        at.waiting.retain(|fact| {
            let is_taken = kind(fact) == first && !held_back.contains(&fact.visitor);
            if is_taken {
                batch.push(*fact);
            } else {
                held_back.push(fact.visitor);
            }
            !is_taken
        });
        for fact in batch {
            let is_so = !matches!(fact.what, What::Back { .. })
                || self.nodes[usize::from(node)].holds(fact.visitor, fact.socket);
            if is_so {
                self.nodes[usize::from(node)].under_way.push(fact);
            } else {
                self.withdrawn(node, fact);
            }
        }
    }

    fn withdrawn(&mut self, node: u8, fact: Fact) {
        self.judge(node, fact.visitor, |claim| match claim.socket() == fact.socket {
            true => claim.withdrawn(),
            false => Verdict::Keep,
        });
    }

    fn store(&mut self, node: u8) {
        let facts = self.nodes[usize::from(node)].under_way.clone();
        let before: Vec<Option<Spot>> =
            self.visitors().map(|it| self.log.spot(it, self.log.end())).collect();
        self.append(entry(&facts));
        let end = self.log.end();
        self.nodes[usize::from(node)].stored_at = Some(end);
        for fact in facts {
            let What::Back { basis: Some(_), opened, seen, .. } = fact.what else { continue };
            let (before, after) =
                (before[usize::from(fact.visitor)], self.log.spot(fact.visitor, end));
            let counts = after.is_some_and(|spot| spot.came == end);
            let Some(before) = before.filter(|_| counts) else { continue };
            let is_newest = before.opened > 0 && before.opened < opened;
            if before.came > seen && !is_newest && !is_of(before.last.node, node) {
                self.fault = Some("a seat is asserted over somebody of whom the node was not told");
            }
        }
    }

    fn append(&mut self, entry: Entry) {
        let visitors = self.visitors().end;
        self.log.append(entry, visitors);
    }

    fn refuse(&mut self, node: u8) {
        self.left.refusals -= 1;
        let at = &mut self.nodes[usize::from(node)];
        for fact in std::mem::take(&mut at.under_way) {
            match fact.what {
                What::Back { .. } => at.refused.push(fact),
                What::Joined { by, .. } => self.sockets[usize::from(by)].stage = Stage::Ended,
                // Nobody waits for it; the node is declared lost one day.
                What::Gone => at.waiting.push_front(fact),
            }
        }
    }

    fn retry(&mut self, node: u8) {
        let at = &mut self.nodes[usize::from(node)];
        let mut fact = at.refused.remove(0);
        if !at.holds(fact.visitor, fact.socket) {
            return self.withdrawn(node, fact);
        }
        if let What::Back { basis, again, .. } = &mut fact.what {
            *basis = *again;
        }
        at.waiting.push_back(fact);
    }

    fn acknowledge(&mut self, node: u8) {
        let at = &mut self.nodes[usize::from(node)];
        let Some(seq) = at.stored_at.take() else { return };
        let told = at.told;
        for fact in std::mem::take(&mut at.under_way) {
            let Fact { visitor, socket, what } = fact;
            let at = &mut self.nodes[usize::from(node)];
            match what {
                What::Joined { by, .. } => {
                    let by = &mut self.sockets[usize::from(by)];
                    if matches!(by.stage, Stage::Leaving(_)) {
                        by.stage = Stage::Ended;
                        at.waiting.push_back(Fact { visitor, socket, what: What::Gone });
                    } else {
                        by.stage = Stage::Joined(socket, seq);
                    }
                }
                What::Back { .. } => {
                    let seat = at.seat(visitor).filter(|seat| seat.claim.socket() == socket);
                    let Some(seat) = seat else { continue };
                    let verdict = seat.claim.stored(seq, told);
                    if verdict == Verdict::Keep {
                        at.stored.push((seq, visitor));
                    }
                    self.act(node, visitor, verdict);
                }
                What::Gone => {}
            }
        }
    }

    fn feed(&mut self, node: u8, entries: u64) {
        let through = Seq(self.nodes[usize::from(node)].told.0 + entries);
        let own = self.nodes[usize::from(node)].id(node);
        let heard = Seq(self.nodes[usize::from(node)].told.0 + 1).0..=through.0;
        for seq in heard.clone().map(Seq) {
            let came = self.log.outcome(seq).map(|it| it.came.clone()).unwrap_or_default();
            for (visitor, socket) in came {
                let at = &mut self.nodes[usize::from(node)];
                at.came[usize::from(visitor)] = seq;
                if let Some(seat) = at.seat(visitor) {
                    seat.seen = seat.seen.max(seq);
                }
                self.judge(node, visitor, |claim| claim.came(seq, socket, own));
            }
        }
        let at = &mut self.nodes[usize::from(node)];
        at.told = through;
        at.stored.sort_unstable();
        let returned: Vec<_> = at.stored.iter().copied().filter(|it| it.0 <= through).collect();
        at.stored.retain(|it| it.0 > through);
        for (_, visitor) in returned {
            self.judge(node, visitor, |claim| claim.heard(through));
        }
        for seq in heard.map(Seq) {
            let lost = self.log.outcome(seq).map(|it| it.lost.clone()).unwrap_or_default();
            for id in lost.into_iter().filter(|id| is_of(*id, node)) {
                let at = &mut self.nodes[usize::from(node)];
                at.lives += u8::from(id == at.id(node));
                self.claim_seats(node);
            }
        }
    }

    fn snapshot(&mut self, node: u8, through: Seq) {
        self.left.holes -= 1;
        let at = &mut self.nodes[usize::from(node)];
        at.told = through;
        at.came.fill(through);
        for (visitor, seat) in (0..).zip(&mut at.seats) {
            if let Some(seat) = seat {
                let is_asked = seat.claim.missed().is_some();
                seat.claim.miss(through);
                if !is_asked {
                    at.asked.push((visitor, through));
                }
            }
        }
    }

    fn caught_up(&mut self, node: u8, through: Seq) {
        let at = &mut self.nodes[usize::from(node)];
        let (visitor, _) = at.asked.remove(0);
        let own = at.id(node);
        let (Some(spot), Some(seat)) = (self.log.spot(visitor, through), at.seat(visitor)) else {
            return;
        };
        seat.seen = seat.seen.max(spot.came);
        let socket = spot.is_present.then_some(spot.last);
        let found = Found { socket, came: spot.came, through };
        if seat.claim.is_lost(found, own) {
            at.lives += 1;
            self.claim_seats(node);
        }
        let at = &self.nodes[usize::from(node)];
        let (own, told) = (at.id(node), at.told);
        self.judge(node, visitor, |claim| claim.looked_up(found, told, own));
        let at = &mut self.nodes[usize::from(node)];
        if let Some(missed) = at.seat(visitor).and_then(|seat| seat.claim.missed())
            && !at.asked.iter().any(|it| it.0 == visitor)
        {
            at.asked.push((visitor, missed));
        }
    }

    fn judge(&mut self, node: u8, visitor: Visitor, judge: impl FnOnce(&mut Claim) -> Verdict) {
        let Some(seat) = self.nodes[usize::from(node)].seat(visitor) else { return };
        let verdict = judge(&mut seat.claim);
        self.act(node, visitor, verdict);
    }

    fn act(&mut self, node: u8, visitor: Visitor, verdict: Verdict) {
        let at: &mut Node = &mut self.nodes[usize::from(node)];
        let (own, told) = (at.id(node), at.told);
        let Some(seat) = at.seat(visitor) else { return };
        match verdict {
            Verdict::Keep => {}
            Verdict::Say if seat.is_taken => {
                seat.claim.say(own);
                let (socket, opened) = (seat.claim.socket(), seat.claim.opened());
                let (basis, hand, seen) = (seat.claim.basis(told), seat.hand, seat.seen);
                let basis = Some(basis);
                let what = What::Back { basis, again: basis, opened, hand, seen };
                at.waiting.push_back(Fact { visitor, socket, what });
            }
            Verdict::Say | Verdict::Yield => {
                let Some(seat) = at.seats[usize::from(visitor)].take() else { return };
                if seat.is_taken {
                    self.yields(node, visitor, &seat);
                }
            }
        }
    }

    /// A socket has to go because of what the log says.
    fn yields(&mut self, node: u8, visitor: Visitor, seat: &Seat) {
        let spot = self.log.spot(visitor, self.log.end());
        let number = seat.claim.socket().number;
        if spot.is_some_and(|spot| is_of(spot.last.node, node) && spot.last.number == number) {
            self.fault =
                Some("a socket is replaced of which the log says last that it has the place");
        }
        self.replace(seat.sitting);
    }

    /// A socket is told that a newer one has the place.
    fn replace(&mut self, socket: u8) {
        self.sockets[usize::from(socket)].stage = Stage::Replaced;
        let replaced = &self.sockets[usize::from(socket)];
        let others = || self.sockets.iter().filter(|it| it.visitor == replaced.visitor);
        let is_carried =
            others().any(|it| it.browser != replaced.browser && it.hand >= replaced.hand);
        let is_newer =
            others().any(|it| it.browser == replaced.browser && it.opened > replaced.opened);
        if replaced.opened > 0 && !is_carried && !is_newer {
            self.fault = Some("the newest of a browser's sockets is replaced");
        }
    }
}

fn entry(facts: &[Fact]) -> Entry {
    let node = facts[0].socket.node;
    match facts[0].what {
        What::Joined { .. } => {
            let visitors = facts.iter().filter_map(|fact| {
                let What::Joined { opened, .. } = fact.what else { return None };
                Some(Join { opened, ..Join::plain(name(fact.visitor), fact.socket.number) })
            });
            Entry::Joined(Joined { node, visitors: visitors.collect() })
        }
        What::Back { basis, .. } => {
            let visitors = facts.iter().filter_map(|fact| {
                let What::Back { opened, hand, .. } = fact.what else { return None };
                let (visitor, socket) = (name(fact.visitor), fact.socket.number);
                Some(Return { visitor, socket, opened, hand })
            });
            Entry::Reconnected(Reconnected { node, basis, visitors: visitors.collect() })
        }
        What::Gone => {
            let visitors = facts.iter().map(|fact| (name(fact.visitor), fact.socket.number));
            Entry::Disconnected(Disconnected { node, visitors: visitors.collect() })
        }
    }
}
