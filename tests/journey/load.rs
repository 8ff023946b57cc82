//! The rate follows what the site reports, by facts that name what they rest on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::checker::read;
use crate::system::System;
use crate::visitor::{Visitor, key};

/// The facts that set the rate: when each was stored, in nanoseconds, and what it says.
async fn rates(system: &System, queue: &str) -> Vec<(i128, Value)> {
    let mut rates = Vec::new();
    for entry in read(system, queue).await {
        for fact in entry.body["facts"].as_array().into_iter().flatten() {
            if fact.get("rate").is_some() {
                let stored: jiff::Timestamp = entry.time.parse().unwrap();
                rates.push((stored.as_nanosecond(), fact.clone()));
            }
        }
    }
    rates
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_follows_what_the_site_reports_until_an_operator_ends_it() {
    let system = System::start("load");
    system.queue("busy", &json!({"rate_per_minute": 600}));
    let report =
        |load: f64| system.operate("POST", "/admin/queues/busy/load", &json!({"load": load}));
    let mut last = Visitor::join(&system.socket(0, "busy"), &key()).await;
    last.until("ADMITTED").await;
    // Each second a report, all of them of a site that is full.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(13) {
        assert_eq!(report(1.0).0, 200);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let told = rates(&system, "busy").await;
    // The floor at once, from where a full site takes nothing away.
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1["by"], "load");
    assert_eq!(told[0].1["rate"], json!({"perMinute": 30, "loads": [1000]}));
    let (_, shown) = system.operate("GET", "/admin/queues/busy", &json!(null));
    assert_eq!((&shown["ratePerMinute"], &shown["followsLoad"]), (&json!(30), &json!(true)));
    let (code, text) = system.run(&["queue", "show", "busy"]);
    assert!(code == 0 && text.contains("30 a minute, by the site's load"), "{text}");
    // A higher cap takes the floor with it, no sooner than five seconds after the change before.
    assert_eq!(
        system.operate("PUT", "/admin/queues/busy", &json!({"rate_per_minute": 6000})).0,
        200
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = rates(&system, "busy").await;
    assert_eq!(told.last().unwrap().1["rate"]["perMinute"], 300, "{told:?}");
    assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 5_000_000_000), "{told:?}");
    assert_eq!(system.operate("DELETE", "/admin/queues/busy/load", &json!(null)).0, 204);
    let (_, shown) = system.operate("GET", "/admin/queues/busy", &json!(null));
    assert_eq!((&shown["ratePerMinute"], &shown["followsLoad"]), (&json!(6000), &json!(false)));
    let (code, text) = system.run(&["audit", "verify", "busy"]);
    assert_eq!(code, 0, "{text}");
}
