//! A policy as JSON. An operator's has all keys side by side; the log's has those that the rules read,
//! and one text with all others. Every fault is named, not only the first.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::queue::door::Door;
use crate::queue::event::At;
use crate::queue::policy::{Absent, Fault, Policy};
use crate::wire::instant;

/// Reads a whole policy of an operator. What is left out has its default; an unknown key is a fault.
pub fn parse(value: &Value) -> Result<Policy, Vec<Fault>> {
    let mut door = Door::default();
    let mut in_door = Map::new();
    let policy = read_keys(value, |policy, key, value| {
        match set_door(&mut door, key, value) {
            Some(Ok(())) => drop(in_door.insert(key.to_owned(), value.clone())),
            Some(Err(allowed)) => return Err(allowed),
            None => return set(policy, key, value).unwrap_or(Err(KEYS)),
        }
        Ok(())
    });
    let (mut policy, mut faults) = policy;
    policy.door = Value::Object(in_door).to_string();
    faults.extend(door.faults());
    checked(policy, faults)
}

/// Writes a policy for an operator; what is absent is left out. A key of the door that this program does
/// not know is shown as it is.
pub fn write(policy: &Policy) -> Value {
    let mut map = rules(policy);
    if let Ok(Value::Object(door)) = serde_json::from_str(&policy.door) {
        map.extend(door);
    }
    Value::Object(map)
}

/// Reads the policy of an entry of the log.
pub fn read_stored(value: &Value) -> Result<Policy, Vec<Fault>> {
    let (policy, faults) = read_keys(value, |policy, key, value| match key {
        "door" => text(value).map(|door| policy.door = door),
        _ => set(policy, key, value).unwrap_or(Err(STORED_KEYS)),
    });
    checked(policy, faults)
}

/// Writes a policy as the log has it.
pub fn write_stored(policy: &Policy) -> Value {
    let mut map = rules(policy);
    map.insert("door".to_owned(), json!(policy.door));
    Value::Object(map)
}

/// What a node makes of the door's text: it passes over a key that it does not know, and over a value
/// that it can't take.
pub fn door(text: &str) -> Door {
    let mut door = Door::default();
    // Each value by itself: one that no reader of ours can take costs none of the others.
    let Ok(keys) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else { return door };
    for (key, value) in &keys {
        let Ok(value) = serde_json::from_str::<Value>(value.get()) else { continue };
        let mut changed = door.clone();
        if matches!(set_door(&mut changed, key, &value), Some(Ok(())))
            && changed.faults().is_empty()
        {
            door = changed;
        }
    }
    door
}

fn read_keys(
    value: &Value,
    mut set: impl FnMut(&mut Policy, &str, &Value) -> Result<(), &'static str>,
) -> (Policy, Vec<Fault>) {
    let mut policy = Policy::default();
    let Some(map) = value.as_object() else {
        return (policy, vec![fault("policy", "a JSON object")]);
    };
    let mut faults = Vec::new();
    for (key, value) in map {
        if let Err(allowed) = set(&mut policy, key, value) {
            faults.push(fault(key, allowed));
        }
    }
    (policy, faults)
}

fn checked(policy: Policy, faults: Vec<Fault>) -> Result<Policy, Vec<Fault>> {
    match policy.check() {
        Ok(policy) if faults.is_empty() => Ok(policy),
        Ok(_) => Err(faults),
        Err(more) => Err(faults.into_iter().chain(more).collect()),
    }
}

/// The keys that the rules read.
fn rules(policy: &Policy) -> Map<String, Value> {
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
    put("missed_turns", json!(policy.missed_turns));
    map
}

const KEYS: &str = "one of opens_at, closes_at, rate_per_minute, max_inside, token_seconds, \
                    session_seconds, reconnect_seconds, absent, missed_turns, max_waiting, target, \
                    allowed_origins, title, content";
const STORED_KEYS: &str = "one of opens_at, closes_at, rate_per_minute, max_inside, \
                           token_seconds, session_seconds, reconnect_seconds, absent, \
                           missed_turns, door";

/// Sets a key that the rules read; `None` for any other.
fn set(policy: &mut Policy, key: &str, value: &Value) -> Option<Result<(), &'static str>> {
    let mut set = || {
        match key {
            "opens_at" => policy.opens_at = Some(instant_of(value)?),
            "closes_at" => policy.closes_at = Some(instant_of(value)?),
            "rate_per_minute" => policy.rate_per_minute = whole(value)?,
            "max_inside" => policy.max_inside = Some(whole(value)?),
            "token_seconds" => policy.token_seconds = whole(value)?,
            "session_seconds" => policy.session_seconds = whole(value)?,
            "reconnect_seconds" => policy.reconnect_seconds = whole(value)?,
            "absent" => policy.absent = absent_of(value).ok_or("hold or admit")?,
            "missed_turns" => {
                // What does not fit is above every limit.
                policy.missed_turns = u8::try_from(whole(value)?).unwrap_or(u8::MAX);
            }
            _ => return Ok(false),
        }
        Ok(true)
    };
    match set() {
        Ok(true) => Some(Ok(())),
        Ok(false) => None,
        Err(allowed) => Some(Err(allowed)),
    }
}

/// Sets a key of the door; `None` for any other.
fn set_door(door: &mut Door, key: &str, value: &Value) -> Option<Result<(), &'static str>> {
    let mut set = || {
        match key {
            "max_waiting" => door.max_waiting = Some(whole(value)?),
            "target" => door.target = Some(text(value)?),
            "allowed_origins" => {
                let list = value.as_array().ok_or("a list of origins")?;
                door.allowed_origins = list.iter().map(text).collect::<Result<_, _>>()?;
            }
            "title" => door.title = Some(text(value)?),
            "content" => door.content = Some(text(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    };
    match set() {
        Ok(true) => Some(Ok(())),
        Ok(false) => None,
        Err(allowed) => Some(Err(allowed)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_of_the_door_what_it_knows() {
        let known =
            Door { title: Some("Sale".to_owned()), max_waiting: Some(7), ..Door::default() };
        for (text, expected) in [
            (r#"{"title":"Sale","max_waiting":7}"#, &known),
            // A key of a later version, of whatever shape.
            (r#"{"title":"Sale","lanes":[{"share":0.5},null],"max_waiting":7}"#, &known),
            (r#"{"title":"Sale","far":1e999,"lone":"\ud800","max_waiting":7}"#, &known),
            // Values that are of the wrong kind, beyond their limits, or those of a later version.
            (r#"{"title":"Sale","target":"javascript:alert(1)","max_waiting":7}"#, &known),
            (r#"{"title":"Sale","content":{"en":"Soon"},"max_waiting":7}"#, &known),
            (
                r#"{"title":"Sale","allowed_origins":["https://a.example","x"],"max_waiting":7}"#,
                &known,
            ),
            // The rules' keys are not the door's.
            (r#"{"title":"Sale","rate_per_minute":1,"max_waiting":7}"#, &known),
            ("{}", &Door::default()),
            ("", &Door::default()),
            ("[]", &Door::default()),
            ("no JSON", &Door::default()),
            (r#"{"title":"Sale""#, &Door::default()),
        ] {
            assert_eq!(&door(text), expected, "{text}");
        }
    }

    #[test]
    fn what_an_operator_wrote_of_the_door_is_what_a_node_reads() {
        let wanted = serde_json::json!({
            "max_waiting": 7,
            "target": "https://shop.example/",
            "allowed_origins": ["https://shop.example"],
            "title": "Sale",
            "content": "Soon",
        });
        let (stored, keys) = match parse(&wanted) {
            Ok(policy) => (read_stored(&write_stored(&policy)), write(&policy)),
            Err(faults) => panic!("{faults:?}"),
        };
        let read = stored.map(|policy| door(&policy.door)).unwrap();
        assert_eq!(read.target.as_deref(), Some("https://shop.example/"));
        assert_eq!(read.allowed_origins, ["https://shop.example"]);
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(keys[key], *value, "{key}");
        }
    }
}
