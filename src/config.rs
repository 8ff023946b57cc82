//! Configuration: flags over `ANTEROOM_*` environment over a TOML file. Every value is read as text
//! and checked in one place, so that a wrong one is named by its key with what is allowed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use ipnet::IpNet;

use crate::admission::signer::Signer;
use crate::http::door;
use crate::ids;
use crate::log::stream::Limits;
use crate::queue::door::origin_of;

/// A value that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is not allowed.
    #[error("{key} must be {allowed}, not {value:?}")]
    Wrong {
        /// Its key.
        key: String,
        /// What is allowed.
        allowed: String,
        /// What was given; of a secret, only where it was to come from.
        value: String,
    },
    /// A value is needed.
    #[error("{key} is missing: {allowed}")]
    Missing {
        /// Its key.
        key: String,
        /// What is allowed.
        allowed: String,
    },
    /// A key that there is not.
    #[error("{file} has the key {key}, which there is not; the keys are {keys}")]
    Unknown {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// Those that there are.
        keys: String,
    },
    /// The file can't be read.
    #[error("the configuration file {file} can't be read: {why}")]
    File {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident, $env:literal;)*) => {
        /// What can be configured. Each is a flag, an environment variable and a key of the file.
        #[derive(Args, Clone, Debug, Default)]
        pub struct Settings {
            /// A TOML file with the same names as keys (with _ for -)
            #[arg(long, env = "ANTEROOM_CONFIG", value_name = "FILE")]
            pub config: Option<PathBuf>,
            $($(#[doc = $doc])+ #[arg(long, env = $env)] pub $name: Option<String>,)*
        }

        impl Settings {
            const KEYS: &'static [&'static str] = &[$(stringify!($name)),*];

            /// The environment variables that are read: what a supervisor keeps from its children,
            /// whom it tells by flags what they need.
            pub const ENVIRONMENT: &'static [&'static str] = &["ANTEROOM_CONFIG", $($env),*];

            fn given(&self) -> BTreeMap<&'static str, &String> {
                let mut given = BTreeMap::new();
                $(if let Some(value) = &self.$name { given.insert(stringify!($name), value); })*
                given
            }
        }
    };
}

settings! {
    /// The NATS server, as nats://user:password@host:port
    nats, "ANTEROOM_NATS";
    /// A file that holds the address of the NATS server, for one with a password
    nats_file, "ANTEROOM_NATS_FILE";
    /// Where visitors are listened to [default: 127.0.0.1:8080]
    listen, "ANTEROOM_LISTEN";
    /// Where operators are listened to [default: 127.0.0.1:8081]
    operator_listen, "ANTEROOM_OPERATOR_LISTEN";
    /// Where NATS listens, in `up` [default: 127.0.0.1:0]
    nats_listen, "ANTEROOM_NATS_LISTEN";
    /// The folder for everything that is kept [default: anteroom-data]
    dir, "ANTEROOM_DIR";
    /// A file with the MAC key, which connection ids come of: at least 64 hexadecimal digits
    mac_key_file, "ANTEROOM_MAC_KEY_FILE";
    /// A file with the key that keeps the queues' secrets: at least 64 hexadecimal digits
    installation_key_file, "ANTEROOM_INSTALLATION_KEY_FILE";
    /// A file with the signing keys, the one to sign with first: Ed25519, PKCS #8 PEM
    signing_key_file, "ANTEROOM_SIGNING_KEY_FILE";
    /// A file with the token that operators present
    operator_token_file, "ANTEROOM_OPERATOR_TOKEN_FILE";
    /// What tokens and passes name as their issuer [default: anteroom]
    issuer, "ANTEROOM_ISSUER";
    /// For how many seconds a new signing key is published before it signs [default: 300]
    key_rest, "ANTEROOM_KEY_REST";
    /// For how many seconds a pass is good before it must be renewed [default: as long as its session]
    pass_seconds, "ANTEROOM_PASS_SECONDS";
    /// The origin under which visitors reach the nodes, where they don't name it themselves
    public_url, "ANTEROOM_PUBLIC_URL";
    /// Visitors on one node at once [default: its limit of descriptors less 2,000]
    sockets_max, "ANTEROOM_SOCKETS_MAX";
    /// Connections at once of one address, or of one IPv6 network of 64 bits [default: 1000]
    connections_per_address, "ANTEROOM_CONNECTIONS_PER_ADDRESS";
    /// Networks of proxies whose X-Forwarded-For is believed [default: 127.0.0.0/8,::1/128]
    trusted_proxies, "ANTEROOM_TRUSTED_PROXIES";
    /// Threads that tell visitors where they stand; 0 is a task for each socket [default: one a core]
    pushers, "ANTEROOM_PUSHERS";
    /// Bytes that the log of one queue may hold [default: 1073741824]
    stream_max_bytes, "ANTEROOM_STREAM_MAX_BYTES";
    /// Servers that hold a copy of the log: 1, 3 or 5 [default: 1]
    replicas, "ANTEROOM_REPLICAS";
    /// The nats-server program, in `up` [default: nats-server on PATH]
    nats_server, "ANTEROOM_NATS_SERVER";
    /// Which log lines are written, as info,anteroom=debug
    log, "ANTEROOM_LOG";
}

/// The settings of this process, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    values: BTreeMap<String, String>,
}

/// A school or a company may send this many at once; one who sends more is no visitor.
const PER_ADDRESS_DEFAULT: usize = 1_000;
/// A proxy on this machine. Without one, whoever comes from here is on this machine, too.
const TRUSTED_DEFAULT: &str = "127.0.0.0/8,::1/128";
/// More threads than this find no cores.
const PUSHERS_MAX: usize = 256;
/// Longer than the public keys may be kept (60 s), and as long as well-known verifiers keep them.
const KEY_REST_DEFAULT: u32 = 300;
const KEY_REST_MAX: u32 = 7 * 86_400;
/// A pass is renewed some seconds before its end, and clocks differ.
const PASS_SECONDS_MIN: u32 = 60;
const STREAM_BYTES_MIN: i64 = 1024 * 1024;
const STREAM_BYTES_DEFAULT: i64 = 1024 * 1024 * 1024;

impl Config {
    /// Flags and environment over the file, if one is named.
    pub fn load(settings: &Settings) -> Result<Self, ConfigError> {
        let mut values = match &settings.config {
            Some(file) => read_file(file)?,
            None => BTreeMap::new(),
        };
        for (key, value) in settings.given() {
            values.insert(key.to_owned(), value.clone());
        }
        Ok(Self { values })
    }

    /// The filter for log lines.
    pub fn log(&self) -> Option<&str> {
        self.text("log")
    }

    /// The addresses of the NATS servers.
    pub fn nats(&self) -> Result<String, ConfigError> {
        match (self.text("nats"), self.text("nats_file")) {
            (Some(url), _) => Ok(url.to_owned()),
            (None, Some(_)) => {
                self.secret("nats_file", "a file with the address of the NATS server")
            }
            (None, None) => Err(missing("nats", "nats://user:password@host:port, or nats_file")),
        }
    }

    /// Where visitors are listened to.
    pub fn listen(&self) -> Result<SocketAddr, ConfigError> {
        self.address("listen", "127.0.0.1:8080")
    }

    /// Where operators are listened to.
    pub fn operator_listen(&self) -> Result<SocketAddr, ConfigError> {
        self.address("operator_listen", "127.0.0.1:8081")
    }

    /// Where NATS listens.
    pub fn nats_listen(&self) -> Result<SocketAddr, ConfigError> {
        self.address("nats_listen", "127.0.0.1:0")
    }

    /// The folder for everything that is kept.
    pub fn dir(&self) -> PathBuf {
        PathBuf::from(self.text("dir").unwrap_or("anteroom-data"))
    }

    /// The nats-server program, if one is named.
    pub fn nats_server(&self) -> Option<PathBuf> {
        self.text("nats_server").map(PathBuf::from)
    }

    /// The keys behind connection ids.
    pub fn connection_keys(&self) -> Result<ids::ConnectionKeys, ConfigError> {
        self.key("mac_key_file", ids::ConnectionKeys::derive)
    }

    /// The key that keeps the queues' secrets.
    pub fn installation_key(&self) -> Result<ids::InstallationKey, ConfigError> {
        self.key("installation_key_file", ids::InstallationKey::derive)
    }

    /// The signer of tokens and passes.
    pub fn signer(&self) -> Result<Signer, ConfigError> {
        const ALLOWED: &str = "a file with 1 to 8 Ed25519 private keys in PKCS #8 PEM";
        let pem = self.secret("signing_key_file", ALLOWED)?;
        let signer = Signer::new(&pem, self.issuer(), self.pass_seconds()?);
        signer.map_err(|_| self.wrong("signing_key_file", ALLOWED))
    }

    /// The file that the signer's keys are of.
    pub fn signing_key_file(&self) -> Result<PathBuf, ConfigError> {
        let file = self.text("signing_key_file").map(PathBuf::from);
        file.ok_or_else(|| missing("signing_key_file", "a file with the signing keys"))
    }

    /// For how many seconds a new signing key is published before it signs.
    pub fn key_rest(&self) -> Result<u32, ConfigError> {
        let Some(text) = self.text("key_rest") else { return Ok(KEY_REST_DEFAULT) };
        let seconds = text.parse().ok().filter(|seconds| *seconds <= KEY_REST_MAX);
        let allowed = format!("a whole number of seconds, at most {KEY_REST_MAX}");
        seconds.ok_or_else(|| self.wrong("key_rest", &allowed))
    }

    /// For how many seconds a pass is good, where its session lasts longer.
    fn pass_seconds(&self) -> Result<Option<u32>, ConfigError> {
        let Some(text) = self.text("pass_seconds") else { return Ok(None) };
        let seconds = text.parse().ok().filter(|seconds| *seconds >= PASS_SECONDS_MIN);
        let allowed = format!("a whole number of seconds, at least {PASS_SECONDS_MIN}");
        seconds.map(Some).ok_or_else(|| self.wrong("pass_seconds", &allowed))
    }

    /// The token that operators present.
    pub fn operator_token(&self) -> Result<String, ConfigError> {
        const ALLOWED: &str = "a file with a token of at least 20 characters";
        let token = self.secret("operator_token_file", ALLOWED)?;
        if token.len() < 20 {
            return Err(self.wrong("operator_token_file", ALLOWED));
        }
        Ok(token)
    }

    /// What tokens and passes name as their issuer.
    pub fn issuer(&self) -> String {
        self.text("issuer").unwrap_or("anteroom").to_owned()
    }

    /// The origin under which visitors reach the nodes.
    pub fn public_url(&self) -> Result<Option<String>, ConfigError> {
        let Some(url) = self.text("public_url") else { return Ok(None) };
        if origin_of(url) == Some(url) {
            return Ok(Some(url.to_owned()));
        }
        Err(self.wrong("public_url", "an origin like https://queue.example, without a path"))
    }

    /// How many may come in to a node.
    pub fn door(&self) -> Result<door::Limits, ConfigError> {
        let number = |key: &str| match self.text(key) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) if number > 0 => Ok(Some(number)),
                Ok(_) | Err(_) => Err(self.wrong(key, "a whole number, at least 1")),
            },
        };
        let sockets = number("sockets_max")?;
        let per_address = number("connections_per_address")?.unwrap_or(PER_ADDRESS_DEFAULT);
        let trusted = self.text("trusted_proxies").unwrap_or(TRUSTED_DEFAULT);
        let nets = trusted.split(',').map(str::trim).filter(|net| !net.is_empty());
        let nets = nets.map(|net| net.parse().or_else(|_| net.parse::<IpAddr>().map(IpNet::from)));
        let nets: Result<Vec<IpNet>, _> = nets.collect();
        let allowed = "addresses or networks like 10.0.0.0/8, with commas between them";
        let nets = nets.map_err(|_| self.wrong("trusted_proxies", allowed))?;
        Ok(door::Limits::of_process(sockets, per_address, nets))
    }

    /// Those of these keys that are given, as flags for another process.
    pub fn as_flags(&self, keys: &[&str]) -> Vec<String> {
        let given = keys.iter().filter_map(|key| self.text(key).map(|value| (key, value)));
        given
            .flat_map(|(key, value)| [format!("--{}", key.replace('_', "-")), value.to_owned()])
            .collect()
    }

    /// How many threads tell visitors where they stand.
    pub fn pushers(&self) -> Result<usize, ConfigError> {
        let Some(text) = self.text("pushers") else {
            return Ok(std::thread::available_parallelism().map_or(1, usize::from));
        };
        let count = text.parse().ok().filter(|count| *count <= PUSHERS_MAX);
        count.ok_or_else(|| {
            self.wrong("pushers", &format!("a whole number from 0 to {PUSHERS_MAX}"))
        })
    }

    /// What the streams of new queues are limited to.
    pub fn limits(&self) -> Result<Limits, ConfigError> {
        let max_bytes = match self.text("stream_max_bytes") {
            None => STREAM_BYTES_DEFAULT,
            Some(text) => {
                let bytes = text.parse().ok().filter(|bytes| *bytes >= STREAM_BYTES_MIN);
                let allowed = format!("a whole number of bytes, at least {STREAM_BYTES_MIN}");
                bytes.ok_or_else(|| self.wrong("stream_max_bytes", &allowed))?
            }
        };
        let replicas = match self.text("replicas") {
            None | Some("1") => 1,
            Some("3") => 3,
            Some("5") => 5,
            Some(_) => return Err(self.wrong("replicas", "1, 3 or 5")),
        };
        Ok(Limits { max_bytes, replicas })
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    fn address(&self, key: &str, default: &str) -> Result<SocketAddr, ConfigError> {
        let text = self.text(key).unwrap_or(default);
        text.parse().map_err(|_| self.wrong(key, "an address and a port like 127.0.0.1:8080"))
    }

    /// What comes of a key that a file holds as hexadecimal digits.
    fn key<T>(
        &self,
        key: &str,
        derive: impl FnOnce(&[u8]) -> Result<T, ids::ShortKey>,
    ) -> Result<T, ConfigError> {
        const ALLOWED: &str = "a file with at least 64 hexadecimal digits";
        let hex = self.secret(key, ALLOWED)?;
        let bytes: Option<Vec<u8>> = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let derived = bytes.and_then(|bytes| derive(&bytes).ok());
        derived.ok_or_else(|| self.wrong(key, ALLOWED))
    }

    /// What a file holds, without the white space around it.
    fn secret(&self, key: &str, allowed: &str) -> Result<String, ConfigError> {
        let file = self.text(key).ok_or_else(|| missing(key, allowed))?;
        let held = std::fs::read_to_string(file).map_err(|_| self.wrong(key, allowed))?;
        Ok(held.trim().to_owned())
    }

    fn wrong(&self, key: &str, allowed: &str) -> ConfigError {
        let value = self.text(key).unwrap_or_default().to_owned();
        ConfigError::Wrong { key: key.to_owned(), allowed: allowed.to_owned(), value }
    }
}

fn missing(key: &str, allowed: &str) -> ConfigError {
    ConfigError::Missing { key: key.to_owned(), allowed: allowed.to_owned() }
}

fn read_file(file: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let name = file.display().to_string();
    let failed = |why: String| ConfigError::File { file: name.clone(), why };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| failed(error.to_string()))?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        if !Settings::KEYS.contains(&key.as_str()) {
            let keys = Settings::KEYS.join(", ");
            return Err(ConfigError::Unknown { file: name, key, keys });
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        values.insert(key, text);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(settings: Settings) -> Config {
        Config::load(&settings).unwrap()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_allowed() {
        let config = load(Settings {
            listen: some("localhost"),
            replicas: some("2"),
            stream_max_bytes: some("12k"),
            public_url: some("https://queue.example/path"),
            ..Settings::default()
        });
        let error = |error: ConfigError| error.to_string();
        assert_eq!(
            error(config.listen().unwrap_err()),
            "listen must be an address and a port like 127.0.0.1:8080, not \"localhost\""
        );
        assert_eq!(
            error(config.limits().unwrap_err()),
            "stream_max_bytes must be a whole number of bytes, at least 1048576, not \"12k\""
        );
        assert!(
            error(config.public_url().unwrap_err()).starts_with("public_url must be an origin")
        );
        assert!(error(config.nats().unwrap_err()).starts_with("nats is missing"));
        let config = load(Settings { replicas: some("2"), ..Settings::default() });
        assert_eq!(error(config.limits().unwrap_err()), "replicas must be 1, 3 or 5, not \"2\"");
    }

    #[test]
    fn flags_go_over_the_file_and_an_unknown_key_is_named() {
        let dir = std::env::temp_dir().join(format!("anteroom-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("anteroom.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\nreplicas = 3\n").unwrap();
        let from_file = Settings { config: Some(file.clone()), ..Settings::default() };
        let over = Settings { listen: some("127.0.0.1:2"), ..from_file.clone() };
        assert_eq!(load(over.clone()).listen().unwrap().port(), 2);
        assert_eq!(load(over).limits().unwrap().replicas, 3);
        std::fs::write(&file, "lisen = \"127.0.0.1:1\"\n").unwrap();
        let error = Config::load(&from_file).unwrap_err().to_string();
        assert!(error.contains("the key lisen"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_secret_never_appears_in_an_error() {
        let dir = std::env::temp_dir().join(format!("anteroom-secret-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("key");
        std::fs::write(&file, "0123456789abcdef").unwrap();
        let file = some(file.to_str().unwrap());
        let config = load(Settings {
            mac_key_file: file.clone(),
            installation_key_file: file,
            ..Settings::default()
        });
        for error in [config.connection_keys().err(), config.installation_key().err()] {
            let error = error.unwrap().to_string();
            assert!(error.contains("64 hexadecimal digits") && !error.contains("0123456789abcdef"));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
