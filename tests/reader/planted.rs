//! Histories that chance hardly finds: what is to be at some moment or behind some entry, exactly then.

use serde_json::{Value, json};

use crate::acts::{Act, id};

const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLI;

/// All of them.
pub(crate) fn planted() -> Vec<Vec<Act>> {
    vec![unseen(), noted(99_999), noted(100_000), came_back()]
}

fn seats(visitors: &[u8]) -> Vec<Value> {
    visitors.iter().map(|who| json!({"visitor": id(*who), "socket": 1})).collect()
}

fn grants(visitors: &[u8]) -> Vec<Value> {
    let grant =
        |who: &u8| json!({"visitor": id(*who), "jti": id(*who), "kid": "k1", "seconds": 20});
    visitors.iter().map(grant).collect()
}

fn releases(visitors: &[u8], reason: &str) -> Vec<Value> {
    let release =
        |who: &u8| json!({"visitor": id(*who), "jti": id(*who), "reason": reason, "by": "ops"});
    visitors.iter().map(release).collect()
}

fn time() -> Vec<Value> {
    vec![json!({"by": "schedule", "time": {}})]
}

fn keeps(seconds: u32) -> Vec<Value> {
    vec![json!({"by": "ops", "policy": {"reconnect_seconds": seconds}})]
}

/// Gone 15 s after the grant, a moment later, and after having come once more; the turn is missed when the
/// grant has lapsed, and no moment before.
fn unseen() -> Vec<Act> {
    let all = &[0, 1, 2];
    vec![
        Act::decided(0, "configured", time(), 0),
        Act::said(0, "joined", seats(all)),
        Act::decided(0, "admitted", grants(all), 0),
        Act::said(SECOND, "reconnected", seats(&[2])),
        Act::said(SECOND, "disconnected", seats(&[2])),
        Act::decided(13 * SECOND, "configured", time(), 0),
        Act::said(0, "disconnected", seats(&[0])),
        Act::said(MILLI, "disconnected", seats(&[1])),
        Act::decided(5 * SECOND - 2 * MILLI, "released", releases(all, "missed"), 0),
        Act::decided(MILLI, "released", releases(all, "missed"), 0),
        Act::decided(0, "released", releases(all, "lapsed"), 0),
    ]
}

/// A grace of 100 s that was noted is forgotten when its time is over, and no moment before.
fn noted(millis: i64) -> Vec<Act> {
    vec![
        Act::decided(0, "configured", keeps(100), 0),
        Act::said(0, "joined", seats(&[0])),
        Act::decided(10 * SECOND, "configured", keeps(50), 0),
        Act::decided(millis * MILLI, "configured", keeps(50), 0),
    ]
}

/// Who came back after the decision was made neither loses a grant nor a place.
fn came_back() -> Vec<Act> {
    vec![
        Act::decided(0, "configured", time(), 0),
        Act::said(0, "joined", seats(&[0, 1])),
        Act::said(0, "disconnected", seats(&[1])),
        Act::decided(SECOND, "admitted", grants(&[0]), 0),
        Act::decided(20 * SECOND, "configured", time(), 0),
        Act::said(0, "reconnected", seats(&[0, 1])),
        Act::said(0, "disconnected", seats(&[0, 1])),
        Act::decided(0, "released", releases(&[0], "lapsed"), 2),
        Act::decided(0, "expired", vec![json!({"visitor": id(1)})], 0),
        Act::decided(0, "released", releases(&[0], "lapsed"), 0),
    ]
}
