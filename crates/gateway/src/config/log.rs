//! `[log]`: where the lines of requests and sessions go.

use std::path::Path;

use serde_json::Value as Json;

use super::kind::{File, OneOf, Show, Text, Words};
use super::option::options;
use super::problem::Place;
use crate::telemetry::access::{AccessFormat, AccessTarget};

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Where its lines go.
    pub access: AccessTarget,
    /// Where the file says so.
    pub access_place: Place,
    /// How they look; `None`: as other lines.
    pub format: Option<AccessFormat>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { access: AccessTarget::Log, access_place: Place::default(), format: None }
    }
}

/// Where access lines go.
pub(super) struct Target;

impl Text for Target {
    type Value = AccessTarget;

    fn words() -> String {
        "`\"stderr\"`, `\"off\"` or the path of a file".to_owned()
    }

    fn parse(text: &str, base: &Path) -> Result<AccessTarget, String> {
        match text {
            "stderr" => Ok(AccessTarget::Log),
            "off" => Ok(AccessTarget::Off),
            // A word without a slash is more likely a mistake than a name.
            path if path.contains('/') => File::parse(path, base).map(AccessTarget::File),
            other => Err(format!(
                "expected \"stderr\", \"off\" or the path of a file such as \"/var/log/wssgate/access.log\" or \
                 \"./access.log\", found {other:?}"
            )),
        }
    }
}

impl Show for Target {
    fn show(value: &AccessTarget) -> Json {
        match value {
            AccessTarget::Off => "off".into(),
            AccessTarget::Log => "stderr".into(),
            AccessTarget::File(path) => path.display().to_string().into(),
        }
    }
}

impl Words for AccessFormat {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] =
        &[("text", Self::Text), ("json", Self::Json), ("combined", Self::Combined)];
}

options! {
    /// The access log: a line for each request and each session, when it has ended. `--log` leaves out lines of a lower
    /// level here, too: the lines of requests with a status of 500 or more, and of sessions that their server has lost,
    /// are warnings.
    struct LogOptions: "[log]";

    /// Where the lines go. A file is opened again at SIGUSR1 and at each reload, so that it may be renamed before
    /// (logrotate). What can't be written is lost, and counted in `wssgate_log_lines_lost_total`.
    access: Target, default = AccessTarget::Log;
    /// How the lines look: logfmt, one JSON object a line, or the format that Apache and nginx call combined.
    format: OneOf<AccessFormat>, otherwise = "as the other lines (`--log-format`)";
}

pub(super) fn read(section: Option<LogOptions>) -> LogSettings {
    let Some(section) = section else { return LogSettings::default() };
    LogSettings {
        access: section.access.value,
        access_place: section.access.place,
        format: section.format.map(|at| at.value),
    }
}
