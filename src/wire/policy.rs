//! A policy as JSON: from an operator, and in the log. Every fault is named, not only the first.

use serde_json::{Map, Value, json};

use crate::queue::event::At;
use crate::queue::policy::{Absent, Fault, Policy};
use crate::wire::instant;

/// Reads a whole policy. What is left out has its default; an unknown key is a fault.
pub fn parse(value: &Value) -> Result<Policy, Vec<Fault>> {
    let Some(map) = value.as_object() else {
        return Err(vec![fault("policy", "a JSON object")]);
    };
    let mut policy = Policy::default();
    let mut faults = Vec::new();
    for (key, value) in map {
        if let Err(allowed) = set(&mut policy, key, value) {
            faults.push(fault(key, allowed));
        }
    }
    match policy.check() {
        Ok(policy) if faults.is_empty() => Ok(policy),
        Ok(_) => Err(faults),
        Err(more) => Err(faults.into_iter().chain(more).collect()),
    }
}

/// Writes a policy; what is absent is left out.
pub fn write(policy: &Policy) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            map.insert(key.to_owned(), value);
        }
    };
    put("opens_at", json!(policy.opens_at.map(instant::write)));
    put("closes_at", json!(policy.closes_at.map(instant::write)));
    put("rate_per_minute", json!(policy.rate_per_minute));
    put("max_inside", json!(policy.max_inside));
    put("token_seconds", json!(policy.token_seconds));
    put("session_seconds", json!(policy.session_seconds));
    put("reconnect_seconds", json!(policy.reconnect_seconds));
    put("absent", json!(absent_name(policy.absent)));
    put("max_waiting", json!(policy.max_waiting));
    put("target", json!(policy.target));
    put("allowed_origins", json!(policy.allowed_origins));
    put("title", json!(policy.title));
    put("content", json!(policy.content));
    Value::Object(map)
}

const KEYS: &str = "one of opens_at, closes_at, rate_per_minute, max_inside, token_seconds, \
                    session_seconds, reconnect_seconds, absent, max_waiting, target, \
                    allowed_origins, title, content";

fn set(policy: &mut Policy, key: &str, value: &Value) -> Result<(), &'static str> {
    match key {
        "opens_at" => policy.opens_at = Some(instant_of(value)?),
        "closes_at" => policy.closes_at = Some(instant_of(value)?),
        "rate_per_minute" => policy.rate_per_minute = whole(value)?,
        "max_inside" => policy.max_inside = Some(whole(value)?),
        "token_seconds" => policy.token_seconds = whole(value)?,
        "session_seconds" => policy.session_seconds = whole(value)?,
        "reconnect_seconds" => policy.reconnect_seconds = whole(value)?,
        "absent" => policy.absent = absent_of(value).ok_or("hold or admit")?,
        "max_waiting" => policy.max_waiting = Some(whole(value)?),
        "target" => policy.target = Some(text(value)?),
        "allowed_origins" => {
            let list = value.as_array().ok_or("a list of origins")?;
            policy.allowed_origins = list.iter().map(text).collect::<Result<_, _>>()?;
        }
        "title" => policy.title = Some(text(value)?),
        "content" => policy.content = Some(text(value)?),
        _ => return Err(KEYS),
    }
    Ok(())
}

fn absent_name(absent: Absent) -> &'static str {
    match absent {
        Absent::Hold => "hold",
        Absent::Admit => "admit",
    }
}

fn absent_of(value: &Value) -> Option<Absent> {
    let name = value.as_str()?;
    [Absent::Hold, Absent::Admit].into_iter().find(|absent| absent_name(*absent) == name)
}

fn instant_of(value: &Value) -> Result<At, &'static str> {
    value.as_str().and_then(instant::parse).ok_or(instant::ALLOWED)
}

fn whole(value: &Value) -> Result<u32, &'static str> {
    let number: Option<super::id::Whole> = serde_json::from_value(value.clone()).ok();
    number.and_then(|number| u32::try_from(number.0).ok()).ok_or("a whole number")
}

fn text(value: &Value) -> Result<String, &'static str> {
    value.as_str().map(str::to_owned).ok_or("a text")
}

fn fault(key: &str, allowed: &str) -> Fault {
    Fault { key: key.to_owned(), allowed: allowed.to_owned() }
}
