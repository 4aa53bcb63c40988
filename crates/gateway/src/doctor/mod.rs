//! `wssgate doctor`: looks at the running gateway and at its machine, as an operator would at 3 a.m.
//!
//! [`facts`] is all that is looked at, as plain values; [`gather`] reads them, from the control socket, the configuration
//! and `/proc` ([`proc`]); [`findings`] judges them. Without a running gateway it looks at the rest.

mod facts;
mod findings;
mod gather;
mod proc;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use self::findings::{AREAS, Finding, Level};
use crate::telemetry::escape;

/// What was found.
#[derive(Debug)]
pub struct Diagnosis {
    findings: Vec<Finding>,
    looked_at: Vec<&'static str>,
}

/// Looks at the gateway behind the control socket, at the configuration, if there is one, and at the machine. Changes
/// nothing. Takes a second or two.
pub async fn examine(config: Option<PathBuf>, socket: &Path) -> Diagnosis {
    let facts = gather::gather(config, socket).await;
    Diagnosis { findings: findings::judge(&facts), looked_at: findings::looked_at(&facts) }
}

impl Diagnosis {
    /// Something should be done.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.attention() > 0
    }

    fn attention(&self) -> usize {
        self.findings.iter().filter(|finding| finding.level < Level::Note).count()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Finding { level, area, what, see, todo } in &self.findings {
            let _ = writeln!(text, "{:<9}{area}: {what}", level.as_str());
            let _ = writeln!(text, "         see: {see}");
            let _ = writeln!(text, "         do:  {todo}\n");
        }
        let fine = self.looked_at.iter().copied().filter(|area| !self.has(area));
        let unknown = AREAS.into_iter().filter(|area| !self.looked_at.contains(area));
        for (what, areas) in [("in order", fine.collect::<Vec<_>>()), ("not looked at", unknown.collect())] {
            if !areas.is_empty() {
                let _ = writeln!(text, "{what}: {}", areas.join(", "));
            }
        }
        let _ = match self.attention() {
            0 => writeln!(text, "nothing needs attention"),
            1 => writeln!(text, "1 finding needs attention"),
            count => writeln!(text, "{count} findings need attention"),
        };
        text.lines().map(|line| escape::visible(line) + "\n").collect()
    }

    fn has(&self, area: &str) -> bool {
        self.findings.iter().any(|finding| finding.area == area)
    }

    /// For programs: one object a line, the last with `ok`.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = String::new();
        for Finding { level, area, what, see, todo } in &self.findings {
            let level = level.as_str();
            let finding = json!({"level": level, "area": area, "what": what, "see": see, "do": todo});
            let _ = writeln!(text, "{}", json!({ "finding": finding }));
        }
        let (ok, count) = (!self.needs_attention(), self.findings.len());
        let last =
            json!({"ok": ok, "findings": count, "attention": self.attention(), "looked_at": self.looked_at});
        let _ = writeln!(text, "{last}");
        text.lines().map(|line| escape::visible(line) + "\n").collect()
    }
}
