//! The command line of `shopfloor simulate`, and what the simulation works from.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Progress, SimulateError};

/// Publish what a factory's machines would, as real MQTT clients, and account for every acknowledgement.
#[derive(Debug, Clone, clap::Args)]
pub struct SimulateArgs {
    /// Host of the gateway's MQTT listener.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the gateway's MQTT listener.
    #[arg(long, default_value_t = 1883)]
    pub port: u16,
    /// MQTT version that the machines speak; mixed: odd machine ids 3.1.1, even ones 5.
    #[arg(long, value_enum, default_value = "3.1.1")]
    pub mqtt: MqttVersion,
    /// Quality of service of every message.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Messages of one machine that may wait for their acknowledgement.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub inflight: u16,
    /// How many machines, ids 1 and up. The reference data has 50; further ones make what those make, and the
    /// production API must know them first.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub machines: u16,
    /// Stop after this many messages: the first ones of the shift, by simulated time.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub messages: Option<u64>,
    /// Stop publishing after this time (500ms, 90s, 5m, 2h).
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// Simulated seconds in a real one, or max: as fast as the broker acknowledges.
    #[arg(long, default_value = "1")]
    pub speed: Speed,
    /// Most messages a second, over all machines.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// The same seed publishes the same messages, byte for byte.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Simulated time at which the shift starts, UTC.
    #[arg(long, default_value = "2023-12-10T00:00:00Z", value_parser = instant)]
    pub start: OffsetDateTime,
    /// Share of protobuf messages, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub protobuf: f64,
    /// Share of invalid messages, 0 to 1; a gateway acknowledges them and puts them in the dead letters.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub invalid: f64,
    /// Topic: factory/{site}/{machine}/supply-chain, or supply-chain.
    #[arg(long, value_enum, default_value = "factory")]
    pub topic: TopicForm,
    /// The {site} of the topic.
    #[arg(long, default_value = "plant-1")]
    pub site: String,
    /// Client ids are this and the machine id.
    #[arg(long, default_value = "machine-")]
    pub client_prefix: String,
    /// Keep the MQTT session over reconnects also for QoS 1 (for QoS 2 it always is).
    #[arg(long)]
    pub keep_session: bool,
    /// User name to connect with.
    #[arg(long, requires = "password_file")]
    pub username: Option<String>,
    /// File whose first line is the password.
    #[arg(long, requires = "username")]
    pub password_file: Option<PathBuf>,
    /// Keep-alive of every connection; a broker that is silent for twice as long is left.
    #[arg(long, default_value = "30s", value_parser = keep_alive)]
    pub keep_alive: Duration,
    /// Give up after this time without a connection, or without an acknowledgement where one is due.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub patience: Duration,
    /// Write a line for each acknowledged message: machine,order,partId,timeOfProduction,valid|invalid,sends,latency_us.
    #[arg(long)]
    pub ack_log: Option<PathBuf>,
    /// Show no progress.
    #[arg(long)]
    pub quiet: bool,
}

/// What the simulation works from; [`SimulateArgs`] and [`Config::default`] make it.
#[derive(Debug, Clone)]
pub struct Config {
    pub host: String,
    pub port: u16,
    pub mqtt: MqttVersion,
    /// 0 to 2.
    pub qos: u8,
    /// Unacknowledged messages of one machine, 1 to 10,000.
    pub inflight: u16,
    pub machines: u16,
    pub messages: Option<u64>,
    pub duration: Option<Duration>,
    pub speed: Speed,
    pub rate_per_s: Option<u32>,
    pub seed: u64,
    /// Start of the shift, milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// 0 to 1.
    pub protobuf_share: f64,
    /// 0 to 1.
    pub invalid_share: f64,
    pub topic: TopicForm,
    pub site: String,
    pub client_prefix: String,
    pub keep_session: bool,
    pub login: Option<Login>,
    /// Whole seconds, 1 to 65,535.
    pub keep_alive: Duration,
    pub patience: Duration,
    pub ack_log: Option<PathBuf>,
    pub progress: Progress,
}

/// User name and password; `Debug` shows neither.
#[derive(Clone)]
pub struct Login {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(..)")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MqttVersion {
    #[value(name = "3.1.1", aliases = ["4", "v4", "3"])]
    V4,
    #[value(name = "5", alias = "v5")]
    V5,
    Mixed,
}

/// What one machine speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V5,
}

impl MqttVersion {
    pub fn of_machine(self, machine_id: i32) -> Version {
        match self {
            Self::V4 => Version::V4,
            Self::V5 => Version::V5,
            Self::Mixed if machine_id % 2 == 1 => Version::V4,
            Self::Mixed => Version::V5,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TopicForm {
    /// `factory/{site}/{machine}/supply-chain`
    Factory,
    /// `supply-chain`
    Plain,
}

/// How simulated time passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// Simulated seconds in a real one, above 0.
    Factor(f64),
    /// Every message is due at once.
    Max,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 1883,
            mqtt: MqttVersion::V4,
            qos: 1,
            inflight: 100,
            machines: 50,
            messages: None,
            duration: None,
            speed: Speed::Factor(1.0),
            rate_per_s: None,
            seed: 1,
            // 2023-12-10T00:00:00Z, as in the contract's example.
            start_ms: 1_702_166_400_000,
            protobuf_share: 0.0,
            invalid_share: 0.0,
            topic: TopicForm::Factory,
            site: "plant-1".to_owned(),
            client_prefix: "machine-".to_owned(),
            keep_session: false,
            login: None,
            keep_alive: Duration::from_secs(30),
            patience: Duration::from_secs(60),
            ack_log: None,
            progress: Progress::Silent,
        }
    }
}

impl Config {
    /// Whether the broker is asked to keep the session: QoS 2 is exactly once only within one.
    pub(super) fn persistent_session(&self) -> bool {
        self.keep_session || self.qos == 2
    }
}

impl SimulateArgs {
    /// Reads the password file and checks what one argument alone does not show.
    pub fn into_config(self) -> Result<Config, SimulateError> {
        let site_ok = !self.site.is_empty() && !self.site.contains(['/', '+', '#', '\0']);
        if !site_ok || self.site.len() > 200 {
            return Err(SimulateError::Arguments(format!(
                "--site {:?}: must be one topic level of 1 to 200 bytes without / + #",
                self.site
            )));
        }
        Ok(Config {
            login: login(self.username, self.password_file)?,
            progress: progress(self.quiet),
            start_ms: i64::try_from(self.start.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
            host: self.host,
            port: self.port,
            mqtt: self.mqtt,
            qos: self.qos,
            inflight: self.inflight,
            machines: self.machines,
            messages: self.messages,
            duration: self.duration,
            speed: self.speed,
            rate_per_s: self.rate,
            seed: self.seed,
            protobuf_share: self.protobuf,
            invalid_share: self.invalid,
            topic: self.topic,
            site: self.site,
            client_prefix: self.client_prefix,
            keep_session: self.keep_session,
            keep_alive: self.keep_alive,
            patience: self.patience,
            ack_log: self.ack_log,
        })
    }
}

fn login(username: Option<String>, file: Option<PathBuf>) -> Result<Option<Login>, SimulateError> {
    let (Some(username), Some(file)) = (username, file) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&file).map_err(|error| {
        SimulateError::Arguments(format!(
            "--password-file {}: cannot be read: {error}",
            file.display()
        ))
    })?;
    let password = text.lines().next().unwrap_or_default().to_owned();
    Ok(Some(Login { username, password }))
}

fn progress(quiet: bool) -> Progress {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Progress::Silent,
        (false, true) => Progress::Rewritten,
        (false, false) => Progress::Lines,
    }
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(factor) if (0.001..=1e9).contains(&factor) => Ok(Self::Factor(factor)),
            _ => Err("must be max or a number from 0.001 to 1e9".to_owned()),
        }
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Factor(factor) => write!(f, "{factor}"),
            Self::Max => f.write_str("max"),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match text.get(digits.len()..) {
        Some("ms") => 0.001,
        Some("" | "s") => 1.0,
        Some("m") => 60.0,
        Some("h") => 3600.0,
        _ => return Err("must be a number with ms, s, m or h, for example 90s".to_owned()),
    };
    let week_s = 7.0 * 86_400.0;
    match digits.parse::<f64>().map(|number| number * seconds) {
        Ok(s) if s > 0.0 && s <= week_s => Ok(Duration::from_secs_f64(s)),
        _ => Err("must be above 0 and at most a week, for example 90s".to_owned()),
    }
}

fn keep_alive(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Ok(time) if time.subsec_nanos() == 0 && time.as_secs() <= u64::from(u16::MAX) => Ok(time),
        _ => Err("must be whole seconds, 1s to 65535s".to_owned()),
    }
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(at) if (1970..=9000).contains(&at.year()) => Ok(at),
        _ => Err("must be like 2023-12-10T00:00:00Z, year 1970 to 9000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        simulate: SimulateArgs,
    }

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let line = Line::try_parse_from(["simulate"].iter().chain(arguments)).map_err(|e| e.to_string())?;
        line.simulate.into_config().map_err(|e| e.to_string())
    }

    #[test]
    fn no_argument_means_the_defaults_that_other_callers_get() {
        let (mut parsed, default) = (config(&[]).unwrap(), Config::default());
        parsed.progress = default.progress;
        assert_eq!(format!("{parsed:?}"), format!("{default:?}"));
    }

    #[test]
    fn arguments_outside_their_range_are_refused_with_what_is_accepted() {
        for (arguments, remedy) in [
            (["--speed", "0"], "max or a number"),
            (["--invalid", "1.5"], "0 to 1"),
            (["--duration", "5 minutes"], "for example 90s"),
            (["--duration", "0s"], "above 0"),
            (["--qos", "3"], "0..=2"),
            (["--start", "yesterday"], "2023-12-10T00:00:00Z"),
            (["--site", "a/b"], "one topic level"),
        ] {
            let error = config(&arguments).unwrap_err();
            assert!(error.contains(remedy), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn times_take_a_unit() {
        let parsed = ["500ms", "90", "5m", "2h"].map(|text| duration(text).unwrap().as_millis());
        assert_eq!(parsed, [500, 90_000, 300_000, 7_200_000]);
    }
}
