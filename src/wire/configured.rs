//! What a `configured` entry of the log sets, as JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::queue::event::{Configured, Presence, PublicKey, SecretId, Setting, State};
use crate::queue::policy::{Fault, RATE_MAX};
use crate::wire::decision::{kid, seconds};
use crate::wire::event::{Fallible, present, text};
use crate::wire::id::{Id, Whole};
use crate::wire::object::{Keys, Object, Word};
use crate::wire::policy;

/// The longest outage that one fact can speak of.
pub const OUTAGE_SECONDS_MAX: u32 = 366 * 86_400;
/// Keys that one fact can name.
pub const KEYS_MAX: usize = 16;
/// A load in thousandths.
const LOAD_MILLI_MAX: u16 = 1_000;
/// Loads that one change of the rate can name: those of a minute at one each second.
const LOADS_MAX: usize = 60;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfiguredFact {
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    policy: Option<Keys>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    state: Option<Word<StateJson>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    keys: Option<Vec<Object<KeyJson>>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    rate: Option<Object<RateJson>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    outage: Option<Object<OutageJson>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    presence: Option<Word<PresenceJson>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    secret: Option<Object<SecretJson>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    time: Option<Object<TimeJson>>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PresenceJson {
    On,
    Off,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretJson {
    id: Id,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeJson {}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateJson {
    Scheduled,
    Open,
    Paused,
    Closed,
    Deleted,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyJson {
    kty: String,
    crv: String,
    kid: String,
    x: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RateJson {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    per_minute: Option<Whole>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    loads: Vec<Whole>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutageJson {
    seconds: Whole,
}

/// A state as it is written.
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Scheduled => "scheduled",
        State::Open => "open",
        State::Paused => "paused",
        State::Closed => "closed",
        State::Deleted => "deleted",
    }
}

/// What one fact of a `configured` entry sets: exactly one thing.
pub(super) fn configured(fact: ConfiguredFact) -> Fallible<Configured> {
    const ONE: &str = "a fact sets one of policy, state (with reason), keys, rate, outage, \
                       presence, secret, time";
    let ConfiguredFact { by, policy, state, reason, keys, rate, outage, presence, secret, time } =
        fact;
    if reason.is_some() && state.is_none() {
        return Err(ONE.to_owned());
    }
    let state = state.map(|state| {
        let reason = reason.map(|reason| text("reason", reason)).transpose()?;
        Ok(Setting::State(read_state(state.0), reason))
    });
    let outage = outage.map(|Object(outage)| {
        Ok(Setting::Outage { seconds: seconds(outage.seconds, u64::from(OUTAGE_SECONDS_MAX))? })
    });
    let presence = presence.map(|Word(presence)| match presence {
        PresenceJson::On => Presence::On,
        PresenceJson::Off => Presence::Off,
    });
    let set: [Option<Fallible<Setting>>; 8] = [
        policy.map(|policy| read_policy(&policy.0)),
        state,
        keys.map(read_keys),
        rate.map(|Object(rate)| read_rate(rate)),
        outage,
        presence.map(|presence| Ok(Setting::Presence(presence))),
        secret.map(|Object(secret)| Ok(Setting::Secret(SecretId(secret.id.0)))),
        time.map(|Object(TimeJson {})| Ok(Setting::Time)),
    ];
    let mut set = set.into_iter().flatten();
    let (Some(what), None) = (set.next(), set.next()) else { return Err(ONE.to_owned()) };
    Ok(Configured { by: text("by", by)?, what: what? })
}

fn read_policy(value: &Value) -> Fallible<Setting> {
    let faults =
        |faults: Vec<Fault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    policy::read_stored(value).map(Setting::Policy).map_err(faults)
}

fn read_keys(keys: Vec<Object<KeyJson>>) -> Fallible<Setting> {
    if !(1..=KEYS_MAX).contains(&keys.len()) {
        return Err(format!("keys has 1 to {KEYS_MAX} keys, not {}", keys.len()));
    }
    let keys = keys.into_iter().map(|Object(key)| read_key(key));
    Ok(Setting::Keys(keys.collect::<Fallible<_>>()?))
}

fn read_rate(json: RateJson) -> Fallible<Setting> {
    let per_minute = match json.per_minute {
        None => None,
        Some(number) => Some(
            u32::try_from(number.0)
                .ok()
                .filter(|number| (1..=RATE_MAX).contains(number))
                .ok_or_else(|| format!("perMinute is 1 to {RATE_MAX}, not {}", number.0))?,
        ),
    };
    if json.loads.len() > LOADS_MAX {
        return Err(format!("loads has at most {LOADS_MAX} loads, not {}", json.loads.len()));
    }
    let load = |milli: Whole| {
        let milli = u16::try_from(milli.0).ok().filter(|milli| *milli <= LOAD_MILLI_MAX);
        milli.ok_or_else(|| format!("a load is 0 to {LOAD_MILLI_MAX}"))
    };
    let loads = json.loads.into_iter().map(load).collect::<Fallible<_>>()?;
    Ok(Setting::Rate { per_minute, loads })
}

fn read_key(json: KeyJson) -> Fallible<PublicKey> {
    use base64::Engine as _;
    if json.kty != "OKP" || json.crv != "Ed25519" {
        return Err("a key is of kty OKP and crv Ed25519 (RFC 8037)".to_owned());
    }
    let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(json.x).ok();
    let x = x.and_then(|x| x.try_into().ok()).ok_or("x is 32 bytes in base64url")?;
    Ok(PublicKey { kid: kid(json.kid)?, x })
}

fn read_state(state: StateJson) -> State {
    match state {
        StateJson::Scheduled => State::Scheduled,
        StateJson::Open => State::Open,
        StateJson::Paused => State::Paused,
        StateJson::Closed => State::Closed,
        StateJson::Deleted => State::Deleted,
    }
}

fn write_state(state: State) -> StateJson {
    match state {
        State::Scheduled => StateJson::Scheduled,
        State::Open => StateJson::Open,
        State::Paused => StateJson::Paused,
        State::Closed => StateJson::Closed,
        State::Deleted => StateJson::Deleted,
    }
}

/// A setting as it is written.
pub(super) fn configured_fact(fact: &Configured) -> ConfiguredFact {
    let mut json = ConfiguredFact {
        by: fact.by.clone(),
        policy: None,
        state: None,
        reason: None,
        keys: None,
        rate: None,
        outage: None,
        presence: None,
        secret: None,
        time: None,
    };
    match &fact.what {
        Setting::Policy(policy) => json.policy = Some(Keys(policy::write_stored(policy))),
        Setting::State(state, reason) => {
            json.state = Some(Word(write_state(*state)));
            json.reason.clone_from(reason);
        }
        Setting::Keys(keys) => json.keys = Some(keys.iter().map(key_json).map(Object).collect()),
        Setting::Rate { per_minute, loads } => {
            let per_minute = per_minute.map(|number| Whole(u64::from(number)));
            let loads = loads.iter().map(|milli| Whole(u64::from(*milli))).collect();
            json.rate = Some(Object(RateJson { per_minute, loads }));
        }
        Setting::Outage { seconds } => {
            json.outage = Some(Object(OutageJson { seconds: Whole(u64::from(*seconds)) }));
        }
        Setting::Presence(Presence::On) => json.presence = Some(Word(PresenceJson::On)),
        Setting::Presence(Presence::Off) => json.presence = Some(Word(PresenceJson::Off)),
        Setting::Secret(id) => json.secret = Some(Object(SecretJson { id: Id(id.0) })),
        Setting::Time => json.time = Some(Object(TimeJson {})),
    }
    json
}

fn key_json(key: &PublicKey) -> KeyJson {
    use base64::Engine as _;
    KeyJson {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        kid: key.kid.clone(),
        x: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.x),
    }
}
