//! `[log]`: where the lines of requests and sessions go.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::document::Document;
use super::kind::{List, OneOf, Show, SocketPath, Text, Words};
use super::option::options;
use super::problem::Place;
use super::{kind, values};
use crate::telemetry::access::{AccessFormat, AccessTarget, SessionLines};

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Where its lines go.
    pub access: AccessTarget,
    /// Where the file says so.
    pub access_place: Place,
    /// How they look; `None`: as other lines.
    pub format: Option<AccessFormat>,
    /// When sessions have lines.
    pub sessions: SessionLines,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            access: AccessTarget::Log,
            access_place: Place::default(),
            format: None,
            sessions: SessionLines::default(),
        }
    }
}

/// Where access lines go.
pub(super) struct Target;

/// Before the path of a socket that is not the usual one.
const SYSLOG_AT: &str = "syslog:";

impl Text for Target {
    type Value = AccessTarget;

    fn words() -> String {
        "`\"stderr\"`, `\"syslog\"`, `\"off\"` or the path of a file".to_owned()
    }

    fn parse(text: &str, base: &Path) -> Result<AccessTarget, String> {
        if let Some(path) = text.strip_prefix(SYSLOG_AT) {
            return SocketPath::parse(path, base).map(AccessTarget::Syslog);
        }
        match text {
            "stderr" => Ok(AccessTarget::Log),
            "off" => Ok(AccessTarget::Off),
            "syslog" => Ok(AccessTarget::Syslog(AccessTarget::SYSLOG.into())),
            // A word without a slash is more likely a mistake than a name.
            path if path.contains('/') => Ok(AccessTarget::File(base.join(path))),
            other => Err(format!(
                "expected \"stderr\", \"syslog\", \"off\" or the path of a file such as \"/var/log/wssgate/access.log\" or \
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
            AccessTarget::Syslog(path) if path == Path::new(AccessTarget::SYSLOG) => "syslog".into(),
            AccessTarget::Syslog(path) => format!("{SYSLOG_AT}{}", path.display()).into(),
        }
    }
}

impl Words for AccessFormat {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] =
        &[("text", Self::Text), ("json", Self::Json), ("combined", Self::Combined)];
}

/// When a session has a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionLine {
    Open,
    End,
    Every(Duration),
}

/// Before the duration.
const EVERY: &str = "every ";

impl Text for SessionLine {
    type Value = Self;

    fn words() -> String {
        "`\"open\"`, `\"end\"`, or `\"every 10m\"` with a duration of a second or more".to_owned()
    }

    fn parse(text: &str, _: &Path) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "end" => Ok(Self::End),
            text => {
                let Some(interval) = text.strip_prefix(EVERY) else {
                    return Err(format!(
                        "expected \"open\", \"end\" or \"every\" and a duration, such as \"every 10m\", found {text:?}"
                    ));
                };
                values::duration(interval.trim()).map(Self::Every)
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(open|end|every .+)$" })
    }
}

impl Show for SessionLine {
    fn show(value: &Self) -> Json {
        match value {
            Self::Open => "open".into(),
            Self::End => "end".into(),
            Self::Every(interval) => match kind::Duration::show(interval) {
                Json::String(interval) => format!("{EVERY}{interval}").into(),
                other => other,
            },
        }
    }
}

options! {
    /// The access log: a line for each request and each session, when it has ended, and of sessions also before that, if
    /// that is wanted. `--log` leaves out lines of a lower
    /// level here, too: the lines of requests with a status of 500 or more, and of sessions that their server has lost,
    /// are warnings.
    struct LogOptions: "[log]";

    /// Where the lines go. A file is opened again at SIGUSR1 and at each reload, so that it may be renamed before
    /// (logrotate). `"syslog"` is the system's log at `/dev/log`, which syslogd reads, or the journal;
    /// `"syslog:/path/of/its/socket"` is another. What can't be written is lost, and counted in `wssgate_log_lines_lost_total`.
    access: Target, default = AccessTarget::Log;
    /// How the lines look: logfmt, one JSON object a line, or the format that Apache and nginx call combined.
    format: OneOf<AccessFormat>, otherwise = "as the other lines (`--log-format`)";
    /// When a session has a line: as soon as it has opened, each time it has lived that much longer (to a tenth of the
    /// time, or ten seconds), with what it has carried so far, and when it has ended. All have the session's `id`. The
    /// format called combined has no lines for sessions that go on.
    sessions: List<SessionLine>, default = vec![SessionLine::End];
}

pub(super) fn read(d: &mut Document<'_>, section: Option<LogOptions>) -> LogSettings {
    let Some(section) = section else { return LogSettings::default() };
    let format = section.format.map(|at| at.value);
    let mut sessions = SessionLines { open: false, end: false, every: None };
    for line in section.sessions.value {
        match line {
            SessionLine::Open => sessions.open = true,
            SessionLine::End => sessions.end = true,
            SessionLine::Every(interval) if sessions.every.is_none() => sessions.every = Some(interval),
            SessionLine::Every(_) => {
                d.problem(
                    section.sessions.place,
                    "sessions: \"every\" stands there twice; leave one of them",
                );
            }
        }
    }
    if let Some(what) = session_lines(sessions, format) {
        d.problem(section.sessions.place, what);
    }
    LogSettings { access: section.access.value, access_place: section.access.place, format, sessions }
}

/// Sessions are looked at once a second.
const SESSION_LINES_MIN: Duration = Duration::from_secs(1);

/// What is wrong with `sessions`, whether it comes from a file or from a program.
pub(super) fn session_lines(lines: SessionLines, format: Option<AccessFormat>) -> Option<String> {
    let SessionLines { open, end: _, every } = lines;
    if every.is_some_and(|interval| interval < SESSION_LINES_MIN) {
        return Some(
            "sessions: lines of a session come once a second at most; write \"every 1s\" or more".to_owned(),
        );
    }
    (format == Some(AccessFormat::Combined) && (open || every.is_some())).then(|| {
        "sessions: the format \"combined\" has lines for what has ended alone; leave out \"open\" and \"every\", or \
         write format = \"text\" or \"json\""
            .to_owned()
    })
}
