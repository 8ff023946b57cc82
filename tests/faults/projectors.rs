//! Two projectors, of which either may end or hang: nodes and visitors notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anteroom::wire::feed::read_frame;
use async_nats::Client;
use futures_util::StreamExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::by_hand::identity;
use crate::crowd::Crowd;
use crate::reckoning::{assert_all_in_order, assert_same_everywhere};
use crate::row::{row, times};
use crate::system::{System, get, signal};

/// What may pass between two frames that tell a node how things are: two heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often a node is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// For how long one hangs: as long as a node bears with silence.
const HANGS_FOR: Duration = Duration::from_secs(3);
/// After so many kills one hangs.
const KILLS_A_HANG: usize = 4;
/// Where two projectors have not both answered a question within this, they are asked again.
const ANSWERS_WAIT: Duration = Duration::from_millis(300);
/// A projector that was started has caught up within this.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(30);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Which {
    /// The one that `up` starts again.
    First,
    Second,
}

impl Which {
    fn other(self) -> Self {
        if self == Self::First { Self::Second } else { Self::First }
    }

    fn pid(self, system: &System) -> i32 {
        match self {
            Self::First => system.pid("projector"),
            Self::Second => system.pid_beside("projector"),
        }
    }

    /// Kills it at once, and sees to it that it is started again.
    fn kill(self, system: &mut System) {
        match self {
            Self::First => system.kill("projector"),
            Self::Second => {
                signal(system.pid_beside("projector"), Signal::KILL);
                system.ended_beside("projector");
                system.second_projector();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_projectors_either_may_end_and_nobody_notices() {
    let mut system = System::start("two-projectors");
    system.second_node();
    system.second_projector();
    system.queue("storm", &json!({"rate_per_minute": 1200, "token_seconds": 600}));
    let asker = identity(&system, "projector").await;
    until_both_answer(&asker, "storm").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let ready = [0, 1].map(|node| {
        let (url, is_over) = (format!("{}/readyz", system.node(node)), Arc::clone(&is_over));
        std::thread::spawn(move || ask_steadily(&url, &is_over))
    });
    let hearing = hear(identity(&system, "node").await, "storm", Arc::clone(&is_over)).await;
    let crowd = Crowd::gather(&system, "storm", 40, Duration::ZERO);

    let (kills, mut hangs, mut back) = (times(4, 20), 0, Duration::ZERO);
    for number in 0..kills {
        let which = if number.is_multiple_of(2) { Which::First } else { Which::Second };
        let killed = Instant::now();
        which.kill(&mut system);
        until_both_answer(&asker, "storm").await;
        back = back.max(killed.elapsed());
        if number % KILLS_A_HANG == KILLS_A_HANG - 1 {
            let which = if hangs % 2 == 0 { which } else { which.other() };
            let pid = which.pid(&system);
            signal(pid, Signal::STOP);
            tokio::time::sleep(HANGS_FOR).await;
            signal(pid, Signal::CONT);
            until_both_answer(&asker, "storm").await;
            hangs += 1;
        }
    }

    let visits = crowd.leave().await;
    is_over.store(true, Ordering::SeqCst);
    let heard = hearing.await.unwrap();
    let [first, second] = ready.map(|ready| ready.join().unwrap());
    let asked = first.len() + second.len();
    let unready: Vec<&String> = first.iter().chain(&second).flatten().collect();
    assert!(unready.is_empty(), "of {asked} times {} not ready: {unready:?}", unready.len());
    assert!(heard.pause < SILENCE_MAX, "nothing new was heard for {:?}", heard.pause);
    assert_eq!(visits.iter().map(|visit| visit.stale).sum::<usize>(), 0, "told `stale`");
    assert_all_in_order(&system, "storm", &visits).await;
    let rebuilt = assert_same_everywhere(&mut system, "storm");
    let result = format!(
        "{hangs} times one hung for {} s besides; nodes asked {asked} times, always ready; {} frames \
         heard, none for {:.2} s at most; {} visitors let in and entered, in order, nobody told \
         `stale`; one that was killed had all of the log again within {:.2} s; same digest of both, \
         the audit and one that began with nothing ({:.1} s)",
        HANGS_FOR.as_secs(),
        heard.frames,
        heard.pause.as_secs_f64(),
        visits.iter().filter(|visit| visit.entered).count(),
        back.as_secs_f64(),
        rebuilt.as_secs_f64(),
    );
    row("two projectors, kill -9 of the one and the other in turn", kills, &result);
}

/// Asks a node whether it is ready, until it is over: each time why it was not.
fn ask_steadily(url: &str, is_over: &AtomicBool) -> Vec<Option<String>> {
    let mut answers = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let (status, body) = get(url);
        answers.push((status != 200).then(|| format!("{status} {body}")));
        std::thread::sleep(ASK_EVERY);
    }
    answers
}

/// What was heard of the feed.
struct Heard {
    frames: usize,
    /// The longest time without a frame of a projector that is as far as any before it.
    pause: Duration,
}

/// Listens to the feed as a node does, until it is over.
async fn hear(client: Client, queue: &str, is_over: Arc<AtomicBool>) -> JoinHandle<Heard> {
    let mut feed = client.subscribe(format!("anteroom.feed.{queue}")).await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        let (mut heard, mut through) = (Heard { frames: 0, pause: Duration::ZERO }, 0);
        let mut last = Instant::now();
        while !is_over.load(Ordering::SeqCst) {
            let next = tokio::time::timeout(ASK_EVERY, feed.next()).await;
            if let Ok(message) = next {
                let frame = read_frame(&message.unwrap().payload).unwrap();
                heard.frames += 1;
                if frame.through >= through {
                    through = frame.through;
                    last = Instant::now();
                }
            }
            heard.pause = heard.pause.max(last.elapsed());
        }
        // The connection is the client's.
        drop(client);
        heard
    })
}

/// Waits until both projectors say what they came to, each after all that the log had when it was asked.
async fn until_both_answer(asker: &Client, queue: &str) {
    let began = Instant::now();
    loop {
        let inbox = asker.new_inbox();
        let mut answers = asker.subscribe(inbox.clone()).await.unwrap();
        let subject = format!("anteroom.ask.{queue}.verify");
        asker.publish_with_reply(subject, inbox, "{}".into()).await.unwrap();
        let both = async {
            for _ in 0..2 {
                let answer = answers.next().await.unwrap();
                let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
                if answer["ok"]["digest"].is_null() {
                    return false;
                }
            }
            true
        };
        if tokio::time::timeout(ANSWERS_WAIT, both).await.unwrap_or(false) {
            return;
        }
        assert!(began.elapsed() < CAUGHT_UP_MAX, "one of the projectors does not answer");
    }
}
