//! What the control socket demands of the main loop.

use std::collections::BTreeSet;

use tracing::info;

use super::drain::{Pace, end_sessions};
use super::gateway::Gateway;
use super::work::{Wanted, Work};
use crate::ops::control::server::{Demand, Want};
use crate::ops::control::wire::{Answer, Drain};
use crate::site;
use crate::site::drained::Target;
use crate::site::route::Route;

impl Gateway {
    /// Does what is wanted, or begins to.
    pub(super) fn obey(&mut self, Demand { what, reply }: Demand, work: &Work, wanted: &mut Wanted) {
        let answer = match what {
            Want::Reload => {
                wanted.reload(work);
                return wanted.askers.push(reply);
            }
            // The new process knows what was drained when it was started.
            Want::Drain(_) | Want::Undrain(_) if matches!(work, Work::Takeover(_)) => {
                Answer::error("a takeover is in progress; ask again when it is done")
            }
            Want::Drain(target) => self.drain(target),
            Want::Undrain(target) => self.undrain(&target),
        };
        // A client that doesn't wait has been obeyed all the same.
        let _ = reply.send(answer);
    }

    fn drain(&self, target: Target) -> Answer {
        let known = self.targets();
        if !known.contains(&target) {
            return Answer::error(unknown(&target, &known));
        }
        let name = target.to_string();
        let drained = self.overview.drained.clone();
        // First nothing new comes, then what is there is sent away: nobody slips through.
        drained.store(drained.load_full().with(target.clone()).into());
        let chosen = move |route: &Route| target.covers(route) && drained.load().contains(&target);
        let site::Drain { window, timeout, close_code: code, .. } = self.site.load().drain;
        let window = window.min(timeout / 2);
        let pace = Pace { window, timeout, code };
        let sessions = end_sessions(&self.workers, pace, self.choices.subscribe(), chosen);
        info!(
            what = name,
            sessions,
            drain_window_s = window.as_secs_f64(),
            close_code = code,
            "drained by order"
        );
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Answer { drain: Some(Drain { target: name, drained: true, sessions, window_ms }), ..Answer::done() }
    }

    fn undrain(&self, target: &Target) -> Answer {
        let drained = self.overview.drained.load_full();
        let name = target.to_string();
        if !drained.contains(target) {
            let now: Vec<_> = drained.iter().map(ToString::to_string).collect();
            let now =
                if now.is_empty() { "nothing is".to_owned() } else { format!("drained: {}", now.join(", ")) };
            return Answer::error(format!("{name} is not drained; {now}"));
        }
        self.overview.drained.store(drained.without(target).into());
        self.choices.send_replace(());
        info!(what = name, "served again by order");
        Answer { drain: Some(Drain { target: name, ..Drain::default() }), ..Answer::done() }
    }

    /// What a reload leaves drained: what is still there.
    pub(super) fn keep_drained(&self) {
        let drained = self.overview.drained.load_full();
        if drained.iter().next().is_none() {
            return;
        }
        let known = self.targets();
        self.overview.drained.store(drained.filter(|target| known.contains(target)).into());
    }

    /// Everything that can be drained: what the site has, and what live sessions still use.
    fn targets(&self) -> BTreeSet<Target> {
        let site = self.site.load_full();
        let mut targets: BTreeSet<_> =
            site.all_routes().iter().flat_map(|route| Target::all_of(route)).collect();
        for route in self.workers.iter().flat_map(|worker| worker.sessions.routes()) {
            targets.extend(Target::all_of(&route));
        }
        targets
    }
}

fn unknown(target: &Target, known: &BTreeSet<Target>) -> String {
    let name = target.to_string();
    let kind = if matches!(target, Target::Route(_)) { "route" } else { "server" };
    let is_kind = |other: &&Target| matches!(other, Target::Route(_)) == matches!(target, Target::Route(_));
    let names: Vec<_> = known.iter().filter(is_kind).map(ToString::to_string).collect();
    let near = names.iter().map(|known| (strsim::damerau_levenshtein(&name, known), known));
    match near.filter(|(distance, _)| *distance <= 1 + name.len() / 4).min() {
        Some((_, near)) => format!("there is no {kind} {name}; did you mean {near}?"),
        None if names.is_empty() => format!("there is no {kind} {name}, nor any other {kind}"),
        None => format!("there is no {kind} {name}; there is: {}", names.join(", ")),
    }
}
